"""A program's own small files, corrupted: emptied, cut, of other types, overwritten, removed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def corrupt(how: str, files: Mapping[Path, bytes]) -> None:
    """Corrupt files that have these contents, in one of the `WAYS`."""
    for path, content in files.items():
        left = WAYS[how](content)
        if left is None:
            path.unlink()
        else:
            path.write_bytes(left)


def other_types(content: bytes) -> bytes:
    """JSON (or JSON lines) with every value of another type; what is no JSON becomes text that says nothing."""
    try:
        return json.dumps(_other(json.loads(content))).encode()
    except ValueError:
        pass
    try:
        return b"".join(json.dumps(_other(json.loads(line))).encode() + b"\n" for line in content.splitlines())
    except ValueError:
        return b"null\n" * 8


def _other(value: Any) -> Any:
    if isinstance(value, dict) and value:
        return {name: _other(inner) for name, inner in value.items()}
    if isinstance(value, list) and value:
        return [_other(inner) for inner in value]
    return [] if isinstance(value, str) else "a text"


def _overwritten(content: bytes) -> bytes:
    half = len(content) // 2
    return content[:half] + bytes((7 * place) % 256 for place in range(len(content) - half))


# In words that go before the files' names: what is left of a content; None where the file is removed.
WAYS: dict[str, Callable[[bytes], bytes | None]] = {
    "emptied": lambda content: b"",
    "cut in half": lambda content: content[: len(content) // 2],
    "put other types into": other_types,
    "overwrote the second half of": _overwritten,
    "removed": lambda content: None,
}
