"""Whether a second start still knows how good the best was: else it keeps the first that it comes to."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from pytest_trainguard import faults
from pytest_trainguard.contract import checkpoints, settings
from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.rows import suffixes
from pytest_trainguard.verdicts.errors import CannotJudge, Finding, NotApplicable

__all__ = ["require_best_kept"]

EVERY = 1  # step between evaluations
FIRST = 2  # steps before the save from which the second start goes on: an evaluation is in it, whenever that comes


def require_best_kept(guard: Guard) -> None:
    """What is kept as the best is not written over after a resume by what is far worse.

    Two runs have the same evaluations, all far worse from one step on: one is undisturbed, the other was killed just
    before them and goes on. Where the first leaves its best alone from there on, so must the second.

    Nothing is said of a program without a setting for how often it evaluates, or that writes nothing called the best.

    Raises:
        Finding: it is written over.
    """
    saves = [step for step in guard.reference.saves if FIRST <= step < guard.reference.last_step]
    values = _evaluating(guard)
    if saves and values:
        with contextlib.suppress(NotApplicable, CannotJudge):  # it evaluates nothing, or does not take these settings
            _compare(guard, saves[0], values)


def _compare(guard: Guard, save: int, values: dict[str, object]) -> None:
    """Hold the two runs against each other; `save`: the step after which the second one was killed."""
    worse = faults.worse_evaluations(save + 1)
    whole = guard.run("had evaluations that are far worse", settings=values, fault=worse)
    known = _best_writes(whole)
    if whole.exit != 0 or not known or max(known) > save:
        return
    did = f"sent SIGKILL in step {save + 1}"
    killed = guard.run(did, settings=values, fault=faults.kill(save + 1))
    if not _best_writes(killed):
        return
    did = f"{did}, then started again to resume, with evaluations that are far worse from then on"
    worse = faults.worse_evaluations(1)
    resumed = guard.run(did, settings=values, output_dir=killed.output_dir, resume=True, fault=worse)
    written = [(step, name) for step, name in _best_writes(resumed).items() if step]
    begins_again = len(resumed.recording.steps) >= len(whole.recording.steps)  # which is told elsewhere
    if resumed.exit != 0 or not written or begins_again:
        return
    step, name = written[0]
    raise Finding(
        did,
        f"the best of all evaluations is lost: {name} is written over {step} steps after the resume, with what is far "
        f"worse, where a run that goes on undisturbed, with the same evaluations, leaves it alone from step {save} on. "
        "How good the best was is not known after a resume: save that number with the checkpoint, and restore it",
        resumed.last_words,
        grade="loses",
    )


def _evaluating(guard: Guard) -> dict[str, object]:
    """The settings for an evaluation after each step; empty where there are none."""
    subject = guard.subject
    every, file = subject.settings.role("eval_every"), subject.settings.role("validation_data")
    if every is None or not every.allows(EVERY):
        return {}
    if file is None or subject.data is None:
        return {every.path: EVERY}
    other = subject.make_validation(subject.server.new_folder("validation"))
    return settings.merge({every.path: EVERY}, {file.path: str(other)})


def _best_writes(outcome: Outcome) -> dict[int, str]:
    """What was written that is called the best and holds weights, by the steps that were done, each the first name."""
    found: dict[int, str] = {}
    output_dir = os.path.realpath(outcome.output_dir)
    for event in outcome.recording.of("write"):
        name = os.path.relpath(event["path"], output_dir)
        whole = checkpoints.is_called_best(name) and not name.startswith("..")
        if whole and event["how"] in ("open", "rename", "move") and _holds_weights(outcome.output_dir / name):
            found.setdefault(event["step"], name)
    return found


def _holds_weights(path: Path) -> bool:
    """A file of weights, or a folder that was put in its place as a whole, with one in it."""
    return bool(suffixes.weights(path)) or (path.is_dir() and any(map(suffixes.weights, path.rglob("*"))))
