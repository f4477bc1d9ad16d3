"""Checkpoints by the names that training programs give them: their folders and files, and the entries in these."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from pytest_trainguard.rows import suffixes

__all__ = ["STEP_NAMES", "VERSION_NAMES", "belongs_to", "files", "find", "kind_of", "step_of"]

# What a step count and the version of a checkpoint's format are called; the usual names come first.
STEP_NAMES = (
    "step", "global_step", "iteration", "iter", "iter_num", "steps", "global_steps", "steps_done", "current_step",
    "train_step", "num_steps", "completed_steps", "num_updates", "iterations",
)  # fmt: skip
VERSION_NAMES = ("format_version", "checkpoint_version", "schema_version", "version", "format", "schema")

_STEP = re.compile(r"(?<![a-z])(?:checkpoint|ckpt|step|iter(?:ation)?)[-_=]?(\d+)", re.I)
_EPOCH = re.compile(r"(?<![a-z])epoch[-_=]?(\d+)", re.I)
_LAST = re.compile(r"^(?:(?:checkpoint|ckpt|model)[-_.])?(?:last|latest)(?:-v\d+)?(?=\.)", re.I)
_BEST = re.compile(r"(?<![a-z])best(?![a-z])", re.I)
_NUMBER = re.compile(r"\d+")
_NOT_FINISHED = re.compile(r"^\.|(?<![a-z])te?mp(?!late)|partial|incomplete|\.part\b", re.I)
# A file that is one process's or one part's share of a checkpoint: `model-00001-of-00002.safetensors`, those of
# torch.distributed.checkpoint (`__0_0.distcp`), those of DeepSpeed.
_SHARE = re.compile(r"-(\d+)-of-\d+(?=\.)|^__(\d+)_\d+(?=\.distcp$)|mp_rank_(\d+)(?=_)")
_PROCESS_SHARE = re.compile(r"^__\d+_\d+\.distcp$|mp_rank_\d+_(?:model|optim)_states\.pt$")


def is_called_best(name: str) -> bool:
    """Whether a path below an output folder is called the best: `best.pt`, `model_best/weights.safetensors`."""
    return bool(_BEST.search(name)) and not _NOT_FINISHED.search(name)


def find(output_dir: Path) -> list[Path]:
    """The finished checkpoints in `output_dir`, oldest first.

    A checkpoint is a folder or a file named by a step (`checkpoint-40`, `step=40.ckpt`, `ckpt_40.pt`) or an epoch
    (`epoch_001.ckpt`) at any depth of up to four (Lightning's `lightning_logs/version_0/checkpoints/`), and the file
    beside them that is called the last (`last.ckpt`). Where none is named so, the weight files that lie there
    (`ckpt.pt`, `checkpoint.pth.tar`), by time, a copy of the best before all others, for it may be an old one; of
    several that are shares of one the first stands for all (`files`),
    and the folder where processes have theirs in one. Names of unfinished work (hidden, `tmp`, `partial`) are passed
    over.
    """
    named: list[tuple[tuple[int, int], Path]] = []
    last: list[Path] = []
    loose: list[Path] = []
    _search(output_dir, 4, named, last, loose)
    if named:
        return [path for _, path in sorted(named, key=lambda found: (found[0], str(found[1])))] + _by_time(last)
    return _by_time([*loose, *last])


def _by_time(paths: list[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: (not _BEST.search(path.name), path.stat().st_mtime_ns, str(path)))


def _search(
    folder: Path, depth: int, named: list[tuple[tuple[int, int], Path]], last: list[Path], loose: list[Path]
) -> None:
    shares: set[str] = set()
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.is_symlink() or _NOT_FINISHED.search(path.name):
            continue
        weights = path.is_file() and (suffixes.weights(path) != "" or path.suffix == suffixes.DISTRIBUTED)
        place = _place_of(path.name)
        if place is not None and (path.is_dir() or weights):
            named.append((place, path))
        elif path.is_dir() and depth > 1:
            if any(_PROCESS_SHARE.search(file.name) for file in path.iterdir()):
                loose.append(path)
            else:
                _search(path, depth - 1, named, last, loose)
        elif weights and _LAST.search(path.name):
            last.append(path)
        elif weights and _whole_of(path.name) not in shares:
            shares.add(_whole_of(path.name))
            loose.append(path)


def _place_of(name: str) -> tuple[int, int] | None:
    """Where a checkpoint stands among others, by the step or else the epoch in its name; None where it has neither."""
    steps, epochs = _STEP.findall(name), _EPOCH.findall(name)
    if not steps and not epochs:
        return None
    return int(steps[-1]) if steps else -1, int(epochs[-1]) if epochs else -1


def _whole_of(name: str) -> str:
    """The name that all files have in common which are shares of one checkpoint; a file's own where it is none."""
    return _SHARE.sub(lambda share: _NUMBER.sub("", share[0]), name)


def step_of(checkpoint: Path) -> int | None:
    """The step in a checkpoint's name, or None: an epoch is no step."""
    steps = _STEP.findall(checkpoint.name)
    return int(steps[-1]) if steps else None


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
    """The files of a checkpoint that is a folder, or the one file that it is, with the other shares of it."""
    if not checkpoint.is_file():
        return sorted(path for path in checkpoint.rglob("*") if path.is_file() and not path.is_symlink())
    if not _SHARE.search(checkpoint.name):
        return [checkpoint]
    whole = _whole_of(checkpoint.name)
    return sorted(path for path in checkpoint.parent.iterdir() if path.is_file() and _whole_of(path.name) == whole)
