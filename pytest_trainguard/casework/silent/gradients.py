"""Gradients begin at zero, and are clipped as they are stepped with: cases 106 and 119."""

from __future__ import annotations

from pytest_trainguard.casework.silent.look import ENOUGH, Look, Problems, at, problem
from pytest_trainguard.recorder.timeline import Event
from pytest_trainguard.verdicts.errors import NotApplicable

__all__ = ["find_left_over", "find_unclipped"]

SLACK = 1.01  # a norm is computed anew, in another order


def find_left_over(look: Look) -> Problems:
    """Steps that were taken with what the step before had left in the gradients.

    Raises:
        NotApplicable: no gradient other than 0 was seen.
    """
    steps = look.steps
    if not any(norm > 0 for step in steps for norm in step["norms"].values()):
        raise NotApplicable("no gradient other than 0 was seen at any optimizer step")
    stale = [step for step in steps if step["stale"]]
    if not stale:
        return _find_of_another_loss(look)
    first = stale[0]
    number = first["stale"][0]
    before = [step for step in steps if step["step"] < first["step"] and str(number) in step["norms"]]
    norms = f"{before[-1]['norms'][str(number)]:.3g}, then {first['norms'][str(number)]:.3g}" if before else "unknown"
    return [
        problem(
            "misleads",
            f"step {first['step']}{at(first['place'])} is taken with the sum of its own gradients and those of the "
            f"step before: {look.name_all(first['stale'])} were not set to zero in between (norms: {norms}); "
            f"{len(stale)} of {len(steps)} steps",
        )
    ]


def _find_of_another_loss(look: Look) -> Problems:
    """Steps of one optimizer that are taken with gradients of the loss for which another has stepped before it.

    Two networks that play against each other then help each other; a part that both use may be meant to have both.
    """
    by_optimizer: dict[int, list[Event]] = {}
    for step in look.steps:
        by_optimizer.setdefault(step["optimizer"], []).append(step)
    for mine in by_optimizer.values():
        added = [step for step in mine if step.get("added_to")]
        if len(added) < ENOUGH or 2 * len(added) < len(mine):
            continue
        first = added[0]
        numbers = [int(number) for number in first["added_to"]]
        before = next(iter(first["added_to"].values()))
        return [
            problem(
                "unclear",
                f"step {first['step']}{at(first['place'])} is taken with gradients of two losses: those that the "
                f"backward pass{at(before)} left in {look.name_all(numbers)}, for which another optimizer has stepped "
                f"by then, and its own{at(first['backward'])}; {len(added)} of {len(mine)} steps. Where it is to learn "
                "from its own alone, detach what the other loss is of, or set its gradients to zero in between",
            )
        ]
    return []


def find_unclipped(look: Look) -> Problems:
    """Clipping that does not hold for what is stepped with.

    Raises:
        NotApplicable: nothing is clipped where that can be seen.
    """
    steps = look.steps
    clips = [event for event in look.of("clip") if 0 < event["limit"] < float("inf")]
    if not clips:
        raise NotApplicable("it clips no gradient with torch.nn.utils.clip_grad_norm_")
    empty = [event for event in clips if not event["parameters"]]
    found = []
    if empty:
        found.append(
            problem(
                "misleads",
                f"clip_grad_norm_{at(empty[0]['place'])} is given no parameter at step {empty[0]['step'] + 1}: it "
                "clips nothing; an iterator can be gone through once",
            )
        )
    seen = [(step, clip) for step in steps for clip in step["clips"] if 0 < clip["limit"] < float("inf")]
    scaled = [(step, clip) for step, clip in seen if clip["scale"] >= 2]
    shrunk = [pair for pair in scaled if abs(pair[1]["norm"] * pair[1]["scale"] / pair[1]["limit"] - 1) < SLACK - 1]
    if scaled and len(shrunk) == len(scaled):
        step, clip = shrunk[0]
        found.append(
            problem(
                "misleads",
                f"gradients are clipped{at(clip['place'])} while the gradient scaler has them multiplied by "
                f"{clip['scale']:g}: what is stepped with has a norm of {clip['norm']:.3g} and not {clip['limit']:g}, "
                f"in each of {len(scaled)} steps: call scaler.unscale_(optimizer) before",
            )
        )
    over = [(step, clip) for step, clip in seen if clip["norm"] > clip["limit"] * SLACK]
    if over:
        step, clip = over[0]
        found.append(
            problem(
                "misleads",
                f"step {step['step']}{at(step['place'])} is taken with a gradient of norm {clip['norm']:.3g}, though "
                f"it was clipped to {clip['limit']:g}{at(clip['place'])}: after that more was added; {len(over)} of "
                f"{len(steps)} steps",
            )
        )
    return found
