"""What a form of rows is: content in bytes, the rows in it, and, of text, the pieces that it is joined from."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from pytest_trainguard.rows.dialects import Dialect

__all__ = ["CutOnly", "Document", "Form", "NoRows", "Row", "TextForm", "decode_json", "encode_json", "split_mark"]

Row = dict[str, object]
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
DEEPEST = 100  # levels of a row that is looked into; Python itself gives up at some hundreds


class NoRows(ValueError):
    """The file holds no rows, or none that have named fields; its text goes on from what the file is called."""


class Form(ABC):
    """A form that rows come in.

    Attributes:
        name: what it is called.
        text: its content is text in UTF-8.
        streamed: it is read from its beginning, so that a file of it may be packed (`packing`).
        counted: one row of it is what a program counts as one; of a stream of tokens nobody can say.
    """

    name: str
    text: ClassVar[bool] = False
    streamed: ClassVar[bool] = False
    counted: ClassVar[bool] = True

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
        """The first rows of a file as content of its own, and how many they are. Raises as `read`, and OSError."""
        content = file.read_bytes()
        kept = self.read(content)[:rows]
        return self.write(kept, content), len(kept)


class CutOnly(Form):
    """A form whose rows are not looked into: a file of it is cut, and that is all."""

    def read(self, content: bytes) -> list[object]:
        """Nothing that can be named."""
        raise NoRows(f"is {self.name}, whose rows are not looked into")

    def write(self, rows: Sequence[object], like: bytes) -> bytes:
        """Nothing that can be named."""
        raise NoRows(f"is {self.name}, whose rows are not looked into")

    @abstractmethod
    def cut(self, file: Path, rows: int) -> tuple[bytes, int]:
        """As every form does."""


@dataclass
class Document:
    """A file of text, taken apart.

    Attributes:
        pieces: joined, they are the file.
        places: of the rows among the pieces.
        names: of a table's columns; none elsewhere.
        dialect: of a table: how its cells are told apart.
        list_name: of JSON: the entry that the rows are a list in, where there is one.
    """

    pieces: list[bytes]
    places: list[int]
    names: tuple[str, ...] = ()
    dialect: Dialect = field(default_factory=Dialect)
    list_name: str | None = None

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

    text = True

    @abstractmethod
    def split(self, content: bytes) -> Document:
        """A file taken apart. Raises as `read`; rows are not looked into."""

    @abstractmethod
    def decode(self, row: bytes, document: Document) -> object:
        """A row's value, from its piece of a document."""

    @abstractmethod
    def encode(self, row: object, document: Document) -> bytes:
        """A row's piece of a document, without an end of the line."""

    def read(self, content: bytes) -> list[object]:
        """The rows; see `Form`."""
        document = self.split(content)
        rows = [self.decode(document.row(number), document) for number in range(len(document.places))]
        if any(is_deep(row) for row in rows):
            raise NoRows(f"has rows that are nested over {DEEPEST} levels deep")
        return rows


def decode_json(text: str | bytes) -> object:
    """The value of a text in JSON.

    Raises:
        ValueError: it is none, or is nested deeper than Python reads.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("its values are nested too deep for Python's reader of JSON") from None


def encode_json(value: object) -> bytes:
    """A value in one line of JSON, as UTF-8; a text with a lone surrogate, which UTF-8 has no place for, in escapes.

    Raises:
        ValueError: it is nested deeper than Python writes.
    """
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(value).encode()
    except RecursionError:
        raise ValueError("its values are nested too deep for Python's writer of JSON") from None


def is_deep(value: object) -> bool:
    """Whether a value has more levels of lists and objects than are looked into."""
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return False
    return True


def _inside(value: object) -> Sequence[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else ()


def split_mark(content: bytes) -> tuple[list[bytes], bytes]:
    """The byte order mark as a piece, where there is one, and what follows it."""
    if content.startswith(BYTE_ORDER_MARK):
        return [BYTE_ORDER_MARK], content[len(BYTE_ORDER_MARK) :]
    return [], content
