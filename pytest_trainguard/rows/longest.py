"""Rows made as long as a program reads them, or of all lengths up to that: texts repeated, the rest as it was.

JSONL, JSON, CSV and TSV, and folders of these. What counts as a text is a string with a space in it; labels, names and
paths have none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pytest_trainguard.rows.codec import JsonColumns, NoRows, TextForm, form_of, read_content, write_content
from pytest_trainguard.rows.folders import look_into

__all__ = ["stretch_rows", "vary_rows"]

CHARACTERS = 12  # of text for each token, node or whatever a length counts: ordinary text has four or five
ORDINARY = 4  # of that; fewer of them, so that lengths differ and are not all cut at the limit
AS_THEY_ARE = 4  # so many rows stay short
GOLDEN = 0.6180339887  # its multiples are spread evenly over 0 to 1, without a period

Lengthen = Callable[[str, int], str]


def stretch_rows(data: Path, rows: int, length: int) -> Path:
    """Rewrite `data` so that it has `rows` rows, each of them long enough for `length` tokens.

    Raises:
        ValueError: it is of a kind whose rows cannot be made longer, or has no text.
    """
    return _rewrite(data, rows, lambda text, number: _repeat(text, number, length * CHARACTERS), "make_longest")


def vary_rows(data: Path, rows: int, length: int) -> Path:
    """The same with rows of all lengths, up to about `length` tokens: many short ones, few long.

    Raises:
        ValueError: as `stretch_rows`.
    """
    size = length * ORDINARY
    return _rewrite(data, rows, lambda text, number: _repeat(text, number, round(_share(number) * size)), "make_varied")


def _share(number: int) -> float:
    """How long a row is, as a part of the longest: most are short, so that the longest of a batch differs."""
    return (number * GOLDEN % 1.0) ** 4


def _rewrite(data: Path, rows: int, lengthen: Lengthen, method: str) -> Path:
    """Rewrite a file, or in a folder each file of rows that has text; a folder of examples has none to be longer."""
    if not data.is_dir():
        return _rewrite_file(data, rows, lengthen, method)
    content = look_into(data)
    if not content.files or content.examples:
        raise ValueError(f"{data.name}: files that are an example each cannot be made longer: override {method}")
    refused: list[ValueError] = []
    for file in content.files:
        try:
            _rewrite_file(file, rows, lengthen, method)
        except ValueError as error:
            refused.append(error)
    if len(refused) == len(content.files):
        raise refused[0]
    return data


def _rewrite_file(data: Path, rows: int, lengthen: Lengthen, method: str) -> Path:
    form = form_of(data)
    if not isinstance(form, TextForm | JsonColumns):
        raise ValueError(f"{data.name}: rows of this kind cannot be made longer: override {method}")
    content = read_content(data)
    try:
        found = form.read(content)
    except NoRows as error:
        raise ValueError(f"{data.name}: {error}: override {method}") from error
    longer = _lengthen_all(found, rows, lengthen)
    if longer[: len(found)] == found[:rows]:
        raise ValueError(f"{data.name}: holds no text to make longer: override {method}")
    write_content(data, form.write(longer, content))
    return data


def _repeat(text: str, number: int, size: int) -> str:
    """The text again and again; the number keeps rows apart that are copies of one."""
    piece = f"{text}\n"
    return f"{piece * (size // len(piece) + 1)}{number}\n"


def _lengthen(value: object, number: int, lengthen: Lengthen) -> object:
    if isinstance(value, str):
        return lengthen(value, number) if " " in value.strip() else value
    if isinstance(value, list):
        return [_lengthen(inner, number, lengthen) for inner in value]
    if isinstance(value, dict):
        return {name: _lengthen(inner, number, lengthen) for name, inner in value.items()}
    return value


def _lengthen_all(found: Sequence[object], rows: int, lengthen: Lengthen) -> list[object]:
    """All rows longer, but for a few: some programs refuse data in which no row fits."""
    short = max(rows // AS_THEY_ARE, 1)
    return [
        found[number % len(found)] if number % short == 0 else _lengthen(found[number % len(found)], number, lengthen)
        for number in range(rows if found else 0)
    ]
