"""What a run that was looked at closely recorded, read back: see `recorder.close_look`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property

from pytest_trainguard.harm import Grade, Problem
from pytest_trainguard.recorder.timeline import Event, Recording
from pytest_trainguard.verdicts.errors import NotApplicable

__all__ = ["Look", "Problems", "at", "listed", "problem"]

ENOUGH = 3  # optimizer steps: fewer say nothing of what moves
Problems = list[Problem]
MOST_NAMES = 4  # that a message lists


class Look:
    """One run's recording by what was seen at each door, in order."""

    def __init__(self, recording: Recording):
        self.recording = recording

    def of(self, kind: str) -> list[Event]:
        """The events of one kind: `tensor`, `pass`, `loss`, `broadcast`, `clip`, `step`, `planned`, `scheduled`, ..."""
        return self.recording.of(f"look {kind}")

    @cached_property
    def steps(self) -> list[Event]:
        """The optimizer steps, in order.

        Raises:
            NotApplicable: there are too few of them.
        """
        found = self.of("step")
        if len(found) < ENOUGH:
            told = f"the run took {len(found)} optimizer steps, and {ENOUGH} are needed to see what goes wrong"
            raise NotApplicable(f"{told}: let it take run.max_steps")
        return found

    @cached_property
    def tensors(self) -> dict[int, Event]:
        """The last that was told of each parameter, and of each buffer of a frozen module, by number."""
        return {event["number"]: event for event in self.of("tensor")}

    @property
    def parameters(self) -> list[Event]:
        """The tensors that are parameters."""
        return [event for event in self.tensors.values() if event["sort"] == "parameter"]

    @cached_property
    def training_passes(self) -> list[Event]:
        """Forward passes with gradients."""
        return [event for event in self.of("pass") if event["gradients"]]

    @cached_property
    def evaluations(self) -> list[Event]:
        """Forward passes without gradients that are no part of a step: of a model that trains, between some steps only.

        Or of a copy of one: of two models whose first parameters have one name and shape, which the average of the
        weights is. What is computed without gradients before every step (a target, a generator's sample, a
        pseudo-label) belongs to the step.
        """
        trained = {self._first_of(event["number"]) for event in self.training_passes}
        found = [event for event in self.of("pass") if not event["gradients"]]
        found = [event for event in found if self._first_of(event["number"]) in trained]
        windows = Counter(event["step"] for event in found)
        inner = set(range(1, len(self.steps) - 1))
        if inner and inner <= set(windows):
            return []
        return found

    def _first_of(self, number: int) -> object:
        """A model by its first parameter: the name and the shape of that, where they are known."""
        tensor = self.tensors.get(number)
        return (tensor["name"], tuple(tensor["shape"])) if tensor and tensor["name"] else number

    def name_all(self, numbers: Sequence[int]) -> str:
        """Tensors by their names, the first few of them."""
        return listed([self.tensors[number]["name"] or "a tensor of no module" for number in numbers])


def listed(names: Sequence[str]) -> str:
    """The first few of some names, and how many more there are."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def problem(grade: Grade, said: str) -> Problem:
    """One thing that was found."""
    return Problem(grade, said)


def at(place: str) -> str:
    """` (train.py:12)`; nothing where no line of the team's own code leads there."""
    return f" ({place})" if place else ""
