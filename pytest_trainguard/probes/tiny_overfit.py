"""`tiny_overfit`: a program that cannot learn a few examples by heart will not learn anything."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from pytest_trainguard.contract import settings
from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.verdicts import causes
from pytest_trainguard.verdicts.errors import Finding

LAST = 4  # steps whose mean is the final loss: one step's batch may be an easy one


@dataclass(frozen=True)
class Overfit:
    """The loss before and after.

    Attributes:
        first: loss of the first step.
        last: mean loss of the last `LAST` steps.
        outcome: the run.
    """

    first: float
    last: float
    outcome: Outcome

    @property
    def drop(self) -> float:
        """How far the loss fell, as a share of the first."""
        return 1 - self.last / self.first if self.first > 0 else 0.0


class TinyOverfit:
    """Train on a few examples for a few steps, with the trainer's `overfit` settings over its tiny ones."""

    def __init__(self, guard: Guard):
        self.guard = guard

    def __call__(self, examples: int = 32, steps: int = 50) -> Overfit:
        """Run, and read the loss off the recording.

        Source: the overfit check of A. Karpathy, "A Recipe for Training Neural Networks", 2019.

        Raises:
            Finding: the run fails.
            NotApplicable: its losses cannot be seen.
        """
        subject = self.guard.subject
        self.guard.needs.losses()
        data = subject.make_data(self.guard.folder / "few", examples)
        values = subject.description.overfit
        saving = subject.settings.role("save_every")
        if saving:  # this run is about its losses alone
            values = settings.merge({saving.path: steps}, values)
        outcome = self.guard.run(
            f"trained on {examples} examples for {steps} steps, to be learnt by heart",
            data=data, steps=steps, settings=values,
        )  # fmt: skip
        if outcome.exit != 0 or not outcome.losses:
            told = f"the run failed: {outcome.how}"
            raise Finding(outcome.did, told, outcome.last_words, grade="wastes", cause=causes.find_crash(outcome))
        return Overfit(outcome.losses[0], fmean(outcome.losses[-LAST:]), outcome)
