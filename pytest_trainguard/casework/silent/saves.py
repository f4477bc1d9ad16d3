"""What is saved is what was trained: case 121."""

from __future__ import annotations

from pytest_trainguard.casework.silent.look import ENOUGH, Look, Problems, at, problem
from pytest_trainguard.contract.checkpoints import STEP_NAMES
from pytest_trainguard.recorder.timeline import Event
from pytest_trainguard.verdicts.errors import NotApplicable

__all__ = ["find_other_saved"]

SEVERAL = 2  # saves, that are as far behind
UNKNOWN = -1  # see `recorder.saves`


def find_other_saved(look: Look) -> Problems:
    """Saves that hold the weights of the start, though they moved; or those of an earlier step than they say.

    What a parameter never was says nothing: it may be averaged, merged or rounded. The weights of an earlier step may
    be the best so far, and those of the start, where these were evaluated.

    Raises:
        NotApplicable: nothing that was saved is told apart.
    """
    saves = look.of("stored")
    if not saves:
        raise NotApplicable(
            "nothing that it saves with torch.save or safetensors has the names of its models' parameters"
        )
    known = [save for save in saves if any(step != UNKNOWN for step in save["held"].values())]
    if not known:
        raise NotApplicable("what it saves are values that its parameters never had: averaged, merged or rounded ones")
    return [*_find_start(look, saves), *_find_behind(saves)]


def _find_start(look: Look, saves: list[Event]) -> Problems:
    """Parameters of which every save holds what they were before the first step."""
    late = [save for save in saves if save["step"] >= ENOUGH and not save["waits"]]
    best_may_be_first = any(not event["gradients"] and not event["step"] for event in look.of("pass"))
    if not late or best_may_be_first:
        return []
    by_number: dict[int, list[int]] = {}
    for save in late:
        for key, step in save["held"].items():
            if int(key) in save["moved"]:
                by_number.setdefault(int(key), []).append(step)
    begun = [number for number, steps in by_number.items() if set(steps) == {0}]
    if not begun:
        return _find_start_at_a_line(look, late)
    one = late[-1]
    return [
        problem(
            "misleads",
            f"what is saved{at(one['place'])} after step {one['step']} holds {look.name_all(begun)} as before the "
            f"first step, though the model's own have moved since: {len(begun)} of {len(by_number)} parameters that "
            "moved are not what was trained",
        )
    ]


def _find_start_at_a_line(look: Look, late: list[Event]) -> Problems:
    """One of several kinds of saves holds what every parameter was before the first step, again and again.

    It may be an average that begins later, or what the model is compared with.
    """
    by_line: dict[str, list[Event]] = {}
    for save in late:
        by_line.setdefault(save["place"], []).append(save)
    for place, saves in by_line.items():
        held = {save["held"][str(number)] for save in saves for number in save["moved"] if str(number) in save["held"]}
        if len({save["step"] for save in saves}) >= SEVERAL and held == {0}:
            return [
                problem(
                    "unclear",
                    f"each of {len(saves)} saves{at(place)} holds {look.name_all(saves[-1]['moved'])} as before the "
                    "first step, though the model's own have moved since, and other saves hold what was trained: where "
                    "that is meant to be a trained model, save what it is by then",
                )
            ]
    return []


def _find_behind(saves: list[Event]) -> Problems:
    """Saves that say that they are of the step just done, and hold the weights of one before, always as late."""
    named = [save for save in saves if _step_told(save) == save["step"] > 1 and save["moved"]]
    behind = []
    for save in named:
        held = {save["held"][str(number)] for number in save["moved"]}
        if len(held) != 1 or not 0 <= min(held) < save["step"]:
            return []
        behind.append(min(held))
    late = {save["step"] - step for save, step in zip(named, behind, strict=True)}
    if len(named) < SEVERAL or len(late) != 1 or len(set(behind)) < SEVERAL:
        return []
    return [
        problem(
            "misleads",
            f"each of {len(named)} saves{at(named[0]['place'])} says that it is of step {named[0]['step']}, "
            f"{named[1]['step']}, ... and holds the weights of step {behind[0]}, {behind[1]}, ...: what was learnt in "
            f"the last {late.pop()} is not in them",
        )
    ]


def _step_told(save: Event) -> int | None:
    """The step that what is saved says it is of."""
    return next((save["numbers"][name] for name in STEP_NAMES if name in save["numbers"]), None)
