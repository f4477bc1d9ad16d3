"""Exchanging what is to be learnt: the labels of rows, in JSONL, JSON and CSV files.

A label is named by the field of a row that it stands in, dotted where fields are nested: `label`,
`messages.-1.content`.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from pytest_trainguard.rows import folders
from pytest_trainguard.rows.codec import JsonColumns, NoRows, TextForm, form_of, read_content, write_content
from pytest_trainguard.verdicts.errors import NotApplicable

__all__ = ["read_labels", "write_labels", "write_split_labels"]


def read_labels(data: Path, field: str) -> list[object]:
    """The label of each row, in the order of the file; of a folder those of the file that is trained on.

    Raises:
        NotApplicable: the data is of another form, or a row has no such field.
    """
    return [_label(row, field) for row in _rows(_splits(data)[0] if data.is_dir() else data)]


def write_labels(data: Path, folder: Path, field: str, labels: Sequence[object]) -> Path:
    """A copy of the data in `folder`, a new one, under its own name, with other labels: one for each row.

    Raises:
        NotApplicable: as `read_labels`.
        FileExistsError: the folder is there already.
    """
    folder.mkdir(parents=True)
    path = folder / data.name
    write_content(path, _relabelled(data, field, iter(labels)))
    return path


def write_split_labels(data: Path, folder: Path, field: str, trained: object, validated: Sequence[object]) -> Path:
    """A copy of a folder of data in `folder`, a new one, with other labels.

    Args:
        data: with a file to train on and one to validate on.
        folder: for the copy, under its own name.
        field: of the label.
        trained: the label of every row that is trained on.
        validated: those of the rows that are validated on, by turns.

    Raises:
        NotApplicable: as `read_labels`.
        FileExistsError: the folder is there already.
    """
    copy = folder / data.name
    parts = _splits(data)
    folder.mkdir(parents=True)
    shutil.copytree(data, copy)
    for part, turns in zip(parts, ([trained], validated), strict=True):
        write_content(copy / part.relative_to(data), _relabelled(part, field, itertools.cycle(turns)))
    return copy


def _splits(data: Path) -> tuple[Path, Path]:
    found = folders.find_splits(data)
    if found is None:
        raise NotApplicable(
            f"its data is the folder {data.name}, and which file in it is trained and which validated on is not told "
            "by names such as train.jsonl and validation.jsonl"
        )
    return found


def _relabelled(file: Path, field: str, labels: Iterator[object]) -> bytes:
    """A file's content with other labels; they run out with its rows, or later."""
    rows = _rows(file)
    for row in rows:
        _replace_label(row, field, next(labels))
    return _form(file).write(rows, like=read_content(file))


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
