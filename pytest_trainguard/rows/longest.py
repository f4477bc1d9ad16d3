"""Rows made as long as a program reads them, or of all lengths up to that: texts repeated, the rest as it was.

JSONL, JSON and CSV. What counts as a text is a string with a space in it; labels, names and paths have none.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_trainguard.rows.samples import LINES

CHARACTERS = 12  # of text for each token, node or whatever a length counts: ordinary text has four or five
ORDINARY = 4  # of that; fewer of them, so that lengths differ and are not all cut at the limit
AS_THEY_ARE = 4  # so many rows stay short
GOLDEN = 0.6180339887  # its multiples are spread evenly over 0 to 1, without a period

Lengthen = Callable[[str, int], str]


def stretched(data: Path, rows: int, length: int) -> Path:
    """Rewrite `data` so that it has `rows` rows, each of them long enough for `length` tokens.

    Raises:
        ValueError: it is of a kind whose rows cannot be made longer, or has no text.
    """
    return _rewritten(data, rows, lambda text, number: _long(text, number, length * CHARACTERS), "make_longest")


def varied(data: Path, rows: int, length: int) -> Path:
    """The same with rows of all lengths, up to about `length` tokens: many short ones, few long.

    Raises:
        ValueError: as `stretched`.
    """
    size = length * ORDINARY
    return _rewritten(data, rows, lambda text, number: _long(text, number, round(share(number) * size)), "make_varied")


def share(number: int) -> float:
    """How long a row is, as a part of the longest: most are short, so that the longest of a batch differs."""
    return (number * GOLDEN % 1.0) ** 4


def _rewritten(data: Path, rows: int, lengthen: Lengthen, method: str) -> Path:
    rewrite = {".json": _json, ".csv": _csv}.get(data.suffix)
    rewrite = _lines if data.suffix in LINES else rewrite
    if data.is_dir() or rewrite is None:
        raise ValueError(f"{data.name}: rows of this kind cannot be made longer: override {method}")
    if not rewrite(data, rows, lengthen):
        raise ValueError(f"{data.name}: holds no text to make longer: override {method}")
    return data


def _long(text: str, number: int, size: int) -> str:
    """The text again and again; the number keeps rows apart that are copies of one."""
    piece = f"{text}\n"
    return f"{piece * (size // len(piece) + 1)}{number}\n"


def _stretch(value: Any, number: int, lengthen: Lengthen) -> Any:
    if isinstance(value, str):
        return lengthen(value, number) if " " in value.strip() else value
    if isinstance(value, list):
        return [_stretch(inner, number, lengthen) for inner in value]
    if isinstance(value, dict):
        return {name: _stretch(inner, number, lengthen) for name, inner in value.items()}
    return value


def _all(found: list[Any], rows: int, lengthen: Lengthen) -> list[Any]:
    """All rows longer, but for a few: some programs refuse data in which no row fits."""
    short = max(rows // AS_THEY_ARE, 1)
    return [
        found[number % len(found)] if number % short == 0 else _stretch(found[number % len(found)], number, lengthen)
        for number in range(rows if found else 0)
    ]


def _lines(data: Path, rows: int, lengthen: Lengthen) -> bool:
    found = [json.loads(line) for line in data.read_bytes().splitlines() if line.strip()]
    made = _all(found, rows, lengthen)
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made), encoding="utf-8")
    return made[: len(found)] != found[:rows]


def _json(data: Path, rows: int, lengthen: Lengthen) -> bool:
    content = json.loads(data.read_text(encoding="utf-8-sig"))
    name = (
        next((name for name, value in content.items() if isinstance(value, list)), "")
        if isinstance(content, dict)
        else ""
    )
    found = content[name] if name else content
    made = _all(found, rows, lengthen)
    data.write_text(json.dumps({**content, name: made} if name else made, ensure_ascii=False), encoding="utf-8")
    return bool(made[: len(found)] != found[:rows])


def _csv(data: Path, rows: int, lengthen: Lengthen) -> bool:
    with data.open(newline="", encoding="utf-8") as file:
        head, *found = list(csv.reader(file)) or [[]]
    made = _all(found, rows, lengthen)
    with data.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *made])
    return made[: len(found)] != found[:rows]
