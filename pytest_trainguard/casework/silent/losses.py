"""What goes into the loss: cases 103 and 104."""

from __future__ import annotations

import math

from pytest_trainguard.casework.silent.look import Look, Problems, at, problem
from pytest_trainguard.harm import Problem
from pytest_trainguard.recorder.timeline import Event
from pytest_trainguard.verdicts.errors import NotApplicable

__all__ = ["find_detached", "find_probabilities"]

CONSTANT = 3  # the last training passes in which every row got one output


def find_detached(look: Look) -> Problems:
    """Losses that do not come from each row: predictions met with the targets of all rows, outputs that are all one.

    Raises:
        NotApplicable: no forward pass with rows that differ was seen.
    """
    found = []
    broadcasts = look.of("broadcast")
    if broadcasts:
        first = broadcasts[0]
        rows = first["output"][0]
        found.append(
            problem(
                "misleads",
                f"the loss of step {first['step'] + 1}{at(first['place'])} is of {rows} x {rows} differences and not "
                f"of {rows}: an output of shape {first['output']} met a tensor that stands the other way, and was "
                f"broadcast to {first['made']}, each prediction with the target of every row",
            )
        )
    known = [event for event in look.training_passes if event["constant"] is not None]
    if not known and not found:
        raise NotApplicable("no forward pass was seen whose rows differ and whose output has one part for each row")
    by_model: dict[int, list[Event]] = {}
    for event in known:
        by_model.setdefault(event["number"], []).append(event)
    for passes in by_model.values():
        if len(passes) > CONSTANT and all(event["constant"] for event in passes):
            last = passes[-1]
            found.append(
                problem(
                    "misleads",
                    f"in each of {len(passes)} training passes{at(last['place'])} {last['module']} gave every row the "
                    "same output, though the rows differ: the loss does not depend on them",
                )
            )
    return found


def find_probabilities(look: Look) -> Problems:
    """Losses that were given something else than they take, by the operation that it comes from.

    Raises:
        NotApplicable: none of torch's classification losses was called.
    """
    known = ("cross_entropy", "binary_cross_entropy_with_logits", "nll_loss", "binary_cross_entropy")
    calls = [event for event in look.of("loss") if event["function"] in known and event["learns"]]
    if not calls:
        raise NotApplicable("none of torch's classification losses is called on what its model puts out")
    by_line: dict[tuple[str, str], list[Event]] = {}
    for event in calls:
        by_line.setdefault((event["function"], event["place"]), []).append(event)
    return [found for events in by_line.values() if (found := _misfit(events))]


def _misfit(events: list[Event]) -> Problem | None:
    """What is wrong with the calls of one line, if all of them have it."""
    first, function = events[0], events[0]["function"]
    where = f"{function}{at(first['place'])}"
    makers = {event["maker"] for event in events}
    many = f"in each of {len(events)} calls"
    if makers <= {"Softmax", "LogSoftmax"} and all(event["size"] == 1 and event["of"][0] > 1 for event in events):
        return problem(
            "misleads",
            f"{where} gets a softmax over a dimension of size 1 (shape {first['of']}), which is constant whatever the "
            f"model says, {many}",
        )
    if makers <= {"Softmax", "LogSoftmax"} and all(event["dim"] == 0 and len(event["of"]) > 1 for event in events):
        return problem(
            "misleads",
            f"{where} gets a softmax over the rows of a batch (dimension 0 of shape {first['of']}) and not over the "
            f"classes, {many}: a row's loss depends on its neighbours",
        )
    astray = [event for event in events if _is_astray(event)] if makers <= {"Softmax", "LogSoftmax"} else []
    if astray:
        one = astray[0]
        return problem(
            "misleads",
            f"{where} gets a softmax over dimension {one['dim']} of shape {one['of']}, of {one['size']}, "
            f"and not over the {one['input'][1]} classes that it takes, in {len(astray)} of {len(events)} calls: what "
            "it is given of a target is no distribution over the classes",
        )
    # Logits may sum to 1 by chance, and then go on to: what counts is that they were divided by something.
    divided = makers <= {"Div", "CompiledFunction"} and all(event["sums_to_one"] for event in events)
    if function == "cross_entropy" and (makers <= {"Softmax", "Sigmoid"} or divided):
        made = f"the output of {first['maker'].lower()}" if makers <= {"Softmax", "Sigmoid"} else "rows that sum to 1"
        return problem(
            "misleads",
            f"{where} takes logits, and gets probabilities ({made}), {many}: it takes a softmax of them once more, and "
            "cannot come below a floor",
        )
    if function == "binary_cross_entropy_with_logits" and makers <= {"Softmax", "Sigmoid"}:
        return problem(
            "misleads",
            f"{where} takes logits, and gets probabilities (the output of {first['maker'].lower()}), {many}: it takes "
            "a sigmoid of them once more, and no answer can be below 0.5",
        )
    if function == "nll_loss" and (makers <= {"Softmax"} or divided):
        return problem(
            "misleads",
            f"{where} takes the logarithms of probabilities, and gets the probabilities themselves, {many}: its loss "
            "is below 0, and its gradient does not grow where the model is wrong",
        )
    return None


def _is_astray(event: Event) -> bool:
    """A softmax over as many entries as there are no classes, of which nothing was left out before the loss."""
    taken = event["input"]
    return len(taken) > 1 and event["size"] not in (1, taken[1]) and math.prod(event["of"]) == math.prod(taken)
