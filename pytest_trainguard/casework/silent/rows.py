"""Neither the order of the rows within a batch counts, nor which rows are beside one: case 115."""

from __future__ import annotations

from pytest_trainguard.casework.silent.changed import find_difference, gradient_of
from pytest_trainguard.casework.silent.look import Look, Problems, at, problem
from pytest_trainguard.recorder.timeline import Event
from pytest_trainguard.verdicts.errors import NotApplicable

__all__ = ["find_mixed", "find_ordered"]


def find_ordered(plain: Look, turned: Look) -> Problems:
    """Whether a loss or a gradient is another one where the rows of the batch stand in another order.

    Told of only where each row has a target of its own, is not held against other rows, and draws no random number.

    Args:
        plain: the run on batches as they are, without dropout.
        turned: the same, with the rows of each batch of the first step in another order.

    Raises:
        NotApplicable: the rows of its batches are not told apart, or belong together.
    """
    before = gradient_of(plain, 0)
    sizes = {event["rows"] for event in turned.of("turned")}
    if before is None or gradient_of(turned, 0) is None or len(sizes) != 1 or sizes == {0}:
        raise NotApplicable("its batches do not come from a torch data loader, or are not of one part for each row")
    (rows,) = sizes
    _require_rows(plain, turned, rows)
    _require_apart(plain, rows)
    if before["square"]:
        raise NotApplicable(f"in its loss something is of {rows} x {rows}: its rows are held against each other")
    found = find_difference(plain, turned, 0)
    if found is None:
        return []
    if before["routes"]:
        raise NotApplicable("it chooses among its tokens, as a mixture of experts does that has room for so many")
    return [
        problem(
            "misleads",
            f"the order of the {rows} rows of a batch counts{at(before['place'])}: in another one, with their "
            f"targets, the same rows have at the first step {found}; rows are mixed with each other, or with the "
            "targets of others",
        )
    ]


def find_mixed(look: Look) -> Problems | None:
    """Whether the output of a row changes where another row of its batch is replaced, in evaluation mode too.

    Attention over rows gives the same in whatever order they come, so that only this shows it.

    Returns:
        what was found; None where nobody knows which dimension the rows are, or no output is of one row. With several
        optimizers there may be a network that tells real batches from others, which may look at all of one.
    """
    tried = look.of("beside")
    if not tried or len({event["optimizer"] for event in look.of("step")}) > 1:
        return None
    return [
        problem(
            "misleads",
            f"with the first of the {event['rows']} rows of a batch replaced by another one, the output of "
            f"{event['others']} of the {event['rows'] - 1} others changes{at(event['place'])}, by up to "
            f"{event['most']:.1%} of the largest, in evaluation mode as well: {event['module']} mixes its rows, as "
            "attention does that takes [tokens, rows] and is given [rows, tokens] (batch_first)",
        )
        for event in tried
        if event["others"]
    ]


def _first_passes(look: Look) -> list[Event]:
    return [event for event in look.training_passes if event["step"] == 0]


def _require_rows(plain: Look, turned: Look, rows: int) -> None:
    """The same rows go in, in another order."""
    first, second = ([event["rows"] for event in _first_passes(look)] for look in (plain, turned))
    same = [sorted(each) for each in first] == [sorted(each) for each in second]
    if not first or first == second or not same or any(len(each) != rows for each in first):
        raise NotApplicable(f"the {rows} rows of its batches are not seen to go into its model in another order")


def _require_apart(plain: Look, rows: int) -> None:
    """Each loss has one target for each row, or several of each; a table of rows x rows has not."""
    scored = [event for event in plain.of("loss") if event["learns"] and event["step"] == 0]
    if not scored:
        raise NotApplicable("its loss is none of torch's, so that it is not seen that each row has a target of its own")
    for event in scored:
        shapes = event["input"], event["target"]
        if any(not shape or shape[0] % rows for shape in shapes) or shapes[0].count(rows) > 1:
            raise NotApplicable(f"its targets are not one for each of {rows} rows, or rows are held against each other")
