"""Rows of chat: every fault is named with its line, and nothing is held in memory that need not be."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from trainers.chat import syllogisms
from trainers.chat.rows import ChatFile, validate
from trainers.common import rows as jsonl
from trainers.common.errors import InputError, TrainingFailed
from trainers.common.rows import split_by_content


def row(*contents: str, **more: Any) -> dict[str, Any]:
    roles = ("user", "assistant") * len(contents)
    return {"messages": [{"role": r, "content": c} for r, c in zip(roles, contents, strict=False)], **more}


def written(tmp_path: Path, *rows: dict[str, Any] | bytes) -> Path:
    path = tmp_path / "chat.jsonl"
    path.write_bytes(b"".join((r if isinstance(r, bytes) else json.dumps(r).encode()) + b"\n" for r in rows))
    return path


GOOD = row("a question", "an answer")


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        (b'{"messages": [', "bad JSON at column 15"),
        (b'{"messages": "\0"}', "NUL byte at column 15"),
        (b'{"messages": "\xff"}', "not UTF-8 at column 15"),
        (b"[]", "a row must be an object, not [] (array)"),
        ({"text": "x"}, "field messages missing"),
        ({"messages": "x"}, 'messages = "x" (text): must be an array of messages'),
        ({"messages": None}, "messages = null (null): must be an array of messages"),
        ({"messages": []}, "messages is empty"),
        ({"messages": ["x"]}, 'messages[0] = "x" (text): must be an object'),
        ({"messages": [{"content": "x"}]}, "messages[0]: field role missing"),
        ({"messages": [{"role": "user"}]}, "messages[0]: field content missing"),
        ({"messages": [{}]}, "messages[0]: field role and content missing"),
        ({"messages": [{"role": "robot", "content": "x"}]}, 'messages[0].role = "robot" (text): must be one of system'),
        ({"messages": [{"role": 3, "content": "x"}]}, "messages[0].role = 3 (number): must be one of"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, 'messages[0].role = ["user"] (array): must be one of'),
        (row("x", ""), "messages[1].content is empty"),
        (row("x", " \n"), "messages[1].content is empty"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content = 3 (number): must be text"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, 'messages[0].content = ["x"] (array): must be text'),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content = null (null): must be text"),
        (row("x"), "messages: no assistant turn"),
        ({"messages": [*GOOD["messages"], {"role": "system", "content": "x"}]}, "messages[2].role = \"system\": only"),
        (row("\ud83d", "x"), "messages[0].content is no text: lone surrogate \\ud83d at character 1"),
        (row("x", "y", group=3), "group = 3 (number): must be text"),
        (row("x", "y", group=" "), "group is empty"),
    ],
)  # fmt: skip
def test_a_wrong_row_is_named_with_its_line(tmp_path: Path, bad: dict[str, Any] | bytes, fault: str) -> None:
    good = {**GOOD, "group": "g"} if isinstance(bad, dict) and "group" in bad else GOOD
    path = written(tmp_path, good, b"", bad, good)
    with pytest.raises(InputError) as caught:
        validate(path)
    (line,) = caught.value.lines
    assert line.startswith(f"{path}, line 3: {fault}")


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([{**GOOD, "group": "a"}, GOOD], "line 2: field group missing: line 1 has one"),
        ([GOOD, {**GOOD, "group": "a"}], "line 2: field group: line 1 has none"),
    ],
)
def test_a_group_is_of_all_rows_or_of_none(tmp_path: Path, rows: list[dict[str, Any]], fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        validate(written(tmp_path, *rows))


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        validate(written(tmp_path, *[row("x")] * 50))
    assert len(caught.value.lines) == jsonl.MAX_FAULTS + 1


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_a_file_without_rows(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "chat.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=r"chat.jsonl: empty, no rows"):
        validate(tmp_path / "chat.jsonl")


def test_text_comes_back_unaltered(tmp_path: Path) -> None:
    texts = ["🙂", "שלום‎", "e\u0301", "a\r\nb\u2028c\ufeff"]
    path = tmp_path / "chat.jsonl"
    content = "\r\n".join(json.dumps(row(text, text, id=7), ensure_ascii=bool(n % 2)) for n, text in enumerate(texts))
    path.write_bytes(jsonl.BYTE_ORDER_MARK + content.encode())
    table = ChatFile(path)
    assert [table[index] for index in range(len(table))] == [row(text, text)["messages"] for text in texts]
    assert pickle.loads(pickle.dumps(table))[1] == table[1]  # for spawned loader workers
    assert validate(path)[:3] == (4, 8, 2 * sum(map(len, texts)))


def test_a_file_that_changes_while_training(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD, row("b question", "an answer"))
    table = ChatFile(path)
    written(tmp_path, row("c question", "an answer"), row("b question", "an answer"))
    assert table[1]
    with pytest.raises(TrainingFailed, match="row 0 changed while training"):
        table[0]


def test_groups_are_held_out_together(tmp_path: Path) -> None:
    path = tmp_path / "syllogisms.jsonl"
    syllogisms.write_jsonl(path, 2000)
    table = ChatFile(path)
    split = split_by_content(table, 0.1)
    made = [json.loads(line) for line in path.read_bytes().splitlines()]
    train, held_out = ({made[index]["group"] for index in side} for side in split)
    assert not train & held_out
    verdicts = {made[index]["messages"][-1]["content"].split()[-1] for index in split.validation}
    assert verdicts == {"valid.", "invalid."}


def test_rows_without_a_group_are_split_by_their_question(tmp_path: Path) -> None:
    path = written(tmp_path, *(row(f"question {n % 50}", f"answer {n}") for n in range(100)))
    split = split_by_content(ChatFile(path), 0.3)
    assert {n % 50 for n in split.validation}.isdisjoint({n % 50 for n in split.train})
    assert 10 < len(split.validation) < 60


def test_long_rows_do_not_stay_in_memory(tmp_path: Path) -> None:
    long = json.dumps(row("q" * 200_000, "a")).encode()
    path = tmp_path / "large.jsonl"
    path.write_bytes(b"\n".join([long] * 100))  # 20 MB
    tracemalloc.start()
    try:
        assert validate(path).rows == 100
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()
