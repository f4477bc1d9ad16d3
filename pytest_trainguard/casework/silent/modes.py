"""Training in training mode, evaluation in evaluation mode: case 107."""

from __future__ import annotations

from pytest_trainguard.casework.silent.look import MOST_NAMES, Look, Problems, at, problem
from pytest_trainguard.recorder.timeline import Event
from pytest_trainguard.verdicts.errors import NotApplicable

__all__ = ["find_wrong_modes"]


def find_wrong_modes(look: Look) -> Problems:
    """Modules that depend on the mode (dropout, batch norm), and ran in the wrong one.

    Only a model that is as a whole in training mode is evaluated wrongly: dropout alone is left on by intent. And only
    what was in training mode before has been left in evaluation mode: a backbone may be kept in it all the time.

    Raises:
        NotApplicable: none of its modules depends on the mode.
    """
    passes = look.of("pass")
    if not any(event["modes"] for event in passes):
        raise NotApplicable("its models have neither dropout nor batch norm: nothing depends on the mode")
    return [*_find_evaluated_in_training(look), *_find_trained_in_evaluation(look)]


def _find_evaluated_in_training(look: Look) -> Problems:
    wrong = [event for event in look.evaluations if event["training"] and any(event["modes"].values())]
    if not wrong:
        return []
    first = wrong[0]
    names = [name for name, training in first["modes"].items() if training]
    return [
        problem(
            "misleads",
            f"evaluated{at(first['place'])} after step {first['step']} without gradients and in training mode: "
            f"{_listed(names)} at work, so that what is measured is not what is saved; call model.eval() before",
        )
    ]


def _find_trained_in_evaluation(look: Look) -> Problems:
    by_model: dict[int, list[Event]] = {}
    done = max((event["step"] for event in look.of("step")), default=0)
    for event in look.training_passes:
        # What comes after the last step is an evaluation that builds graphs for nothing.
        if event["modes"] and (event["step"] < done or not done):
            by_model.setdefault(event["number"], []).append(event)
    found = []
    for passes in by_model.values():
        trained = {name for event in passes for name, training in event["modes"].items() if training}
        last = passes[-1]
        left = [name for name, training in last["modes"].items() if not training and name in trained]
        if left:
            since = next(e for e in passes if any(not e["modes"].get(name, True) for name in left))
            found.append(
                problem(
                    "misleads",
                    f"from step {since['step'] + 1} on it trains{at(since['place'])} in evaluation mode: "
                    f"{_listed(left)} off, which was on before; call model.train() after an evaluation",
                )
            )
        elif not trained and not last["training"]:
            found.append(
                problem(
                    "unclear",
                    f"it trains{at(last['place'])} in evaluation mode from the first step on: "
                    f"{_listed(list(last['modes']))} never at work; call model.train(), or take them out",
                )
            )
    return found


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    told = [name or "the model itself" for name in names[:MOST_NAMES]]
    return f"{', '.join(told)}{more} {'is' if len(names) == 1 else 'are'}"
