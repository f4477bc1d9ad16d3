"""How one file of data is changed, in the form that it has: from its bytes to its new bytes, and what was done.

JSON comes back with one row a line, so that a line number says which row it is.
"""

from __future__ import annotations

from typing import NamedTuple

from pytest_trainguard.rows.codec import (
    Csv,
    CutOnly,
    Document,
    Form,
    Json,
    JsonColumns,
    JsonLines,
    NoRows,
    Parquet,
    TextForm,
    TorchFile,
    encode_json,
)
from pytest_trainguard.verdicts.errors import NotApplicable

__all__ = ["Change", "corrupt_rows", "drop_field", "empty_rows", "replace_rows"]


class Change(NamedTuple):
    """One file's new content.

    Attributes:
        did: what was done, in words; `{file}` stands for the file's name.
        content: the new bytes.
        line: the line that was changed, counted from 1; None where there is none to name, or several.
        also: other numbers that a program may rightly give that line.
        list_name: the list that the row is in, where it has a name.
        spare: every value of the row is still there, with one too many after them.
    """

    did: str
    content: bytes
    line: int | None = None
    also: tuple[int, ...] = ()
    list_name: str | None = None
    spare: bool = False


def empty_rows(form: Form, content: bytes) -> list[Change]:
    """Every way of holding no rows: zero bytes first."""
    changes = [Change("emptied {file} (0 bytes)", b"")]
    if isinstance(form, JsonLines):
        changes.append(Change("left only blank lines in {file}", b"\n\n   \n\n"))
    elif isinstance(form, Csv):
        changes.append(Change("left only the line of names in {file}", form.write([], content)))
    elif not isinstance(form, TorchFile | CutOnly):
        changes.append(Change("left no rows in {file}", form.write([], content)))
    return changes


def corrupt_rows(form: Form, content: bytes) -> list[Change]:
    """What a bad disk, a bad copy and a bad export make of a row; of a form without lines the whole file.

    Raises:
        NoRows: its rows are not looked into, so that nobody can say what a malformed one is.
    """
    if isinstance(form, CutOnly):
        form.read(content)
    if isinstance(form, Csv):
        return _corrupt_table(form, content)
    return _corrupt_json(form, content) if isinstance(form, TextForm) else _corrupt_bytes(content)


def _corrupt_bytes(content: bytes) -> list[Change]:
    half = len(content) // 2
    nulled = content[:half] + bytes(len(content) - half)
    return [
        Change("cut {file} in half", content[:half]),
        Change("overwrote the second half of {file} with NUL bytes", nulled),
    ]


def _corrupt_json(form: TextForm, content: bytes) -> list[Change]:
    document = form.split(content)
    middle, last = len(document.places) // 2, len(document.places) - 1
    row, line, last_line = document.row(middle), document.line(middle), document.line(last)
    named = document.list_name
    cut = document.before(last) + document.row(last)[: len(document.row(last)) // 2]
    beheaded = _with_row(form, content, middle, row[1:])
    cut_off = f"cut {{file}} off in the last row, line {last_line}"
    if isinstance(form, JsonLines):
        cut_off = f"cut the last line of {{file}}, line {last_line}, in half"
    return [
        Change(
            f"took the first character off line {line} of {{file}}",
            beheaded,
            line,
            _other_numbers(form, document, middle),
            named,
        ),
        _overwrite_row(form, content, middle),
        Change(cut_off, cut, last_line, _other_numbers(form, document, last), named),
    ]


def _corrupt_table(form: Csv, content: bytes) -> list[Change]:
    document = form.split(content)
    middle, last = len(document.places) // 2, len(document.places) - 1
    line, also = document.line(middle), _other_numbers(form, document, middle)
    surplus = _with_row(form, content, middle, document.row(middle) + f"{document.dialect.delimiter}x".encode())
    changes = [
        Change(f"put a cell too many into line {line} of {{file}}", surplus, line, also, spare=True),
        _overwrite_row(form, content, middle),
    ]
    if len(document.names) > 1:  # in a lone cell a cut cannot be seen
        first = document.dialect.raw_cells(document.row(last).decode())[0].encode()
        did = f"cut the last line of {{file}}, line {document.line(last)}, after its first cell"
        changes.append(
            Change(did, document.before(last) + first, document.line(last), _other_numbers(form, document, last))
        )
    return changes


def _overwrite_row(form: TextForm, content: bytes, number: int) -> Change:
    document = form.split(content)
    did = f"overwrote line {document.line(number)} of {{file}} with NUL bytes"
    nulled = _with_row(form, content, number, bytes(len(document.row(number))))
    return Change(did, nulled, document.line(number), _other_numbers(form, document, number), document.list_name)


def _with_row(form: TextForm, content: bytes, number: int, row: bytes) -> bytes:
    document = form.split(content)
    document.put(number, row)
    return document.join()


def _other_numbers(form: TextForm, document: Document, number: int) -> tuple[int, ...]:
    """What else a program may rightly call a row's line.

    In a table a row with line breaks in its cells ends on another line than it begins, and is yet another one by count.
    JSON is read as a whole, and its lines are of this package's making: there a row is known by its count, from 0 or 1.
    """
    if isinstance(form, Csv):
        return document.line(number) + document.row(number).count(b"\n"), number + 2
    return (number, number + 1) if isinstance(form, Json) else ()


def drop_field(form: Form, content: bytes, field: str, *, everywhere: bool) -> Change:
    """A field taken out of the row in the middle, or of every row; of a table the column is taken.

    Raises:
        NotApplicable: rows have no names for their parts.
    """
    if isinstance(form, Csv | Parquet | JsonColumns):
        return Change(f"took the column {field!r} out of {{file}}", form.drop_column(content, field))
    if not isinstance(form, TextForm):
        raise NotApplicable("its data has no named fields: this case is for rows of JSON, CSV and Parquet")
    document = form.split(content)
    middle = len(document.places) // 2
    for number in range(len(document.places)) if everywhere else [middle]:
        row = form.decode(document.row(number), document)
        assert isinstance(row, dict)
        document.put(number, encode_json({name: value for name, value in row.items() if name != field}))
    if everywhere:
        return Change(f"took the field {field!r} out of every row of {{file}}", document.join())
    line, also = document.line(middle), _other_numbers(form, document, middle)
    did = f"took the field {field!r} out of line {line} of {{file}}"
    return Change(did, document.join(), line, also, document.list_name)


def replace_rows(form: Form, content: bytes, new: dict[int, object]) -> Change:
    """Some rows replaced, by their numbers from 0; where it is one, the change tells its line. `did` is left empty.

    Raises:
        NotApplicable: the form has no place for such a value.
    """
    if not isinstance(form, TextForm):
        return Change("", _replace_all(form, content, new))
    document = form.split(content)
    for number, row in new.items():
        document.put(number, form.encode(row, document))
    (only, *others) = new
    if others:
        return Change("", document.join())
    return Change("", document.join(), document.line(only), _other_numbers(form, document, only), document.list_name)


def _replace_all(form: Form, content: bytes, new: dict[int, object]) -> bytes:
    rows = [new.get(number, row) for number, row in enumerate(form.read(content))]
    try:
        return form.write(rows, content)
    except NoRows:
        raise
    except ValueError as error:
        raise NotApplicable(f"its {form.name} columns have no place for such a value: {error}") from error
