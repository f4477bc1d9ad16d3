"""Tables: text in the dialect that it has (CSV, TSV), and Parquet."""

from __future__ import annotations

import importlib
import io
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from pytest_trainguard.rows.dialects import LOOKED_AT, find_dialect
from pytest_trainguard.rows.forms import Document, Form, TextForm, split_mark
from pytest_trainguard.rows.packing import open_content

if TYPE_CHECKING:
    import pyarrow

__all__ = ["Csv", "Parquet"]


class Csv(TextForm):
    """A table, its first line the names. Cells are text; a quoted one may have line breaks. Blank lines are no rows.

    Attributes:
        usual: the delimiter that its suffix promises; what is in the file decides.
    """

    name = "CSV"
    streamed = True

    def __init__(self, usual: str = ","):
        self.usual = usual

    def split(self, content: bytes) -> Document:
        """Records, of which the first is the names, and blank lines."""
        mark, content = split_mark(content)
        text = content.decode()
        dialect = find_dialect(text, self.usual)
        pieces, places = list(mark), []
        names: tuple[str, ...] = ()
        for raw, cells in dialect.records(io.StringIO(text, newline="")):
            if names and cells:
                places.append(len(pieces))
            names = names or tuple(cells)
            pieces.append(raw.encode())
        return Document(pieces, places, names, dialect)

    def decode(self, row: bytes, document: Document) -> object:
        """Its cells by their columns' names."""
        return dict(zip(document.names, document.dialect.cells(row.decode()), strict=False))

    def encode(self, row: object, document: Document) -> bytes:
        """Its cells in the order of the columns."""
        assert isinstance(row, dict)
        return document.dialect.record([row[name] for name in document.names if name in row]).encode()

    def write(self, rows: Sequence[object], like: bytes) -> bytes:
        """The names and these rows, in the same dialect."""
        document = self.split(like)
        end = document.dialect.end.encode()
        head = document.before(0) if document.places else document.join()
        return b"".join([_closed(head, end), *(self.encode(row, document) + end for row in rows)])

    def fields(self, content: bytes) -> list[str]:
        """The columns."""
        return list(self.split(content).names)

    def drop_column(self, content: bytes, name: str) -> bytes:
        """The table without one of its columns; all other cells stand as they did."""
        mark, content = split_mark(content)
        text = content.decode()
        dialect = find_dialect(text, self.usual)
        records = [(raw, cells) for raw, cells in dialect.records(io.StringIO(text, newline="")) if cells]
        column = records[0][1].index(name)
        rows = [dialect.raw_cells(raw.rstrip("\r\n")) for raw, _ in records]
        lines = [dialect.delimiter.join([*cells[:column], *cells[column + 1 :]]) for cells in rows]
        return b"".join([*mark, *(f"{line}{dialect.end}".encode() for line in lines)])

    def cut(self, file: Path, rows: int) -> tuple[bytes, int]:
        """The names and the first records as they are, read no further."""
        with open_content(file) as content:
            mark, _ = split_mark(content.read(3))
        with open_content(file) as content, io.TextIOWrapper(content, "utf-8", newline="") as text:
            text.read(len(mark))
            beginning = text.read(LOOKED_AT)
            dialect = find_dialect(beginning, self.usual)
            lines = itertools.chain(_whole_lines(beginning, text), text)
            kept = list(itertools.islice((raw for raw, cells in dialect.records(lines) if cells), rows + 1))
        return b"".join([*mark, _closed("".join(kept).encode(), dialect.end.encode())]), max(len(kept) - 1, 0)


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
        """The first rows, of as many groups as they take, read no further."""
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


def _whole_lines(beginning: str, text: io.TextIOWrapper) -> Iterator[str]:
    """The lines of what has been read of a file; the last of them is read to its end."""
    lines = list(io.StringIO(beginning, newline=""))
    yield from lines[:-1]
    if lines:
        yield lines[-1] if lines[-1].endswith("\n") else lines[-1] + text.readline()


def _closed(content: bytes, end: bytes) -> bytes:
    """The content, its last line ended."""
    return content if content.endswith((b"\n", end)) or not content else content + end


def _first(batches: Iterator[pyarrow.RecordBatch], rows: int) -> Iterator[pyarrow.RecordBatch]:
    while rows > 0 and (batch := next(batches, None)) is not None:
        yield batch.slice(0, rows)
        rows -= batch.num_rows


def _parquet() -> ModuleType:
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ImportError("reading Parquet needs pytest-trainguard[parquet]") from error
