"""One codec for every form that rows come in: what is read is what was written, and what is not changed stays."""

import csv
import io
import json

import pyarrow
import pyarrow.parquet as parquet
import pytest

from pytest_trainguard.rows.codec import (
    FORMS,
    Csv,
    Json,
    JsonLines,
    NoRows,
    Parquet,
    TextForm,
    TorchFile,
    encode_json,
    form_of,
)  # fmt: skip

ROWS = [
    {"text": 'é, "quoted"\nand more', "label": 0},
    {"text": "U+2028 \u2028 is no end of a line", "label": 1},
    {"text": "\N{GRINNING FACE}", "label": 0},
]
MARK = b"\xef\xbb\xbf"


def as_table(rows, end="\n"):
    out = io.StringIO()
    csv.writer(out, lineterminator=end).writerows([list(rows[0]), *(row.values() for row in rows)])
    return out.getvalue().encode()


def as_parquet(rows):
    out = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue()


FILES = {
    "JSONL": (".jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()),
    "JSONL with blank lines": (".ndjson", b"\n\n".join(json.dumps(row).encode() for row in ROWS)),
    "JSON": (".json", json.dumps(ROWS, indent=2).encode()),
    "JSON in an object": (".json", json.dumps({"version": 2, "rows": ROWS, "tags": ["a"]}).encode()),
    "CSV": (".csv", as_table(ROWS)),
    "CSV with CRLF": (".csv", as_table(ROWS, "\r\n")),
    "Parquet": (".parquet", as_parquet(ROWS)),
}


def texts(rows):
    """CSV holds nothing but text."""
    return [{name: str(value) for name, value in row.items()} for row in rows]


def same(form, rows, others):
    return rows == (texts(others) if isinstance(form, Csv) else others)


@pytest.fixture(params=FILES)
def file(request, tmp_path):
    suffix, content = FILES[request.param]
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(content)
    return path


def test_rows_are_read(file):
    form = form_of(file)
    assert same(form, form.read(file.read_bytes()), ROWS)
    assert form.fields(file.read_bytes()) == ["text", "label"]


def test_rows_are_written_as_they_were_read(file):
    form, content = form_of(file), file.read_bytes()
    for rows in (ROWS[::-1], ROWS[:1], ROWS * 2, []):
        written = form.write(rows, content)
        if not rows and isinstance(form, Json):  # which of its lists the rows were in can no longer be told
            assert not form.split(form.write([], b"[1]")).places
            continue
        assert same(form, form.read(written), rows)
        assert form.write(form.read(written), written) == written


def test_the_first_rows_are_cut(file):
    form = form_of(file)
    for many in (1, 2, 3, 9):
        content, count = form.cut(file, many)
        assert count == min(many, 3)
        assert same(form, form.read(content), ROWS[:many])


def test_what_stands_around_the_rows_stays(file):
    content = file.read_bytes()
    written = form_of(file).write(ROWS[:1], content)
    if file.suffix == ".json" and b"version" in content:
        assert json.loads(written) == {"version": 2, "rows": ROWS[:1], "tags": ["a"]}
        assert list(json.loads(written)) == ["version", "rows", "tags"]
    elif file.suffix == ".csv":
        assert (b"\r\n" in written) == (b"\r\n" in content)
    elif file.suffix == ".parquet":
        schema = parquet.read_table(io.BytesIO(content)).schema
        assert parquet.read_table(io.BytesIO(written)).schema == schema


@pytest.mark.parametrize("name", [name for name in FILES if name != "Parquet"])
@pytest.mark.parametrize("mark", [b"", MARK])
def test_a_document_is_its_pieces(name, mark):
    suffix, content = FILES[name]
    form = FORMS[suffix]
    document = form.split(mark + content)
    whole = document.join()
    if isinstance(form, Json):  # it comes back with a row a line, and may have no mark
        assert json.loads(whole) == json.loads(content)
    else:
        assert whole == mark + content
    for number in range(3):
        lines = whole[: len(document.before(number))].count(b"\n")
        assert document.line(number) == lines + 1
    document.put(1, form.encode({"text": "new", "label": 7}, document))
    assert same(form, form.read(document.join()), [ROWS[0], {"text": "new", "label": 7}, ROWS[2]])
    kept = [document.row(number) for number in (0, 2)]
    assert kept == [form.split(whole).row(number) for number in (0, 2)]


@pytest.mark.parametrize("form", [Csv(), Parquet()])
def test_a_column_is_dropped(form):
    content = as_table(ROWS) if isinstance(form, Csv) else as_parquet(ROWS)
    left = form.drop_column(content, "text")
    assert form.fields(left) == ["label"]
    assert same(form, form.read(left), [{"label": row["label"]} for row in ROWS])


def test_blank_lines_of_a_table_count_as_lines_and_are_no_rows():
    document = Csv().split(b"a,b\n\n1,2\n\n3,4\n")
    assert [document.line(number) for number in (0, 1)] == [3, 5]
    document.put(1, b"5,6")
    assert document.join() == b"a,b\n\n1,2\n\n5,6\n"


@pytest.mark.parametrize(
    ("form", "content", "said"),
    [
        (Json(), b"42", "holds no list of rows"),
        (Json(), b"{}", "has no rows"),
        (TorchFile(), b"PK", "has no named fields"),
        (JsonLines(), b"[1]\n", "has rows without named fields"),
    ],
)
def test_what_has_no_rows_of_named_fields_says_so(form, content, said):
    with pytest.raises(NoRows, match=said):
        form.fields(content)


def test_a_torch_file_is_neither_read_nor_written_nor_cut(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"PK")
    form = form_of(tmp_path / "a.pt")
    for call in (lambda: form.read(b"PK"), lambda: form.write([], b"PK"), lambda: form.cut(tmp_path / "a.pt", 1)):
        with pytest.raises(NoRows, match="has no named fields"):
            call()


def test_a_parquet_column_has_its_type():
    with pytest.raises(ValueError, match=r"label|int|convert"):
        Parquet().write([{"text": "a", "label": {"b": 1}}], as_parquet(ROWS))


def test_a_suffix_says_the_form(tmp_path):
    assert {suffix: type(form).__name__ for suffix, form in FORMS.items()} == {
        ".jsonl": "JsonLines", ".ndjson": "JsonLines", ".json": "Json", ".csv": "Csv", ".tsv": "Csv",
        ".parquet": "Parquet", ".pt": "TorchFile", ".pth": "TorchFile", ".txt": "PlainText", ".npy": "Array",
        ".bin": "Tokens", ".tar": "Shard", ".db": "Database", ".sqlite": "Database", ".sqlite3": "Database",
    }  # fmt: skip
    assert form_of(tmp_path / "rows.xyz") is None
    (tmp_path / "a.json").mkdir()
    assert form_of(tmp_path / "a.json") is None
    assert {suffix for suffix, form in FORMS.items() if isinstance(form, TextForm)} == {
        ".jsonl", ".ndjson", ".json", ".csv", ".tsv",
    }  # fmt: skip


def test_a_lone_surrogate_is_written_as_an_escape():
    assert encode_json({"a": "é"}) == '{"a": "é"}'.encode()
    assert json.loads(encode_json({"a": "\ud83d"}).decode("utf-8")) == {"a": "\ud83d"}
