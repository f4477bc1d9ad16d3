"""A trainer's table as text, put behind what a `pyproject.toml` holds; not a byte of that is changed."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tomli_w

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = "pyproject.toml"
WIDTH = 100  # columns of a comment


@dataclass(frozen=True)
class Line:
    """A key of a table.

    Attributes:
        key: its name.
        value: what it is set to.
        why: where it was found; a comment above it. Empty for none.
    """

    key: str
    value: object
    why: str = ""


def format_table(name: str, lines: Sequence[Line], notes: Sequence[str] = ()) -> str:
    """The text of `[tool.trainguard.trainers.NAME]`.

    Args:
        name: of the trainer.
        lines: its keys, in order.
        notes: comments at its head.
    """
    text = [f"[tool.trainguard.trainers.{_format_key(name)}]"]
    text += [comment for note in notes for comment in _comments(note)]
    for line in lines:
        text += _comments(line.why)
        text.append(f"{line.key} = {format_value(line.value)}")
    return "\n".join(text) + "\n"


def format_value(value: object) -> str:
    """A value in one line of TOML."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_format_key(str(key))} = {format_value(one)}' for key, one in value.items())} }}"
    return tomli_w.dumps({"value": value}).strip().partition(" = ")[2]


def _format_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else tomli_w.dumps({key: 0}).rpartition(" = ")[0]


def _comments(text: str) -> list[str]:
    """A text as comments, in lines of `WIDTH` columns; whatever it quotes of a program stays in them."""
    plain = "".join(character if character.isprintable() else " " for character in text)
    return textwrap.wrap(plain, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def read_names(path: Path) -> list[str]:
    """The names of the trainers that a `pyproject.toml` has tables of; none where there is no such file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no TOML.
    """
    if not path.exists():
        return []
    tables: object = tomllib.loads(path.read_bytes().decode("utf-8"))
    for key in ("tool", "trainguard", "trainers"):
        tables = tables.get(key, {}) if isinstance(tables, Mapping) else {}
    return list(tables) if isinstance(tables, Mapping) else []


def append(path: Path, text: str) -> None:
    """Put a table at the end of a file, which is made where there is none. Its line ends are those of the file.

    Raises:
        OSError: it cannot be read or written.
        ValueError: with the table the file would be no TOML: it is left as it is.
    """
    there = path.read_bytes() if path.exists() else b""
    end = "\r\n" if b"\r\n" in there else "\n"
    gap = "" if not there else end if there.endswith(b"\n") else 2 * end
    added = gap.encode() + text.replace("\n", end).encode()
    try:
        tomllib.loads((there + added).decode("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name}: no table can be put behind what it holds: {error}") from None
    with path.open("ab") as file:
        file.write(added)
        file.flush()
        os.fsync(file.fileno())
