"""Rows that are recognised where they go in: cases 110, 111 and 113."""

from __future__ import annotations

from pytest_trainguard.casework.silent.look import Look, Problems, at, problem
from pytest_trainguard.harm import Problem
from pytest_trainguard.recorder.timeline import Event
from pytest_trainguard.verdicts.errors import NotApplicable

__all__ = ["find_doubled", "find_same_order", "find_shared_rows", "find_undrawn"]

FEWEST = 3  # batches of an epoch: with fewer, two epochs may be alike by chance
DOUBLED = 0.25  # of the rows of an epoch: fewer may be alike
DISTINCT = 8  # rows of an evaluation: fewer may be alike by chance
NEIGHBOURS = 2  # rows of a batch, at least
OF_STREAMS = {"_InfiniteConstantSampler"}  # torch's name for a data set without indices
IN_ORDER = {"SequentialSampler"}


def find_same_order(look: Look) -> Problems:
    """Whether a second epoch has the batches of the first one again.

    Batches are told apart by their rows, in whatever order these stand.

    Raises:
        NotApplicable: the data are a stream; batches of one row, or no loader and no row that comes again.
        NotApplicable: there is no second epoch, or no row is recognised in it.
    """
    samplers = {event["sampler"] for event in look.of("loader")}
    if samplers and samplers <= OF_STREAMS:
        raise NotApplicable("its data are a stream, which comes in the order that it has")
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


def find_undrawn(look: Look) -> Problems:
    """Whether a sampler has fewer weights than there are rows: the others are never drawn."""
    return [
        problem(
            "misleads",
            f"{event['sampler']}{at(event['place'])} has {event['weights']} weights for a data set of {event['rows']} "
            "rows, and draws none of the others: it takes one weight for each row, and not for each class "
            "(class_weights[labels])",
        )
        for event in look.of("loader")[:1]
        if event["weights"] and event["rows"] and event["weights"] < event["rows"]
    ]


def _tell(look: Look, passes: list[Event], period: int) -> Problem:
    samplers = {event["sampler"] for event in look.of("loader")}
    told = (
        f"its epochs are all alike{at(passes[0]['place'])}: batch {period + 1} has the rows of batch 1 again, batch "
        f"{period + 2} those of batch 2, and so on for {len(passes) - period} batches"
    )
    if samplers <= IN_ORDER:
        return problem("unclear", f"{told}; the rows are taken as they stand: where that is not meant, shuffle them")
    return problem("misleads", f"{told}; what shuffles them begins anew with the same seed in every epoch")


def find_shared_rows(look: Look, *, held_out: bool) -> Problems:
    """Whether everything that is evaluated was trained on.

    A program may look at rows that it trains on as well, to see how far apart the two are: only where there is no other
    row, nothing is measured but what was learnt by heart.

    Args:
        look: the recording.
        held_out: it was given other rows to evaluate on, or told to hold some out.

    Raises:
        NotApplicable: there is no evaluation, or one of a few rows only.
    """
    evaluated = {row for event in look.evaluations for row in event["rows"]}
    trained = {row for event in look.training_passes for row in event["rows"]}
    if len(evaluated) < DISTINCT:
        raise NotApplicable(
            f"no evaluation of at least {DISTINCT} rows is seen between its steps: name its setting, "
            'fields = {"eval_every": "..."}'
        )
    if evaluated - trained:
        return []
    first = look.evaluations[0]
    told = f"each of the {len(evaluated)} rows that it evaluates on{at(first['place'])} is one that it trains on"
    if held_out:
        return [problem("misleads", f"{told}, though it was given others to evaluate on")]
    return [problem("unclear", f"{told}: what is measured is how much was learnt by heart; hold some rows out")]


def find_doubled(alone: Look, workers: Look) -> Problems:
    """Whether rows come twice where two processes read them.

    Args:
        alone: the run without worker processes.
        workers: the same with two.

    Raises:
        NotApplicable: no row is recognised in both.
    """
    before, after = ([row for event in look.training_passes for row in event["rows"]] for look in (alone, workers))
    epoch = next((place for place, row in enumerate(before) if row in before[:place]), len(before))
    if epoch < DISTINCT or not set(before[:epoch]) & set(after):
        raise NotApplicable("no row of the run without worker processes is recognised in the one with two")
    first = after[:epoch]
    twice = len(first) - len(set(first))
    if twice < DOUBLED * epoch:
        return []
    place = at(workers.training_passes[0]["place"])
    return [
        problem(
            "misleads",
            f"of the first {epoch} rows that it trains on{place}, {twice} came before: each of the processes reads all "
            f"of them, where one alone reads {epoch} different ones",
        )
    ]
