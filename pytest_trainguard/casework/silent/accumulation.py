"""Gradients that are accumulated are those of all rows at once: case 105."""

from __future__ import annotations

from pytest_trainguard.casework.silent.look import MOST_NAMES, Look, Problems, at, problem
from pytest_trainguard.verdicts.errors import NotApplicable

__all__ = ["find_lost_parts", "find_other_sum"]

EXACT = 0.01  # of a ratio of two norms: they are added up in another order, and few rows are rounded
NEGLIGIBLE = 1e-4  # of the largest norm: a gradient that is but rounding


def find_other_sum(parts: Look, whole: Look) -> Problems:
    """Whether the gradient of some rows in parts is so many times, or one so-manieth of, that of these rows at once.

    Only a factor that is exactly the number of parts is told of: rows may have to do with each other (batch norm,
    contrastive losses), or count by their tokens, and then both gradients differ, and nobody knows which is meant.

    Args:
        parts: the run that accumulates gradients.
        whole: the same, with all rows of a step in one batch.

    Raises:
        NotApplicable: the first steps are not of as many rows, or what they differ by is no factor.
    """
    lost = find_lost_parts(parts, whole)
    if lost:
        return lost
    many, few = (len([event for event in look.training_passes if event["step"] == 0]) for look in (parts, whole))
    rows, others = (look.recording.steps[0].examples for look in (parts, whole) if look.steps)
    # Rows themselves need not look alike, padded with other neighbours; of others no gradient is a multiple.
    if not few or many == few or rows != others:
        raise NotApplicable(
            f"its first step has {many} forward passes over {rows} rows in parts, and {few} over {others} at once: "
            "these are not the same rows in several parts"
        )
    first, second = ({n: v for n, v in _norms_of(look).items() if v > 0} for look in (parts, whole))
    largest = max(second.values(), default=0.0)
    ratios = {n: first[n] / norm for n, norm in second.items() if n in first and norm > NEGLIGIBLE * largest}
    if not ratios:
        raise NotApplicable("no gradient other than 0 is seen in the first step of both runs")
    factors = (1.0, many / few, few / many)
    factor = next((f for f in factors if all(abs(ratio / f - 1) < EXACT for ratio in ratios.values())), None)
    if factor is None:
        low, high = min(ratios.values()), max(ratios.values())
        raise NotApplicable(
            f"its gradient in {many} parts is {low:.3g} to {high:.3g} times that of the same rows at once, which is "
            "no factor: its rows have to do with each other, are not equally long, or it draws random numbers"
        )
    if factor == 1:
        return []
    shown = ", ".join(f"{n} {first[n]:.4g} and {second[n]:.4g}" for n in list(ratios)[:MOST_NAMES])
    event = parts.of("gradient")[0]
    told = f"{factor:.3g} times"
    mend = "divide each loss by the number of parts" if factor > 1 else "divide by the number of parts once"
    return [
        problem(
            "misleads",
            f"the gradient of the first step in {many} parts{at(event['place'])} is {told} that of the same rows at "
            f"once (norms: {shown}): {mend}, so that the learning rate means the same however a step is dealt out",
        )
    ]


def find_lost_parts(parts: Look, whole: Look) -> Problems:
    """Whether gradients are set to zero before each part, so that a step is taken with those of its last one alone."""
    counts = {event["step"]: len(event["starts"]) for event in whole.of("backwards")}
    # Where every gradient of a step is 0, each part begins with that, whatever is done between them.
    learnt = {event["step"] - 1 for event in parts.of("step") if any(event["norms"].values())}
    several = [e for e in parts.of("backwards") if e["step"] and len(e["starts"]) > 1 and counts.get(e["step"]) == 1]
    several = [event for event in several if event["step"] in learnt]
    lost = [event for event in several if not any(event["starts"])]
    if not several or len(lost) < len(several):
        return []
    first, place = lost[0], at(parts.steps[0]["place"])
    count = len(first["starts"])
    return [
        problem(
            "misleads",
            f"each of the {count} backward passes of step {first['step'] + 1}{place} begins with gradients of 0: the "
            f"step is taken with those of the last part alone, and {count - 1} of {count} parts are lost, in each of "
            f"{len(lost)} steps; set gradients to zero once a step",
        )
    ]


def _norms_of(look: Look) -> dict[str, float]:
    return next((event["norms"] for event in look.of("gradient")), {})
