"""Everything that is to train moves, what is frozen does not, what is loaded arrives: cases 101, 109 and 122."""

from __future__ import annotations

import itertools
import math

from pytest_trainguard.casework.silent.look import MOST_NAMES, Look, Problems, at, listed, problem
from pytest_trainguard.recorder.timeline import Event
from pytest_trainguard.verdicts.errors import NotApplicable

__all__ = ["find_misnamed", "find_not_arrived", "find_thawed", "find_unmoved"]


def find_unmoved(look: Look) -> Problems:
    """What is to train, and is where it was at the start, by what keeps it there.

    A tensor that no gradient reaches counts only where its module did run with gradients: experts that were not
    chosen, heads of absent tasks and unused tables stay where they are in sound programs, too.

    Raises:
        NotApplicable: nothing moved at all, and every gradient was 0: a reward that is the same for all, for one.
    """
    steps = look.steps
    held = {number for step in steps for number in step["holds"]}
    moved = {number for step in steps for number in step["moved"]}
    reached = {number for step in steps for number in step["reached"]}
    if not reached and (not moved or _only_decays(look, held)):
        return _find_no_gradient(look, held)
    still = [event for event in look.parameters if event["trains"] and event["number"] not in moved]
    lost = [e["number"] for e in still if not e["name"] and e["number"] in held and e["number"] not in reached]
    left_out = [e["number"] for e in still if e["name"] and e["number"] not in held and e["number"] in reached]
    found = [*_find_lost(look, lost, left_out), *_find_idle(look, still, held, reached)]
    if left_out and not lost:
        found += _find_left_out(look, left_out, held)
    found += _find_cut_off(look, still, held, reached)
    return found


def _find_no_gradient(look: Look, held: set[int]) -> Problems:
    """The optimizer is stepped, and no backward pass ever led to what it holds; or its gradient was 0."""
    steps = look.steps
    if _only_decays(look, held):
        return [
            problem(
                "misleads",
                f"every gradient of what the optimizer{at(steps[0]['place'])} holds, {look.name_all(sorted(held))}, is "
                f"0 to the bit in each of {len(steps)} steps, though the loss is not "
                f"({look.recording.steps[0].loss:.4g}): nothing is learnt; look for a factor that begins at 0 and is "
                "frozen (the other half of an adapter), for an activation that is dead, or for an output that is "
                "multiplied by 0",
            )
        ]
    if not held or any(step["norms"] for step in steps):
        raise NotApplicable("no gradient other than 0 was seen at any optimizer step, and nothing moved")
    return [
        problem(
            "misleads",
            f"no gradient ever comes to what the optimizer{at(steps[0]['place'])} holds: after {len(steps)} steps "
            f"{look.name_all(sorted(held))} is what it was; between it and the loss something is a copy (.item(), "
            ".detach(), torch.tensor(...)), or is computed without gradients",
        )
    ]


def _only_decays(look: Look, held: set[int]) -> bool:
    """Gradients of 0 are stepped with, of a loss that is not 0 and one of torch's: no reward that is alike for all."""
    losses = [step.loss for step in look.recording.steps]
    against_targets = any(event["learns"] for event in look.of("loss"))
    of_zero = any(step["norms"] for step in look.steps) and not any(any(step["norms"].values()) for step in look.steps)
    return bool(held) and of_zero and against_targets and all(loss and math.isfinite(loss) for loss in losses)


def _find_lost(look: Look, lost: list[int], left_out: list[int]) -> Problems:
    """The optimizer steps tensors that are no longer the model's, while the model's own are in no optimizer."""
    steps = look.steps
    alive = {
        number for step in steps for number in step["holds"] if number not in lost and look.tensors[number]["trains"]
    }
    place = at(steps[0]["place"])
    if lost and left_out:
        return [
            problem(
                "misleads",
                f"the optimizer{place} holds {len(lost)} tensors that are in no module of the model and get no "
                f"gradient, and the model's own, which get one, are in no optimizer: after {len(steps)} steps "
                f"{look.name_all(left_out)} are what they were",
            )
        ]
    if left_out and not alive:
        return [
            problem(
                "misleads",
                f"the optimizer{place} holds nothing that learns: what gets a gradient, {look.name_all(left_out)}, is "
                f"in no optimizer, and is after {len(steps)} steps what it was",
            )
        ]
    return []


def _find_left_out(look: Look, left_out: list[int], held: set[int]) -> Problems:
    """Whole modules may be left out on purpose, a part of one is not; `_find_lost` tells where nothing held learns."""
    steps = look.steps
    if not any(look.tensors[number]["trains"] for number in held):
        return []
    owners = {_owner(look.tensors[number]["name"]) for number in held}
    halves = [number for number in left_out if _owner(look.tensors[number]["name"]) in owners]
    wholes = [number for number in left_out if number not in halves]
    place, found = at(steps[0]["place"]), []
    if halves:
        found.append(
            problem(
                "misleads",
                f"{look.name_all(halves)} gets a gradient and is in no optimizer{place}, though the rest of its module "
                f"is: after {len(steps)} steps it is what it was",
            )
        )
    twice = _held_twice(steps)
    if wholes and twice:
        found.append(
            problem(
                "misleads",
                f"{look.name_all(wholes)} gets a gradient and is in no optimizer{place}, while {look.name_all(twice)} "
                "is in two, and stepped by each: one of them was meant for what never moves",
            )
        )
    elif wholes:
        found.append(
            problem(
                "unclear",
                f"{look.name_all(wholes)} gets a gradient and is in no optimizer{place}, so that it never moves: where "
                "that is meant, say so with requires_grad_(False)",
            )
        )
    return found


def _held_twice(steps: list[Event]) -> list[int]:
    """What two optimizers hold that both take steps."""
    by_optimizer: dict[int, set[int]] = {}
    for step in steps:
        by_optimizer.setdefault(step["optimizer"], set()).update(step["holds"])
    pairs = itertools.combinations(by_optimizer.values(), 2)
    return sorted({number for one, other in pairs for number in one & other})


def _find_idle(look: Look, still: list[Event], held: set[int], reached: set[int]) -> Problems:
    """In the optimizer, with a gradient and a learning rate above 0, and not moved."""
    numbers = [event["number"] for event in still if event["number"] in held & reached]
    steps = [step for step in look.steps if max(step["lr"], default=0.0) > 0]
    if not numbers or not steps or all(number not in steps[-1]["holds"] for number in numbers):
        return []
    norms = [norm for step in steps for key, norm in step["norms"].items() if int(key) == numbers[0]]
    if not norms or max(norms) == 0:
        return []
    return [
        problem(
            "misleads",
            f"{look.name_all(numbers)} is in the optimizer{at(steps[0]['place'])} and has a gradient (norm up to "
            f"{max(norms):.3g}), and after {len(look.steps)} steps it is what it was",
        )
    ]


def _find_cut_off(look: Look, still: list[Event], held: set[int], reached: set[int]) -> Problems:
    """In the optimizer, of a module without others in it that ran with gradients: none ever came back to it."""
    ran = {name for step in look.steps for name in step["ran"]}
    whole: dict[str, list[Event]] = {}
    for event in look.parameters:
        whole.setdefault(_owner(event["name"]), []).append(event)
    cut = []
    for event in still:
        owner = _owner(event["name"])
        mine = event["number"] in held and event["number"] not in reached and event["simple"] and event["name"]
        if mine and owner in ran and not any(other["number"] in reached for other in whole[owner]):
            cut.append(event["number"])
    zeros = [number for number in cut if look.tensors[number]["zero"] and len(look.tensors[number]["shape"]) > 1]
    norms = {int(key) for step in look.steps for key in step["norms"]}
    cut = [number for number in cut if number in zeros or number not in norms]
    if not cut:
        return []
    return [
        problem(
            "misleads",
            f"{look.name_all(cut)} is in the optimizer{at(look.steps[0]['place'])} and its module runs, and no "
            f"gradient other than 0 came to it in {len(look.steps)} steps: it is what it was",
        )
    ]


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def find_misnamed(look: Look) -> Problems:
    """What was to be frozen by a name that means nothing to torch, and so goes on training."""
    told = [event for event in look.of("misnamed") if event["sort"] in ("parameter", "module")]
    if not told:
        return []
    first = told[0]
    names = listed([event["name"] for event in told])
    if first["sort"] == "module":
        what = f"{first['key']} = False is set on the module itself, which torch does not look at"
        mend = "call requires_grad_(False) on it"
    else:
        what, mend = f"{first['key']} = False is set on it, which torch does not know", f"write {first['meant']}"
    return [problem("misleads", f"{names} was to be frozen, and trains{at(first['place'])}: {what}; {mend}")]


def find_thawed(look: Look) -> Problems:
    """What is frozen and moved all the same: in an optimizer's own step, or the running statistics of a frozen norm.

    What the program moves itself, an average or a teacher, is not frozen.

    Raises:
        NotApplicable: nothing is frozen.
        NotApplicable: nothing else moved, so that nothing is said by what stands still.
    """
    steps = look.steps
    frozen = {event["number"] for event in look.tensors.values() if not event["trains"] and event["floats"]}
    frozen.update(number for step in steps for number in step["frozen"])
    if not frozen:
        raise NotApplicable("no parameter of its models is frozen")
    moved = {number for step in steps for number in step["moved"]}
    if not moved - frozen:
        raise NotApplicable("nothing that is not frozen moved")
    found = []
    for step in steps:
        by_step = [number for number in step["by_step"] if number in step["frozen"]]
        if by_step:
            found.append(
                problem(
                    "misleads",
                    f"{look.name_all(by_step)} is frozen (requires_grad is False), and step {step['step']} of the "
                    f"optimizer{at(step['place'])} moved it all the same",
                )
            )
            break
    # An average's statistics go with its weights, which the program moves itself.
    alive = {_owner(event["name"]) for event in look.parameters if event["number"] in moved}
    statistics = [number for number in sorted(frozen & moved) if _is_statistic(look.tensors[number], alive)]
    if statistics:
        first = next(step for step in steps if set(statistics) & set(step["moved"]))
        found.append(
            problem(
                "misleads",
                f"the weights of the norm are frozen, and its statistics moved: {look.name_all(statistics)}, from step "
                f"{first['step']} on: its module is in training mode",
            )
        )
    return found


def _is_statistic(event: Event, alive: set[str]) -> bool:
    """A running mean or variance of a norm whose weights stand still."""
    name = event["name"]
    return event["sort"] == "buffer" and name.endswith(("running_mean", "running_var")) and _owner(name) not in alive


def find_not_arrived(one: Look, other: Look) -> Problems:
    """Whether a model begins the same, whichever of two base models it is given.

    Raises:
        NotApplicable: no parameter of a model is seen in either run.
    """
    first, second = ({e["name"]: e["start"] for e in look.parameters if e["name"]} for look in (one, other))
    common = sorted(set(first) & set(second))
    if not common:
        raise NotApplicable("no parameter of its model is seen in its forward passes")
    if any(first[name] != second[name] for name in common):
        return []
    shown = ", ".join(common[:MOST_NAMES])
    return [
        problem(
            "misleads",
            f"nothing of the base model arrives: all of {len(common)} parameters ({shown}, ...) begin with the same "
            "values, whichever base model is named",
        )
    ]
