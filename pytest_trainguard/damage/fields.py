"""Values in a team's rows: where they stand, and other ones put in their place.

A place is a path into a row: `("text",)`, or `("messages", 1, "content")` where rows hold lists of objects. The rows
are those of the file that `data` tampers with; every variant is a copy.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from pytest_trainguard.damage import files as tamper
from pytest_trainguard.damage.files import Tampered
from pytest_trainguard.verdicts.errors import NotApplicable

Place = tuple[str | int, ...]


def read(data: Path) -> list[dict[str, Any]]:
    """The rows of the file that is tampered with.

    Raises:
        NotApplicable: the data is of a form that is not known, or its rows have no named fields.
    """
    tamper.fields(data)
    rows: list[dict[str, Any]] = tamper.rows(data)
    return rows


def named(place: Place) -> str:
    """A place as people write it: `text`, `messages[1].content`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")


def field_of(place: Place) -> str:
    """The name that a message will give a place: the innermost one."""
    return next(str(part) for part in reversed(place) if isinstance(part, str))


def get(row: Any, place: Place) -> Any:
    """The value at a place."""
    for part in place:
        row = row[part]
    return row


def put(row: Any, place: Place, value: Any) -> Any:
    """A copy of a row with another value at a place."""
    new = copy.deepcopy(row)
    holder = get(new, place[:-1])
    holder[place[-1]] = value
    return new


def places(row: Any, within: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every named value of a row: its fields, and those of the objects in its lists; outer ones first."""
    if isinstance(row, dict):
        for name, value in row.items():
            yield (*within, name), value
            yield from places(value, (*within, name))
    elif isinstance(row, list):
        for number, value in enumerate(row):
            if isinstance(value, dict):
                yield from places(value, (*within, number))


def common(rows: list[dict[str, Any]]) -> list[Place]:
    """The places that every row has; of several in a list, the first."""
    kept = []
    seen = set()
    for place, _ in places(rows[0]):
        shape = tuple(part for part in place if isinstance(part, str))
        if shape not in seen and all(_has(row, place) for row in rows):
            seen.add(shape)
            kept.append(place)
    return kept


def _has(row: Any, place: Place) -> bool:
    try:
        get(row, place)
    except (KeyError, IndexError, TypeError):
        return False
    return True


def texts(rows: list[dict[str, Any]]) -> list[Place]:
    """The places of text, the longest texts first; numbers written as text (in CSV) are none.

    Raises:
        NotApplicable: there are none.
    """
    found = {}
    for place in common(rows):
        values = [get(row, place) for row in rows]
        if all(isinstance(value, str) for value in values) and not all(map(_is_number, values)):
            found[place] = fmean(map(len, values))
    if not found:
        raise NotApplicable("its rows have no text: this case is for data with text in it")
    return sorted(found, key=lambda place: -found[place])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def edited(
    data: Path,
    folder: Path,
    did: str,
    place: Place,
    edit: Callable[[Any], Any],
    *,
    which: list[int] | None = None,
) -> Tampered:
    """A copy of the data with the value at a place edited.

    Args:
        data: the data; of a folder, one file in it.
        folder: where the copy goes.
        did: what is done, in words: `{field}`, `{line}` ("line 33 of rows.jsonl", or "every row of rows.jsonl").
        place: where in the row.
        edit: from the old value to the new one.
        which: numbers of rows from 0; the one in the middle where none are given.
    """
    rows = read(data)
    chosen = [len(rows) // 2] if which is None else which
    new = {number: put(rows[number], place, edit(get(rows[number], place))) for number in chosen}
    made = tamper.with_rows(data, folder, new)
    name = made.file.name
    where = f"line {made.line} of {name}" if made.line else f"a row of {name}" if len(chosen) == 1 else ""
    where = where or (f"every row of {name}" if len(chosen) == len(rows) else f"{len(chosen)} rows of {name}")
    did = did.replace("{field}", repr(named(place))).replace("{line}", where)
    return made._replace(did=did, field=field_of(place))


def without(data: Path, folder: Path, place: Place) -> Tampered:
    """A copy of the data in which no row has that place; where it is in a list, no object of the list has it."""
    if len(place) == 1:
        return tamper.without(data, folder, str(place[0]), everywhere=True)
    new = {}
    for number, row in enumerate(read(data)):
        new[number] = copy.deepcopy(row)
        _remove(new[number], place)
    made = tamper.with_rows(data, folder, new)
    return made._replace(did=f"took {named(place)} out of every row of {made.file.name}", field=field_of(place))


def _remove(value: Any, place: Place) -> None:
    first, *rest = place
    if isinstance(first, int):
        for one in value:
            _remove(one, tuple(rest))
    elif rest:
        _remove(value[first], tuple(rest))
    else:
        value.pop(first, None)


def put_raw(path: Path, placeholder: bytes, raw: bytes) -> None:
    """Put bytes into a file that no text can hold, where a placeholder stands."""
    path.write_bytes(path.read_bytes().replace(placeholder, raw))
