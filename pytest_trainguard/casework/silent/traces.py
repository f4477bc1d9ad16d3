"""An evaluation leaves no trace in what trains: case 108."""

from __future__ import annotations

import math
from collections import Counter

from pytest_trainguard.casework.silent.look import Look, Problems, at, listed, problem
from pytest_trainguard.harm import Problem
from pytest_trainguard.recorder.timeline import Event
from pytest_trainguard.verdicts.errors import NotApplicable

__all__ = ["find_traces"]

ROUNDING = 64  # units in the last place: weights that were exchanged and put back by arithmetic are off by a few
SAME_LOSS = 1e-4  # of the loss: threads may add up in another order
# What a training loss follows from beside what nobody sees; `buffers` are told of where it differs.
STATES = ("weights", "optimizer", "lr", "scaler", "data", "python", "numpy", "torch")


def find_traces(evaluated: Look, alone: Look) -> Problems:
    """What evaluations change in what trains, judged by a run that evaluates between some steps and one that does not.

    What changes in the second run as well, between the same two steps, is the program's own doing. Statistics that are
    taken anew of the rows that it trains on are meant to be.

    Args:
        evaluated: evaluates between some of its steps.
        alone: the same, with evaluations further apart.

    Raises:
        NotApplicable: it does not evaluate more often where it is told to.
    """
    windows = _evaluations_of(evaluated, alone)
    if not windows:
        raise NotApplicable(
            "no evaluation between its steps is seen that would be left out where it is told to evaluate more rarely"
        )
    found = [
        *_find_moved(evaluated, alone, windows),
        *_find_drifted(evaluated, alone, windows),
        *_find_gradients(evaluated, alone, windows),
    ]
    return found or _find_hidden(evaluated, alone, windows)


def _evaluations_of(evaluated: Look, alone: Look) -> dict[int, list[Event]]:
    """The forward passes that one run has more than the other between two steps, by the number of steps done."""
    passes, others = _by_step(evaluated), _by_step(alone)
    last = min(len(evaluated.steps), len(alone.steps))
    more = {step: found[: len(found) - len(others.get(step, []))] for step, found in passes.items()}
    return {step: found for step, found in more.items() if found and 0 < step < last}


def _by_step(look: Look) -> dict[int, list[Event]]:
    found: dict[int, list[Event]] = {}
    for event in look.of("pass"):
        found.setdefault(event["step"], []).append(event)
    return found


def _find_moved(evaluated: Look, alone: Look, windows: dict[int, list[Event]]) -> Problems:
    """Weights, and what the optimizer keeps of them."""
    own = {(event["since"], event["step"]): event for event in alone.of("between")}
    moved: list[tuple[Event, list[str], int]] = []
    states: list[tuple[Event, int]] = []
    for event in evaluated.of("between"):
        window = next((step for step in windows if event["since"] <= step <= event["step"]), None)
        if window is None or not event["since"]:
            continue
        known = own.get((event["since"], event["step"]), {})
        names = [n for n, far in event["moved"].items() if far > ROUNDING and n not in known.get("moved", {})]
        moved += [(event, names, window)] if names else []
        states += [(event, window)] if event["state"] and not known.get("state") else []
    found = []
    if moved:
        event, names, window = moved[0]
        where = at(windows[window][0]["place"])
        told = f"step {window + 1} begins with other weights than step {window} left: {listed(names)}"
        found.append(_tell(f"an evaluation{where} changes what is trained: {told}", len(moved), windows))
    if states:
        event, window = states[0]
        where = at(windows[window][0]["place"])
        told = f"what the optimizer keeps of its parameters is at step {window + 1} not what step {window} left"
        found.append(_tell(f"an evaluation{where} changes the optimizer's state: {told}", len(states), windows))
    return found


def _find_drifted(evaluated: Look, alone: Look, windows: dict[int, list[Event]]) -> Problems:
    """Running statistics of norms. Those taken anew, in training mode, of rows that it trains on are left out."""
    own = {event["step"] for event in alone.of("drift")}
    trained = {row for event in alone.training_passes for row in event["rows"]}
    found = []
    for event in evaluated.of("drift"):
        passes = [one for one in windows.get(event["step"], []) if one["training"]]
        rows = {row for one in passes for row in one["rows"]}
        if event["step"] in windows and event["step"] not in own and not (rows and rows <= trained):
            found.append(event)
    if not found:
        return []
    first = found[0]
    where = at(windows[first["step"]][0]["place"])
    told = f"{listed(first['names'])} is at step {first['step'] + 1} not what step {first['step']} left"
    said = f"an evaluation{where} moves the running statistics of norms: {told}; call model.eval() before"
    return [_tell(said, len(found), windows)]


def _find_gradients(evaluated: Look, alone: Look, windows: dict[int, list[Event]]) -> Problems:
    """Gradients that are there as the training's own backward pass begins."""
    own = {event["step"]: event["starts"] for event in alone.of("backwards")}
    found = []
    for event in evaluated.of("backwards"):
        starts, others = event["starts"], own.get(event["step"], [])
        if event["step"] in windows and others and len(starts) >= len(others) and not others[0]:
            left = starts[len(starts) - len(others)]
            found += [(event["step"], left)] if left > 0 else []
    if not found:
        return []
    step, left = found[0]
    where = at(windows[step][0]["place"])
    said = (
        f"an evaluation{where} leaves gradients behind: the backward pass of step {step + 1} begins with a norm of "
        f"{left:.3g} where it begins with 0 after no evaluation, and is added to that; set them to zero before it"
    )
    return [_tell(said, len(found), windows)]


def _tell(said: str, times: int, windows: dict[int, list[Event]]) -> Problem:
    return problem("misleads", f"{said}; {times} of {len(windows)} evaluations")


def _find_hidden(evaluated: Look, alone: Look, windows: dict[int, list[Event]]) -> Problems:
    """A training loss that is another after an evaluation, though all that is seen of it is the same.

    Only the first step counts whose loss differs: those after it follow from that. A program may mean it: the
    difficulty of what it trains on may go by the validation.
    """
    pairs = list(zip(evaluated.recording.steps, alone.recording.steps, strict=False))
    # A random state that is another from the first step on, and the losses alike, is one that nobody uses or seeds.
    known = [name for name in STATES if all(one.states.get(name) == other.states.get(name) for one, other in pairs[:1])]
    for number, (mine, other) in enumerate(pairs):
        if math.isnan(other.loss) or abs(mine.loss - other.loss) <= SAME_LOSS * max(abs(other.loss), 1e-6):
            continue
        alike = "data" in known and all(mine.states.get(name) == other.states.get(name) for name in known)
        if number not in windows or not alike or _modes(evaluated, number) != _modes(alone, number):
            return []
        kept = "the buffers are others, and " if mine.states.get("buffers") != other.states.get("buffers") else ""
        where = at(windows[number][0]["place"])
        said = (
            f"an evaluation{where} leaves something behind that nobody sees: {kept}the loss of step {number + 1} is "
            f"{mine.loss:.6g} after it and {other.loss:.6g} without it, on the same rows, with the same weights and "
            "random numbers; look for an attribute that the evaluation sets (a dropout's p, a flag of the data)"
        )
        return [problem("unclear", said)]
    return []


def _modes(look: Look, step: int) -> Counter[tuple[str, bool]]:
    """In which mode the modules of the training passes of a step are."""
    passes = [event for event in look.training_passes if event["step"] == step]
    return Counter(item for event in passes[-1:] for item in [*event["modes"].items(), ("", event["training"])])
