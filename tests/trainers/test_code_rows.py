from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from trainers.code.rows import Row, RowFile
from trainers.common import rows as jsonl
from trainers.common.errors import InputError, TrainingFailed
from trainers.common.rows import check_path, split_by_content

GOOD = b'{"code": "def f(a, b): return a", "label": 0}\n'


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("content", [b"", b"\n\n  \n", b"\xef\xbb\xbf"])
def test_a_file_without_rows(tmp_path: Path, content: bytes) -> None:
    path = written(tmp_path, content)
    with pytest.raises(InputError) as caught:
        RowFile(path)
    assert caught.value.lines == (f"data {path}: empty, no rows",)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (b'{"code": "x", "label": 0', "bad JSON at column 25"),
        (b'{"code": "x" "label": 0}', "bad JSON at column 14"),
        (b'{"code": "x\0", "label": 0}', "NUL byte at column 12"),
        (b'{"code": "\xff", "label": 0}', "not UTF-8 at column 11"),
        (b'{"code": "\\ud800", "label": 0}', "code is no text: lone surrogate \\ud800 at character 1"),
        (b'{"label": 0}', "field code missing"),
        (b'{"code": "x"}', "field label missing"),
        (b"{}", "field code and label missing"),
        (b'{"code": "", "label": 0}', "code is empty"),
        (b'{"code": " \\n", "label": 0}', "code is empty"),
        (b'{"code": 3, "label": 0}', "code = 3 (number): must be text"),
        (b'{"code": ["x"], "label": 0}', 'code = ["x"] (array): must be text'),
        (b'{"code": null, "label": 0}', "code = null (null): must be text"),
        (b'{"code": "x", "label": true}', "label = true (bool): must be the number 0 or 1"),
        (b'{"code": "x", "label": "1"}', 'label = "1" (text): must be the number 0 or 1'),
        (b'{"code": "x", "label": 1.0}', "label = 1.0 (number): must be the number 0 or 1"),
        (b'{"code": "x", "label": null}', "label = null (null): must be the number 0 or 1"),
        (b'{"code": "x", "label": 2}', "label = 2 (number): outside 0 to 1"),
        (b'{"code": "x", "label": -1}', "label = -1 (number): outside 0 to 1"),
        (b"[1]", "a row must be an object, not [1] (array)"),
        (b"[" * 100_000, "bad JSON"),
        (b'{"code": "x", "label": ' + b"9" * 5000 + b"}", "bad JSON"),
    ],
)
def test_a_wrong_row_is_named_with_its_line(tmp_path: Path, row: bytes, fault: str) -> None:
    path = written(tmp_path, GOOD + b"\n" + row + b"\n" + GOOD)
    with pytest.raises(InputError) as caught:
        RowFile(path)
    (line,) = caught.value.lines
    assert line.startswith(f"{path}, line 3: {fault}")


def test_a_cut_last_line_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 2: bad JSON .*the last line is cut short"):
        RowFile(written(tmp_path, GOOD + GOOD[:20]))


def test_many_faults_are_counted(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        RowFile(written(tmp_path, b"{}\n" * 50))
    assert len(caught.value.lines) == jsonl.MAX_FAULTS + 1
    assert caught.value.lines[-1].endswith("30 more faulty rows")


def test_text_comes_back_unaltered(tmp_path: Path) -> None:
    codes = ["def f(🙂): ...", "# שלום‎", "e\u0301 = 1", "a\r\nb\u2028c"]
    lines = [
        json.dumps({"code": code, "label": 1, "more": 1}, ensure_ascii=bool(n % 2)) for n, code in enumerate(codes)
    ]
    table = RowFile(written(tmp_path, b"\xef\xbb\xbf" + "\r\n\n".join(lines).encode()))
    assert [table[index] for index in range(len(table))] == [Row(code, 1) for code in codes]
    assert pickle.loads(pickle.dumps(table))[1] == table[1]  # for spawned loader workers


def test_a_file_that_changes_or_goes_while_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "RETRY_SECONDS", (0.0,))
    path = written(tmp_path, GOOD * 2)
    table = RowFile(path)
    path.write_bytes(GOOD.replace(b"return a", b"return b") * 2)
    with pytest.raises(TrainingFailed, match="row 0 changed while training"):
        table[0]
    path.unlink()
    with pytest.raises(TrainingFailed, match=rf"{path}: cannot be read: No such file"):
        table[1]


def test_the_split_follows_the_content(tmp_path: Path) -> None:
    lines = [json.dumps({"code": f"def f{n % 90}(a, b): return a", "label": n % 2}).encode() for n in range(100)]
    table = RowFile(written(tmp_path, b"\n".join(lines)))
    split = split_by_content(table, 0.2)
    assert sorted([*split.train, *split.validation]) == list(range(100))
    train, held_out = ({table[index].code for index in side} for side in split)
    assert held_out
    assert not train & held_out
    turned = RowFile(written(tmp_path, b"\n".join(reversed(lines))))
    assert {turned[index].code for index in split_by_content(turned, 0.2).validation} == held_out


@pytest.mark.parametrize(("count", "sides"), [(1, (1, 0)), (2, (1, 1)), (3, (2, 1))])
def test_the_split_of_few_rows(tmp_path: Path, count: int, sides: tuple[int, int]) -> None:
    content = b"".join(GOOD.replace(b"return a", b"return a + %d" % n) for n in range(count))
    split = split_by_content(RowFile(written(tmp_path, content)), 1e-9)
    assert (len(split.train), len(split.validation)) == sides
    assert not split_by_content(RowFile(written(tmp_path, GOOD)), 0.99).validation


def test_paths_that_are_no_data(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    (tmp_path / "rows.csv").write_text("x")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "self.jsonl").symlink_to(tmp_path / "self.jsonl")
    (tmp_path / "up.jsonl").symlink_to(tmp_path)
    (tmp_path / "lost.jsonl").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe.jsonl")
    faults = {
        "plain": "has no suffix",
        "rows.csv": "suffix .csv is unknown",
        "folder.jsonl": "a folder where a file belongs",
        "self.jsonl": "circular link",
        "up.jsonl": "circular link",
        "lost.jsonl": "a link to nowhere",
        "pipe.jsonl": "not a plain file",
        "missing.jsonl": "no such file or folder",
        "a\0b.jsonl": "",
    }
    for name, fault in faults.items():
        with pytest.raises(InputError) as caught:
            check_path(tmp_path / name)
        (line,) = caught.value.lines
        assert fault in line
        assert "\n" not in line
        assert name in line or repr(str(tmp_path / name)) in line


@pytest.mark.parametrize("name", ["a b.jsonl", 'it\'s "q".jsonl', "line\nbreak.jsonl", "-dash.jsonl", "🙂.JSONL"])
def test_odd_names_train(start: Callable[..., int], rows_file: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(rows_file.read_bytes())
    assert start(data=tmp_path / name, max_steps=1) == 0


def test_fewer_rows_than_a_batch(
    start: Callable[..., int], tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, GOOD)
    assert start(data=path, max_steps=2) == 0
    assert "validation is skipped: no row is held out" in capsys.readouterr().err
    assert (out / "checkpoint-2").is_dir()


def test_wrong_rows_leave_no_trace(
    start: Callable[..., int], tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, GOOD + b'{"code": "x"}\n')
    assert start(data=path) == 2
    assert f"{path}, line 2: field label missing" in capsys.readouterr().err
    assert not out.exists()
    out.mkdir()
    assert start(data=path) == 2
    assert not list(out.iterdir())


def test_overlong_rows_are_truncated_and_counted(
    start: Callable[..., int], rows_file: Path, tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = json.dumps({"code": "def f(a, b):\n" + "    a = b\n" * 2000, "label": 1}).encode() + b"\n"
    path = written(tmp_path, rows_file.read_bytes() + long)
    assert start(data=path, max_steps=9, validation_fraction=0.0, max_length=128) == 0
    text = capsys.readouterr().err
    assert text.count("rows longer than max_length = 128 are truncated") == 1
    assert json.loads((out / "training_metadata.json").read_text())["rows_truncated"] >= 1


def test_max_length_below_every_row(start: Callable[..., int], out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(max_length=8) == 2
    assert "max_length = 8: every row is longer, the shortest has" in capsys.readouterr().err
    assert not out.exists()
