"""Samples of data, cut from files and folders; bad and missing ones."""

import csv
import json

import pytest

from pytest_trainguard.rows import samples


@pytest.fixture
def cut(tmp_path):
    (tmp_path / "piece").mkdir()

    def cut(name, content, rows=3):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return samples.cut_sample(path, tmp_path / "piece", rows)

    return cut


def test_jsonl(cut):
    piece = cut("a.jsonl", '{"x": 1}\n\n{"x": 2}\n{"x": 3}\nnot json at all\n')
    assert piece.name == "a.jsonl"
    assert piece.read_text() == '{"x": 1}\n{"x": 2}\n{"x": 3}\n'
    assert cut("b.ndjson", '{"x": "é"}').read_text("utf-8") == '{"x": "é"}\n', "its last line is closed"


def test_json(cut):
    assert json.loads(cut("a.json", "[1, 2, 3, 4]").read_text()) == [1, 2, 3]
    piece = cut("b.json", '\ufeff{"version": 2, "rows": [1, 2, 3, 4]}')
    assert json.loads(piece.read_text()) == {"version": 2, "rows": [1, 2, 3]}


def test_csv(cut):
    piece = cut("a.csv", 'name,text\n1,"two\nlines"\n2,b\n3,c\n4,d\n')
    with piece.open(newline="") as lines:
        assert list(csv.reader(lines)) == [["name", "text"], ["1", "two\nlines"], ["2", "b"], ["3", "c"]]


def test_parquet(cut, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    parquet.write_table(pyarrow.table({"x": list(range(10))}), tmp_path / "a.parquet")
    piece = samples.cut_sample(
        tmp_path / "a.parquet", tmp_path / "piece" if (tmp_path / "piece").exists() else tmp_path, 3
    )
    assert parquet.read_table(piece).to_pydict() == {"x": [0, 1, 2]}
    with pytest.raises(ValueError, match=r"b\.parquet: cannot be read"):
        cut("b.parquet", b"PAR1 no")


def test_a_folder(tmp_path):
    sample, piece = tmp_path / "sample", tmp_path / "piece"
    sample.mkdir()
    for number in range(5):
        (sample / f"{number}.pt").write_bytes(bytes([number]))
    (sample / "labels.csv").write_text("a\n1\n2\n3\n")
    (sample / "README.md").write_text("copied")
    cut = samples.cut_sample(sample, piece, 2)
    assert sorted(path.name for path in cut.iterdir()) == ["0.pt", "1.pt", "README.md", "labels.csv"]
    assert (cut / "labels.csv").read_text().split() == ["a", "1", "2"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", "", "a.jsonl: has no rows"),
        ("a.jsonl", '{"x": \n', "a.jsonl: cannot be read"),
        ("a.jsonl", b'"\xff"\n', "a.jsonl: cannot be read"),
        ("a.json", "[]", "a.json: has no rows"),
        ("a.json", "{}", "a.json: has no rows"),
        ("a.json", "42", "a.json: holds no list of rows"),
        ("a.json", "[1,", "a.json: cannot be read"),
        ("a.csv", "", "a.csv: has no rows"),
        ("a.csv", "name\n", "a.csv: has no rows"),
        ("a.csv", b"\xff\xfe\n", "a.csv: cannot be read"),
        ("a.xyz", "x", "a.xyz: unknown kind '.xyz'; known are JSONL"),
        ("data", "x", "data: unknown kind 'without suffix'"),
    ],
)
def test_bad_samples(cut, name, content, said):
    with pytest.raises(ValueError, match="sample ") as error:
        cut(name, content)
    assert said in str(error.value)


def test_missing_samples(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such file or folder"):
        samples.cut_sample(tmp_path / "nowhere", tmp_path, 3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: holds no \.pt, JSONL"):
        samples.cut_sample(tmp_path / "empty", tmp_path / "piece", 3)
