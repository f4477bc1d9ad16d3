"""Rows in JSONL files of any size: checked once, read again when a batch needs them, and some of them held out.

What stays in memory is where each row begins and ends (16 bytes a row) and what the kind of file notes of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from trainers.common.errors import InputError, TrainingFailed, reason, show

MAX_ROW_BYTES = 64 << 20
"""A longer line is rejected: memory stays bounded however large the file is."""
MAX_FAULTS = 20
"""So many faults are shown, the rest counted."""
PROGRESS_LINES = 10_000
RETRY_SECONDS = (0.1, 0.5)
"""Pauses before a row that cannot be read (a network mount that has gone) is tried again, then given up."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
TYPE_NAMES = {
    dict: "object", list: "array", str: "text",
    int: "number", float: "number", bool: "bool", type(None): "null",
}  # fmt: skip


class Keyed(Protocol):
    """Rows with hashes of what they hold: equal content has an equal key."""

    keys: array[int]

    def __len__(self) -> int:
        """The number of rows."""


class Split(NamedTuple):
    """Numbers of rows, each side in ascending order."""

    train: Sequence[int]
    validation: Sequence[int]


class LineFile(ABC):
    """A checked JSONL file. Blank lines are no rows.

    Each read opens the file anew, so that it works unchanged in forked and spawned loader workers.

    Raises:
        InputError: the file cannot be read, holds no rows, or holds wrong ones: one line a fault, with its
            line number.
    """

    def __init__(self, path: Path, progress: Callable[[int], None] = lambda line: None) -> None:
        """Check the whole of ``path``; ``progress`` is told every `PROGRESS_LINES` lines."""
        self.path = path
        self._starts = array("Q")
        self._sizes = array("Q")
        self.fingerprint = self._scan(progress)
        """The SHA-256 of the whole file."""

    @abstractmethod
    def note(self, value: dict[str, Any], number: int) -> str | None:
        """Take in one more row, on line ``number``, or say what is wrong with it."""

    def __len__(self) -> int:
        """The number of rows."""
        return len(self._sizes)

    def size(self, index: int) -> int:
        """The bytes of a row's line."""
        return self._sizes[index]

    def line(self, index: int) -> bytes:
        """A row's line as it stands in the file.

        Raises:
            TrainingFailed: the file is gone.
        """
        for pause in (*RETRY_SECONDS, None):
            try:
                with open(self.path, "rb") as file:
                    file.seek(self._starts[index])
                    return file.read(self._sizes[index])
            except OSError as error:
                if pause is None:
                    raise TrainingFailed(f"data {show(self.path)}: cannot be read: {reason(error)}") from error
                time.sleep(pause)
        raise AssertionError("unreachable: the last pause is None")

    def changed(self, index: int) -> TrainingFailed:
        """To raise where a row is no longer the one that was checked."""
        return TrainingFailed(f"data {show(self.path)}: row {index} changed while training")

    def _scan(self, progress: Callable[[int], None]) -> str:
        digest = hashlib.sha256()
        faults: list[str] = []
        count = start = number = 0
        name = show(self.path)
        try:
            with open(self.path, "rb") as file:
                while line := file.readline(MAX_ROW_BYTES + 1):
                    number += 1
                    if number % PROGRESS_LINES == 0:
                        progress(number)
                    digest.update(line)
                    if len(line) > MAX_ROW_BYTES:
                        raise InputError(f"{name}, line {number}: longer than {MAX_ROW_BYTES} bytes")
                    skip = 3 if number == 1 and line.startswith(BYTE_ORDER_MARK) else 0
                    fault = self._add(line[skip:], start + skip, number)
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

    def _add(self, line: bytes, start: int, number: int) -> str | None:
        if not line.strip():
            return None
        value = parse(line)
        fault = value if isinstance(value, str) else self.note(value, number)
        if fault is None:
            self._starts.append(start)
            self._sizes.append(len(line))
        return fault


def parse(line: bytes) -> dict[str, Any] | str:
    """The object in one line of JSON, or what is wrong with it."""
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
    return value if isinstance(value, dict) else f"a row must be an object, not {described(value)}"


def surrogate_in(text: str) -> str | None:
    r"""What is wrong with text that no file can hold: half a character, as ``\ud800`` makes it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"is no text: lone surrogate \\u{ord(text[error.start]):04x} at character {error.start + 1}"
    return None


def described(value: Any) -> str:
    """A value of JSON, shortened, with its type."""
    text = json.dumps(value)
    return f"{text if len(text) <= 40 else text[:37] + '...'} ({TYPE_NAMES[type(value)]})"


def content_key(text: str) -> int:
    """The first eight bytes of the text's SHA-256: the same text has the same key in every run."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big")


def split_by_content(rows: Keyed, fraction: float) -> Split:
    """Hold out about ``fraction`` of the rows, chosen by a hash of their content (of code rows, the code).

    The same content is always on the same side, also in another order or in a file that has grown. Where two
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


def check_path(path: str | os.PathLike[str]) -> Path:
    """A data path that is worth opening: a ``.jsonl`` file or a folder of Python source.

    Raises:
        InputError: it is missing, a circular link, something not a plain file, or has another suffix.
    """
    name = f"data {show(path)}"
    try:
        path = Path(path)
        mode = os.stat(path).st_mode
        real = path.resolve()
    except FileNotFoundError:
        raise InputError(
            f"{name}: a link to nowhere" if _is_link(path) else f"{name}: no such file or folder"
        ) from None
    except (
        OSError,
        RuntimeError,
        ValueError,
    ) as error:  # RuntimeError: Python 3.10 to 3.12 on a link to itself
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise InputError(f"{name}: {why}" + (" (a circular link)" if _is_link(path) else "")) from None
    if path.is_symlink() and (path.parent.resolve() / path.name).is_relative_to(real):
        raise InputError(f"{name}: a circular link, into the folder that it stands in")
    if stat.S_ISDIR(mode):
        if path.suffix.lower() == ".jsonl":
            raise InputError(f"{name}: a folder where a file belongs")
        return path
    if path.suffix.lower() != ".jsonl":
        suffix = f"suffix {path.suffix} is unknown" if path.suffix else "has no suffix"
        raise InputError(f"{name}: {suffix}; rows stand in a .jsonl file")
    if not stat.S_ISREG(mode):
        raise InputError(f"{name}: not a plain file")
    return path


def _is_link(path: str | os.PathLike[str]) -> bool:
    try:
        return os.path.islink(path)
    except ValueError:  # a NUL in the name
        return False
