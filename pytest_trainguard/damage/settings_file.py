"""Breaking a settings file: bad syntax at a known place, a file that was cut off, NUL bytes.

Forms: JSON, TOML and YAML. And respelling one: a number in it as a person writes it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

from pytest_trainguard.verdicts import wording
from pytest_trainguard.verdicts.wording import Named, Wording

__all__ = ["STAND_IN", "BrokenSettings", "break_settings_file", "respell"]

STRAY = "@"  # begins no value in any of the forms
STAND_IN = 1234567.125  # the same text in each of the forms, and no setting's value
_VALUE = {
    ".json": re.compile(r'^\s*"[^"]+": (?=[^\[{])', re.M),
    ".toml": re.compile(r"^[\w.-]+ = (?=[^\[{])", re.M),
    ".yaml": re.compile(r"^[\w.-]+: (?=[^\[{\s])", re.M),
}
_END = Wording("where it ends", re.compile(r"\blines?\W{0,4}\d+|\bend of|unexpected end|\bEOF\b|:\d+:\d+", re.I))


class BrokenSettings(NamedTuple):
    """One variant.

    Attributes:
        did: what was done, in words.
        path: the file, under its own name.
        naming: what a good message names.
    """

    did: str
    path: Path
    naming: tuple[Named, ...]


def break_settings_file(file: Path, folder: Path) -> list[BrokenSettings]:
    """Every way of breaking `file` that its form can tell; the variants are written under `folder`.

    Raises:
        OSError: it cannot be read.
        ValueError: it is JSON by its name alone.
    """
    text, form = _one_a_line(file)
    values = list(_VALUE[form].finditer(text))
    middle = values[len(values) // 2].end() if values else 0
    line, column = text.count("\n", 0, middle) + 1, middle - text.rfind("\n", 0, middle)
    stray = text[:middle] + STRAY + text[middle:] if values else STRAY
    where = wording.line(line, file.name), _column(line, column)
    found = [_write(f"put a stray {STRAY} into line {line}, column {column} of {{file}}", stray, file, folder, *where)]
    if values and form != ".yaml":  # what is left of YAML is YAML
        cut = text[: middle + 1] if form == ".json" else text[:middle]
        found.append(_write("cut {file} off in the middle", cut, file, folder, _END))
    return [*found, _write("overwrote {file} with NUL bytes", "\0" * max(len(text), 16), file, folder)]


def _one_a_line(file: Path) -> tuple[str, str]:
    """The file's text with one setting a line, and its form."""
    form = ".yaml" if file.suffix == ".yml" else file.suffix
    text = file.read_text(encoding="utf-8")
    return json.dumps(json.loads(text), indent=2) if form == ".json" else text, form


def _column(line: int, column: int) -> Wording:
    """A column, counted from 1 or from 0."""
    numbers = f"(?:{column - 1}|{column}|{column + 1})"
    return Wording(f"column {column}", re.compile(rf"\bcol(?:umn)?s?\W{{0,4}}{numbers}\b|:{line}:{numbers}\b", re.I))


def _write(did: str, text: str, file: Path, folder: Path, *where: Named) -> BrokenSettings:
    path = folder / f"broken-{len(list(folder.glob('broken-*'))) + 1}" / file.name
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    return BrokenSettings(did.format(file=file.name), path, (file.name, *where))


def respell(file: Path, spelling: str) -> None:
    """Write a number in the place of `STAND_IN` in a file of settings, in just this spelling: `2e-5`.

    Raises:
        ValueError: the stand-in is not there, or several times.
    """
    before, found, after = file.read_text(encoding="utf-8").partition(str(STAND_IN))
    if not found or str(STAND_IN) in after:
        raise ValueError(f"{file}: {STAND_IN} should stand there once")
    file.write_text(before + spelling + after, encoding="utf-8")
