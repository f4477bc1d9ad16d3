"""The trace of a setting's value that was not traced: every storage's size interpolated from those that were."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import cache

from pytest_trainguard.memory.replay.trace import Event, Trace

COUNT_TOLERANCE = 0.05  # by so large a part the numbers of events may differ; a loop over rows makes more of them
NEAREST_TRACES = 3  # traces that are interpolated: sizes are lines of a batch size, at most parabolas of a length
BirthKey = tuple[
    str, str, str, int, int
]  # operation, module, phase, step, and which one of those that have these in common


def interpolate_trace(traces: Mapping[int, Trace], value: int) -> Trace | None:
    """What the trace of a setting's value would be, going by the nearest that were made.

    The events are those of the very nearest: with another batch a program may do a little more or less (drop a mask
    that masks nothing, choose another kernel). So it tells where to look, and no more.

    Args:
        traces: by the values that they were made with.
        value: the one in question.

    Returns:
        None where there are fewer than two traces to draw from, or the number of events depends on the value.
    """
    nearest = sorted(traces, key=lambda one: abs(one - value))[:NEAREST_TRACES]
    counts = [len(traces[one].events) for one in nearest]
    if len(nearest) < 2 or max(counts) - min(counts) > COUNT_TOLERANCE * max(counts):
        return None
    base = traces[nearest[0]]
    others = {one: {key: event.size for key, event in _list_births(traces[one])} for one in nearest[1:]}
    sizes: dict[int, int] = {}
    for key, event in _list_births(base):
        known = {one: sized[key] for one, sized in others.items() if key in sized}
        sizes[event.block] = _interpolate_size({nearest[0]: event.size, **known}, value)
    events = [
        event if sizes.get(event.block, 0) == event.size else replace(event, size=sizes[event.block])
        for event in base.events
    ]
    return replace(base, events=events)


def _list_births(trace: Trace) -> Iterator[tuple[BirthKey, Event]]:
    counts: Counter[tuple[str, str, str, int]] = Counter()
    for event in trace.events:
        if event.kind == "alloc":
            name = (event.op, event.module, event.phase, event.step)
            counts[name] += 1
            yield (*name, counts[name]), event


def _interpolate_size(known: dict[int, int], value: int) -> int:
    """The polynomial through all that is known, at a value; exact, so that a line stays one."""
    sizes = tuple(known.values())
    if len(set(sizes)) == 1:
        return sizes[0]
    weights, divisor = _find_weights(tuple(known), value)
    return max(0, sum(weight * size for weight, size in zip(weights, sizes, strict=True)) // divisor)


@cache
def _find_weights(at: tuple[int, ...], value: int) -> tuple[list[int], int]:
    """What each known size counts for (Lagrange's form), over one divisor: whole numbers, for there are many sizes."""
    found = [
        math.prod((Fraction(value - other, one - other) for other in at if other != one), start=Fraction(1))
        for one in at
    ]
    divisor = math.lcm(*(weight.denominator for weight in found))
    return [int(weight * divisor) for weight in found], divisor
