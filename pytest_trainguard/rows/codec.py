"""The forms that rows come in, read and written here alone: JSONL, JSON, CSV, Parquet, and what torch saved.

JSON is a list of rows, or an object with one such list. A form of text is taken apart into pieces, so that one row is
changed and every other byte stays as it is. Content is bytes; where a form has no rows of named fields, it says so.
"""

from __future__ import annotations

import csv
import importlib
import io
import itertools
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from pytest_trainguard.rows import suffixes

if TYPE_CHECKING:
    import pyarrow

__all__ = [
    "FORMS", "Csv", "Document", "Form", "Json", "JsonLines", "NoRows", "Parquet", "Row", "TextForm", "TorchFile",
    "encode_json", "form_of",
]  # fmt: skip

Row = dict[str, object]
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class NoRows(ValueError):
    """The file holds no rows, or none that have named fields; its text goes on from what the file is called."""


class Form(ABC):
    """A form that rows come in.

    Attributes:
        name: what it is called.
    """

    name: str

    @abstractmethod
    def read(self, content: bytes) -> list[object]:
        """The rows, as plain values; of a table as mappings from its columns' names.

        Raises:
            NoRows: there is no list of rows in it.
            ValueError: it cannot be read.
            ImportError: what reads it is not installed.
        """

    @abstractmethod
    def write(self, rows: Sequence[object], like: bytes) -> bytes:
        """A file of these rows, and of whatever else `like` holds: other entries, columns, a byte order mark.

        Raises:
            ValueError, TypeError: the form has no place for such a value. And as `read`.
        """

    def fields(self, content: bytes) -> list[str]:
        """The fields that every row has; of a table its columns. Raises as `read`.

        Raises:
            NoRows: its rows have no named fields.
        """
        rows = self.read(content)
        named = [row for row in rows if isinstance(row, dict)]
        if not rows or len(named) < len(rows):
            raise NoRows("has rows without named fields")
        return [name for name in named[0] if all(name in row for row in named)]

    def cut(self, file: Path, rows: int) -> tuple[bytes, int]:
        """The first rows of a file as a file of its own, and how many they are. Raises as `read`, and OSError."""
        content = file.read_bytes()
        kept = self.read(content)[:rows]
        return self.write(kept, content), len(kept)


@dataclass
class Document:
    """A file of text, taken apart.

    Attributes:
        pieces: joined, they are the file.
        places: of the rows among the pieces.
        names: of a table's columns; none elsewhere.
    """

    pieces: list[bytes]
    places: list[int]
    names: tuple[str, ...] = ()

    def row(self, number: int) -> bytes:
        """A row by its number from 0, without its line's end."""
        return self.pieces[self.places[number]].rstrip(b"\r\n")

    def end(self, number: int) -> bytes:
        """What ends a row's line; nothing where the file ends there."""
        return self.pieces[self.places[number]][len(self.row(number)) :]

    def line(self, number: int) -> int:
        """The line that a row begins on, counted from 1."""
        return 1 + sum(piece.count(b"\n") for piece in self.pieces[: self.places[number]])

    def put(self, number: int, row: bytes) -> None:
        """Other bytes for a row; its line ends as it did."""
        self.pieces[self.places[number]] = row + self.end(number)

    def before(self, number: int) -> bytes:
        """All that stands before a row."""
        return b"".join(self.pieces[: self.places[number]])

    def join(self) -> bytes:
        """The file."""
        return b"".join(self.pieces)


class TextForm(Form):
    """A form of text: its rows have lines."""

    @abstractmethod
    def split(self, content: bytes) -> Document:
        """A file taken apart. Raises as `read`; rows are not looked into."""

    @abstractmethod
    def decode(self, row: bytes, names: tuple[str, ...]) -> object:
        """A row's value, from its piece of a document with these columns."""

    @abstractmethod
    def encode(self, row: object, names: tuple[str, ...]) -> bytes:
        """A row's piece of a document with these columns."""

    def read(self, content: bytes) -> list[object]:
        """The rows; see `Form`."""
        document = self.split(content)
        return [self.decode(document.row(number), document.names) for number in range(len(document.places))]


class JsonLines(TextForm):
    """A value of JSON a line; blank lines are none."""

    name = "JSONL"

    def split(self, content: bytes) -> Document:
        """Lines; each that is not blank is a row."""
        mark, content = _byte_order_mark(content)
        lines = re.findall(rb"[^\n]*\n|[^\n]+", content)
        places = [place for place, line in enumerate(lines, len(mark)) if line.strip()]
        return Document([*mark, *lines], places)

    def decode(self, row: bytes, names: tuple[str, ...] = ()) -> object:
        """JSON."""
        return json.loads(row)

    def encode(self, row: object, names: tuple[str, ...] = ()) -> bytes:
        """JSON."""
        return encode_json(row)

    def write(self, rows: Sequence[object], like: bytes) -> bytes:
        """A line each."""
        return b"".join([*_byte_order_mark(like)[0], *(encode_json(row) + b"\n" for row in rows)])

    def cut(self, file: Path, rows: int) -> tuple[bytes, int]:
        """The first lines as they are, read no further."""
        with file.open("rb") as lines:
            kept = list(itertools.islice((line for line in lines if line.strip()), rows))
        for line in kept:
            json.loads(line)
        return _closed(b"".join(kept)), len(kept)


class Json(TextForm):
    """A list of rows, or an object with one; written with a row a line, the first on line 2, and no byte order mark."""

    name = "JSON"

    def split(self, content: bytes) -> Document:
        """What stands before the rows, the rows, and what stands after them."""
        value = json.loads(_byte_order_mark(content)[1].decode())
        name = list_in(value)
        rows = value if name is None else value[name]
        return self._document(rows, *_around(value, name))

    def decode(self, row: bytes, names: tuple[str, ...] = ()) -> object:
        """JSON."""
        return json.loads(row)

    def encode(self, row: object, names: tuple[str, ...] = ()) -> bytes:
        """JSON."""
        return encode_json(row)

    def write(self, rows: Sequence[object], like: bytes) -> bytes:
        """The same list or object with these rows."""
        value = json.loads(_byte_order_mark(like)[1].decode())
        return self._document(rows, *_around(value, list_in(value))).join()

    @staticmethod
    def _document(rows: Sequence[object], head: bytes, tail: bytes) -> Document:
        pieces = [head + b"\n"]
        for number, row in enumerate(rows, 1):
            pieces += [encode_json(row), b",\n" if number < len(rows) else b"\n"]
        return Document([*pieces, tail], list(range(1, len(pieces), 2)))


class Csv(TextForm):
    """A table, its first line the names. Cells are text; a quoted one may have line breaks. Blank lines are no rows."""

    name = "CSV"

    def split(self, content: bytes) -> Document:
        """Records, of which the first is the names, and blank lines."""
        mark, content = _byte_order_mark(content)
        pieces, places = list(mark), []
        names: tuple[str, ...] = ()
        for raw, cells in _records(io.StringIO(content.decode(), newline="")):
            if names and cells:
                places.append(len(pieces))
            names = names or tuple(cells)
            pieces.append(raw)
        return Document(pieces, places, names)

    def decode(self, row: bytes, names: tuple[str, ...]) -> object:
        """Its cells by their columns' names."""
        return dict(zip(names, _cells(row), strict=False))

    def encode(self, row: object, names: tuple[str, ...]) -> bytes:
        """Its cells in the order of the columns, without an end of the line."""
        assert isinstance(row, dict)
        return _record([row[name] for name in names if name in row])

    def write(self, rows: Sequence[object], like: bytes) -> bytes:
        """The names and these rows; lines end as they did."""
        document = self.split(like)
        end = _line_end(like)
        head = document.before(0) if document.places else document.join()
        return b"".join([_closed(head, end), *(self.encode(row, document.names) + end for row in rows)])

    def fields(self, content: bytes) -> list[str]:
        """The columns."""
        return list(self.split(content).names)

    def drop_column(self, content: bytes, name: str) -> bytes:
        """The table without one of its columns."""
        document, end = self.split(content), _line_end(content)
        column = document.names.index(name)
        rows = [document.names, *(_cells(document.row(number)) for number in range(len(document.places)))]
        return b"".join(_record([*cells[:column], *cells[column + 1 :]]) + end for cells in rows)

    def cut(self, file: Path, rows: int) -> tuple[bytes, int]:
        """The names and the first records as they are, read no further."""
        with file.open(newline="", encoding="utf-8") as lines:
            kept = list(itertools.islice((raw for raw, cells in _records(lines) if cells), rows + 1))
        return _closed(b"".join(kept)), max(len(kept) - 1, 0)


class Parquet(Form):
    """A table of columns with types; no lines."""

    name = "Parquet"

    def read(self, content: bytes) -> list[object]:
        """Its rows."""
        rows: list[object] = self._table(content).to_pylist()
        return rows

    def write(self, rows: Sequence[object], like: bytes) -> bytes:
        """The same columns with these rows."""
        schema = self._table(like).schema
        import pyarrow

        try:
            return self._encode(pyarrow.Table.from_pylist(list(rows), schema=schema))
        except (pyarrow.ArrowException, TypeError, OverflowError) as error:
            raise ValueError(str(error)) from error

    def fields(self, content: bytes) -> list[str]:
        """The columns."""
        return list(self._table(content).column_names)

    def drop_column(self, content: bytes, name: str) -> bytes:
        """The table without one of its columns."""
        return self._encode(self._table(content).drop_columns([name]))

    def cut(self, file: Path, rows: int) -> tuple[bytes, int]:
        """The first rows, read no further."""
        reader = _parquet().ParquetFile(file)
        import pyarrow

        batches = _first(reader.iter_batches(batch_size=rows), rows)
        table = pyarrow.Table.from_batches(batches, schema=reader.schema_arrow)
        return self._encode(table), int(table.num_rows)

    @staticmethod
    def _table(content: bytes) -> pyarrow.Table:
        return _parquet().read_table(io.BytesIO(content))

    @staticmethod
    def _encode(table: pyarrow.Table) -> bytes:
        out = io.BytesIO()
        _parquet().write_table(table, out)
        return out.getvalue()


class TorchFile(Form):
    """What torch saved: one example, or tensors of many, and nothing that has a name in every program."""

    name = ".pt"

    def read(self, content: bytes) -> list[object]:
        """Nothing that can be named."""
        raise NoRows("has no named fields")

    def write(self, rows: Sequence[object], like: bytes) -> bytes:
        """Nothing that can be named."""
        raise NoRows("has no named fields")


FORMS: dict[str, Form] = {
    **dict.fromkeys(suffixes.JSON_LINES, JsonLines()),
    suffixes.JSON: Json(),
    suffixes.CSV: Csv(),
    suffixes.PARQUET: Parquet(),
    **dict.fromkeys(suffixes.TENSOR_DATA, TorchFile()),
}


def form_of(file: Path) -> Form | None:
    """The form that a file's suffix says it has; None for one that is not known, and for a folder."""
    return None if file.is_dir() else FORMS.get(file.suffix)


def encode_json(value: object) -> bytes:
    """A value in one line of JSON, as UTF-8; a text with a lone surrogate, which UTF-8 has no place for, in escapes."""
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(value).encode()


def list_in(value: object) -> str | None:
    """The name of the list of rows in an object; None where the value is that list.

    Raises:
        NoRows: it is neither.
    """
    if isinstance(value, list):
        return None
    if not isinstance(value, dict):
        raise NoRows("holds no list of rows")
    for name, inner in value.items():
        if isinstance(inner, list):
            return str(name)
    raise NoRows("has no rows: there is no list in its object")


def _around(value: dict[str, object] | list[object], name: str | None) -> tuple[bytes, bytes]:
    """What stands before the rows and after them."""
    if isinstance(value, list) or name is None:
        return b"[", b"]"
    entries = [f"{json.dumps(key)}: {encode_json(inner).decode()}" for key, inner in value.items() if key != name]
    first = list(value).index(name)
    before, after = entries[:first], entries[first:]
    head = "{" + ", ".join([*before, f"{json.dumps(name)}: ["])
    return head.encode(), ", ".join(["]", *after]).encode() + b"}"


def _byte_order_mark(content: bytes) -> tuple[list[bytes], bytes]:
    """The mark as a piece, where there is one, and what follows it."""
    if content.startswith(BYTE_ORDER_MARK):
        return [BYTE_ORDER_MARK], content[len(BYTE_ORDER_MARK) :]
    return [], content


def _records(lines: Iterable[str]) -> Iterator[tuple[bytes, list[str]]]:
    """The records of a table: each as it stands in the file, and its cells; of a blank line none."""
    taken: list[str] = []

    def take() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield line

    try:
        for cells in csv.reader(take()):
            yield "".join(taken).encode(), cells
            taken.clear()
    except csv.Error as error:
        raise ValueError(str(error)) from error


def _cells(record: bytes) -> list[str]:
    return next(csv.reader(io.StringIO(record.decode(), newline="")), [])


def _record(cells: Sequence[object]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow(cells)
    return out.getvalue().removesuffix("\r\n").encode()


def _line_end(content: bytes) -> bytes:
    return b"\r\n" if content.partition(b"\n")[0].endswith(b"\r") else b"\n"


def _closed(content: bytes, end: bytes = b"\n") -> bytes:
    """The content, its last line ended."""
    return content if content.endswith(b"\n") or not content else content + end


def _first(batches: Iterator[pyarrow.RecordBatch], rows: int) -> Iterator[pyarrow.RecordBatch]:
    while rows > 0 and (batch := next(batches, None)) is not None:
        yield batch.slice(0, rows)
        rows -= batch.num_rows


def _parquet() -> ModuleType:
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ImportError("reading Parquet needs pytest-trainguard[parquet]") from error
