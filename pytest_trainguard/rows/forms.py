"""The forms that data comes in, as far as they can be tampered with: from a file's bytes to its new bytes.

JSONL, JSON (a list of rows, or an object with one such list), CSV, Parquet and `.pt` files. JSON comes back with one
row a line, so that a line number says which row it is.
"""

from __future__ import annotations

import csv
import io
import json
from typing import Any, NamedTuple

from pytest_trainguard.verdicts.errors import NotApplicable

NO_FIELDS = "its data has no named fields: this case is for rows of JSON, CSV and Parquet"


class Change(NamedTuple):
    """One file's new content."""

    did: str
    content: bytes
    line: int | None = None
    also: tuple[int, ...] = ()


class Form:
    """A form of data, as far as it can be tampered with: methods from a file's content to its new content.

    A form without named fields leaves all but the first two as they are.
    """

    def empty(self, content: bytes) -> list[Change]:
        """Every way of holding no rows."""
        return [Change("emptied {file} (0 bytes)", b"")]

    def malformed(self, content: bytes) -> list[Change]:
        """What a bad disk, a bad copy and a bad export make of a row."""
        half = len(content) // 2
        return [
            Change("cut {file} in half", content[:half]),
            Change(
                "overwrote the second half of {file} with NUL bytes",
                content[:half] + bytes(len(content) - half),
            ),
        ]

    def fields(self, content: bytes) -> list[str]:
        """The names that every row has.

        Raises:
            NotApplicable: rows have no names for their parts.
        """
        raise NotApplicable(NO_FIELDS)

    def without(self, content: bytes, field: str, *, everywhere: bool) -> Change:
        """A field taken out of the row in the middle, or of every row."""
        raise NotImplementedError

    def rows(self, content: bytes) -> list[Any]:
        """The rows as values; of a table as mappings from its columns' names.

        Raises:
            NotApplicable: rows have no names for their parts.
        """
        raise NotApplicable(NO_FIELDS)

    def put(self, content: bytes, new: dict[int, Any]) -> Change:
        """Some rows, by their numbers from 0, replaced; where it is one, the change tells its line.

        Raises:
            NotApplicable: the form has no place for such a value.
        """
        raise NotApplicable(NO_FIELDS)


class _Lines(Form):
    """JSONL."""

    def empty(self, content: bytes) -> list[Change]:
        return [*super().empty(content), Change("left only blank lines in {file}", b"\n\n   \n\n")]

    def malformed(self, content: bytes) -> list[Change]:
        lines, rows = self._split(content)
        middle, last = rows[len(rows) // 2], rows[-1]
        number, row = middle + 1, lines[middle]
        return [
            Change(
                f"took the first character off line {number} of {{file}}",
                _put(lines, middle, row[1:]),
                number,
            ),
            Change(
                f"overwrote line {number} of {{file}} with NUL bytes",
                _put(lines, middle, bytes(len(row))),
                number,
            ),
            Change(
                f"cut the last line of {{file}}, line {last + 1}, in half",
                b"\n".join([*lines[:last], lines[last][: len(lines[last]) // 2]]),
                last + 1,
            ),
        ]

    def fields(self, content: bytes) -> list[str]:
        return _common(self.rows(content))

    def without(self, content: bytes, field: str, *, everywhere: bool) -> Change:
        lines, rows = self._split(content)
        middle = rows[len(rows) // 2]
        for row in rows if everywhere else [middle]:
            lines[row] = _dumped(_less(json.loads(lines[row]), field))
        if everywhere:
            return Change(f"took the field {field!r} out of every row of {{file}}", b"\n".join(lines))
        return Change(f"took the field {field!r} out of line {middle + 1} of {{file}}", b"\n".join(lines), middle + 1)

    def rows(self, content: bytes) -> list[Any]:
        lines, rows = self._split(content)
        return [json.loads(lines[row]) for row in rows]

    def put(self, content: bytes, new: dict[int, Any]) -> Change:
        lines, rows = self._split(content)
        for number, row in new.items():
            lines[rows[number]] = _dumped(row)
        return Change("", b"\n".join(lines), _only([rows[number] + 1 for number in new]))

    @staticmethod
    def _split(content: bytes) -> tuple[list[bytes], list[int]]:
        """All lines, and which of them are rows."""
        lines = content.split(b"\n")
        return lines, [number for number, line in enumerate(lines) if line.strip()]


class _Json(Form):
    """JSON: a list of rows, or an object with a list of rows among its values. Rows begin on line 2."""

    def empty(self, content: bytes) -> list[Change]:
        head, _, tail = self._parts(content)
        return [*super().empty(content), Change("left no rows in {file}", head + tail)]

    def malformed(self, content: bytes) -> list[Change]:
        head, rows, tail = self._parts(content)
        middle = len(rows) // 2
        number = middle + 2
        changed = {
            f"took the first character off line {number} of {{file}}": rows[middle][1:],
            f"overwrote line {number} of {{file}} with NUL bytes": bytes(len(rows[middle])),
        }
        whole = self._joined(head, rows, tail)
        cut = whole[: len(whole) - len(tail) - len(rows[-1]) // 2 - 1]
        last = len(rows) + 1
        return [
            *(
                Change(did, self._joined(head, [*rows[:middle], row, *rows[middle + 1 :]], tail), number)
                for did, row in changed.items()
            ),
            Change(f"cut {{file}} off in the last row, line {last}", cut, last),
        ]

    def fields(self, content: bytes) -> list[str]:
        return _common(self.rows(content))

    def without(self, content: bytes, field: str, *, everywhere: bool) -> Change:
        head, rows, tail = self._parts(content)
        middle = len(rows) // 2
        for number in range(len(rows)) if everywhere else [middle]:
            rows[number] = _dumped(_less(json.loads(rows[number]), field))
        whole = self._joined(head, rows, tail)
        if everywhere:
            return Change(f"took the field {field!r} out of every row of {{file}}", whole)
        return Change(f"took the field {field!r} out of line {middle + 2} of {{file}}", whole, middle + 2)

    def rows(self, content: bytes) -> list[Any]:
        return [json.loads(row) for row in self._parts(content)[1]]

    def put(self, content: bytes, new: dict[int, Any]) -> Change:
        head, rows, tail = self._parts(content)
        for number, row in new.items():
            rows[number] = _dumped(row)
        return Change("", self._joined(head, rows, tail), _only([number + 2 for number in new]))

    @staticmethod
    def _parts(content: bytes) -> tuple[bytes, list[bytes], bytes]:
        """What stands before the rows, the rows, and what stands after them."""
        value = json.loads(content.decode("utf-8-sig"))
        if isinstance(value, list):
            return b"[", [_dumped(row) for row in value], b"]"
        name = next((name for name, inner in value.items() if isinstance(inner, list)), None)
        if name is None:
            raise NotApplicable(
                "its JSON holds no list of rows: a list, or an object with a list in it, can be tampered with"
            )
        others = "".join(
            f"{json.dumps(other)}: {json.dumps(inner)}, " for other, inner in value.items() if other != name
        )
        return f"{{{others}{json.dumps(name)}: [".encode(), [_dumped(row) for row in value[name]], b"]}"

    @staticmethod
    def _joined(head: bytes, rows: list[bytes], tail: bytes) -> bytes:
        return head + b"\n" + b",\n".join(rows) + b"\n" + tail


class _Csv(Form):
    """CSV, its first line the names. A table has a field in every row or in none: taken out is the column."""

    def empty(self, content: bytes) -> list[Change]:
        names = self._records(content)[0][1]
        return [*super().empty(content), Change("left only the line of names in {file}", names)]

    def malformed(self, content: bytes) -> list[Change]:
        records = self._records(content)
        middle = 1 + (len(records) - 1) // 2
        number, row, _ = records[middle]
        end = b"\r\n" if row.endswith(b"\r\n") else b"\n"
        # With line breaks in its cells a row ends on another line than it begins, and is yet another one by count.
        also = (number + row.rstrip(b"\r\n").count(b"\n"), middle + 1)
        before = b"".join(raw for _, raw, _ in records[:middle])
        after = b"".join(raw for _, raw, _ in records[middle + 1 :])
        surplus = before + row.rstrip(b"\r\n") + b",x" + end + after
        nulled = before + bytes(len(row)) + end + after
        changes = [
            Change(f"put a cell too many into line {number} of {{file}}", surplus, number, also),
            Change(f"overwrote line {number} of {{file}} with NUL bytes", nulled, number, also),
        ]
        last, row, cells = records[-1]
        if len(cells) > 1:  # in a lone cell a cut cannot be seen
            cut = b"".join(raw for _, raw, _ in records[:-1]) + _csv([cells[:1]], b"")
            did = f"cut the last line of {{file}}, line {last}, after its first cell"
            changes.append(Change(did, cut, last, (len(records),)))
        return changes

    def fields(self, content: bytes) -> list[str]:
        return self._records(content)[0][2]

    def without(self, content: bytes, field: str, *, everywhere: bool) -> Change:
        records = self._records(content)
        column = records[0][2].index(field)
        end = b"\r\n" if records[0][1].endswith(b"\r\n") else b"\n"
        kept = [cells[:column] + cells[column + 1 :] for _, _, cells in records]
        return Change(f"took the column {field!r} out of {{file}}", _csv(kept, end))

    def rows(self, content: bytes) -> list[Any]:
        (_, _, names), *records = self._records(content)
        return [dict(zip(names, cells, strict=False)) for _, _, cells in records]

    def put(self, content: bytes, new: dict[int, Any]) -> Change:
        (_, names, _), *records = self._records(content)
        end = b"\r\n" if names.endswith(b"\r\n") else b"\n"
        raws = [raw for _, raw, _ in records]
        for number, row in new.items():
            raws[number] = _csv([[str(cell) for cell in row.values()]], end)
        line = _only([records[number][0] for number in new])
        also = [(records[n][0] + raws[n].rstrip(b"\r\n").count(b"\n"), n + 2) for n in new] if line else []
        return Change("", names + b"".join(raws), line, also[0] if also else ())

    @staticmethod
    def _records(content: bytes) -> list[tuple[int, bytes, list[str]]]:
        """Each record's first line, counted from 1, its bytes, and its cells. A quoted cell may have line breaks."""
        lines = list(io.StringIO(content.decode("utf-8-sig"), newline=""))
        reader = csv.reader(lines)
        records, first = [], 0
        for cells in reader:
            if cells:
                records.append((first + 1, "".join(lines[first : reader.line_num]).encode(), cells))
            first = reader.line_num
        return records


class _Parquet(Form):
    """Parquet: no lines to name; a field is a column, as in CSV."""

    def empty(self, content: bytes) -> list[Change]:
        return [
            *super().empty(content),
            Change("left no rows in {file}", self._written(self._table(content).slice(0, 0))),
        ]

    def fields(self, content: bytes) -> list[str]:
        return list(self._table(content).column_names)

    def without(self, content: bytes, field: str, *, everywhere: bool) -> Change:
        table = self._table(content)
        kept = table.select([name for name in table.column_names if name != field])
        return Change(f"took the column {field!r} out of {{file}}", self._written(kept))

    def rows(self, content: bytes) -> list[Any]:
        found: list[Any] = self._table(content).to_pylist()
        return found

    def put(self, content: bytes, new: dict[int, Any]) -> Change:
        table = self._table(content)
        import pyarrow

        rows = [new.get(number, row) for number, row in enumerate(table.to_pylist())]
        try:
            made = pyarrow.Table.from_pylist(rows, schema=table.schema)
        except (pyarrow.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise NotApplicable(f"its Parquet columns have no place for such a value: {error}") from error
        return Change("", self._written(made))

    @staticmethod
    def _table(content: bytes) -> Any:
        try:
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise NotApplicable("tampering with Parquet needs pytest-trainguard[parquet]") from error
        return parquet.read_table(io.BytesIO(content))

    @staticmethod
    def _written(table: Any) -> bytes:
        import pyarrow.parquet as parquet

        out = io.BytesIO()
        parquet.write_table(table, out)
        return out.getvalue()


FORMS: dict[str, Form] = {
    ".jsonl": _Lines(), ".ndjson": _Lines(), ".json": _Json(), ".csv": _Csv(), ".parquet": _Parquet(),
    ".pt": Form(), ".pth": Form(),
}  # fmt: skip


def _put(lines: list[bytes], place: int, line: bytes) -> bytes:
    return b"\n".join([*lines[:place], line, *lines[place + 1 :]])


def _common(rows: list[Any]) -> list[str]:
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise NotApplicable("its rows are no JSON objects: this case is for rows of named fields")
    return [name for name in rows[0] if all(name in row for row in rows)]


def _less(row: dict[str, Any], field: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != field}


def _dumped(row: Any) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _csv(rows: list[list[str]], end: bytes) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator=end.decode()).writerows(rows)
    return out.getvalue().encode()


def _only(lines: list[int]) -> int | None:
    return lines[0] if len(lines) == 1 else None
