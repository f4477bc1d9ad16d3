"""Validation rows are not changed at random: case 124."""

from __future__ import annotations

import itertools
from collections import Counter

from pytest_trainguard.casework.silent.look import Look, Problems, at, problem
from pytest_trainguard.recorder.timeline import Event
from pytest_trainguard.verdicts.errors import NotApplicable

__all__ = ["find_augmented"]

DISTINCT = 8  # rows of an evaluation: fewer may be alike by chance
FRESH = 3  # evaluations without a row in common: two samples of a large file may have none
SELF_TAUGHT = "what its evaluations are to find is drawn from the rows themselves, and so may be drawn anew each time"


def find_augmented(look: Look) -> Problems:
    """Evaluations of the same targets, of which each has other rows.

    Where targets are others, too, other rows were drawn, or what is to be found (a masked word, a noise) was.

    Raises:
        NotApplicable: there are no two evaluations of as many rows, or their targets are not seen or not comparable.
    """
    windows, first = _evaluations(look)
    if len(windows) < 2:
        raise NotApplicable(
            f"no two evaluations of the same number of rows, {DISTINCT} at least, are seen between its steps: name "
            'their setting, fields = {"eval_every": "..."}'
        )
    if any(one == other for one, other in itertools.combinations(windows.values(), 2)):
        return []
    steps, size = list(windows), sum(next(iter(windows.values())).values())
    measured = {step: [event for event in look.of("measured") if event["step"] == step] for step in steps}
    events = [event for each in measured.values() for event in each]
    if any(event["square"] or event["restores"] for event in events):
        raise NotApplicable(SELF_TAUGHT)
    if len({shape for event in events for shape in event["shapes"]}) > 1:
        raise NotApplicable("its rows are padded to those beside them, and cannot be told apart")
    targets = [sorted(target for event in each for target in event["targets"]) for each in measured.values()]
    if any(len(each) != size for each in targets):
        raise NotApplicable("no loss of torch's with a target for each row is taken in its evaluations")
    if any(each != targets[0] for each in targets):
        raise NotApplicable("each of its evaluations has other targets: other rows are drawn for it")
    rows = Counter(row for window in windows.values() for row in window)
    fresh = len(windows) >= FRESH and len(rows) == size * len(windows)
    if not fresh and not all(_is_whole(look, step, size) for step in steps):
        return []
    common = set(windows[steps[0]]) & set(windows[steps[1]])
    return [
        problem(
            "misleads",
            f"of the {size} rows that it evaluates on{at(first['place'])} after step {steps[0]}, {len(common)} are "
            f"among those after step {steps[1]}, though their targets are the same: rows are changed at random in "
            "validation, too, and what is the best so far is partly chance",
        )
    ]


def _evaluations(look: Look) -> tuple[dict[int, Counter[str]], Event]:
    """The rows of each evaluation by the steps done, of those that have as many as most; and the first pass of one."""
    passes = [event for event in look.evaluations if event["rows"]]
    models = Counter(event["number"] for event in passes)  # its average may be evaluated beside the model
    passes = [event for event in passes if event["number"] == models.most_common(1)[0][0]]
    windows: dict[int, Counter[str]] = {}
    for event in passes:
        windows.setdefault(event["step"], Counter()).update(event["rows"])
    sizes = Counter(sum(window.values()) for window in windows.values() if len(window) >= DISTINCT)
    size = sizes.most_common(1)[0][0] if sizes else 0
    alike = {step: window for step, window in windows.items() if sum(window.values()) == size}
    return alike, next((event for event in passes if event["step"] in alike), {})


def _is_whole(look: Look, step: int, size: int) -> bool:
    """A data set of just as many rows was gone through there: none were left out."""
    return any(event["rows"] == size and event["step"] == step for event in look.of("loader"))
