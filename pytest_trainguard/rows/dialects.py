"""The dialect of a table in text: what stands between its cells, how they are quoted, how its lines end."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

__all__ = ["LOOKED_AT", "Dialect", "find_dialect"]

DELIMITERS = (",", ";", "\t", "|")
LOOKED_AT = 1 << 20  # characters at the beginning of a table that its dialect is told from
RECORDS = 1000  # so many of them at most


@dataclass(frozen=True)
class Dialect:
    r"""How the cells of a table stand in its text.

    Attributes:
        delimiter: what stands between two cells.
        quotes: a cell may stand in double quotes; without them it has neither delimiters nor line breaks.
        escaped: a quote in a cell has a backslash before it (`\"`), where others double it (`""`).
        spaced: after each delimiter stands a blank that is not the cell's.
        always: of each column whether all its cells are quoted, those too that need not be.
        end: of a line.
    """

    delimiter: str = ","
    quotes: bool = True
    escaped: bool = False
    spaced: bool = False
    always: tuple[bool, ...] = ()
    end: str = "\n"

    def records(self, lines: Iterable[str], *, strict: bool = False) -> Iterator[tuple[str, list[str]]]:
        """The records of a table: each as it stands in the file, and its cells; of a blank line none.

        Raises:
            ValueError: it cannot be read; if `strict`, also where a closed quote is followed by more text.
        """
        taken: list[str] = []

        def take() -> Iterator[str]:
            for line in lines:
                taken.append(line)
                yield line

        reader = csv.reader(
            take(), delimiter=self.delimiter, strict=strict, skipinitialspace=self.spaced,
            quoting=csv.QUOTE_MINIMAL if self.quotes else csv.QUOTE_NONE, doublequote=not self.escaped,
            escapechar="\\" if self.escaped else None,
        )  # fmt: skip
        try:
            for cells in reader:
                yield "".join(taken), cells
                taken.clear()
        except csv.Error as error:
            raise ValueError(str(error)) from error

    def cells(self, record: str) -> list[str]:
        """The cells of one record."""
        return next((cells for _, cells in self.records(io.StringIO(record, newline=""))), [])

    def raw_cells(self, record: str) -> list[str]:
        """The cells of one record as they stand in the file, quotes included."""
        delimiter, found, place = re.escape(self.delimiter), [], 0
        quoted = r'"[^"\\]*(?:\\.[^"\\]*)*"' if self.escaped else r'"[^"]*(?:""[^"]*)*"'
        before = (" *" if self.spaced else "") + (f"(?:{quoted})?" if self.quotes else "")
        cell = re.compile(rf"({before}[^{delimiter}]*)({delimiter}|\Z)", re.S)
        while match := cell.match(record, place):
            found.append(match[1])
            place = match.end()
            if not match[2]:
                break
        return found

    def record(self, cells: Sequence[object]) -> str:
        """Cells as a record, without an end of the line.

        Where cells are not quoted, a blank takes the place of what they have no place for.
        """
        shown = ["" if cell is None else str(cell) for cell in cells]
        if not self.quotes:
            return self.delimiter.join(re.sub(rf"[\r\n{re.escape(self.delimiter)}]", " ", cell) for cell in shown)
        written = [self._quoted(cell) if self._is_quoted(cell, nth) else cell for nth, cell in enumerate(shown)]
        if written == [""]:  # alone, it would be a blank line
            return '""'
        return (self.delimiter + " " * self.spaced).join(written)

    def _is_quoted(self, cell: str, column: int) -> bool:
        special = {self.delimiter, '"', "\r", "\n", *("\\" * self.escaped)}
        begins_blank = self.spaced and cell.startswith(" ")
        return bool(special & set(cell)) or begins_blank or self.always[column : column + 1] == (True,)

    def _quoted(self, cell: str) -> str:
        if self.escaped:
            return '"' + cell.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return '"' + cell.replace('"', '""') + '"'


def find_dialect(text: str, usual: str) -> Dialect:
    """The dialect of a table.

    It is the first in which all records have as many cells as there are names, and more than one; where there is none,
    the delimiter is the one that parts most names.

    Args:
        text: its beginning, without a byte order mark.
        usual: the delimiter that is tried first, and taken where none parts anything.
    """
    text = text[:LOOKED_AT]
    delimiters = sorted(DELIMITERS, key=lambda delimiter: delimiter != usual)
    ways = [
        Dialect(delimiter, quotes, escaped)
        for quotes, escaped in ((True, False), (True, True), (False, False))
        for delimiter in delimiters
    ]
    found = next((way for way in ways if _is_even(_first_records(way, text))), None)
    if found is None:
        head = text.partition("\n")[0]
        found = max(ways[: len(delimiters)], key=lambda way: len(way.cells(head)))
    return _with_details(found, text)


def _first_records(dialect: Dialect, text: str) -> list[tuple[str, list[str]]]:
    """The first records that are whole; none where the dialect does not fit them."""
    source, found = io.StringIO(text, newline=""), []
    try:
        for record in islice(dialect.records(source, strict=True), RECORDS):
            found.append(record)
    except ValueError:
        if len(text) < LOOKED_AT or source.tell() < len(text):
            return []
    if len(text) == LOOKED_AT == source.tell():  # the last one goes on behind what is looked at
        del found[-1:]
    return [(raw, cells) for raw, cells in found if cells]


def _is_even(records: list[tuple[str, list[str]]]) -> bool:
    return len({len(cells) for _, cells in records}) == 1 and len(records[0][1]) > 1


def _with_details(dialect: Dialect, text: str) -> Dialect:
    """The same with what shows in its records: blanks after delimiters, columns that are always quoted, line ends."""
    first = re.search(r"\r\n|\n|\r", text)
    dialect = replace(dialect, end=first[0] if first else "\n")
    later = [cell for _, cells in _first_records(dialect, text) for cell in cells[1:]]
    if later and all(cell.startswith(" ") for cell in later):
        dialect = replace(dialect, spaced=True)
    records = [dialect.raw_cells(raw.rstrip("\r\n")) for raw, _ in _first_records(dialect, text)]
    if dialect.delimiter == "\t" and not any(_is_raw_quoted(cell) for cells in records for cell in cells):
        return replace(dialect, quotes=False)  # readers of such a table may well know no quotes
    columns = zip(*records[1:], strict=False)
    return replace(dialect, always=tuple(all(_is_raw_quoted(cell) for cell in column) for column in columns))


def _is_raw_quoted(cell: str) -> bool:
    return len(cell.strip()) > 1 and cell.strip().startswith('"') and cell.strip().endswith('"')
