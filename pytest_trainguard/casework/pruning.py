"""Many saves in one run, of which a few are kept: which are there in the end, and which a second start takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.launch.protocol import RUN_STEPS
from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.subject.reference import find_saves
from pytest_trainguard.verdicts.errors import CannotJudge, Finding, NotApplicable

__all__ = ["SAVES", "TIME_LIMIT", "Saving", "check", "save_often", "steps_for_each"]

SAVES = 11  # so many that names of one digit and of two stand side by side
KEPT = 3
TIME_LIMIT = 60.0  # seconds for as many steps as they take
LONGEST = 100  # optimizer steps
# Settings for how many checkpoints are kept, by the names that they go by.
KEEPING = (
    "save_total_limit", "keep_last", "keep_checkpoints", "max_to_keep", "keep_last_n", "keep_n", "keep",
    "max_checkpoints", "checkpoints_total_limit", "total_limit", "keep_last_k", "keep_n_checkpoints", "save_top_k",
)  # fmt: skip


@dataclass(frozen=True)
class Saving:
    """How a program is made to save often.

    Attributes:
        every: optimizer steps from one save to the next.
        settings: with which it does so.
        kept: of how many are kept, in words to follow; empty where no setting says it.
    """

    every: int
    settings: dict[str, object]
    kept: str


def steps_for_each(guard: Guard, usual: Outcome) -> float:
    """The optimizer steps of a run of the usual length to each that is asked for: more than 1 with several optimizers.

    A program that counts epochs goes on to the end of one, which is no step more for each.
    """
    spec = guard.subject.spec
    epoch = spec.get("steps_per_epoch") if isinstance(spec, Mapping) else None
    asked = math.ceil(RUN_STEPS / epoch) * epoch if isinstance(epoch, int) else RUN_STEPS
    return len(usual.recording.steps) / asked


def save_often(guard: Guard) -> Saving:
    """One save after each step, where that can be set, else as often as it saves by itself; three are kept.

    Raises:
        NotApplicable: how often it saves is not seen, or as many saves take too many steps.
    """
    settings, saves = guard.subject.settings, guard.reference.saves
    given: dict[str, object] = {}
    field = settings.role("save_every")
    gaps = {after - before for before, after in pairwise((0, *saves))}
    every = 1 if field and field.allows(1) else min(gaps, default=0)
    if field and field.allows(1):
        given[field.path] = 1
    if not every or every * (SAVES + 2) > LONGEST:
        raise NotApplicable(
            f"how often it saves is not seen in a short run: name the setting, {guard.needs.SAVE_EARLIER}",
            guard.needs.SAVE_EARLIER,
        )
    keeping = next((one for name in KEEPING for one in settings.fields if one.path.rpartition(".")[2] == name), None)
    if keeping and keeping.kind == "int" and keeping.allows(KEPT):
        given[keeping.path] = KEPT
    return Saving(every, given, f" and keep {KEPT}" if len(given) == 2 else "")


def check(guard: Guard, killed: Outcome, again: Outcome, whole: int) -> None:
    """The second start carries on from the newest save, or the one before, which is whole whenever the kill comes.

    Args:
        guard: of the trainer.
        killed: a run that was killed after so many saves.
        again: the second start in a copy of its folder.
        whole: optimizer steps of a run that nobody kills.

    Raises:
        Finding: it takes more, or does not carry on.
        CannotJudge: the killed run did not save as often.
    """
    saves = find_saves(guard.subject, killed)
    if not saves:
        raise CannotJudge(f"{killed.did}: no save of it is seen", killed.output[-4000:])
    left = ", ".join(path.name for path in guard.checkpoints.find(killed.output_dir)) or "none"
    if again.exit != 0:
        told = f"the second start did not carry on: {again.how}; checkpoints that were left: {left}"
        raise Finding(again.did, told, again.last_words, grade="loses")
    taken = len(again.recording.steps)
    before = saves[-2] if len(saves) > 1 else 0  # a save that goes on beside the next step was not yet whole
    if taken > whole - before:
        were_left = whole - saves[-1]
        told = (
            f"it saved last after step {saves[-1]}, and the second start took {taken} steps, where {were_left} "
            f"were left: it carried on from an older state. Checkpoints that were left: {left}. Sort them by the "
            "number of the step and not by name, where 9 comes after 10, and remove old ones when the new one is there"
        )
        raise Finding(again.did, told, again.last_words, grade="loses")
