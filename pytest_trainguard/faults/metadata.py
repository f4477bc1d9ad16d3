"""A program's own small files, corrupted: emptied, cut, of other types, overwritten, removed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def corrupted(files: Mapping[Path, bytes]) -> Iterator[tuple[str, dict[Path, bytes]]]:
    """Each way of corrupting files: in words that go before their names, and what is then in them.

    Args:
        files: their contents. A file that is missing in what is given back is to be removed.
    """
    yield "emptied", dict.fromkeys(files, b"")
    yield "cut in half", {path: content[: len(content) // 2] for path, content in files.items()}
    yield "put other types into", {path: other_types(content) for path, content in files.items()}
    yield "overwrote the second half of", {path: _overwritten(content) for path, content in files.items()}
    yield "removed", {}


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
