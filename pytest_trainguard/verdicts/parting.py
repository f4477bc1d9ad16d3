"""Which states differ where a resumed run parts from the undisturbed one: what its checkpoint did not bring back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pytest_trainguard.recorder.timeline import Step

if TYPE_CHECKING:
    from pytest_trainguard.contract.outcome import Outcome

# By their names in a recording, in the order in which they are told.
WORDS = {
    "weights": "weights",
    "buffers": "buffers",
    "optimizer": "optimizer state",
    "lr": "learning rate",
    "scaler": "gradient scaler",
    "data": "place in the data",
    "python": "random state of Python",
    "numpy": "random state of NumPy",
    "torch": "random state of torch",
}
GENERATORS = frozenset({"python", "numpy", "torch"})
# What other states may differ of a step later: not so these, which follow from nothing that a step computes.
CAUSES = frozenset({"lr", "scaler", "data"})
MOVED = frozenset({"weights", "buffers", "optimizer"})  # by each step


def find_differing_states(resumed: Outcome, reference: Outcome) -> list[str]:
    """The states that differ as the resumed run goes another way, in words.

    They are those of the first step at which any differs; later ones follow from these. The loss of a step is of the
    states before it: where it parts while all are equal, the reason is none of them.

    Args:
        resumed: the second start; its steps are the last ones of the whole.
        reference: the undisturbed run to as many steps.

    Returns:
        the words for them (`WORDS`); none where the losses do not part, or for no state that was recorded.
    """
    unused = GENERATORS - _used_generators(reference)
    found: set[str] = set()
    for ours, theirs in _until_they_part(resumed, reference):
        differing = {name for name in WORDS if _differs(name, ours.states, theirs.states)} - unused
        if not found:
            found = differing
        elif found <= GENERATORS:  # one may be used for nothing that counts: then the reason shows later
            found |= differing & CAUSES
    if "scaler" in found and _leaves_out_its_first_step(resumed):
        found -= MOVED  # they are one step behind for that
    return [words for name, words in WORDS.items() if name in found]


def _until_they_part(resumed: Outcome, reference: Outcome) -> list[tuple[Step, Step]]:
    """The steps of both that correspond, up to the first whose losses differ; none where all losses are equal."""
    ours, theirs = resumed.recording.steps, reference.recording.steps
    pairs = list(zip(ours, theirs[max(0, len(theirs) - len(ours)) :], strict=False))
    parted = [number for number, (one, other) in enumerate(pairs, 1) if one.loss != other.loss]
    return pairs[: parted[0]] if parted else []


def _used_generators(reference: Outcome) -> frozenset[str]:
    """The random generators whose state changes from step to step: what is never drawn from has not been lost."""
    steps = reference.recording.steps
    return frozenset(
        name for name in GENERATORS if len({step.states[name] for step in steps if name in step.states}) > 1
    )


def _leaves_out_its_first_step(resumed: Outcome) -> bool:
    """The gradient scaler began at a scale at which the gradient overflows, and lowered it in place of a step."""
    return any(event["step"] == 0 for event in resumed.recording.of("scale"))


def _differs(name: str, ours: Mapping[str, str], theirs: Mapping[str, str]) -> bool:
    if name not in ours or name not in theirs:
        return False
    if name == "data":  # of each forward pass; ahead of the first step there may have been one that is of no step
        shorter, longer = sorted((ours[name], theirs[name]), key=len)
        return not longer.endswith(shorter)
    return ours[name] != theirs[name]
