"""Cutting a small piece out of a team's real data, in the form that the data has.

JSONL, JSON (a list, or an object with one list of rows), CSV, Parquet, and a folder: of `.pt` files, of which the
first are taken, or of data files, each of which is cut. Files are read only as far as they are needed.
"""

from __future__ import annotations

import csv
import itertools
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

TENSORS = {".pt", ".pth"}
LINES = {".jsonl", ".ndjson"}


def cut(sample: Path, folder: Path, rows: int) -> Path:
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
    cutter = {".json": _cut_json, ".csv": _cut_csv, ".parquet": _cut_parquet}.get(sample.suffix)
    cutter = _cut_lines if sample.suffix in LINES else cutter
    if cutter is None:
        known = "JSONL, JSON, CSV, Parquet, or a folder of these or of .pt files"
        raise ValueError(f"sample {sample}: unknown kind {sample.suffix or 'without suffix'!r}; known are {known}")
    try:
        count = cutter(sample, target, rows)
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise ValueError(f"sample {sample}: cannot be read: {error}") from error
    if not count:
        raise ValueError(f"sample {sample}: has no rows")
    return target


def _cut_folder(sample: Path, target: Path, rows: int) -> Path:
    target.mkdir(parents=True, exist_ok=True)
    entries = sorted(path for path in sample.iterdir() if path.is_file())
    tensors = [path for path in entries if path.suffix in TENSORS]
    for path in tensors[:rows]:
        shutil.copy(path, target)
    tables = [path for path in entries if path.suffix in {*LINES, ".json", ".csv", ".parquet"}]
    for path in tables:
        cut(path, target, rows)
    if not tensors and not tables:
        raise ValueError(f"sample {sample}: holds no .pt, JSONL, JSON, CSV or Parquet file")
    return target


def _cut_lines(sample: Path, target: Path, rows: int) -> int:
    with sample.open("rb") as source, target.open("wb") as out:
        lines = list(itertools.islice((line for line in source if line.strip()), rows))
        for line in lines:
            json.loads(line)
            out.write(line if line.endswith(b"\n") else line + b"\n")
    return len(lines)


def _cut_json(sample: Path, target: Path, rows: int) -> int:
    content = json.loads(sample.read_text(encoding="utf-8-sig"))
    if isinstance(content, dict):
        name = next((name for name, value in content.items() if isinstance(value, list)), None)
        kept: list[Any] = content[name][:rows] if name else []
        if name:
            content = {**content, name: kept}
    elif isinstance(content, list):
        content = kept = content[:rows]
    else:
        raise ValueError(f"sample {sample}: holds no list of rows")
    target.write_text(json.dumps(content, ensure_ascii=False))
    return len(kept)


def _cut_csv(sample: Path, target: Path, rows: int) -> int:
    with (
        sample.open(newline="", encoding="utf-8") as source,
        target.open("w", newline="", encoding="utf-8") as out,
    ):
        kept = list(itertools.islice(csv.reader(source), rows + 1))  # and the line of names
        csv.writer(out).writerows(kept)
    return max(len(kept) - 1, 0)


def _cut_parquet(sample: Path, target: Path, rows: int) -> int:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ValueError(f"sample {sample}: reading Parquet needs pytest-trainguard[parquet]") from error
    try:
        batches: Iterable[Any] = parquet.ParquetFile(sample).iter_batches(batch_size=rows)
        first = next(iter(batches), None)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"sample {sample}: cannot be read: {error}") from error
    if first is None:
        return 0
    table = pyarrow.Table.from_batches([first])
    parquet.write_table(table, target)
    return int(table.num_rows)
