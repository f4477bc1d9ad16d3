"""Two runs of which every step was undone, held against each other: in one of them batches were changed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pytest_trainguard.casework.silent.look import Look
from pytest_trainguard.recorder.timeline import Event
from pytest_trainguard.verdicts.errors import NotApplicable

__all__ = ["CONTROL", "Difference", "find_difference", "first_pass_of", "gradient_of", "require_control", "tolerances"]

CONTROL = 2  # the number of the step, from 0, of which the batches are as they are in both
# How far a loss, and the norm of a parameter's gradient, may be off by being added up in another order: in single
# precision, and in half of that.
CLOSE, COARSE = (1e-4, 1e-3), (1e-2, 5e-2)
NEGLIGIBLE = 1e-2  # of the largest norm: a gradient that may be but rounding


@dataclass(frozen=True)
class Difference:
    """By what two runs differ at one step.

    Attributes:
        losses: of the run on batches as they are, and of the other.
        moved: the norm of the first gradients that differ, by name, in the same order.
    """

    losses: tuple[float, float]
    moved: Mapping[str, tuple[float, float]]

    def __str__(self) -> str:
        told = f"a loss of {self.losses[1]:.6g} and not of {self.losses[0]:.6g}"
        name = next(iter(self.moved), None)
        if name is None:
            return told
        return f"{told}; norm of the gradient of {name}: {self.moved[name][1]:.4g} and {self.moved[name][0]:.4g}"


def gradient_of(look: Look, number: int) -> Event | None:
    """What was noted of a step's gradient, steps counted from 0."""
    return next((event for event in look.of("gradient") if event["step"] == number), None)


def first_pass_of(look: Look, number: int) -> list[tuple[list[int], str]]:
    """Shape and digest of each tensor that went into the model in a step's passes."""
    event = gradient_of(look, number)
    return [(shape, digest) for shape, digest in event["inputs"]] if event else []


def tolerances(look: Look, number: int) -> tuple[float, float]:
    """How far two losses, and two norms, of a step may be off."""
    step = look.recording.steps[number]
    half = step.autocast is not None or step.dtype != "torch.float32"
    return COARSE if half else CLOSE


def find_difference(plain: Look, changed: Look, number: int) -> Difference | None:
    """By what a step's loss and gradients differ; None where they are the same.

    Raises:
        NotApplicable: one of the runs did not come to that step, or draws random numbers in it.
    """
    before, after = gradient_of(plain, number), gradient_of(changed, number)
    if before is None or after is None or min(len(look.recording.steps) for look in (plain, changed)) <= number:
        raise NotApplicable(f"it took no step {number + 1}, or its gradient is not seen")
    if before["drawn"]:
        raise NotApplicable("it draws random numbers in a training pass, for one row other ones than for the next")
    one, other = plain.recording.steps[number].loss, changed.recording.steps[number].loss
    of_loss, of_gradient = tolerances(plain, number)
    largest = max(before["norms"].values(), default=0.0)
    norms = {n: (v, after["norms"].get(n, 0.0)) for n, v in before["norms"].items() if v > NEGLIGIBLE * largest}
    moved = {n: pair for n, pair in norms.items() if not math.isclose(*pair, rel_tol=of_gradient)}
    if not moved and math.isclose(one, other, rel_tol=of_loss):
        return None
    return Difference((one, other), moved)


def require_control(plain: Look, changed: Look) -> None:
    """A step on batches that are the same in both runs has the same loss and gradient; those on others have others.

    Raises:
        NotApplicable: not so: what was changed before shows in it, or its loss is the same whatever the batch is.
    """
    if find_difference(plain, changed, CONTROL):
        raise NotApplicable("its loss depends on the batches before, though every step is undone")
    if len({f"{step.loss:.6g}" for step in plain.recording.steps}) < 2:
        raise NotApplicable("its loss is the same for each batch, so that nothing is seen by it")
