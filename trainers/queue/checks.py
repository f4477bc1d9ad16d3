"""A whole file is read before its trainer is started: a bad row costs no minute of a GPU."""

from __future__ import annotations

import json
from pathlib import Path

from trainers.errors import InputError, reason, show
from trainers.queue.options import QueueSettings

MAX_ROW_BYTES = 64 << 20
MAX_FAULTS = 20


def faults(path: Path, name: str, chosen: QueueSettings) -> list[str]:
    """What is wrong with a training file, one line a fault; nothing is: it may be trained.

    Args:
        path: where it is now.
        name: what it is called in the faults.
        chosen: of the queue: its own trainer knows more of its rows than any other.
    """
    try:
        scan(path, name)
    except InputError as error:
        return list(error.lines)
    return []


def scan(path: Path, name: str) -> int:
    """Hold each line of a JSONL file against what every trainer's rows are: JSON objects. Returns their number.

    Raises:
        InputError: one line for each of the first faults; the file cannot be read or holds no row.
    """
    found: list[str] = []
    rows = count = number = 0
    try:
        with open(path, "rb") as file:
            while line := file.readline(MAX_ROW_BYTES + 1):
                number += 1
                fault = _fault(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
                rows += bool(line.strip())
                if fault is not None:
                    count += 1
                    found += [f"{show(name)}, line {number}: {fault}"] if count <= MAX_FAULTS else []
                if len(line) > MAX_ROW_BYTES:
                    break
    except OSError as error:
        raise InputError(f"{show(name)}: cannot be read: {reason(error)}") from None
    if count > MAX_FAULTS:
        found.append(f"{show(name)}: {count - MAX_FAULTS} more faulty rows")
    if not rows:
        found.append(f"{show(name)}: empty, no rows")
    if found:
        raise InputError(*found)
    return rows


def _fault(line: bytes) -> str | None:
    if len(line) > MAX_ROW_BYTES:
        return f"longer than {MAX_ROW_BYTES} bytes"
    if not line.strip():
        return None
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return f"not UTF-8 at column {error.start + 1}"
    except json.JSONDecodeError as error:
        cut = "" if line.endswith(b"\n") else " (the last line is cut short?)"
        return f"bad JSON at column {error.colno}: {error.msg}{cut}"
    except (ValueError, RecursionError) as error:
        return f"bad JSON: {error}"
    return None if isinstance(value, dict) else "a row must be a JSON object"
