"""The learning rate goes with the optimizer's steps: case 117."""

from __future__ import annotations

from pytest_trainguard.casework.silent.look import Look, Problems, at, problem
from pytest_trainguard.recorder.timeline import Event

__all__ = ["find_out_of_step"]

AHEAD = 2  # steps by which a schedule may be ahead: those that a gradient scaler left out, and one at the start
EPOCHS = 2  # after which a schedule that goes by epochs has been stepped


def find_out_of_step(look: Look) -> Problems:
    """Schedules that run ahead of their optimizer, are never stepped, or are of another one; rates that end at 0.

    Which schedule is stepped once an epoch is not known, so that one may be behind. Those that another schedule steps
    count with it.
    """
    steps = look.steps
    inner = {event["scheduler"] for event in look.of("scheduled") if event["inner"]}
    stepped = [event for event in look.of("scheduled") if not event["inner"]]
    found = []
    for plan in look.of("planned"):
        mine = [event for event in stepped if event["scheduler"] == plan["scheduler"]]
        if plan["scheduler"] not in inner or mine:
            found += _find_wrong_pace(look, plan, mine)
    return [*found, *_find_dead_rates(steps), *_find_misnamed(look)]


def _find_misnamed(look: Look) -> Problems:
    """A learning rate that was put where no optimizer looks. A program may keep a number of its own there."""
    return [
        problem(
            "unclear",
            f"{event['name']} of an optimizer has {event['key']!r}{at(event['place'])}, which is no option of torch's: "
            f"where {event['meant']!r} was meant, it stays as it was",
        )
        for event in look.of("misnamed")
        if event["sort"] == "group"
    ]


def _find_wrong_pace(look: Look, plan: Event, mine: list[Event]) -> Problems:
    steps, name = look.steps, plan["name"]
    taken = [step for step in steps if step["optimizer"] == plan["optimizer"] and step["step"] > plan["step"]]
    if mine and not taken:
        return [
            problem(
                "misleads",
                f"{name}{at(plan['place'])} is stepped {len(mine)} times, and its optimizer never: the one that trains"
                f"{at(steps[0]['place'])} is another, whose learning rate stays as it was",
            )
        ]
    skipped = len(look.recording.scales)
    if len(mine) > len(taken) + AHEAD + skipped:
        return [
            problem(
                "misleads",
                f"{name} is stepped{at(mine[0]['place'])} {len(mine)} times in {len(taken)} optimizer steps: it is "
                f"over {len(mine) / len(taken):.2g} times too early",
            )
        ]
    if taken and not mine and _epochs(look) >= EPOCHS and _is_even(taken):
        return [
            problem(
                "misleads",
                f"{name} is made{at(plan['place'])} and never stepped: the learning rate is {taken[0]['lr'][0]:g} in "
                f"all of {len(taken)} steps",
            )
        ]
    early = [event for event in mine if event["step"] < steps[0]["step"] and event["lr"] != plan["lr"]]
    if taken and early and not look.recording.scales:  # a gradient scaler may leave out the first step
        return [
            problem(
                "unclear",
                f"{name} is stepped{at(early[0]['place'])} before the optimizer steps{at(steps[0]['place'])} for the "
                f"first time: the schedule's first learning rate, {plan['lr'][0]:g}, is never used",
            )
        ]
    return []


def _epochs(look: Look) -> float:
    """How often a row was trained on, on average; 0 where rows are not told apart."""
    rows = [row for event in look.training_passes for row in event["rows"]]
    return len(rows) / len(set(rows)) if rows else 0.0


def _is_even(taken: list[Event]) -> bool:
    return all(step["lr"] == taken[0]["lr"] for step in taken)


def _find_dead_rates(steps: list[Event]) -> Problems:
    """A rate that has come to 0 before the last step: what follows teaches nothing. At its last step it may."""
    by_optimizer: dict[int, list[Event]] = {}
    for step in steps:
        by_optimizer.setdefault(step["optimizer"], []).append(step)
    found = []
    for mine in by_optimizer.values():
        dead = 0
        while dead < len(mine) and max(mine[-1 - dead]["lr"], default=1.0) == 0:
            dead += 1
        if dead > 1:
            said = (
                f"the learning rate is 0 in all of {len(mine)} steps"
                if dead == len(mine)
                else f"the learning rate is 0 from step {mine[-dead]['step']} of {mine[-1]['step']} on"
            )
            found.append(problem("misleads", f"{said}{at(mine[-1]['place'])}: nothing is learnt there"))
    return found
