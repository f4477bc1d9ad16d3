"""Checkpoints that a second start wrote again: whether they are what they were, and were whole all the time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.probes.saved_state import find_same
from pytest_trainguard.rows import suffixes

__all__ = ["find_rewritten"]


def find_rewritten(guard: Guard, outcome: Outcome, names: Sequence[str]) -> list[str]:
    """Which changed files of a run's checkpoints hold something else now, or were half there while they were written.

    A program may save once more as it ends, whatever it did: nothing is lost where that is put in its place in one
    step, and holds the same weights, optimizer states and counters.

    Args:
        guard: of the trainer.
        outcome: of the run that changed them.
        names: of the files, in its output folder.
    """
    placed = [name for name in names if _is_placed(outcome, name) and suffixes.weights(outcome.output_dir / name)]
    ours = [outcome.output_dir / name for name in placed]
    theirs = [guard.reference.outcome.output_dir / name for name in placed]
    same = set(guard.subject.server.call(find_same, ours, theirs)) if placed else set()
    return [name for name in names if outcome.output_dir / name not in same]


def _is_placed(outcome: Outcome, name: str) -> bool:
    """It was renamed to where it is, or a folder above it was, and never opened there."""
    output_dir = os.path.realpath(outcome.output_dir)
    written = {(os.path.relpath(event["path"], output_dir), event["how"]) for event in outcome.recording.of("write")}
    above = [name, *map(str, Path(name).parents)]
    return (name, "open") not in written and any((one, how) in written for one in above for how in ("rename", "move"))
