"""Padding does not count: case 114."""

from __future__ import annotations

from pytest_trainguard.casework.silent.changed import find_difference, first_pass_of, gradient_of, require_control
from pytest_trainguard.casework.silent.look import Look, Problems, at, problem
from pytest_trainguard.recorder.timeline import Event
from pytest_trainguard.verdicts.errors import NotApplicable

__all__ = ["find_counted"]

NOT_SEEN = "its batches do not come from a torch data loader, or it does not take what is padded further"
BESIDE, FURTHER = 4, 6  # steps, from 0: padded in one run only; in both, and further in one of them


def find_counted(plain: Look, changed: Look) -> Problems:
    """Whether rows have another loss or gradient where they are padded further.

    Where no mask says what is padding, a program may take notice of the first of it, as of a text's end: there only
    rows that are all padded are held against the same, padded further.

    Args:
        plain: the run without dropout, every step undone.
        changed: the same with padding beside what the batches have.

    Raises:
        NotApplicable: padding is not recognised in its batches, or not seen to go in; or what it has to do with the
            rest is meant.
    """
    padded = {number: _padding_at(look, number) for look, number in ((changed, BESIDE), (changed, FURTHER))}
    first = padded[BESIDE] or padded[FURTHER]
    if first is None:
        said = [event["why"] for event in changed.of("padded") if event["why"]]
        raise NotApplicable(said[0] if said else NOT_SEEN)
    require_control(plain, changed)
    compared = [number for number in (BESIDE, FURTHER) if _grows(plain, changed, number, padded)]
    if FURTHER not in compared:
        raise NotApplicable("more padding than its loader gives is not seen to go into its model")
    found = {number: find_difference(plain, changed, number) for number in compared}
    # A convolution reaches over a row's end, into what is padding or nothing at all.
    event = gradient_of(plain, FURTHER)
    beside = first["masked"] and event is not None and not event["convolves"]
    number = next((n for n in compared if found[n] and (n == FURTHER or beside)), None)
    if number is None or event is None:
        return []
    if event["across"]:
        raise NotApplicable("it has a norm over the rows of a batch, or over their positions, which padding is part of")
    if event["routes"]:
        raise NotApplicable("it chooses among its tokens, as a mixture of experts does, and padding is among them")
    columns = (padded[number] or first)["columns"]
    how = "longer" if columns > 0 else "shorter"
    mask = "the mask that says so" if first["masked"] else "where each row ends"
    return [
        problem(
            "misleads",
            f"padding counts{at(event['place'])}: with rows of nothing but {_share(number, columns)} tokens of padding "
            f"{how}, the same rows have at step {number + 1} {found[number]}; something takes no notice of {mask}",
        )
    ]


def _share(number: int, columns: int) -> int:
    """What the two runs differ by at a step: in the later one, one of them has half of it already."""
    return abs(columns) // (2 if number == FURTHER else 1)


def _padding_at(look: Look, number: int) -> Event | None:
    """What was added for a step: its batch was fetched after the step before, or one earlier."""
    events = [event for event in look.of("padded") if event["columns"] and event["step"] in (number - 1, number)]
    return events[-1] if events else None


def _grows(plain: Look, changed: Look, number: int, padded: dict[int, Event | None]) -> bool:
    """What is wider by the padding goes into the model at a step, and nothing else is of another size."""
    event = padded[number]
    one, other = first_pass_of(plain, number), first_pass_of(changed, number)
    if event is None or len(one) != len(other):
        return False
    columns = event["columns"] // (2 if number == FURTHER else 1)
    pairs = [(before, after) for (before, _), (after, _) in zip(one, other, strict=True) if before != after]
    return bool(pairs) and all(
        len(before) == len(after) and {b - a for a, b in zip(before, after, strict=True)} <= {0, columns}
        for before, after in pairs
    )
