"""Rows of code with a label, in a JSONL file from anywhere: ``{"code": "def f(): ...", "label": 0}``.

The whole file is checked before a model is built, and never held in memory: what stays is where each row
begins and ends, its label and a hash of its code (25 bytes a row); see `trainers.common.rows`.
"""

from __future__ import annotations

import heapq
import json
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from trainers.common.rows import LineFile, content_key, described, surrogate_in


class Row(NamedTuple):
    """One example: Python code, and 1 where a variable in it is the wrong one, else 0.

    ``tokens`` are the ids of the whole code, special ones included, where they were prepared.
    """

    code: str
    label: int
    tokens: list[int] | None = None


class Rows(Protocol):
    """What a program trains on, wherever it comes from."""

    fingerprint: str
    """Changes whenever a row does."""
    together: int
    """So many rows, one after the other, stay together where rows are shuffled."""

    def __len__(self) -> int:
        """The number of rows."""

    def __getitem__(self, index: int) -> Row:
        """One row."""

    def label(self, index: int) -> int:
        """A row's label, without reading it."""

    def size(self, index: int) -> int:
        """About how long a row is, without reading it."""


class RowFile(LineFile):
    """A checked JSONL file of such rows, read on demand; see `LineFile`."""

    together = 1

    def __init__(self, path: Path) -> None:
        """Check the whole of ``path``."""
        self.labels = array("b")
        self.keys = array("Q")
        """The first eight bytes of the SHA-256 of each row's code: equal code has an equal key."""
        super().__init__(path)

    def note(self, value: dict[str, Any], number: int) -> str | None:
        """Take in one more row, or say what is wrong with it."""
        row = checked(value)
        if isinstance(row, str):
            return row
        self.labels.append(row.label)
        self.keys.append(content_key(row.code))
        return None

    def __getitem__(self, index: int) -> Row:
        """One row.

        Raises:
            TrainingFailed: the file is gone, or is no longer the one that was checked.
        """
        line = self.line(index)
        try:
            code = json.loads(line)["code"]
            key = content_key(code)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise self.changed(index) from error
        if key != self.keys[index]:
            raise self.changed(index)
        return Row(code, self.labels[index])

    def label(self, index: int) -> int:
        """A row's label."""
        return self.labels[index]

    def extra(self, index: int, name: str) -> Any:
        """A field of a row beside code and label; None where it has none."""
        return json.loads(self.line(index)).get(name)


def checked(value: dict[str, Any]) -> Row | str:
    """The row in an object, or what is wrong with it, naming field, value and type."""
    missing = [name for name in ("code", "label") if name not in value]
    if missing:
        return "field " + " and ".join(missing) + " missing"
    code, label = value["code"], value["label"]
    if not isinstance(code, str):
        return f"code = {described(code)}: must be text"
    if not code.strip():
        return "code is empty"
    if fault := surrogate_in(code):
        return f"code {fault}"
    if type(label) is not int:  # a bool is an int to isinstance
        return f"label = {described(label)}: must be the number 0 or 1"
    if label not in (0, 1):
        return f"label = {described(label)}: outside 0 to 1"
    return Row(code, label)


def signed_key(code: str) -> int:
    """`content_key` as tensors and databases hold it: a signed number of 64 bits."""
    key = content_key(code)
    return key - 2**64 if key >= 2**63 else key


def shortest(rows: Rows, indices: Sequence[int], count: int = 4) -> list[str]:
    """The code of the ``count`` shortest rows (in characters, about) among ``indices``."""
    return [rows[index].code for index in heapq.nsmallest(count, indices, key=rows.size)]
