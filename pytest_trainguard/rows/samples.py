"""Cutting a small piece out of a team's real data, in the form that the data has.

JSONL, JSON (a list, or an object with one list of rows), CSV, Parquet, and a folder: of `.pt` files, of which the
first are taken, or of data files, each of which is cut. Files are read only as far as they are needed.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from pytest_trainguard.rows.codec import Form, NoRows, TorchFile, form_of

__all__ = ["cut_sample"]


def cut_sample(sample: Path, folder: Path, rows: int) -> Path:
    """Copy the first `rows` rows of `sample` into `folder`, under the same name.

    Raises:
        FileNotFoundError: it does not exist.
        ValueError: it is of a kind that is not known, cannot be read, or has no rows.
    """
    if not sample.exists():
        raise FileNotFoundError(f"sample {sample}: no such file or folder")
    target = folder / sample.name
    if sample.is_dir():
        return _cut_folder(sample, target, rows)
    form = form_of(sample)
    if form is None or isinstance(form, TorchFile):
        known = "JSONL, JSON, CSV, Parquet, or a folder of these or of .pt files"
        raise ValueError(f"sample {sample}: unknown kind {sample.suffix or 'without suffix'!r}; known are {known}")
    target.write_bytes(_cut_file(form, sample, rows))
    return target


def _cut_file(form: Form, sample: Path, rows: int) -> bytes:
    try:
        content, count = form.cut(sample, rows)
    except (NoRows, ImportError) as error:
        raise ValueError(f"sample {sample}: {error}") from error
    except ValueError as error:
        raise ValueError(f"sample {sample}: cannot be read: {error}") from error
    if not count:
        raise ValueError(f"sample {sample}: has no rows")
    return content


def _cut_folder(sample: Path, target: Path, rows: int) -> Path:
    target.mkdir(parents=True, exist_ok=True)
    known = [(path, form) for path in sorted(sample.iterdir()) if (form := form_of(path)) is not None]
    examples = [path for path, form in known if isinstance(form, TorchFile)]
    for path in examples[:rows]:
        shutil.copy(path, target)
    for path, form in known:
        if not isinstance(form, TorchFile):
            cut_sample(path, target, rows)
    if not known:
        raise ValueError(f"sample {sample}: holds no .pt, JSONL, JSON, CSV or Parquet file")
    return target
