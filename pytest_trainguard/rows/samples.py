"""Cutting a small piece out of a team's real data, in the form that the data has.

A file of any form that `codec` knows, packed or not; a folder of such files, of which each is cut; a folder of
examples, a file each, in folders by class or not; what the `datasets` library saved. Files are read only as far as they
are needed. Where it cannot be told what the rows are, the message says which method to override.
"""

from __future__ import annotations

import importlib
import lzma
import re
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path

from pytest_trainguard.rows.codec import (
    CutOnly,
    Form,
    Json,
    NoRows,
    TorchFile,
    cutting_form,
    decode_json,
    write_content,
)
from pytest_trainguard.rows.folders import (
    PAIRED,
    TRAINED,
    VALIDATED,
    choose_examples,
    is_media,
    is_saved_dataset,
    look_into,
    named_examples,
)

__all__ = ["cut_sample"]

KNOWN = "JSONL, JSON, CSV, TSV, Parquet, .txt, .npy, .bin, .tar and SQLite"
OVERRIDE = "override make_data"
SMALL = 64 << 20  # bytes of a file that stands beside data and is copied as it is


def cut_sample(sample: Path, folder: Path, rows: int) -> Path:
    """Copy the first `rows` rows of `sample` into `folder`, under the same name.

    Raises:
        FileNotFoundError: it does not exist.
        ValueError: it is of a kind that is not known, cannot be read, or has no rows.
    """
    if not sample.exists():
        raise FileNotFoundError(f"sample {sample}: no such file or folder")
    target = folder / sample.name
    if sample.is_dir() and is_saved_dataset(sample):
        _cut_saved_dataset(sample, target, rows)
    elif sample.is_dir():
        _cut_folder(sample, target, rows)
    else:
        write_content(target, _cut_file(sample, rows)[0])
    return target


def _cut_file(sample: Path, rows: int) -> tuple[bytes, Form]:
    """The first rows of a file, and its form."""
    try:
        form = cutting_form(sample)
        if form is None or isinstance(form, TorchFile):
            kind = sample.suffix or "without suffix"
            raise NoRows(f"unknown kind {kind!r}; known are {KNOWN} files, and folders of these or of .pt files")
        content, count = form.cut(sample, rows)
    except NoRows as error:
        raise ValueError(f"sample {sample}: {error}: {OVERRIDE}") from error
    except ImportError as error:
        raise ValueError(f"sample {sample}: {error}") from error
    except (ValueError, EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        if isinstance(error, OSError) and error.filename:  # the disk's own, which says what it is about
            raise
        raise ValueError(f"sample {sample}: cannot be read: {error}") from error
    if not count:
        raise ValueError(f"sample {sample}: has no rows")
    return content, form


def _cut_folder(sample: Path, target: Path, rows: int) -> None:
    found = look_into(sample)
    if not found.files and not found.examples:
        raise ValueError(f"sample {sample}: holds no .pt, JSONL, JSON, CSV, Parquet or other file of data: {OVERRIDE}")
    target.mkdir(parents=True, exist_ok=True)
    kept: list[object] = []
    for path, share in _shares(found.files, rows):
        content, form = _cut_file(path, share)
        place = _place(path, sample, target)
        write_content(place, content)
        if found.examples and not isinstance(form, CutOnly):
            kept.append(decode_json(content) if isinstance(form, Json) else form.read(content))
    chosen = _examples(sample, found.examples, kept, rows, has_rows=bool(found.files))
    left_out = {path.stem for path in found.examples if is_media(path)} - {path.stem for path in chosen}
    small = [path for path in found.beside if path.stem not in left_out and path.stat().st_size <= SMALL]
    for path in [*chosen, *small]:
        shutil.copy(path, _place(path, sample, target))


def _shares(files: Sequence[Path], rows: int) -> list[tuple[Path, int]]:
    """How many rows of each file: all of them, or its part of them where the files are one corpus in pieces.

    Pieces are many, or are told apart by a number in their names; a few others may be for training and for validation,
    or hold what belongs to the rows of each other.
    """
    kinds = {(path.parent, path.suffix, re.sub(r"\d+", "", path.stem)) for path in files}
    apart = any(TRAINED.search(path.stem) or VALIDATED.search(path.stem) for path in files)
    numbered = len(files) > 1 and len(kinds) == 1
    if apart or not (numbered or (len(files) > PAIRED and len({path.suffix for path in files}) == 1)):
        return [(path, rows) for path in files]
    share, rest = divmod(rows, len(files))
    shares = [(path, share + (number < rest)) for number, path in enumerate(files)]
    return [(path, count) for path, count in shares if count]


def _examples(sample: Path, examples: Sequence[Path], kept: list[object], rows: int, *, has_rows: bool) -> list[Path]:
    """The examples that stay: those that the kept rows name; without rows the first ones."""
    named = named_examples(sample, examples, kept) if has_rows else []
    if named or not examples:
        return named
    if has_rows and any(is_media(path) for path in examples):
        raise ValueError(f"sample {sample}: which of its files belongs to which row cannot be told: {OVERRIDE}")
    return choose_examples(examples, rows)


def _place(path: Path, sample: Path, target: Path) -> Path:
    """Where a file of the sample goes to."""
    place = target / path.relative_to(sample)
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def _cut_saved_dataset(sample: Path, target: Path, rows: int) -> None:
    """The first rows of what `datasets` saved, of each of its splits, read and written by `datasets` itself."""
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise ValueError(f"sample {sample}: was saved by datasets, which is not installed: {OVERRIDE}") from error
    whole = datasets.load_from_disk(str(sample))
    if (sample / "dataset_dict.json").exists():
        piece = datasets.DatasetDict({name: _first_rows(part, rows) for name, part in whole.items()})
    else:
        piece = _first_rows(whole, rows)
    piece.save_to_disk(str(target))


def _first_rows(part, rows: int):  # type: ignore[no-untyped-def]  # a class of datasets, which need not be there
    return part.select(range(min(rows, len(part))))
