"""Checkpoints by the names that training programs give them: their folders and files, and the entries in these."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from pytest_trainguard.rows.suffixes import WEIGHTS

__all__ = ["STEP_NAMES", "VERSION_NAMES", "belongs_to", "files", "find", "kind_of", "step_of"]

# What a step count and the version of a checkpoint's format are called; the usual names come first.
STEP_NAMES = (
    "step", "global_step", "iteration", "iter", "iter_num", "steps", "global_steps", "steps_done", "current_step",
    "train_step", "num_steps", "completed_steps", "num_updates", "iterations",
)  # fmt: skip
VERSION_NAMES = ("format_version", "checkpoint_version", "schema_version", "version", "format", "schema")

_FOLDER = re.compile(r"(?<![a-z])(?:checkpoint|ckpt|step|epoch|iter)[-_=]?(\d+)", re.I)
_NUMBER = re.compile(r"\d+")
_NOT_FINISHED = re.compile(r"^\.|(?<![a-z])te?mp(?!late)|partial|incomplete|\.part\b", re.I)


def find(output_dir: Path) -> list[Path]:
    """The finished checkpoints in `output_dir`, oldest first.

    A checkpoint is a folder or a file named by a step (`checkpoint-40`, `step=40.ckpt`, `ckpt_40.pt`) at any depth of
    up to four (Lightning's `lightning_logs/version_0/checkpoints/`); where there is none, the weight files that lie
    there (`ckpt.pt`), by time. Names of unfinished work (hidden, `tmp`, `partial`) are passed over.
    """
    numbered: list[tuple[int, Path]] = []
    loose: list[Path] = []
    _search(output_dir, 4, numbered, loose)
    if numbered:
        return [path for _, path in sorted(numbered, key=lambda found: (found[0], str(found[1])))]
    return sorted(loose, key=lambda path: (path.stat().st_mtime_ns, str(path)))


def _search(folder: Path, depth: int, numbered: list[tuple[int, Path]], loose: list[Path]) -> None:
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.is_symlink() or _NOT_FINISHED.search(path.name):
            continue
        # Of several numbers ("epoch=1-step=40") the last one counts steps.
        numbers = _FOLDER.findall(path.name)
        if numbers and (path.is_dir() or path.suffix in WEIGHTS):
            numbered.append((int(numbers[-1]), path))
        elif path.is_dir() and depth > 1:
            _search(path, depth - 1, numbered, loose)
        elif path.suffix in WEIGHTS and path.is_file():
            loose.append(path)


def step_of(checkpoint: Path) -> int | None:
    """The step in a checkpoint's name, or None."""
    numbers = _FOLDER.findall(checkpoint.name)
    return int(numbers[-1]) if numbers else None


def kind_of(place: str) -> str:
    """What a program's checkpoints have in common: the place of one in the output folder, without its numbers."""
    return _NUMBER.sub("0", place)


def belongs_to(file: str, kinds: Collection[str]) -> bool:
    """Whether a file, by its place in the output folder, is a checkpoint of one of these kinds, or is inside one.

    Those that a program has removed again are known by what is left of their kind.
    """
    place = Path(kind_of(file))
    return any(str(part) in kinds for part in (place, *place.parents))


def files(checkpoint: Path) -> list[Path]:
    """The files of a checkpoint that is a folder, or the one file that it is."""
    if checkpoint.is_file():
        return [checkpoint]
    return sorted(path for path in checkpoint.rglob("*") if path.is_file() and not path.is_symlink())
