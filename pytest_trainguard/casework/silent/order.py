"""Rows that are recognised where they go in: case 111."""

from __future__ import annotations

from pytest_trainguard.casework.silent.look import Look, Problems, at, problem
from pytest_trainguard.harm import Problem
from pytest_trainguard.recorder.timeline import Event
from pytest_trainguard.verdicts.errors import NotApplicable

__all__ = ["find_same_order"]

FEWEST = 3  # batches of an epoch: with fewer, two epochs may be alike by chance
NEIGHBOURS = 2  # rows of a batch, at least
IN_ORDER = {"SequentialSampler"}


def find_same_order(look: Look) -> Problems:
    """Whether a second epoch has the batches of the first one again.

    Batches are told apart by their rows, in whatever order these stand.

    Raises:
        NotApplicable: batches of one row, or no loader and no row that comes again.
        NotApplicable: there is no second epoch, or no row is recognised in it.
    """
    passes = [event for event in look.training_passes if event["rows"]]
    main = max({event["number"] for event in passes}, key=lambda n: sum(e["number"] == n for e in passes), default=None)
    passes = [event for event in passes if event["number"] == main]
    batches = [tuple(sorted(event["rows"])) for event in passes]
    if not batches or max(map(len, batches)) < NEIGHBOURS:
        raise NotApplicable("its batches have one row each, or are none that can be told apart by rows")
    seen: set[str] = set()
    again = 0
    for batch in batches:
        again += any(row in seen for row in batch)
        seen.update(batch)
    if not again:
        raise NotApplicable(
            f"no row of its {len(batches)} training batches was seen twice: there is no second epoch in "
            f"{len(look.steps)} steps, or each row is changed anew as it is read"
        )
    first = batches.index(batches[0], 1) if batches[0] in batches[1:] else 0
    if first < FEWEST or len(batches) - first < FEWEST or len(set(batches[:first])) < first:
        return []
    repeated = [place for place in range(first, len(batches)) if batches[place] == batches[place - first]]
    if len(repeated) < len(batches) - first:
        return []
    return [_tell(look, passes, first)]


def _tell(look: Look, passes: list[Event], period: int) -> Problem:
    samplers = {event["sampler"] for event in look.of("loader")}
    told = (
        f"its epochs are all alike{at(passes[0]['place'])}: batch {period + 1} has the rows of batch 1 again, batch "
        f"{period + 2} those of batch 2, and so on for {len(passes) - period} batches"
    )
    if samplers <= IN_ORDER:
        return problem("unclear", f"{told}; the rows are taken as they stand: where that is not meant, shuffle them")
    return problem("misleads", f"{told}; what shuffles them begins anew with the same seed in every epoch")
