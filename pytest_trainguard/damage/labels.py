"""Exchanging what is to be learnt: the labels of rows, in JSONL, JSON and CSV files.

A label is named by the field of a row that it stands in, dotted where fields are nested: `label`,
`messages.-1.content`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytest_trainguard.rows.codec import JsonColumns, NoRows, TextForm, form_of, read_content, write_content
from pytest_trainguard.verdicts.errors import NotApplicable

__all__ = ["read_labels", "write_labels"]


def read_labels(data: Path, field: str) -> list[object]:
    """The label of each row, in the order of the file.

    Raises:
        NotApplicable: the data is of another form, or a row has no such field.
    """
    return [_label(row, field) for row in _rows(data)]


def write_labels(data: Path, folder: Path, field: str, labels: Sequence[object]) -> Path:
    """A copy of the data in `folder`, a new one, under its own name, with other labels: one for each row.

    Raises:
        NotApplicable: as `read_labels`.
        FileExistsError: the folder is there already.
    """
    rows = _rows(data)
    for row, label in zip(rows, labels, strict=True):
        _replace_label(row, field, label)
    folder.mkdir(parents=True)
    path = folder / data.name
    write_content(path, _form(data).write(rows, like=read_content(data)))
    return path


def _form(data: Path) -> TextForm | JsonColumns:
    form = form_of(data)
    if not isinstance(form, TextForm | JsonColumns):
        raise NotApplicable(f"its data is {data.name}: labels can be exchanged in JSONL, JSON and CSV files")
    return form


def _rows(data: Path) -> list[object]:
    try:
        return _form(data).read(read_content(data))
    except NoRows as error:
        raise NotApplicable(f"its data {error}: labels can be exchanged in a list of rows") from error


def _label(row: object, field: str) -> object:
    label = row
    for part in field.split("."):
        try:
            label = _inside(label, part)
        except (LookupError, ValueError):
            raise NotApplicable(f"a row has no field {field!r}: name the one that is to be learnt, labels") from None
    return label


def _inside(value: object, part: str) -> object:
    """Raises LookupError or ValueError where there is no such part."""
    if isinstance(value, list):
        return value[int(part)]
    if isinstance(value, dict):
        return value[part]
    raise LookupError(part)


def _replace_label(row: object, field: str, label: object) -> None:
    *outer, last = field.split(".")
    inside = _label(row, ".".join(outer)) if outer else row
    if isinstance(inside, list):
        inside[int(last)] = label
    elif isinstance(inside, dict):
        inside[last] = label
