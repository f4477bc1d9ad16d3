"""Documents in a pack do not read their neighbours: case 116."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_trainguard.casework.silent.changed import first_pass_of, gradient_of, require_control, tolerances
from pytest_trainguard.casework.silent.look import Look, Problems, at, problem
from pytest_trainguard.recorder.timeline import Event
from pytest_trainguard.verdicts.errors import CannotJudge, NotApplicable

__all__ = ["find_leaks"]

NOT_SEEN = "its batches do not come from a torch data loader, or it does not take rows that are changed"
Losses = Sequence[float | None]  # of each target; None for one that is ignored
REPLACED = 8  # the step, from 0, in whose batches documents are other ones


def find_leaks(plain: Look, changed: Look) -> Problems:
    """Whether the loss of a document's targets is another one where the document before it in its row is.

    Args:
        plain: the run without dropout, every step undone.
        changed: the same with the first document of each packed row replaced.

    Raises:
        NotApplicable: nothing says where documents begin, or the loss of each target is not seen.
        CannotJudge: not even the replaced document's own targets have another loss.
    """
    replaced = [event for event in changed.of("replaced") if event["kept"]]
    if not replaced:
        said = [event["why"] for event in changed.of("replaced") if event["why"]]
        raise NotApplicable(said[0] if said else NOT_SEEN)
    require_control(plain, changed)
    one, other = (_targets_of(look) for look in (plain, changed))
    event, gradient = _match(replaced, one, other, changed), gradient_of(plain, REPLACED)
    if gradient is None or gradient["drawn"]:
        raise NotApplicable("it draws random numbers in a training pass")
    limit, _ = tolerances(plain, REPLACED)
    leaks = _moved(event, event["kept"], one["losses"], other["losses"], limit)
    if not leaks:
        if not _moved(event, event["other"], one["losses"], other["losses"], limit):
            raise CannotJudge("not even the targets of the documents that were replaced have another loss")
        return []
    if gradient["across"] or gradient["routes"]:
        raise NotApplicable("it has a norm over rows or positions, or chooses among its tokens: these are of all rows")
    row, position, before, after = leaks[0]
    count = sum(1 for _ in _places(event, event["kept"]))
    return [
        problem(
            "misleads",
            f"a document in a pack reads its neighbour{at(one['place'])}: documents are told apart by {event['told']}; "
            f"with other tokens in the first one of row {row + 1}, the target at position {position + 1}, of a later "
            f"one, has at step {REPLACED + 1} a loss of {after:.6g} and not of {before:.6g}, and so have {len(leaks)} "
            f"of {count} targets of documents that are as they were",
        )
    ]


def _targets_of(look: Look) -> Event:
    events = [event for event in look.of("targets") if event["step"] == REPLACED]
    if len(events) != 1:
        raise NotApplicable(f"the loss of each target is not seen: {len(events)} calls of torch's cross entropy a step")
    return events[0]


def _match(replaced: Sequence[Event], one: Event, other: Event, changed: Look) -> Event:
    """What was done to the batch of the step: a program may have fetched it before the step before."""
    digests = {digest for _, digest in first_pass_of(changed, REPLACED)}
    known = [event for event in replaced if event["ids"] in digests]
    fitting = [event for event in known or replaced if _stride(event, len(one["targets"]))]
    fitting = [event for event in fitting if _differ_inside(event, one["targets"], other["targets"])]
    if not fitting or len({str(event["kept"]) for event in fitting}) > 1:
        raise NotApplicable("its targets are not one for each token of the rows that its loader gives")
    return fitting[0]


def _stride(event: Event, count: int) -> int:
    """How many targets belong to a row: one for each token, or for each but one; 0 where it is another number."""
    return next((width for width in (event["width"], event["width"] - 1) if count == event["rows"] * width), 0)


def _places(event: Event, spans: Sequence[Sequence[int]]) -> Iterator[tuple[int, int]]:
    for row, start, stop in spans:
        for position in range(start, min(stop, event["width"] - 1)):
            yield row, position


def _differ_inside(event: Event, one: Sequence[int], other: Sequence[int]) -> bool:
    """The targets are the same but for those of the documents that were replaced."""
    width = _stride(event, len(one))
    inside = {row * width + position - shift for row, position in _places(event, event["other"]) for shift in (0, 1)}
    return len(one) == len(other) and all(place in inside for place, t in enumerate(one) if t != other[place])


def _moved(
    event: Event, spans: Sequence[Sequence[int]], one: Losses, other: Losses, limit: float
) -> list[tuple[int, int, float, float]]:
    """The targets of some documents whose loss is another one: row, position, and both losses."""
    width, found = _stride(event, len(one)), []
    for row, position in _places(event, spans):
        before, after = one[row * width + position], other[row * width + position]
        if before is not None and after is not None and abs(before - after) > limit * max(1.0, abs(before)):
            found.append((row, position, before, after))
    return found
