"""Rows in JSON: a value a line, a list of rows, an object with one such list or several, an object of columns."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pytest_trainguard.rows import references
from pytest_trainguard.rows.forms import (
    Document,
    Form,
    NoRows,
    Row,
    TextForm,
    decode_json,
    encode_json,
    is_deep,
    split_mark,
)
from pytest_trainguard.rows.packing import open_content, read_content

__all__ = ["Json", "JsonColumns", "JsonLines", "form_of_value", "holds_lines"]

Object = dict[str, object]
BY_CHANCE = 8  # a list of names that is shorter may have as many entries as there are rows
FAR_SHORTER = 4  # times: a longest list of which columns that are shorter than that are none


class JsonLines(TextForm):
    """A value of JSON a line; blank lines are none."""

    name = "JSONL"
    streamed = True

    def split(self, content: bytes) -> Document:
        """Lines; each that is not blank is a row."""
        mark, content = split_mark(content)
        lines = re.findall(rb"[^\n]*\n|[^\n]+", content)
        places = [place for place, line in enumerate(lines, len(mark)) if line.strip()]
        return Document([*mark, *lines], places)

    def decode(self, row: bytes, document: Document) -> object:
        """JSON."""
        return decode_json(row)

    def encode(self, row: object, document: Document) -> bytes:
        """JSON."""
        return encode_json(row)

    def write(self, rows: Sequence[object], like: bytes) -> bytes:
        """A line each."""
        return b"".join([*split_mark(like)[0], *(encode_json(row) + b"\n" for row in rows)])

    def cut(self, file: Path, rows: int) -> tuple[bytes, int]:
        """The first lines as they are, read no further."""
        with open_content(file) as lines:
            kept = list(itertools.islice(_not_blank(lines), rows))
        for line in kept:
            decode_json(line)
        content = b"".join(kept)
        return content if content.endswith(b"\n") or not content else content + b"\n", len(kept)


class Json(TextForm):
    """A list of rows, or an object with one; written with a row a line, the first on line 2, and no byte order mark."""

    name = "JSON"
    streamed = True

    def split(self, content: bytes) -> Document:
        """What stands before the rows, the rows, and what stands after them."""
        return _document(_parse(content))

    def decode(self, row: bytes, document: Document) -> object:
        """JSON."""
        return decode_json(row)

    def encode(self, row: object, document: Document) -> bytes:
        """JSON."""
        return encode_json(row)

    def write(self, rows: Sequence[object], like: bytes) -> bytes:
        """The same list or object with these rows."""
        value = _parse(like)
        name = _name_of_rows(value)
        return _document(list(rows) if name is None else {**_object(value), name: list(rows)}, name).join()

    def cut(self, file: Path, rows: int) -> tuple[bytes, int]:
        """The first rows; of several lists that name each other as `references.cut_tables` does it."""
        return _cut(_parse(read_content(file)), rows)


class JsonColumns(Form):
    """An object of columns, lists of one length: the nth values of all are the nth row. Its rows have no lines."""

    name = "JSON columns"
    text = True
    streamed = True

    def read(self, content: bytes) -> list[object]:
        """The rows, by the columns' names."""
        value = _object(_parse(content))
        names = _columns(value)
        rows: list[object] = [
            dict(zip(names, cells, strict=True)) for cells in zip(*(_list(value[name]) for name in names), strict=True)
        ]
        if any(is_deep(row) for row in rows):
            raise NoRows("has values that are nested too deep to be looked into")
        return rows

    def write(self, rows: Sequence[object], like: bytes) -> bytes:
        """The same object with columns of these rows."""
        value = _object(_parse(like))
        named = [row for row in rows if isinstance(row, dict)]
        return encode_json({**value, **{name: [row[name] for row in named] for name in _columns(value)}})

    def fields(self, content: bytes) -> list[str]:
        """The columns."""
        return _columns(_object(_parse(content)))

    def drop_column(self, content: bytes, name: str) -> bytes:
        """The object without one of its columns."""
        return encode_json({other: inner for other, inner in _object(_parse(content)).items() if other != name})

    def cut(self, file: Path, rows: int) -> tuple[bytes, int]:
        """The first values of every column."""
        return _cut(_parse(read_content(file)), rows)


def holds_lines(file: Path) -> bool:
    """Whether a file that is said to be JSON has a value on its first line, and more lines: it is JSONL then.

    Raises:
        OSError: it cannot be read from the disk. And as `packing.open_content`.
    """
    with open_content(file) as lines:
        found = list(itertools.islice(_not_blank(lines), 2))
    try:
        return len(found) > 1 and decode_json(found[0]) is not None
    except ValueError:
        return False


def form_of_value(file: Path) -> Form:
    """The form of a file of JSON, by the value in it; `Json` where it cannot be read. Raises as `holds_lines`."""
    try:
        value = _parse(read_content(file))
    except ValueError:
        return Json()
    return JsonColumns() if isinstance(value, dict) and _columns(value) else Json()


def _cut(value: object, rows: int) -> tuple[bytes, int]:
    """The first rows of a value, in whichever way it holds them, and how many they are."""
    if isinstance(value, dict) and (names := _columns(value)):
        cut = {name: _list(value[name])[:rows] for name in names}
        return encode_json({**value, **cut}), len(cut[names[0]])
    name = _name_of_rows(value)
    if name is None:
        document = _document(_list(value)[:rows])
    else:
        tables = _tables(_object(value))
        lists: Mapping[str, object] = {name: _list(_object(value)[name])[:rows]}
        if len(tables) > 1:
            lists = references.cut_tables(tables, references.find_references(tables), rows)
        document = _document({**_object(value), **lists}, name)
    return document.join(), len(document.places)


def _not_blank(lines: Iterator[bytes]) -> Iterator[bytes]:
    return (line for line in lines if line.strip())


def _parse(content: bytes) -> object:
    return decode_json(split_mark(content)[1].decode())


def _object(value: object) -> Object:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _lists(value: Object) -> dict[str, list[object]]:
    """The lists in an object that are not empty."""
    return {name: inner for name, inner in value.items() if isinstance(inner, list) and inner}


def _tables(value: Object) -> dict[str, list[Row]]:
    """The lists of objects in an object."""
    found: dict[str, list[Row]] = {}
    for name, inner in _lists(value).items():
        objects = [one for one in inner if isinstance(one, dict)]
        if len(objects) == len(inner):
            found[name] = objects
    return found


def _columns(value: Object) -> list[str]:
    """The names of the columns in an object: lists of one length, unless the rows are rather a list of objects."""
    lists, tables = _lists(value), _tables(value)
    lengths = [len(inner) for inner in lists.values()]
    shared = max((length for length in lengths if lengths.count(length) > 1), default=0)
    names = [name for name, inner in lists.items() if len(inner) == shared]
    rows = max(map(len, tables.values()), default=0)
    if not names or shared < rows or shared * FAR_SHORTER < max(lengths):
        return []
    if shared < BY_CHANCE and 0 < len(tables.keys() & set(names)) < len(names):
        return []
    if len(tables) > 1 and (references.find_references(tables) or _are_alike([tables.get(name, []) for name in names])):
        return []
    return names


def _are_alike(tables: Sequence[Sequence[Row]]) -> bool:
    """Whether the entries of lists have the same fields: parts of one whole, and no columns."""
    return all(table and table[0].keys() == tables[0][0].keys() for table in tables) if tables[0] else False


def _name_of_rows(value: object) -> str | None:
    """The name of the list of rows in an object; None where the value is that list.

    Raises:
        NoRows: it is neither.
    """
    if isinstance(value, list):
        return None
    if not isinstance(value, dict):
        raise NoRows("holds no list of rows")
    tables, lists = _tables(value), _lists(value)
    if tables:
        return references.choose_rows(tables, references.find_references(tables) if len(tables) > 1 else [])
    empty = [str(name) for name, inner in value.items() if isinstance(inner, list)]
    if not empty:
        raise NoRows("has no rows: there is no list in its object")
    return max(lists, key=lambda name: len(lists[name])) if lists else empty[0]


def _document(value: object, name: str | None = None) -> Document:
    """A list, or an object with a list of this name, with a row a line."""
    name = name if name is not None else _name_of_rows(value)
    rows, (head, tail) = _list(value if name is None else _object(value)[name]), _around(value, name)
    pieces = [head + b"\n"]
    for number, row in enumerate(rows, 1):
        pieces += [encode_json(row), b",\n" if number < len(rows) else b"\n"]
    return Document([*pieces, tail], list(range(1, len(pieces), 2)), list_name=name)


def _around(value: object, name: str | None) -> tuple[bytes, bytes]:
    """What stands before the rows and after them."""
    if name is None:
        return b"[", b"]"
    whole = _object(value)
    entries = [f"{json.dumps(key)}: {encode_json(inner).decode()}" for key, inner in whole.items() if key != name]
    first = list(whole).index(name)
    before, after = entries[:first], entries[first:]
    head = "{" + ", ".join([*before, f"{json.dumps(name)}: ["])
    return head.encode(), ", ".join(["]", *after]).encode() + b"}"
