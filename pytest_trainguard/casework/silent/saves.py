"""What is saved is what was trained: case 121."""

from __future__ import annotations

from pytest_trainguard.casework.silent.look import ENOUGH, Look, Problems, at, problem
from pytest_trainguard.contract.checkpoints import STEP_NAMES
from pytest_trainguard.recorder.timeline import Event
from pytest_trainguard.verdicts.errors import NotApplicable

__all__ = ["find_other_saved"]

SEVERAL = 2  # saves, that are as far behind
UNKNOWN = -1  # see `recorder.saves`
WRAPPED = ("base_layer", "base", "linear", "inner", "original")  # what the module inside one of adapters is called


def find_other_saved(look: Look) -> Problems:
    """Saves that hold the weights of the start, though they moved; those of an earlier step than they say; or none.

    None is what a save holds in which there is nothing that moved: adapters that are frozen, or the model without them.

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
    return [*_find_start(look, saves), *_find_behind(saves), *_find_nothing_learnt(look, saves)]


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


def _find_nothing_learnt(look: Look, saves: list[Event]) -> Problems:
    """Saves of what never moves alone: each of them, or the last, which holds the model in which adapters learnt.

    Where something is saved by a name that is not the model's, it may be that.
    """
    moved = {number for step in look.of("step") for number in step["moved"] if number in step["holds"]}
    learnt = [number for number in sorted(moved) if look.tensors[number]["name"]]
    late = [save for save in saves if save["step"] >= ENOUGH]
    if not learnt or not late or any(save["others"] for save in late):
        return []
    last = late[-1]
    still = [int(number) for number in last["held"]]
    place, step = at(last["place"]), last["step"]
    if all(_is_still(save) for save in late):
        return [
            problem(
                "misleads",
                f"nothing that it saves is what it trains: {look.name_all(learnt)} moves, and is in none of "
                f"{len(late)} saves; what is saved{place} after step {step}, {look.name_all(still)}, is what it was "
                "before the first step: what is learnt is lost with the process",
            )
        ]
    beside = [save for save in late if save["step"] == step and save is not last]
    if (
        _is_still(last)
        and _hold_adapters(look, still, learnt)
        and sum(not _is_still(save) for save in beside) < SEVERAL
    ):
        return [
            problem(
                "unclear",
                f"the last that it saves{place} after step {step}, {look.name_all(still)}, never moves, and what "
                f"learnt in the very same modules, {look.name_all(learnt)}, is not in it, nor merged into it: where "
                "that is meant to be the trained model, it is the one that training began with",
            )
        ]
    return []


def _is_still(save: Event) -> bool:
    """What it holds is what it was all the time, to the bit."""
    return not save["moved"] and UNKNOWN not in save["held"].values()


def _hold_adapters(look: Look, still: list[int], learnt: list[int]) -> bool:
    """Whether what learns is in modules whose own weights are saved: `q.lora_A.weight` beside `q.weight`."""
    names = [look.tensors[number]["name"] for number in still]
    owners = {_owner(name) for name in names}
    owners = {_owner(one) if one.rpartition(".")[2] in WRAPPED else one for one in owners} - {""}
    inside = [number for number in learnt if any(look.tensors[number]["name"].startswith(f"{one}.") for one in owners)]
    return len(inside) == len(learnt)


def _owner(name: str) -> str:
    return name.rpartition(".")[0]
