"""`tiny_overfit`: a program that cannot learn a few examples by heart will not learn anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from pytest_trainguard import faults
from pytest_trainguard.contract import settings
from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.faults import Fault
from pytest_trainguard.launch.protocol import RunRequest
from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.verdicts import causes
from pytest_trainguard.verdicts.errors import Finding, NotApplicable

LAST = 4  # steps whose mean is the final loss: one step's batch may be an easy one
FINAL_LOSS, DROP = 0.5, 0.7  # of the post-mortem's tiny-overfit check: what is learnt by heart
SHARE = 0.4  # by which a loss must fall that no stated label can be learnt by heart of
LONGER = 3  # times as many steps, for what learns slowly
SLOWLY = 0.05  # by which a loss must fall in a longer run, to learn at all
STILL = 0.25  # of how far a loss fell: that it goes on falling in the steps beyond the usual ones
BEYOND = 4.0  # standard errors: farther than that from where it stands untrained, a loss has moved
SAME = 1e-6  # relative difference of losses that are the same


@dataclass(frozen=True)
class Overfit:
    """The loss before and after.

    Attributes:
        first: loss of the first step.
        last: mean loss of the last `LAST` steps.
        outcome: the run.
        asked: optimizer steps that it was to take.
    """

    first: float
    last: float
    outcome: Outcome
    asked: int = 0

    @property
    def drop(self) -> float:
        """How far the loss fell, as a share of the first; 0 where that is not above 0, and has no share."""
        return 1 - self.last / self.first if self.first > 0 else 0.0

    @property
    def by_heart(self) -> bool:
        """Whether the examples were learnt by heart, as a classifier can."""
        return self.last < FINAL_LOSS and self.drop > DROP

    def __str__(self) -> str:
        fell = self.first - self.last
        if self.first > 0 and self.last >= 0:
            change = f"{self.drop:.0%} lower" if self.drop >= 0 else f"{-self.drop:.0%} higher"
        else:
            change = f"{fell:.3f} lower" if fell >= 0 else f"{-fell:.3f} higher"
        taken = len(self.outcome.recording.of("step"))
        early = f"in {taken} of {self.asked} steps " if taken < self.asked else ""
        return f"{early}the loss went from {self.first:.3f} to {self.last:.3f} ({change})"


class TinyOverfit:
    """Train on a few examples for a few steps, with the trainer's `overfit` settings over its tiny ones."""

    def __init__(self, guard: Guard):
        self.guard = guard
        self._data: dict[int, Path | None] = {}  # by the number of examples
        self._epochs: dict[str, object] = {}  # as many as the steps need, where the usual ones end before them
        self.learns_slowly = False  # what `find_problem` found last is that a loss falls, and takes its time

    def __call__(self, examples: int = 32, steps: int = 50) -> Overfit:
        """Run, and read the loss off the recording.

        Source: the overfit check of A. Karpathy, "A Recipe for Training Neural Networks", 2019.

        Raises:
            Finding: the run fails.
            NotApplicable: its losses cannot be seen.
        """
        self.guard.needs.losses()
        (outcome,) = self.guard.run_all([self._request(examples, steps)])
        epochs = self.guard.subject.settings.role("epochs")
        if epochs and outcome.exit == 0 and len(outcome.recording.of("step")) < steps:  # its epochs are over before
            self._epochs = {epochs.path: int(min(steps, epochs.bounds.get("le", steps)))}
            (outcome,) = self.guard.run_all([self._request(examples, steps)])
        losses = _Losses(outcome)
        if outcome.exit != 0 or not losses.all:
            told = f"the run failed: {outcome.how}"
            raise Finding(outcome.did, told, outcome.last_words, grade="wastes", cause=causes.find_crash(outcome))
        return Overfit(losses.all[0], fmean(losses.all[-LAST:]), outcome, steps)

    def _request(self, examples: int, steps: int, fault: Fault | None = None) -> RunRequest:
        subject = self.guard.subject
        if examples not in self._data:
            self._data[examples] = subject.make_data(self.guard.folder / f"few-{examples}", examples)
        values = settings.merge(self._epochs, subject.description.overfit)
        saving = subject.settings.role("save_every")
        if saving:  # this run is about its losses alone
            values = settings.merge({saving.path: steps}, values)
        did = f"trained on {examples} examples for {steps} steps, to be learnt by heart"
        did += f", {fault}" if fault else ""
        return RunRequest(did, data=self._data[examples], steps=steps, settings=values, fault=fault)

    def find_problem(self, result: Overfit, examples: int = 32, steps: int = 50) -> str | None:
        """What is wrong with how the loss went in a run that `__call__` made; None where it was learnt.

        A target that the trainer states decides. Else what was learnt by heart is fine; any other loss is held against
        where it stands if every optimizer step is undone, and against a longer run.

        Raises:
            NotApplicable: this loss tells nothing of what is learnt.
        """
        self.learns_slowly = False
        target = self.guard.subject.description.overfit_below
        if target is not None:
            return None if result.last < target else f"{result}, and is to come below {target:g}"
        if result.by_heart:
            return None
        untrained, longer = self.guard.run_all(
            [
                self._request(examples, steps, faults.undo_steps()),
                self._request(examples, LONGER * steps),
            ]
        )
        usual, still, later = _Losses(result.outcome), _Losses(untrained), _Losses(longer)
        if not still.all:
            return f"{result}; {_HINT}"
        if len(usual.of_each) > 1:
            at_rest = [name for name in usual.of_each if not _leaves(name, usual, later, still)]
            if not at_rest:
                return None
            told = f"that of optimizer {', '.join(str(1 + name) for name in at_rest)} of {len(usual.of_each)}"
            return f"{result}; {_stands(still.all)}, and {told} stays there; {_HINT}"
        share = DROP if self.guard.subject.description.labels else SHARE
        if any(_learnt(one.all, still.all, share) for one in (usual, later) if one.outcome.exit == 0):
            return None
        if min(still.all) < 0 < max(still.all) or max(map(abs, still.all)) < SAME:
            raise NotApplicable(
                f"its loss stands around 0 without a step, too ({fmean(still.all):.3f}), and tells nothing of what is "
                "learnt: say where it must come, overfit_below = ..."
            )
        self.learns_slowly = longer.exit == 0 and _falls_on(usual.all, later.all, still.all)
        after = "" if not later.all else f"; after {len(later.all)} steps it is at {fmean(later.all[-LAST:]):.3f}"
        return f"{result}{after}; {_stands(still.all)}; {_HINT}"


_HINT = "name settings that learn faster in `overfit`, or what the loss must come to in `overfit_below`"


class _Losses:
    """The losses of a run, turned round where they are to rise.

    Attributes:
        all: of every step that has one.
        of_each: the same, by the number of the optimizer that took the step.
        outcome: the run.
    """

    def __init__(self, outcome: Outcome):
        self.outcome = outcome
        self.of_each: dict[int, list[float]] = {}
        self.all: list[float] = []
        for event in outcome.recording.of("step"):
            if event["losses"] and math.isfinite(event["loss"]):
                loss = -event["loss"] if event["maximises"] else event["loss"]
                self.all.append(loss)
                self.of_each.setdefault(event["optimizer"], []).append(loss)


def _stands(still: Sequence[float]) -> str:
    return f"with every optimizer step undone it stands at {fmean(still):.3f}, give or take {_spread(still):.3f}"


def _spread(losses: Sequence[float]) -> float:
    return stdev(losses) if len(losses) > 1 else 0.0


def _error(ends: Sequence[float], still: Sequence[float]) -> float:
    """The standard error of the difference between two levels, by the spread of losses where nothing is learnt."""
    return _spread(still) * math.sqrt(1 / len(ends) + 1 / len(still))


def _end(losses: Sequence[float]) -> Sequence[float]:
    """The last quarter."""
    return losses[-max(LAST, len(losses) // 4) :]


def _learnt(losses: Sequence[float], still: Sequence[float], share: float) -> bool:
    """Whether a loss ends clearly below where it stands untrained: by that share of it, and beyond its spread."""
    if not losses:
        return False
    level, ends = fmean(still), _end(losses)
    return level - fmean(ends) > max(share * abs(level), BEYOND * _error(ends, still))


def _falls_on(usual: Sequence[float], later: Sequence[float], still: Sequence[float]) -> bool:
    """Whether a loss is plainly below where it stands untrained, and plainly lower again at the end of a longer run.

    What learns the shares of the classes, and nothing of the rows, has come to rest by then.
    """
    if len(still) < 2 or len(later) < 2 * len(usual):
        return False
    level, ends, last = fmean(still), _end(usual), _end(later)
    fell, more = level - fmean(ends), fmean(ends) - fmean(last)
    if fell + more < SLOWLY * abs(level):
        return False
    return min(fell, more) > BEYOND * _error(ends, still) and more > STILL * (fell + more)


def _leaves(name: int, usual: _Losses, later: _Losses, still: _Losses) -> bool:
    """Whether the losses of one of several optimizers leave the level where they stand untrained, be it later.

    Step by step they are held against those of the same batch; those of a longer run against the level.
    """
    level = still.of_each.get(name, [])
    longer = later.of_each.get(name, [])[len(level) :] if later.outcome.exit == 0 else []
    flat = [fmean(level)] * len(longer) if level else []
    return _moved(usual.of_each[name], level) or _moved(longer, flat, _spread(level))


def _moved(losses: Sequence[float], still: Sequence[float], spread: float | None = None) -> bool:
    """Whether one of several losses has plainly left the level where it stands untrained.

    Where two networks play against each other one's gain is the other's loss, and neither has a floor.
    """
    if len(still) < 2 or len(losses) < 2:
        return False
    pairs = [after - before for after, before in zip(losses, still, strict=False)]
    size = max(3, len(pairs) // 4)
    windows = [pairs[start : start + size] for start in range(len(pairs) - size + 1)]
    largest = max(abs(fmean(window)) for window in windows)
    spread = _spread(still) if spread is None else spread
    return largest > max(BEYOND * spread / math.sqrt(size), 0.05 * abs(fmean(still)))
