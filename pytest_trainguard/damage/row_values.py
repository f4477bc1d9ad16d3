"""Values in a team's rows: where they stand, and other ones put in their place.

A place is a path into a row: `("text",)`, or `("messages", 1, "content")` where rows hold lists of objects. The rows
are those of the file that `data_files` tampers with; every variant is a copy.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean

from pytest_trainguard.damage import data_files
from pytest_trainguard.damage.data_files import Tampered
from pytest_trainguard.rows.codec import Row, read_content, write_content
from pytest_trainguard.verdicts.errors import NotApplicable

__all__ = [
    "Place", "common_places", "drop_in_a_row", "drop_value", "edit_value", "field_of_place", "format_place",
    "list_places", "nested_places", "read_named_rows", "replace_bytes", "replace_value", "text_places", "value_at",
    "whole_numbers",
]  # fmt: skip

Place = tuple[str | int, ...]


def read_named_rows(data: Path) -> list[Row]:
    """The rows of the file that is tampered with.

    Raises:
        NotApplicable: the data is of a form that is not known, or its rows have no named fields.
    """
    data_files.field_names(data)
    return [row for row in data_files.read_rows(data) if isinstance(row, dict)]


def format_place(place: Place) -> str:
    """A place as people write it: `text`, `messages[1].content`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")


def field_of_place(place: Place) -> str:
    """The name that a message will give a place: the innermost one."""
    return next(str(part) for part in reversed(place) if isinstance(part, str))


def value_at(row: object, place: Place) -> object:
    """The value at a place.

    Raises:
        LookupError: there is none.
    """
    value = row
    for part in place:
        inside = dict(enumerate(value)) if isinstance(value, list) else value
        if not isinstance(inside, dict) or part not in inside:
            raise LookupError(f"no {format_place(place)}")
        value = inside[part]
    return value


def replace_value(row: Row, place: Place, value: object) -> Row:
    """A copy of a row with another value at a place.

    Raises:
        LookupError: there is no such place.
    """
    new = copy.deepcopy(row)
    holder = value_at(new, place[:-1])
    assert isinstance(holder, dict), "a place ends in a name"
    holder[place[-1]] = value
    return new


def list_places(row: object, within: Place = ()) -> Iterator[Place]:
    """The places of a row's values: its fields, and those of the objects in its lists; outer ones first."""
    if isinstance(row, dict):
        for name, value in row.items():
            yield (*within, name)
            yield from list_places(value, (*within, name))
    elif isinstance(row, list):
        for number, value in enumerate(row):
            if isinstance(value, dict):
                yield from list_places(value, (*within, number))


def common_places(rows: Sequence[Row]) -> list[Place]:
    """The places that every row has; of several in a list, the first."""
    kept = []
    seen = set()
    for place in list_places(rows[0]):
        shape = tuple(part for part in place if isinstance(part, str))
        if shape not in seen and all(_has(row, place) for row in rows):
            seen.add(shape)
            kept.append(place)
    return kept


def _has(row: Row, place: Place) -> bool:
    try:
        value_at(row, place)
    except LookupError:
        return False
    return True


def text_places(rows: Sequence[Row]) -> list[Place]:
    """The places of text, the longest texts first; numbers written as text (in CSV) are none.

    Raises:
        NotApplicable: there are none.
    """
    found = {}
    for place in common_places(rows):
        texts = [value for row in rows if isinstance(value := value_at(row, place), str)]
        if len(texts) == len(rows) and not all(map(_is_number, texts)):
            found[place] = fmean(map(len, texts))
    if not found:
        raise NotApplicable("its rows have no text: this case is for data with text in it")
    return sorted(found, key=lambda place: -found[place])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def edit_value(
    data: Path,
    folder: Path,
    did: str,
    place: Place,
    edit: Callable[[object], object],
    *,
    which: Sequence[int] | None = None,
) -> Tampered:
    """A copy of the data with the value at a place edited.

    Args:
        data: the data; of a folder, one file in it.
        folder: where the copy goes.
        did: what is done, in words: `{field}`, `{line}` ("line 33 of rows.jsonl", or "every row of rows.jsonl").
        place: where in the row.
        edit: from the old value to the new one.
        which: numbers of rows from 0; the one in the middle where none are given.

    Raises:
        NotApplicable: the form has no place for such a value.
    """
    rows = read_named_rows(data)
    chosen = [len(rows) // 2] if which is None else which
    new = {number: replace_value(rows[number], place, edit(value_at(rows[number], place))) for number in chosen}
    edited = data_files.replace_rows(data, folder, new)
    name = edited.file.name
    where = f"line {edited.line} of {name}" if edited.line else f"a row of {name}" if len(chosen) == 1 else ""
    where = where or (f"every row of {name}" if len(chosen) == len(rows) else f"{len(chosen)} rows of {name}")
    did = did.replace("{field}", repr(format_place(place))).replace("{line}", where)
    return edited._replace(did=did, field=field_of_place(place))


def drop_value(data: Path, folder: Path, place: Place) -> Tampered:
    """A copy of the data in which no row has that place; where it is in a list, no object of the list has it."""
    if len(place) == 1:
        return data_files.drop_field(data, folder, str(place[0]), everywhere=True)
    new = {}
    for number, row in enumerate(read_named_rows(data)):
        new[number] = copy.deepcopy(row)
        _remove(new[number], place)
    changed = data_files.replace_rows(data, folder, new)
    did = f"took {format_place(place)} out of every row of {changed.file.name}"
    return changed._replace(did=did, field=field_of_place(place))


def drop_in_a_row(data: Path, folder: Path, place: Place) -> Tampered:
    """A copy of the data in which the row in the middle has not got that place, nested in the row."""
    rows = read_named_rows(data)
    number = len(rows) // 2
    row = copy.deepcopy(rows[number])
    holder = value_at(row, place[:-1])
    assert isinstance(holder, dict), "a place ends in a name"
    del holder[place[-1]]
    changed = data_files.replace_rows(data, folder, {number: row})
    where = f"line {changed.line} of {changed.file.name}" if changed.line else f"a row of {changed.file.name}"
    return changed._replace(did=f"took {format_place(place)!r} out of {where}", field=field_of_place(place))


def nested_places(rows: Sequence[Row]) -> list[Place]:
    """Places below the top of a row that every row has; in a list of objects, each object of every row's list."""
    return [place for place in common_places(rows) if len(place) > 1 and all(_everywhere(row, place) for row in rows)]


def _everywhere(value: object, place: Place) -> bool:
    """Whether a place is there whichever object of a list is taken."""
    if not place:
        return True
    first, rest = place[0], place[1:]
    if isinstance(value, list):
        return all(_everywhere(one, rest) for one in value)
    return isinstance(value, dict) and first in value and _everywhere(value[first], rest)


def whole_numbers(rows: Sequence[Row]) -> list[Place]:
    """The places of numbers with fractions, and of lists of these: a whole number is one of them as well."""
    return [place for place in common_places(rows) if all(_has_fractions(value_at(row, place)) for row in rows)]


def _has_fractions(value: object) -> bool:
    found = value if isinstance(value, list) and value else [value]
    return all(type(one) is float for one in found)


def _remove(value: object, place: Place) -> None:
    first, *rest = place
    if isinstance(value, list):
        for one in value:
            _remove(one, tuple(rest))
    elif isinstance(value, dict) and rest:
        _remove(value[first], tuple(rest))
    elif isinstance(value, dict):
        value.pop(first, None)


def replace_bytes(path: Path, placeholder: bytes, raw: bytes) -> None:
    """Put bytes into a file that no text can hold, where a placeholder stands."""
    write_content(path, read_content(path).replace(placeholder, raw))
