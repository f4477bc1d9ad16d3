"""Which checkpoint a run goes on from, and what makes one unfit."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainers.common import files
from trainers.common.checkpoint import MANIFEST, NAME, STATE, WEIGHTS, Checkpoint, Damaged, numbered, verify
from trainers.common.errors import InputError, show
from trainers.common.process import Run
from trainers.common.program import Places

SET_ASIDE = "set-aside-"


def find_checkpoint(run: Run, places: Places) -> Checkpoint | None:
    """The checkpoint of this program to resume from, if any.

    Args:
        run: is told.
        places: whence and where to.

    Raises:
        InputError: see `choose`; it is of another program; or nothing is to be resumed and the output folder holds an
            earlier run.
    """
    run.stage = "looking for a checkpoint"
    if places.resume_from is not None:
        found = choose(places.resume_from, places.output_dir, run.say)
        if found is not None:
            require_program(found, run.program)
        return found
    if there := numbered(places.output_dir):
        message = f"holds {there[0][1].name} of an earlier run: resume from it, or choose another folder"
        raise InputError(f"output folder {show(places.output_dir)} {message}")
    return None


def choose(resume_from: Path, output_dir: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """What to resume from: a checkpoint as named, or the newest whole one in an output folder.

    Args:
        resume_from: a checkpoint, or an output folder.
        output_dir: this run's own, which may be fresh: nothing in it is no mistake, and None is returned.
        say: is told what was passed over, and when there is none.

    Raises:
        InputError: a named checkpoint is missing or damaged; a folder is missing; it holds checkpoints, all
            damaged.
    """
    name = show(resume_from)
    try:
        is_folder, exists = resume_from.is_dir(), os.path.lexists(resume_from)
        own = resume_from.resolve() == output_dir.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"resume from {name}: {error}") from None
    if exists and not is_folder:
        raise InputError(f"resume from {name}: not a checkpoint folder")
    if not exists and not own:
        raise InputError(f"resume from {name}: no such folder")
    if NAME.fullmatch(resume_from.name) or any((resume_from / file).exists() for file in (MANIFEST, STATE, WEIGHTS)):
        try:
            return verify(resume_from)
        except Damaged as damage:
            raise InputError(f"checkpoint {name} is damaged: {damage}") from None
    damages = []
    for _, path in numbered(resume_from):
        try:
            return verify(path)
        except Damaged as damage:
            damages.append(f"{path.name} is damaged ({damage})")
            say(f"{damages[-1]}: looking for the one before")
    if damages:
        raise InputError(f"resume from {name}: no whole checkpoint; {'; '.join(damages)}")
    say(f"no checkpoint in {name}: starting at step 0")
    return None


def set_aside(root: Path, step: int, say: Callable[[str], None]) -> None:
    """Rename the checkpoints in ``root`` later than the ``step`` resumed from."""
    for later, path in numbered(root):
        if later > step:
            aside = root / f"{SET_ASIDE}{path.name}"
            files.remove(aside)
            path.rename(aside)
            say(f"{path.name} is later than step {step}: set aside as {aside.name}")


def require_program(checkpoint: Checkpoint, program: str) -> None:
    """Hold the program that wrote a checkpoint against the one that wants it.

    Raises:
        InputError: they differ, naming both.
    """
    other = checkpoint.state.get("program")
    if other != program:
        raise InputError(f"checkpoint {show(checkpoint.path)} is of {other or 'an unnamed program'}, not of {program}")


def require_same(checkpoint: Checkpoint, key: str, expected: dict[str, Any]) -> None:
    """Hold a description saved in the checkpoint's state under ``key`` against this run's.

    Raises:
        InputError: they differ, naming the first field that does and both values.
    """
    saved = checkpoint.state.get(key)
    saved = saved if isinstance(saved, dict) else {}
    for name in {**expected, **saved}:
        if saved.get(name) != expected.get(name):
            message = f"{name} is {saved.get(name)!r} there and {expected.get(name)!r} here"
            raise InputError(f"checkpoint {show(checkpoint.path)} is of another {key}: {message}")
