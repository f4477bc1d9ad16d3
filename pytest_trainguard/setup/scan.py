"""What is in a project: its programs that train, the likely one first; its data; its settings files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from pytest_trainguard.adapters.settings_files import WRITABLE
from pytest_trainguard.rows import suffixes
from pytest_trainguard.setup.sources import Source, read_source

MOST_FILES = 5000  # that are looked at
LEFT_OUT = {
    "node_modules", "site-packages", "dist-packages", "build", "dist", "venv", "env", "wandb", "mlruns",
    "lightning_logs", "outputs", "checkpoints", "runs", "tests", "test", "docs",
}  # fmt: skip
NO_PROGRAMS = ("setup", "conftest", "preflight", "noxfile", "fabfile")
DATA = (*suffixes.JSON_LINES, suffixes.CSV, suffixes.TSV, suffixes.PARQUET, suffixes.ARRAY, suffixes.PLAIN_TEXT)
NO_DATA = ("requirement", "licen", "readme", "changelog", "notice", "cmakelists", "result", "log", "metric")
SETTINGS_FOLDERS = ("configs", "config", "conf", "cfg", "settings")
LABELS = ("label", "labels", "target", "y", "class", "category", "score")  # of rows, by what they are usually called


def list_files(root: Path) -> list[Path]:
    """The project's own files, those nearest to its root first; without hidden ones, environments and results."""
    found: list[Path] = []
    for folder, below, names in os.walk(root):
        below[:] = sorted(name for name in below if not _is_left_out(Path(folder) / name))
        found += [Path(folder) / name for name in sorted(names) if not name.startswith(".")]
        if len(found) > MOST_FILES:
            break
    return sorted(found[:MOST_FILES], key=lambda path: (len(path.relative_to(root).parts), str(path)))


def _is_left_out(folder: Path) -> bool:
    if folder.name.startswith((".", "__")) or folder.name in LEFT_OUT or folder.is_symlink():
        return True
    return (folder / "pyvenv.cfg").exists() or (folder / "CACHEDIR.TAG").exists()


def find_programs(files: Iterable[Path]) -> list[Source]:
    """The programs that train, the likeliest first: with a command line, and with `train` in the name."""
    found = []
    for path in files:
        if path.suffix == ".py" and path.stem not in NO_PROGRAMS and not path.stem.startswith("test_"):
            source = read_source(path)
            if source is not None and (source.trains or _is_called_so(source)):
                found.append(source)
    return sorted(found, key=_unlikeliness)


def _is_called_so(source: Source) -> bool:
    """Whether a program with a command line is called a training, though its loop is in another file."""
    return bool(source.parser) and _names_training(source.path)


def _names_training(path: Path) -> bool:
    return any(word in path.stem.lower() for word in ("train", "finetune", "fine_tune", "pretrain"))


def _unlikeliness(source: Source) -> tuple[int, int]:
    """For an order by how likely a file is the program: first the likeliest, those nearest to the root."""
    signs = [bool(source.parser), bool(source.trains), _names_training(source.path), source.guarded]
    return -sum(weight for weight, sign in zip((4, 3, 2, 1), signs, strict=True) if sign), len(source.path.parts)


def find_sample(root: Path, files: Iterable[Path], named: Iterable[str]) -> Path | None:
    """The data that a program trains on, from the root.

    Args:
        root: the project's.
        files: of the project.
        named: what the program itself names: defaults of its options, then texts in its source.
    """
    for text in named:
        path = root / text
        if text and suffixes.inside(Path(text)) in (*DATA, suffixes.JSON, suffixes.TOKENS) and _is_inside(path, root):
            return path.relative_to(root)
    found = [path for path in files if suffixes.inside(path) in DATA and not _is_no_data(path)]
    named_so = [path for path in found if "train" in path.stem.lower()]
    likely = named_so or found
    return likely[0].relative_to(root) if likely else None


def _is_inside(path: Path, root: Path) -> bool:
    return path.is_file() and path.resolve().is_relative_to(root.resolve()) and path.is_relative_to(root)


def _is_no_data(path: Path) -> bool:
    return path.stem.lower().startswith(NO_DATA)


def find_settings_file(root: Path, files: Iterable[Path], default: object) -> Path | None:
    """The settings file that a program is started with, from the root.

    Args:
        root: the project's.
        files: of the project.
        default: of its option for that.
    """
    if isinstance(default, str) and Path(default).suffix in WRITABLE and _is_inside(root / default, root):
        return (root / default).relative_to(root)
    for path in files:
        folders = path.relative_to(root).parts[:-1]
        named_so = path.stem.lower().startswith(("config", "settings", "base", "default", "train"))
        if path.suffix in WRITABLE and path.name != "pyproject.toml":
            if folders and folders[0].lower() in SETTINGS_FOLDERS:
                return path.relative_to(root)
            if not folders and named_so:
                return path.relative_to(root)
    return None


def find_labels(sample: Path) -> str:
    """The field of a sample's rows that is to be learnt, by its name; empty where none has such a name."""
    names = list(_names_of_row(sample))
    return next((name for name in LABELS if name in names), "")


def _names_of_row(sample: Path) -> Iterator[str]:
    """The names of the fields of the first row, of JSONL and CSV."""
    try:
        with sample.open(encoding="utf-8-sig", errors="replace") as lines:
            first = lines.readline(1 << 16)
    except OSError:
        return
    if sample.suffix in suffixes.JSON_LINES:
        try:
            row = json.loads(first)
        except ValueError:
            return
        yield from row if isinstance(row, dict) else ()
    elif sample.suffix in (suffixes.CSV, suffixes.TSV):
        for delimiter in ",;\t|":
            yield from (name.strip().strip('"') for name in first.split(delimiter))
