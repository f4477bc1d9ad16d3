"""Tampering with a piece of data: emptied, malformed, a field taken out; in the form that the data has.

Each function writes its variants under a folder and leaves the data itself alone. A file keeps its name. What is to be
named afterwards stands on the variant: the file, and where the form has them the line and the field.

The forms are those of `forms`, and folders of such files.
"""

from __future__ import annotations

import codecs
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pytest_trainguard.rows.forms import FORMS, Change, Form
from pytest_trainguard.verdicts import wording
from pytest_trainguard.verdicts.errors import NotApplicable
from pytest_trainguard.verdicts.wording import Named

BINARY = {".pt", ".pth", ".parquet"}
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
            named.append(wording.line(self.line, self.file.name, *self.also))
        if self.field is not None:
            named.append(wording.word(self.field))
        return tuple(named)


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


def rows(data: Path) -> list[Any]:
    """The rows of the file that `with_rows` changes.

    Raises:
        NotApplicable: the data is of a form that is not known, or its rows have no named fields.
    """
    file = _file(data)
    return _form(file).rows(file.read_bytes())


def with_rows(data: Path, folder: Path, new: dict[int, Any]) -> Tampered:
    """Some rows of one file, by their numbers from 0, replaced; `did` is for the caller to say.

    Raises:
        NotApplicable: the form has no place for such a value.
    """
    file = _file(data)
    return _changed(data, folder, [file], _form(file).put(file.read_bytes(), new))


def with_byte_order_mark(data: Path, folder: Path) -> list[Tampered]:
    """A byte order mark at the beginning of a file of text; no variant where it is no text."""
    file = _file(data)
    if file.suffix in BINARY:
        return []
    marked = Change("put a byte order mark at the beginning of {file}", codecs.BOM_UTF8 + file.read_bytes())
    return [_changed(data, folder, [file], marked)]


def in_escapes(data: Path, folder: Path) -> list[Tampered]:
    r"""The same rows in ASCII, all other characters as JSON's `\u` escapes; no variant where it is no JSON."""
    file = _file(data)
    if file.suffix not in (".jsonl", ".ndjson", ".json"):
        return []
    ascii_alone = "".join(c if c.isascii() else json.dumps(c)[1:-1] for c in file.read_text("utf-8"))
    return [_changed(data, folder, [file], Change("wrote {file} in ASCII, with escapes", ascii_alone.encode()))]


def grown(data: Path, folder: Path, new: list[Any], size: int) -> Tampered:
    """One file, its own rows once and then these again and again, until it is of `size` bytes.

    Raises:
        NotApplicable: the form is none that can be read row by row.
    """
    made = with_rows(data, folder, dict(enumerate(new)))
    if made.file.suffix not in (".jsonl", ".ndjson", ".csv"):
        raise NotApplicable("its data is not read row by row: this case is for JSONL and CSV files")
    content = made.file.read_bytes().rstrip(b"\n") + b"\n"
    names = 0 if made.file.suffix != ".csv" else content.index(b"\n") + 1  # a table's names come once
    with made.file.open("wb") as out:
        out.write(_file(data).read_bytes().rstrip(b"\n") + b"\n")
        for _ in range(-(-size // len(content[names:]))):
            out.write(content[names:])
    return made


def _changed(data: Path, folder: Path, files: list[Path], change: Change | Callable[[bytes], Change]) -> Tampered:
    """A copy of the data under `folder`, some of its files changed."""
    place = folder / f"tampered-{len(list(folder.iterdir())) + 1 if folder.exists() else 1}"
    path = place / data.name
    place.mkdir(parents=True)
    shutil.copytree(data, path) if data.is_dir() else shutil.copy(data, path)
    targets = [path / file.relative_to(data) for file in files] if data.is_dir() else [path]
    for target in targets:
        made = change if isinstance(change, Change) else change(target.read_bytes())
        target.write_bytes(made.content)
    name = targets[0].name if len(targets) == 1 else f"each of {len(targets)} files"
    return Tampered(made.did.format(file=name), path, targets[0], made.line, also=made.also)


def _nth_empty(form: Form, nth: int, content: bytes) -> Change:
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


def _form(file: Path) -> Form:
    if file.suffix not in FORMS:
        kind = f"a {file.suffix} file" if file.suffix else "a file without a suffix"
        raise NotApplicable(f"its data is {kind}, and this case knows {KNOWN}")
    return FORMS[file.suffix]
