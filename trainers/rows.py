"""Rows of code with a label, in a JSONL file from anywhere: ``{"code": "def f(): ...", "label": 0}``.

The whole file is checked before a model is built, and never held in memory: what stays is where each row
begins and ends, its label and a hash of its code (25 bytes a row). A row is read again when a batch needs it.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from trainers.errors import InputError, TrainingFailed, reason, show

MAX_ROW_BYTES = 64 << 20
"""A longer line is rejected: memory stays bounded however large the file is."""
MAX_FAULTS = 20
"""So many faults are shown, the rest counted."""
RETRY_SECONDS = (0.1, 0.5)
"""Pauses before a row that cannot be read (a network mount that has gone) is tried again, then given up."""
TYPE_NAMES = {
    dict: "object", list: "array", str: "text",
    int: "number", float: "number", bool: "bool", type(None): "null",
}  # fmt: skip


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


class Split(NamedTuple):
    """Numbers of rows, each side in ascending order."""

    train: Sequence[int]
    validation: Sequence[int]


class RowFile:
    """A checked JSONL file, its rows read on demand.

    Each read opens the file anew, so that it works unchanged in forked and spawned loader workers.

    Raises:
        InputError: the file cannot be read, holds no rows, or holds wrong ones: one line a fault, with its
            line number.
    """

    together = 1

    def __init__(self, path: Path) -> None:
        """Check the whole of ``path``."""
        self.path = path
        self.labels = array("b")
        self.keys = array("Q")
        """The first eight bytes of the SHA-256 of each row's code: equal code has an equal key."""
        self._starts = array("Q")
        self._sizes = array("Q")
        self.fingerprint = self._scan()

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.labels)

    def __getitem__(self, index: int) -> Row:
        """One row.

        Raises:
            TrainingFailed: the file is gone, or is no longer the one that was checked.
        """
        line = self._read(self._starts[index], self._sizes[index])
        changed = TrainingFailed(f"data {show(self.path)}: row {index} changed while training")
        try:
            code = json.loads(line)["code"]
            key = content_key(code)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise changed from error
        if key != self.keys[index]:
            raise changed
        return Row(code, self.labels[index])

    def label(self, index: int) -> int:
        """A row's label."""
        return self.labels[index]

    def size(self, index: int) -> int:
        """The bytes of a row's line."""
        return self._sizes[index]

    def extra(self, index: int, name: str) -> Any:
        """A field of a row beside code and label; None where it has none."""
        return json.loads(self._read(self._starts[index], self._sizes[index])).get(name)

    def _read(self, start: int, size: int) -> bytes:
        for pause in (*RETRY_SECONDS, None):
            try:
                with open(self.path, "rb") as file:
                    file.seek(start)
                    return file.read(size)
            except OSError as error:
                if pause is None:
                    raise TrainingFailed(f"data {show(self.path)}: cannot be read: {reason(error)}") from error
                time.sleep(pause)
        raise AssertionError("unreachable: the last pause is None")

    def _scan(self) -> str:
        digest = hashlib.sha256()
        faults: list[str] = []
        count = start = number = 0
        name = show(self.path)
        try:
            with open(self.path, "rb") as file:
                while line := file.readline(MAX_ROW_BYTES + 1):
                    number += 1
                    digest.update(line)
                    if len(line) > MAX_ROW_BYTES:
                        raise InputError(f"{name}, line {number}: longer than {MAX_ROW_BYTES} bytes")
                    skip = 3 if number == 1 and line.startswith(b"\xef\xbb\xbf") else 0  # a byte order mark
                    fault = self._add(line[skip:], start + skip)
                    start += len(line)
                    if fault:
                        count += 1
                        cut = (
                            "" if line.endswith(b"\n") or "bad JSON" not in fault else " (the last line is cut short?)"
                        )
                        faults += [f"{name}, line {number}: {fault}{cut}"] if count <= MAX_FAULTS else []
        except OSError as error:
            raise InputError(f"data {name}: {reason(error)}") from None
        if count > MAX_FAULTS:
            faults.append(f"{name}: {count - MAX_FAULTS} more faulty rows")
        if faults:
            raise InputError(*faults)
        if not len(self):
            raise InputError(f"data {name}: empty, no rows")
        return digest.hexdigest()

    def _add(self, line: bytes, start: int) -> str | None:
        """Note one row, or say what is wrong with it; a blank line is none."""
        if not line.strip():
            return None
        row = parse_row(line)
        if isinstance(row, str):
            return row
        self.labels.append(row.label)
        self.keys.append(content_key(row.code))
        self._starts.append(start)
        self._sizes.append(len(line))
        return None


def parse_row(line: bytes) -> Row | str:
    """The row in one line of JSON, or what is wrong with it, naming field, value and type."""
    if b"\0" in line:
        return f"NUL byte at column {line.index(0) + 1}"
    try:
        value = json.loads(line.rstrip(b"\r\n").decode("utf-8"))
    except UnicodeDecodeError as error:
        return f"not UTF-8 at column {error.start + 1}"
    except json.JSONDecodeError as error:
        return f"bad JSON at column {error.colno}: {error.msg}"
    except (ValueError, RecursionError) as error:  # a number of over 4,300 digits; nested too deep
        return f"bad JSON: {error}"
    if not isinstance(value, dict):
        return f"a row must be an object, not {_described(value)}"
    missing = [name for name in ("code", "label") if name not in value]
    if missing:
        return "field " + " and ".join(missing) + " missing"
    code, label = value["code"], value["label"]
    if not isinstance(code, str):
        return f"code = {_described(code)}: must be text"
    if not code.strip():
        return "code is empty"
    try:
        code.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"code is no text: lone surrogate \\u{ord(code[error.start]):04x} at character {error.start + 1}"
    if type(label) is not int:  # a bool is an int to isinstance
        return f"label = {_described(label)}: must be the number 0 or 1"
    if label not in (0, 1):
        return f"label = {_described(label)}: outside 0 to 1"
    return Row(code, label)


def _described(value: Any) -> str:
    text = json.dumps(value)
    return f"{text if len(text) <= 40 else text[:37] + '...'} ({TYPE_NAMES[type(value)]})"


def content_key(code: str) -> int:
    """The first eight bytes of the code's SHA-256: the same code has the same key in every run."""
    return int.from_bytes(hashlib.sha256(code.encode("utf-8")).digest()[:8], "big")


def signed_key(code: str) -> int:
    """`content_key` as tensors and databases hold it: a signed number of 64 bits."""
    key = content_key(code)
    return key - 2**64 if key >= 2**63 else key


def split_by_content(rows: RowFile, fraction: float) -> Split:
    """Hold out about ``fraction`` of the rows, chosen by a hash of their code.

    The same code is always on the same side, also in another order or in a file that has grown. Where two
    rows differ at all, neither side is empty (unless ``fraction`` is 0).
    """
    limit = int(fraction * 2**64)
    held_out = {index for index, key in enumerate(rows.keys) if key < limit}
    first, last = min(rows.keys), max(rows.keys)
    if fraction and not held_out and first != last:
        held_out = {index for index, key in enumerate(rows.keys) if key == first}
    if len(held_out) == len(rows):
        held_out -= {index for index, key in enumerate(rows.keys) if key == last}
    train = array("Q", (index for index in range(len(rows)) if index not in held_out))
    return Split(train, array("Q", sorted(held_out)))


def shortest(rows: Rows, indices: Sequence[int], count: int = 4) -> list[str]:
    """The code of the ``count`` shortest rows (in characters, about) among ``indices``."""
    return [rows[index].code for index in heapq.nsmallest(count, indices, key=rows.size)]
