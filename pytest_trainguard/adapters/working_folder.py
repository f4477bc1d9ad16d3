"""A command that names no output folder: each run is started in a folder of its own, where its output is looked for.

In it the project is seen through links, and the run's piece of data stands in the place of the sample.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from pytest_trainguard.adapters.known import places_in
from pytest_trainguard.contract import checkpoints
from pytest_trainguard.contract.trainer import TrainerSpec
from pytest_trainguard.rows import suffixes

Place = tuple[Path, Path | None]  # where in a run's folder, and what a link there leads to; None for an empty folder
NOT_LINKED = (".git", "__pycache__")
TOLD = (
    "its command has no {output_dir}: each run is started in a folder of its own, in which the project is linked, and "
    "what it writes there is its output"
)


def works_in_output(spec: TrainerSpec) -> bool:
    """Whether a run's working folder is its output folder: its command has no `{output_dir}`."""
    return isinstance(spec, Mapping) and "command" in spec and not _names(spec, "output_dir")


def is_unbounded(spec: TrainerSpec) -> bool:
    """Whether a command is told no number of steps: it has neither `{max_steps}` nor `{epochs}`."""
    return isinstance(spec, Mapping) and "command" in spec and not _names(spec, "max_steps", "epochs")


def _names(table: Mapping[str, Any], *places: str) -> bool:
    return any(place in places_in(table["command"]) for place in places)


def sample_place(spec: TrainerSpec, root: Path) -> Path | None:
    """Where a program that is not told of its data finds the sample, from the project's root; None where it is told."""
    if not isinstance(spec, Mapping) or "sample" not in spec or _names(spec, "data"):
        return None
    place = Path(os.path.normpath(str(spec["sample"])))
    if place.is_absolute():
        place = Path(os.path.relpath(place, root))
    return place if place.parts and place.parts[0] != ".." else None


def choose_links(root: Path, sample: Path | None, written: Collection[str], apart: Path) -> list[Place]:
    """What of a project is linked into the folder in which a program is started that reads relative to it.

    What a program itself has written there must not be found by the next run: folders in which checkpoints lie are
    empty, files of weights are left out, and so is what `written` names.

    Args:
        root: the project's.
        sample: the place of the sample, from there, which is left to the run's piece of data; None for none.
        written: names in the root that the program itself writes to.
        apart: a folder of the harness's own, which may be inside of the project.
    """
    found: list[Place] = []
    parts = sample.parts if sample else ("",)
    for depth, there in enumerate(parts):
        level = Path(*parts[:depth])
        if depth:
            found.append((level, None))
        for entry in sorted((root / level).iterdir()) if (root / level).is_dir() else []:
            if entry.name == there or entry.name in NOT_LINKED or entry in apart.parents:
                continue
            is_written = not depth and entry.name in written
            if entry.is_dir() and (is_written or checkpoints.find(entry)):
                found.append((level / entry.name, None))
            elif not is_written and not (entry.is_file() and suffixes.weights(entry)):
                found.append((level / entry.name, entry))
    return found


def furnish(folder: Path, links: Iterable[Place], data: tuple[Path, Path] | None) -> None:
    """Link the project into a run's folder; what is in it already stays. `data`: the sample's place, and the data."""
    with contextlib.suppress(OSError):  # a folder that may not be written to is the case's doing
        for place, target in links:
            if target is None:
                (folder / place).mkdir(exist_ok=True)
            elif not os.path.lexists(folder / place):
                (folder / place).symlink_to(target)
        if data:
            (folder / data[0]).unlink(missing_ok=True)
            (folder / data[0]).symlink_to(data[1])


def furnish_alike(folder: Path, furnished: Path) -> None:
    """Have the same links in a folder as in another one, which `furnish` has seen to."""
    for entry in furnished.iterdir():
        if entry.is_symlink():
            (folder / entry.name).symlink_to(os.readlink(entry))
