"""A queue's own small files, corrupted: emptied, cut, of other types, overwritten, removed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

__all__ = ["CORRUPTIONS", "change_types", "corrupt_files"]


def corrupt_files(how: str, files: Mapping[Path, bytes]) -> None:
    """Corrupt files that have these contents.

    Args:
        how: one of `CORRUPTIONS`.
        files: each file, and what stands in it.
    """
    for path, content in files.items():
        left = CORRUPTIONS[how](content)
        if left is None:
            path.unlink()
        else:
            path.write_bytes(left)


def change_types(content: bytes) -> bytes:
    """JSON (or JSON lines) with every value of another type; what is no JSON becomes text that says nothing."""
    try:
        return json.dumps(_of_another_type(json.loads(content))).encode()
    except ValueError:
        pass
    try:
        values = [_of_another_type(json.loads(line)) for line in content.splitlines()]
    except ValueError:
        return b"null\n" * 8
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def _of_another_type(value: object) -> object:
    if isinstance(value, dict) and value:
        return {name: _of_another_type(inner) for name, inner in value.items()}
    if isinstance(value, list) and value:
        return [_of_another_type(inner) for inner in value]
    return [] if isinstance(value, str) else "a text"


def _overwrite_second_half(content: bytes) -> bytes:
    half = len(content) // 2
    return content[:half] + bytes((7 * place) % 256 for place in range(len(content) - half))


# In words that go before the files' names: what is left of a content; None where the file is removed.
CORRUPTIONS: dict[str, Callable[[bytes], bytes | None]] = {
    "emptied": lambda content: b"",
    "cut in half": lambda content: content[: len(content) // 2],
    "put other types into": change_types,
    "overwrote the second half of": _overwrite_second_half,
    "removed": lambda content: None,
}
