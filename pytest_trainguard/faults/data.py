"""Tampering with a piece of data: emptied, malformed, a field taken out; in the form that the data has.

Each function writes its variants under a folder and leaves the data itself alone. A file keeps its name. What is to be
named afterwards stands on the variant: the file, and where the form has them the line and the field.

Forms: JSONL, JSON (a list of rows, or an object with one such list), CSV, Parquet, `.pt` files, and folders of these.
JSON comes back with one row a line, so that a line number says which row it is.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pytest_trainguard import expect
from pytest_trainguard.expect import Named, NotApplicable

KNOWN = "JSONL, JSON, CSV and Parquet files, .pt files, and folders of these"


class Tampered(NamedTuple):
    """One variant.

    Attributes:
        did: what was done, in words.
        path: what to train on.
        file: the file that was tampered with: `path` itself, or one in that folder.
        line: the line of the file, counted from 1; None where there is none to name.
        field: the field that is missing, or None.
        also: other numbers that a program may rightly give that line.
    """

    did: str
    path: Path
    file: Path
    line: int | None = None
    field: str | None = None
    also: tuple[int, ...] = ()

    @property
    def naming(self) -> tuple[Named, ...]:
        """What a good message names."""
        named: list[Named] = [self.file.name]
        if self.line is not None:
            named.append(expect.line(self.line, self.file.name, *self.also))
        if self.field is not None:
            named.append(expect.word(self.field))
        return tuple(named)


class _Change(NamedTuple):
    """One file's new content."""

    did: str
    content: bytes
    line: int | None = None
    also: tuple[int, ...] = ()


class _Form:
    """A form of data, as far as it can be tampered with: methods from a file's content to its new content.

    A form without named fields leaves the last two as they are.
    """

    def empty(self, content: bytes) -> list[_Change]:
        """Every way of holding no rows."""
        return [_Change("emptied {file} (0 bytes)", b"")]

    def malformed(self, content: bytes) -> list[_Change]:
        """What a bad disk, a bad copy and a bad export make of a row."""
        half = len(content) // 2
        return [
            _Change("cut {file} in half", content[:half]),
            _Change(
                "overwrote the second half of {file} with NUL bytes",
                content[:half] + bytes(len(content) - half),
            ),
        ]

    def fields(self, content: bytes) -> list[str]:
        """The names that every row has.

        Raises:
            NotApplicable: rows have no names for their parts.
        """
        raise NotApplicable("its data has no named fields: this case is for rows of JSON, CSV and Parquet")

    def without(self, content: bytes, field: str, *, everywhere: bool) -> _Change:
        """A field taken out of the row in the middle, or of every row."""
        raise NotImplementedError


class _Lines(_Form):
    """JSONL."""

    def empty(self, content: bytes) -> list[_Change]:
        return [*super().empty(content), _Change("left only blank lines in {file}", b"\n\n   \n\n")]

    def malformed(self, content: bytes) -> list[_Change]:
        lines, rows = self._split(content)
        middle, last = rows[len(rows) // 2], rows[-1]
        number, row = middle + 1, lines[middle]
        return [
            _Change(
                f"took the first character off line {number} of {{file}}",
                _put(lines, middle, row[1:]),
                number,
            ),
            _Change(
                f"overwrote line {number} of {{file}} with NUL bytes",
                _put(lines, middle, bytes(len(row))),
                number,
            ),
            _Change(
                f"cut the last line of {{file}}, line {last + 1}, in half",
                b"\n".join([*lines[:last], lines[last][: len(lines[last]) // 2]]),
                last + 1,
            ),
        ]

    def fields(self, content: bytes) -> list[str]:
        lines, rows = self._split(content)
        return _common([json.loads(lines[row]) for row in rows])

    def without(self, content: bytes, field: str, *, everywhere: bool) -> _Change:
        lines, rows = self._split(content)
        middle = rows[len(rows) // 2]
        for row in rows if everywhere else [middle]:
            lines[row] = _dumped(_less(json.loads(lines[row]), field))
        if everywhere:
            return _Change(f"took the field {field!r} out of every row of {{file}}", b"\n".join(lines))
        return _Change(f"took the field {field!r} out of line {middle + 1} of {{file}}", b"\n".join(lines), middle + 1)

    @staticmethod
    def _split(content: bytes) -> tuple[list[bytes], list[int]]:
        """All lines, and which of them are rows."""
        lines = content.split(b"\n")
        return lines, [number for number, line in enumerate(lines) if line.strip()]


class _Json(_Form):
    """JSON: a list of rows, or an object with a list of rows among its values. Rows begin on line 2."""

    def empty(self, content: bytes) -> list[_Change]:
        head, _, tail = self._parts(content)
        return [*super().empty(content), _Change("left no rows in {file}", head + tail)]

    def malformed(self, content: bytes) -> list[_Change]:
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
                _Change(did, self._joined(head, [*rows[:middle], row, *rows[middle + 1 :]], tail), number)
                for did, row in changed.items()
            ),
            _Change(f"cut {{file}} off in the last row, line {last}", cut, last),
        ]

    def fields(self, content: bytes) -> list[str]:
        return _common([json.loads(row) for row in self._parts(content)[1]])

    def without(self, content: bytes, field: str, *, everywhere: bool) -> _Change:
        head, rows, tail = self._parts(content)
        middle = len(rows) // 2
        for number in range(len(rows)) if everywhere else [middle]:
            rows[number] = _dumped(_less(json.loads(rows[number]), field))
        whole = self._joined(head, rows, tail)
        if everywhere:
            return _Change(f"took the field {field!r} out of every row of {{file}}", whole)
        return _Change(f"took the field {field!r} out of line {middle + 2} of {{file}}", whole, middle + 2)

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


class _Csv(_Form):
    """CSV, its first line the names. A table has a field in every row or in none: taken out is the column."""

    def empty(self, content: bytes) -> list[_Change]:
        names = self._records(content)[0][1]
        return [*super().empty(content), _Change("left only the line of names in {file}", names)]

    def malformed(self, content: bytes) -> list[_Change]:
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
            _Change(f"put a cell too many into line {number} of {{file}}", surplus, number, also),
            _Change(f"overwrote line {number} of {{file}} with NUL bytes", nulled, number, also),
        ]
        last, row, cells = records[-1]
        if len(cells) > 1:  # in a lone cell a cut cannot be seen
            cut = b"".join(raw for _, raw, _ in records[:-1]) + _csv([cells[:1]], b"")
            did = f"cut the last line of {{file}}, line {last}, after its first cell"
            changes.append(_Change(did, cut, last, (len(records),)))
        return changes

    def fields(self, content: bytes) -> list[str]:
        return self._records(content)[0][2]

    def without(self, content: bytes, field: str, *, everywhere: bool) -> _Change:
        records = self._records(content)
        column = records[0][2].index(field)
        end = b"\r\n" if records[0][1].endswith(b"\r\n") else b"\n"
        kept = [cells[:column] + cells[column + 1 :] for _, _, cells in records]
        return _Change(f"took the column {field!r} out of {{file}}", _csv(kept, end))

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


class _Parquet(_Form):
    """Parquet: no lines to name; a field is a column, as in CSV."""

    def empty(self, content: bytes) -> list[_Change]:
        return [
            *super().empty(content),
            _Change("left no rows in {file}", self._written(self._table(content).slice(0, 0))),
        ]

    def fields(self, content: bytes) -> list[str]:
        return list(self._table(content).column_names)

    def without(self, content: bytes, field: str, *, everywhere: bool) -> _Change:
        table = self._table(content)
        kept = table.select([name for name in table.column_names if name != field])
        return _Change(f"took the column {field!r} out of {{file}}", self._written(kept))

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


FORMS: dict[str, _Form] = {
    ".jsonl": _Lines(), ".ndjson": _Lines(), ".json": _Json(), ".csv": _Csv(), ".parquet": _Parquet(),
    ".pt": _Form(), ".pth": _Form(),
}  # fmt: skip


def empty(data: Path, folder: Path) -> list[Tampered]:
    """No rows: zero bytes, blank lines only, a table or list without rows; of a folder every file, and the bare folder.

    Raises:
        NotApplicable: the data is of a form that is not known.
    """
    file = _file(data)
    if not data.is_dir():
        return [_changed(data, folder, [file], change) for change in _form(file).empty(file.read_bytes())]
    bare = folder / "bare" / data.name
    bare.mkdir(parents=True)
    variants = [Tampered(f"took every file out of the folder {data.name}", bare, bare)]
    if file.suffix not in (".pt", ".pth"):
        alike = _alike(data, file)
        for nth in range(len(_form(file).empty(file.read_bytes()))):
            variants.append(_changed(data, folder, alike, partial(_nth_empty, _form(file), nth)))
    return variants


def malformed(data: Path, folder: Path) -> list[Tampered]:
    """A row that cannot be read: bad syntax in the middle, a cut end, NUL bytes; of a folder in one file.

    Where a form has no lines (Parquet, `.pt`), the file alone is to be named.

    Raises:
        NotApplicable: the data is of a form that is not known.
    """
    file = _file(data)
    changes = _form(file).malformed(file.read_bytes())
    return [_changed(data, folder, [file], change) for change in changes]


def fields(data: Path) -> list[str]:
    """The fields that every row has; one that some rows lack is optional, by the data's own witness.

    Raises:
        NotApplicable: the data is of a form that is not known, or its rows have no named fields.
    """
    file = _file(data)
    found = _form(file).fields(file.read_bytes())
    if not found:
        raise NotApplicable("its rows have no field in common: this case is for rows of named fields")
    return found


def without(data: Path, folder: Path, field: str, *, everywhere: bool = False) -> Tampered:
    """One field taken out of one row, in the middle; or out of every row. Of a table the column is taken."""
    file = _file(data)
    files = _alike(data, file) if everywhere else [file]
    changed = _changed(data, folder, files, lambda content: _form(file).without(content, field, everywhere=everywhere))
    return changed._replace(field=field)


def _changed(data: Path, folder: Path, files: list[Path], change: _Change | Callable[[bytes], _Change]) -> Tampered:
    """A copy of the data under `folder`, some of its files changed."""
    place = folder / f"tampered-{len(list(folder.iterdir())) + 1 if folder.exists() else 1}"
    path = place / data.name
    place.mkdir(parents=True)
    shutil.copytree(data, path) if data.is_dir() else shutil.copy(data, path)
    targets = [path / file.relative_to(data) for file in files] if data.is_dir() else [path]
    for target in targets:
        made = change if isinstance(change, _Change) else change(target.read_bytes())
        target.write_bytes(made.content)
    name = targets[0].name if len(targets) == 1 else f"each of {len(targets)} files"
    return Tampered(made.did.format(file=name), path, targets[0], made.line, also=made.also)


def _nth_empty(form: _Form, nth: int, content: bytes) -> _Change:
    return form.empty(content)[nth]


def _alike(data: Path, file: Path) -> list[Path]:
    """The files of a data folder that are of one file's form; that file alone where the data is a file."""
    return [path for path in _files(data) if path.suffix == file.suffix] if data.is_dir() else [file]


def _files(data: Path) -> list[Path]:
    return sorted(path for path in data.iterdir() if path.is_file() and path.suffix in FORMS)


def _file(data: Path) -> Path:
    """The file to tamper with: the data itself, or the one in the middle of a folder."""
    if not data.is_dir():
        return data
    found = _files(data)
    tables = [path for path in found if path.suffix not in (".pt", ".pth")] or found
    if not tables:
        raise NotApplicable(f"its data folder holds no file that can be tampered with; known are {KNOWN}")
    return tables[len(tables) // 2]


def _form(file: Path) -> _Form:
    if file.suffix not in FORMS:
        kind = f"a {file.suffix} file" if file.suffix else "a file without a suffix"
        raise NotApplicable(f"its data is {kind}, and this case knows {KNOWN}")
    return FORMS[file.suffix]


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
