"""Exchanging what is to be learnt: the labels of rows, in JSONL, JSON and CSV files.

A label is named by the field of a row that it stands in, dotted where fields are nested: `label`,
`messages.-1.content`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_trainguard.verdicts.errors import NotApplicable

LINES = (".jsonl", ".ndjson")


def read(data: Path, field: str) -> list[Any]:
    """The label of each row, in the order of the file.

    Raises:
        NotApplicable: the data is of another form, or a row has no such field.
    """
    return [_at(row, field) for row in _rows(data)]


def write(data: Path, folder: Path, field: str, labels: Sequence[Any]) -> Path:
    """A copy of the data in `folder`, under its own name, with other labels: one for each row."""
    folder.mkdir(parents=True)
    rows = _rows(data)
    for row, label in zip(rows, labels, strict=True):
        _put(row, field, label)
    path = folder / data.name
    if data.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return path
    if data.suffix in LINES:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        whole = json.loads(data.read_text(encoding="utf-8-sig"))
        text = json.dumps(rows if isinstance(whole, list) else {**whole, _list_in(whole): rows}, ensure_ascii=False)
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    return path


def _rows(data: Path) -> list[Any]:
    if data.suffix in LINES and data.is_file():
        return [json.loads(line) for line in data.read_bytes().splitlines() if line.strip()]
    if data.suffix == ".csv":
        with data.open(newline="", encoding="utf-8-sig") as source:
            return list(csv.DictReader(source))
    if data.suffix == ".json":
        whole = json.loads(data.read_text(encoding="utf-8-sig"))
        return list(whole if isinstance(whole, list) else whole[_list_in(whole)])
    raise NotApplicable(f"its data is {data.name}: labels can be exchanged in JSONL, JSON and CSV files")


def _list_in(whole: dict[str, Any]) -> str:
    return next(name for name, value in whole.items() if isinstance(value, list))


def _at(row: Any, field: str) -> Any:
    for part in field.split("."):
        try:
            row = row[int(part)] if isinstance(row, list) else row[part]
        except (KeyError, IndexError, TypeError, ValueError):
            raise NotApplicable(f"a row has no field {field!r}: name the one that is to be learnt, labels") from None
    return row


def _put(row: Any, field: str, label: Any) -> None:
    *outer, last = field.split(".")
    inside = _at(row, ".".join(outer)) if outer else row
    inside[int(last) if isinstance(inside, list) else last] = label
