r"""Rows of chat: ``{"messages": [{"role": "system" | "user" | "assistant", "content": str}, ...]}``.

A row may have a ``group``, text: then all rows have one, and rows of one group are held out together. Other fields
are left alone. Nothing here imports torch: a whole file is validated (`validate`) before a model is thought of.
"""

from __future__ import annotations

import itertools
import json
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from trainers.chat import syllogisms
from trainers.chat.syllogisms import Level
from trainers.common.rows import LineFile, content_key, described, surrogate_in

ROLES = ("system", "user", "assistant")
SPLIT = "held out 4: "
"""Stands before what the split hashes. Of the 256 forms of syllogisms, a tenth by this hash has valid ones in it."""

MOST_SHAPES = 1000


class Summary(NamedTuple):
    """What `validate` saw of a file.

    Attributes:
        rows: how many there are.
        messages: of all rows.
        characters: of all their contents.
        fingerprint: the SHA-256 of the file.
    """

    rows: int
    messages: int
    characters: int
    fingerprint: str


def validate(path: Path, progress: Callable[[int], None] = lambda line: None) -> Summary:
    """Check every row of a file, in memory that does not depend on how long its rows are.

    Args:
        path: a file.
        progress: is told every 10,000 lines how many that is so far.

    Raises:
        InputError: the file cannot be read, has no rows, or has wrong ones: one line a fault (the first 20, the
            others are counted), naming file, line, field and value.
    """
    table = ChatFile(path, progress)
    return Summary(len(table), table.messages, table.characters, table.fingerprint)


class ChatFile(LineFile):
    """A checked JSONL file of chat rows, read on demand; see `LineFile`."""

    def __init__(self, path: Path, progress: Callable[[int], None] = lambda line: None) -> None:
        """Check the whole of ``path``; ``progress`` is told how many lines that is so far."""
        self.keys = array("Q")
        """What decides the split: a hash of the row's group, or of all before its last answer."""
        self.shapes: dict[tuple[str, ...], int] = {}
        """Each order of roles that there is (the first `MOST_SHAPES`), and the first row that has it."""
        self.messages = self.characters = 0
        self._grouped: bool | None = None
        self._first = 0
        super().__init__(path, progress)

    def note(self, value: dict[str, Any], number: int) -> str | None:
        """Take in one more row, or say what is wrong with it."""
        fault = fault_in(value) or self._group_fault(value, number)
        if fault is None:
            messages = value["messages"]
            self.messages += len(messages)
            self.characters += sum([len(message["content"]) for message in messages])
            shape = tuple([message["role"] for message in messages])
            if shape not in self.shapes and len(self.shapes) < MOST_SHAPES:
                self.shapes[shape] = len(self.keys)
            self.keys.append(content_key(SPLIT + _split_by(value)))
        return fault

    def _group_fault(self, value: dict[str, Any], number: int) -> str | None:
        """Groups say which rows are held out together: that is known of all rows or of none."""
        has = "group" in value
        if self._grouped is None:
            self._grouped, self._first = has, number
        if has != self._grouped:
            if has:
                return f"field group: line {self._first} has none"
            return f"field group missing: line {self._first} has one"
        return None

    def __getitem__(self, index: int) -> list[dict[str, str]]:
        """The messages of one row.

        Raises:
            TrainingFailed: the file is gone, or is no longer the one that was checked.
        """
        line = self.line(index)
        try:
            value = json.loads(line)
            same = content_key(SPLIT + _split_by(value)) == self.keys[index] and fault_in(value) is None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise self.changed(index) from error
        if not same:
            raise self.changed(index)
        return [{"role": message["role"], "content": message["content"]} for message in value["messages"]]


class Syllogisms:
    """Rows that are made here, as a file of them would be."""

    def __init__(self, level: Level, count: int, seed: int) -> None:
        """The first ``count`` rows of `syllogisms.rows`."""
        made = list(itertools.islice(syllogisms.rows(level, seed), count))
        self._rows = [row["messages"] for row in made]
        self.keys = array("Q", (content_key(SPLIT + _split_by(row)) for row in made))
        self.shapes = {tuple(message["role"] for message in self._rows[0]): 0}
        self.fingerprint = f"{count} {level} syllogisms, data_seed {seed}"

    def __len__(self) -> int:
        """The number of rows."""
        return len(self._rows)

    def __getitem__(self, index: int) -> list[dict[str, str]]:
        """The messages of one row."""
        return self._rows[index]  # type: ignore[no-any-return]


def _split_by(value: dict[str, Any]) -> str:
    if "group" in value:
        group: str = value["group"]
        return group
    return "\0".join([message["content"] for message in value["messages"][:-1]])


def fault_in(value: dict[str, Any]) -> str | None:
    """What is wrong with a row, naming field, value and type; None for a good one."""
    if "messages" not in value:
        return "field messages missing"
    messages = value["messages"]
    if not isinstance(messages, list):
        return f"messages = {described(messages)}: must be an array of messages"
    if not messages:
        return "messages is empty"
    for place, message in enumerate(messages):
        fault = _message_fault(message, place)
        if fault is not None:
            return f"messages[{place}]{fault}"
    if "assistant" not in [message["role"] for message in messages]:
        return "messages: no assistant turn, so nothing to learn"
    if "group" in value:
        return _group_fault(value["group"])
    return None


def _message_fault(message: Any, place: int) -> str | None:
    try:
        role, content = message["role"], message["content"]
    except (KeyError, TypeError):
        return _missing(message)
    if role not in ROLES:
        return f".role = {described(role)}: must be one of {', '.join(ROLES)}"
    if not isinstance(content, str):
        return f".content = {described(content)}: must be text"
    if not content or content.isspace():
        return ".content is empty"
    if role == "system" and place:
        return '.role = "system": only the first message may be that'
    fault = None if content.isascii() else surrogate_in(content)
    return None if fault is None else f".content {fault}"


def _missing(message: Any) -> str:
    if not isinstance(message, dict):
        return f" = {described(message)}: must be an object"
    return ": field " + " and ".join(name for name in ("role", "content") if name not in message) + " missing"


def _group_fault(group: Any) -> str | None:
    if not isinstance(group, str):
        return f"group = {described(group)}: must be text"
    if not group.strip():
        return "group is empty"
    fault = surrogate_in(group)
    return None if fault is None else f"group {fault}"
