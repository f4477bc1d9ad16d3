"""Averaged weights follow the model: case 123."""

from __future__ import annotations

from pytest_trainguard.casework.silent.look import ENOUGH, Look, Problems, at, listed, problem
from pytest_trainguard.recorder.timeline import Event
from pytest_trainguard.verdicts.errors import NotApplicable

__all__ = ["find_astray"]

MOST = 0.5  # of the values that moved
SEVERAL = 2  # evaluations


def find_astray(look: Look) -> Problems:
    """Averages that are evaluated and were never updated, and copies of the model that move away from it.

    A copy that stands still is a teacher or a reference, unless it alone is evaluated. One that follows, by an average
    or as a copy of a moment, goes to what lies between itself and the model.

    Raises:
        NotApplicable: nothing follows the model.
    """
    evaluated = [event for event in look.of("averaged") if event["step"] >= ENOUGH]
    follows = look.of("follows")
    others = [event for event in look.of("evaluated") if event["step"] >= ENOUGH]
    statistics = [event for event in look.of("statistics") if event["step"] >= ENOUGH]
    if not evaluated and len(follows) < ENOUGH and not statistics and not any(event["other"] for event in others):
        raise NotApplicable(
            "no average of its weights is evaluated, and no copy of its model follows it in its forward passes"
        )
    found = [*_find_begun(look, others), *_find_stale(look, statistics, others)]
    if evaluated and not any(event["times"] for event in evaluated):
        one = evaluated[-1]
        told = (
            f"the AveragedModel that is evaluated{at(one['place'])} after step {one['step']} was not updated once: it "
            "holds the weights of the start"
        )
        if one["written"]:
            found.append(problem("unclear", f"{told}; where it begins later, evaluate the model itself until then"))
        else:
            found.append(
                problem("misleads", f"{told}, and update_parameters stands nowhere in what is loaded of the program")
            )
    astray = [event for event in follows if event["outside"] > MOST * event["moved"]]
    if len(follows) >= ENOUGH and len(astray) == len(follows):
        first = astray[0]
        was, model, now = first["values"]
        found.append(
            problem(
                "misleads",
                f"a copy of the model moves with it, and away from it: by step {first['step'] + 1} a value of "
                f"{first['name']} went from {was:.4g} to {now:.4g}, where the model's is {model:.4g}; an average lies "
                f"between the two, and {first['outside']} of {first['moved']} values do not",
            )
        )
    return found


def _find_stale(look: Look, events: list[Event], others: list[Event]) -> Problems:
    """Statistics of an average's batch norms that are those of the start in each evaluation, where the model's move.

    A copy of which the weights are those of the start as well, or that is asked in each step, is a reference.
    """
    as_begun = {event["step"] for event in others if event["as_begun"]}
    events = [event for event in events if event["step"] not in as_begun]
    if set(range(ENOUGH, len(look.steps) - 1)) <= {event["step"] for event in events}:
        return []
    windows = {event["step"] for event in events}
    if len(windows) < SEVERAL or any(len(event["stale"]) < event["norms"] for event in events):
        return []
    last = events[-1]
    return [
        problem(
            "misleads",
            f"each of {len(windows)} evaluations{at(last['place'])} of a copy of the model is by statistics of batch "
            f"norm that are still those of the start ({listed(last['stale'])}), while the model's own moved: copy "
            "its buffers() as well, beside what is averaged of its parameters(), or take them anew (update_bn)",
        )
    ]


def _find_begun(look: Look, events: list[Event]) -> Problems:
    """Evaluations of weights that are all those of the start, in a program that never evaluates the trained ones.

    What is computed with such weights between all steps is a reference or a teacher, and belongs to the step.
    """
    windows = {event["step"] for event in events}
    if len(windows) < SEVERAL or not all(event["as_begun"] for event in events):
        return []
    if set(range(ENOUGH, len(look.steps) - 1)) <= windows:
        return []
    last = events[-1]
    whose = "the model, into which others are put," if last["own"] else "a copy of it, which alone is evaluated,"
    told = (
        f"each of {len(windows)} evaluations{at(last['place'])} from step {min(windows)} on is of the weights of the "
        f"start, though those that are trained moved in every step: {whose} holds an average or a copy that nothing "
        "updates"
    )
    if last["late"]:
        return [problem("unclear", f"{told}; where it begins later, evaluate the model itself until then")]
    return [problem("misleads", f"{told}; update it after each optimizer step")]
