"""Copies of a team's data, broken in the form that it has: emptied, malformed, a field taken out, rows replaced.

Each function writes its variants under a folder and leaves the data itself alone. A file keeps its name. What is to be
named afterwards stands on the variant: the file, and where the form has them the line and the field.

The forms are those of `rows.codec`, and folders of such files.
"""

from __future__ import annotations

import codecs
import json
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pytest_trainguard.damage import form_changes
from pytest_trainguard.damage.form_changes import Change
from pytest_trainguard.rows.codec import (
    Csv,
    Form,
    Json,
    JsonColumns,
    JsonLines,
    NoRows,
    Parquet,
    TorchFile,
    form_of,
    is_packed,
    read_content,
    write_content,
)
from pytest_trainguard.rows.folders import is_saved_dataset, look_into
from pytest_trainguard.verdicts import wording
from pytest_trainguard.verdicts.errors import NotApplicable
from pytest_trainguard.verdicts.wording import Named, Wording

__all__ = [
    "Tampered", "add_byte_order_mark", "can_hold_broken_text", "corrupt_row", "counts_rows", "damage_one_file",
    "drop_field", "drop_rows", "empty_data", "escape_text", "field_names", "grow_file", "holds_cells", "read_rows",
    "repeat_rows", "replace_rows",
]  # fmt: skip

KNOWN = "JSONL, JSON, CSV, TSV and Parquet files, .pt files, and folders of these"


class Tampered(NamedTuple):
    """One variant.

    Attributes:
        did: what was done, in words.
        path: what to train on.
        file: the file that was tampered with: `path` itself, or one in that folder.
        line: the line of the file, counted from 1; None where there is none to name.
        field: the field that is missing, or None.
        also: other numbers that a program may rightly give that line.
        list_name: the list that the row is in, where it has a name: `annotations[3]` names the row, too.
        spare: every value of the row is still there, with one too many after them.
    """

    did: str
    path: Path
    file: Path
    line: int | None = None
    field: str | None = None
    also: tuple[int, ...] = ()
    list_name: str | None = None
    spare: bool = False

    @property
    def naming(self) -> tuple[Named, ...]:
        """What a good message names."""
        named: list[Named] = [self.file.name]
        if self.line is not None:
            named.append(self._line_named(self.line))
        if self.field is not None:
            named.append(wording.field_name(self.field))
        return tuple(named)

    def _line_named(self, line: int) -> Wording:
        named = wording.line(line, self.file.name, *self.also)
        if self.list_name is None:
            return named
        numbers = "|".join(map(str, sorted({line, *self.also})))
        in_list = rf"|\b{re.escape(self.list_name)}\W{{1,4}}(?:{numbers})\b"
        return Wording(named.said, re.compile(named.pattern.pattern + in_list, re.I))


def empty_data(data: Path, folder: Path) -> list[Tampered]:
    """No rows: zero bytes, blank lines only, a table or list without rows; of a folder every file, and the bare folder.

    Raises:
        NotApplicable: the data is of a form that is not known.
    """
    bare = [_take_all(data, folder)] if data.is_dir() else []
    if data.is_dir() and not _files(data):
        return bare
    file = _target(data)
    form = _form(file)
    with _no_rows_are_not_applicable():
        changes = form_changes.empty_rows(form, read_content(file))
    if not data.is_dir():
        return [_write_copy(data, folder, [file], change) for change in changes]
    every = [] if isinstance(form, TorchFile) else range(len(changes))
    alike = _alike(data, file)
    return [*bare, *(_write_copy(data, folder, alike, partial(_nth_empty, form, nth)) for nth in every)]


def _take_all(data: Path, folder: Path) -> Tampered:
    bare = folder / "bare" / data.name
    bare.mkdir(parents=True)
    return Tampered(f"took every file out of the folder {data.name}", bare, bare)


def corrupt_row(data: Path, folder: Path) -> list[Tampered]:
    """A row that cannot be read: bad syntax in the middle, a cut end, NUL bytes; of a folder in one file.

    Where a form has no lines (Parquet, `.pt`), the file alone is to be named.

    Raises:
        NotApplicable: the data is of a form that is not known.
    """
    file = _target(data)
    with _no_rows_are_not_applicable():
        changes = form_changes.corrupt_rows(_form(file), read_content(file))
    return [_write_copy(data, folder, [file], change) for change in changes]


def damage_one_file(data: Path, folder: Path) -> list[Tampered]:
    """Of a folder with several files, one that is NUL bytes from its beginning to its end, as a power cut leaves it."""
    if not data.is_dir() or len(_files(data)) < 2:
        return []
    file = _target(data)
    nothing = Change("overwrote all of {file}, one of several files, with NUL bytes", bytes(file.stat().st_size))
    place = folder / f"damaged-{file.stem}" / data.name
    shutil.copytree(data, place)
    target = place / file.relative_to(data)
    target.write_bytes(nothing.content)
    return [Tampered(nothing.did.format(file=file.name), place, target)]


def field_names(data: Path) -> list[str]:
    """The fields that every row has; one that some rows lack is optional, by the data's own witness.

    Raises:
        NotApplicable: the data is of a form that is not known, or its rows have no named fields.
    """
    file = _target(data)
    with _no_rows_are_not_applicable():
        found = _form(file).fields(read_content(file))
    if not found:
        raise NotApplicable("its rows have no field in common: this case is for rows of named fields")
    return found


def drop_field(data: Path, folder: Path, field: str, *, everywhere: bool = False) -> Tampered:
    """One field taken out of one row, in the middle; or out of every row. Of a table the column is taken."""
    file = _target(data)
    files, form = _alike(data, file) if everywhere else [file], _form(file)
    drop = partial(form_changes.drop_field, form, field=field, everywhere=everywhere)
    return _write_copy(data, folder, files, drop)._replace(field=field)


def read_rows(data: Path) -> list[object]:
    """The rows of the file that `replace_rows` changes.

    Raises:
        NotApplicable: the data is of a form that is not known, or its rows have no named fields.
    """
    file = _target(data)
    with _no_rows_are_not_applicable():
        return _form(file).read(read_content(file))


def replace_rows(data: Path, folder: Path, new: Mapping[int, object]) -> Tampered:
    """Some rows of one file, by their numbers from 0, replaced; `did` is for the caller to say.

    Raises:
        NotApplicable: the form has no place for such a value.
    """
    file = _target(data)
    return _write_copy(data, folder, [file], form_changes.replace_rows(_form(file), read_content(file), dict(new)))


def drop_rows(data: Path, folder: Path, gone: Collection[int]) -> Tampered:
    """One file without some of its rows, by their numbers from 0; `did` is for the caller to say."""
    file = _target(data)
    form, content = _form(file), read_content(file)
    kept = [row for number, row in enumerate(form.read(content)) if number not in gone]
    return _write_copy(data, folder, [file], Change("", form.write(kept, content)))


def repeat_rows(data: Path, folder: Path, count: int) -> Path:
    """A copy of the data with so many rows, its own again and again.

    Raises:
        NotApplicable: it is a folder, of a form that is not known, or has no rows.
    """
    if data.is_dir():
        raise NotApplicable("its data is a folder: this case is for files of rows")
    form, content = _form(data), read_content(data)
    with _no_rows_are_not_applicable():
        rows = form.read(content)
    many = [rows[number % len(rows)] for number in range(count)] if rows else []
    return _write_copy(data, folder, [data], Change("", form.write(many, content))).path


def rows_behind(data: Path, folder: Path, count: int) -> Path | None:
    """A copy of the data without its first rows; None where nothing is left.

    Raises:
        NotApplicable: as `repeat_rows`.
    """
    if data.is_dir():
        raise NotApplicable("its data is a folder: this case is for files of rows")
    form, content = _form(data), read_content(data)
    with _no_rows_are_not_applicable():
        rows = form.read(content)[count:]
    return _write_copy(data, folder, [data], Change("", form.write(rows, content))).path if rows else None


def add_byte_order_mark(data: Path, folder: Path) -> list[Tampered]:
    """A byte order mark at the beginning of a file of text; no variant where it is no text."""
    file = _target(data)
    form, content = form_of(file), read_content(file)
    if (form is not None and not form.text) or content.startswith(codecs.BOM_UTF8):
        return []
    marked = Change("put a byte order mark at the beginning of {file}", codecs.BOM_UTF8 + content)
    return [_write_copy(data, folder, [file], marked)]


def escape_text(data: Path, folder: Path) -> list[Tampered]:
    r"""The same rows in ASCII, all other characters as JSON's `\u` escapes; no variant where it is no JSON."""
    file = _target(data)
    if not isinstance(form_of(file), JsonLines | Json | JsonColumns):
        return []
    text = read_content(file).decode("utf-8-sig")
    ascii_alone = "".join(c if c.isascii() else json.dumps(c)[1:-1] for c in text)
    return [_write_copy(data, folder, [file], Change("wrote {file} in ASCII, with escapes", ascii_alone.encode()))]


def grow_file(data: Path, folder: Path, new: Sequence[object], size: int) -> Tampered:
    """One file, its own rows once and then these again and again, until it is of `size` bytes.

    Raises:
        NotApplicable: the form is none that can be read row by row.
    """
    form = _form(_target(data))
    if not isinstance(form, JsonLines | Csv):
        raise NotApplicable("its data is not read row by row: this case is for JSONL and CSV files")
    if is_packed(_target(data)):
        raise NotApplicable("its data is packed, so that its size says nothing: give it a sample that is not")
    grown = replace_rows(data, folder, dict(enumerate(new)))
    content = grown.file.read_bytes().rstrip(b"\n") + b"\n"
    rows = content[len(form.split(content).before(0)) :]  # a table's names come once
    try:
        with grown.file.open("wb") as out:
            out.write(_target(data).read_bytes().rstrip(b"\n") + b"\n")
            for _ in range(-(-size // len(rows))):
                out.write(rows)
    except OSError:  # it does not fit: what there is of it would leave no room for what follows
        grown.file.unlink(missing_ok=True)
        raise
    return grown


@contextmanager
def _no_rows_are_not_applicable() -> Iterator[None]:
    try:
        yield
    except NoRows as error:
        raise NotApplicable(
            f"its data {error}: this case is for rows of named fields, give it a sample in JSON, CSV or Parquet"
        ) from error
    except ImportError as error:
        raise NotApplicable(str(error)) from error


def _write_copy(data: Path, folder: Path, files: list[Path], change: Change | Callable[[bytes], Change]) -> Tampered:
    """A copy of the data under `folder`, some of its files changed."""
    place = folder / f"tampered-{len(list(folder.iterdir())) + 1 if folder.exists() else 1}"
    path = place / data.name
    place.mkdir(parents=True)
    shutil.copytree(data, path) if data.is_dir() else shutil.copy(data, path)
    targets = [path / file.relative_to(data) for file in files] if data.is_dir() else [path]
    for target in targets:
        changed = change if isinstance(change, Change) else change(read_content(target))
        write_content(target, changed.content)
    name = targets[0].name if len(targets) == 1 else f"each of {len(targets)} files"
    return Tampered(
        changed.did.format(file=name),
        path,
        targets[0],
        changed.line,
        None,
        changed.also,
        changed.list_name,
        changed.spare,
    )


def _nth_empty(form: Form, nth: int, content: bytes) -> Change:
    return form_changes.empty_rows(form, content)[nth]


def _alike(data: Path, file: Path) -> list[Path]:
    """The files of a data folder that are of one file's form; that file alone where the data is a file."""
    return [path for path in _files(data) if type(_form(path)) is type(_form(file))] if data.is_dir() else [file]


def _files(data: Path) -> list[Path]:
    """The files of a data folder that can be tampered with."""
    if is_saved_dataset(data):
        return []
    found = look_into(data)
    return found.files or [path for path in found.examples if form_of(path) is not None]


def _target(data: Path) -> Path:
    """The file to tamper with: the data itself, or the one in the middle of a folder."""
    if not data.is_dir():
        return data
    found = _files(data)
    if not found:
        raise NotApplicable(
            f"its data folder holds no file that can be tampered with; known are {KNOWN}: give it a sample of these"
        )
    return found[len(found) // 2]


def _form(file: Path) -> Form:
    form = form_of(file)
    if form is None:
        kind = f"a {file.suffix} file" if file.suffix else "a file without a suffix"
        raise NotApplicable(f"its data is {kind}, and this case knows {KNOWN}")
    return form


def holds_cells(data: Path) -> bool:
    """Whether the values of its rows are cells of a table of text, and so text themselves."""
    return isinstance(form_of(_target(data)), Csv)


def can_hold_broken_text(data: Path) -> bool:
    """Whether a text in it can have bytes that are no UTF-8; in Parquet there are none."""
    return not isinstance(form_of(_target(data)), Parquet)


def counts_rows(data: Path) -> bool:
    """Whether a row of the sample is what its program counts: a line of text may be many examples or a part of one."""
    form = None if data.is_dir() and not _files(data) else form_of(_target(data))
    return form is None or form.counted
