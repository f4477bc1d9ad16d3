"""Several lists of objects in one JSON object that name each other, as COCO's annotations name their images."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from pytest_trainguard.rows.forms import NoRows, Row

__all__ = ["Reference", "Tables", "choose_rows", "cut_tables", "find_references"]

Tables = Mapping[str, Sequence[Row]]
KEYS = re.compile(r"_?(?:id|uid|uuid|guid|key|name)|.*_id", re.I)  # what the entry that is named may be called
OWN_KEYS = re.compile(r"_?(?:id|uid|uuid|guid)", re.I)  # an entry's own name, which names no other
NO_KEY = object()  # what stands for a value that can be none
NAMED_OFTEN = 20  # times, on average: then the entries are a vocabulary, and stay, however few rows name them
BESIDE = 64  # entries that a list may have which has to do with no other; with more of them it may be the data


class Reference(NamedTuple):
    """A field of one list whose values name the entries of another.

    Attributes:
        table: the list that has the field.
        field: its name; its value is a key, or a list of keys.
        target: the list whose entries are named.
        key: the field that they are named by.
    """

    table: str
    field: str
    target: str
    key: str


def find_references(tables: Tables) -> list[Reference]:
    """What names what: every value of a field is the key of an entry, and the names of field and list agree.

    `image_id` and `image` name an entry of `images`. Where no list is called so, a field that ends in `id` does.
    """
    found = []
    for table in tables:
        for field in _fields(tables[table]):
            reference = _reference(tables, table, field)
            if reference is not None:
                found.append(reference)
    return [each for each in found if not _is_mirrored(each, found)]


def _is_mirrored(reference: Reference, found: Sequence[Reference]) -> bool:
    """Whether two lists name each other by one field, and this one is the way round that its name does not say."""
    back = Reference(reference.target, reference.key, reference.table, reference.field)
    return back in found and not _agrees(reference.field, reference.target)


def _reference(tables: Tables, table: str, field: str) -> Reference | None:
    """What a field names; None for a field of values."""
    others = [name for name in tables if name != table]
    called = [name for name in others if _agrees(field, name)]
    by_id = others if re.search(r"ids?$", field, re.I) else []
    targets = list(dict.fromkeys([*called, *by_id]))
    if not targets or OWN_KEYS.fullmatch(field):
        return None
    values = set(_values(tables[table], field))
    for target in targets:
        for key in _fields(tables[target]):
            if KEYS.fullmatch(key) and values and values <= _keys(tables[target], key):
                return Reference(table, field, target, key)
    return None


def choose_rows(tables: Tables, references: Sequence[Reference]) -> str:
    """The list that is the rows: the longest of those that name others and are named by none; else the longest."""
    naming = {each.table for each in references} - {each.target for each in references}
    return max(naming & tables.keys() or tables, key=lambda name: (len(tables[name]), -list(tables).index(name)))


def cut_tables(tables: Tables, references: Sequence[Reference], rows: int) -> dict[str, list[Row]]:
    """All lists, cut so that so many rows are left, and with them whatever they name.

    The rows are taken so that as many of them as possible name different entries: 64 annotations are those of 64
    images, so that there are as many rows for a program that counts images. What has the same fields as the rows is
    cut like them. Lists whose entries are named very often (categories, licences) stay whole.

    Raises:
        NoRows: which of the lists is the data cannot be told.
    """
    main = choose_rows(tables, references)
    kept = {main: _pick(tables, references, main, rows)}
    _keep_named(tables, references, kept, main, rows)
    for name in tables:
        if name not in kept:
            kept[name] = _cut_other(tables, references, kept, name, main, rows)
    return {name: kept[name] for name in tables}


def _pick(tables: Tables, references: Sequence[Reference], main: str, rows: int) -> list[Row]:
    """The first rows that name different entries of the longest list that they name, then others."""
    whole = tables[main]
    reference = _to_longest(tables, references, main)
    if reference is None or len(tables[reference.target]) <= rows:
        return list(whole[:rows])
    seen: set[object] = set()
    first: list[int] = []
    rest: list[int] = []
    for number, row in enumerate(whole):
        named = set(_values([row], reference.field))
        (rest if named <= seen else first).append(number)
        seen |= named
    return [whole[number] for number in sorted([*first, *rest][:rows])]


def _keep_named(
    tables: Tables, references: Sequence[Reference], kept: dict[str, list[Row]], table: str, rows: int
) -> None:
    """Of the longest list that a cut one names, and of the longest that this one names, what is named."""
    reference = _to_longest(tables, references, table)
    if reference is None or reference.target in kept or len(tables[reference.target]) <= rows:
        return
    target = reference.target
    to_it = [each for each in references if each.target == target and each.table == table]
    named = {(each.key, value) for each in to_it for value in _values(kept[table], each.field)}
    kept[target] = [row for row in tables[target] if any((each.key, row.get(each.key)) in named for each in to_it)]
    _keep_named(tables, references, kept, target, rows)


def _cut_other(
    tables: Tables, references: Sequence[Reference], kept: Mapping[str, list[Row]], name: str, main: str, rows: int
) -> list[Row]:
    whole = tables[name]
    naming = [each for each in references if each.table == name and each.target in kept]
    if naming:
        return [row for row in whole if all(_is_there(row, each, kept[each.target]) for each in naming)]
    if any(each.target == name for each in references):
        return list(whole)
    if _fields(whole) == _fields(tables[main]):
        return list(whole[:rows])
    if len(whole) > max(rows, BESIDE):
        raise NoRows(f"has several lists ({main}, {name}), and which of them is the data cannot be told")
    return list(whole)


def _is_there(row: Row, reference: Reference, kept: Sequence[Row]) -> bool:
    return set(_values([row], reference.field)) <= _keys(kept, reference.key)


def _to_longest(tables: Tables, references: Sequence[Reference], table: str) -> Reference | None:
    """The reference of a list to the longest that it names, unless each entry of that one is named very often."""
    size = len(tables[table])
    own = [each for each in references if each.table == table and len(tables[each.target]) * NAMED_OFTEN > size]
    return max(own, key=lambda each: len(tables[each.target]), default=None)


def _fields(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows[:BESIDE] for name in row))


def _values(rows: Sequence[Row], field: str) -> Iterator[object]:
    """The values of a field, and those in its lists; nulls are left out."""
    for row in rows:
        value = row.get(field)
        for one in value if isinstance(value, list) else [value]:
            if one is not None:
                yield one if isinstance(one, str | int) and not isinstance(one, bool) else NO_KEY


def _keys(rows: Sequence[Row], key: str) -> set[object]:
    """The values of a field that every entry has and no two alike; none where it is not so."""
    found = list(_values(rows, key))
    unique = set(found)
    return unique if len(unique) == len(found) == len(rows) else set()


def _agrees(field: str, table: str) -> bool:
    """Whether a field is called after a list: `image_id`, `image` after `images`; `category` after `categories`."""
    stem = re.sub(r"(?:ies|es|s|y)$", "", table.lower())
    return len(stem) > 1 and stem in field.lower()
