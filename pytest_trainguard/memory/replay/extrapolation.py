"""A trace carried on for more optimizer steps than were traced, and replayed step by step at another scale.

What takes hundreds of steps to show is looked for in a few dozen real ones, carried on: a step takes a tenth of a
second to trace, and a few milliseconds to replay.
"""

from __future__ import annotations

import contextlib
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pytest_trainguard.memory.replay.allocator import MIN_BLOCK, Block, OutOfMemory
from pytest_trainguard.memory.replay.allocator_settings import make_allocator
from pytest_trainguard.memory.replay.trace import Event, Trace


class Move(NamedTuple):
    """One birth (or death) of a storage: no more of an event than the allocator sees.

    Of block 0, which no storage is, the giving back of what is cached.
    """

    born: bool
    block: int
    size: int
    stream: int


class MemoryAfterStep(NamedTuple):
    """Bytes after one optimizer step: in use, taken from the driver, and the most of each since the beginning."""

    allocated: int
    reserved: int
    peak_allocated: int
    peak_reserved: int


class _Part(NamedTuple):
    """One move of a step that can be done again.

    Attributes:
        move: a birth, or the death of a storage that was born in the same step.
        later: of a birth, how many steps later its death follows.
        place: how far into that step, from 0 to 1.
    """

    move: Move
    later: int = 0
    place: float = 0.0


def split_into_steps(trace: Trace) -> list[list[Event]]:
    """The events of each complete optimizer step; what precedes the first belongs to it, what follows is left out."""
    count = max((event.step for event in trace.events), default=0)
    found: list[list[Event]] = [[] for _ in range(count)]
    for event in trace.events:
        if event.step < count:
            found[event.step].append(event)
    return found


def extend_steps(traced: Sequence[Sequence[Event]], steps: int, warm: int, seed: int) -> list[list[Move]]:
    """The traced steps but for the last, and then as many more as make `steps`: those after the first `warm`, shuffled.

    A storage that outlived its step by so many steps does so again, and goes at the same place of that step. One that
    is alive when the trace ends is not made again: whether it is a state, a cache or a leak, only real steps tell.

    Raises:
        ValueError: no step is left after the warm ones.
    """
    if len(traced) < warm + 2:
        raise ValueError(f"only {len(traced)} optimizer steps were traced")
    *kept, last = [[_move(event) for event in events] for events in traced]
    ends = {
        move.block: (number, index / len(moves))
        for number, moves in enumerate([*kept, last])
        for index, move in enumerate(moves)
        if not move.born
    }
    again = [_parts(kept[number], number, ends) for number in range(warm, len(kept))]
    due: defaultdict[int, list[tuple[float, Move]]] = defaultdict(list)
    alive = {move.block for moves in kept for move in moves}
    due[len(kept)] = [(ends[move.block][1], move) for move in last if not move.born and move.block in alive]
    chance, found, fresh = random.Random(seed), list(kept), 1 + max(ends, default=0)
    for number in range(len(kept), steps):
        moves, fresh = _again(chance.choice(again), number, due, fresh)
        found.append(moves)
    return found


def _move(event: Event) -> Move:
    return Move(event.kind == "alloc", event.block, event.size, event.stream)


def _parts(moves: Sequence[Move], number: int, ends: dict[int, tuple[int, float]]) -> list[_Part]:
    """What can be done again of a step: births that have an end, and the deaths that belong to them."""
    born = {move.block for move in moves if move.born and move.block in ends}
    return [
        _Part(move, ends[move.block][0] - number, ends[move.block][1]) if move.born else _Part(move)
        for move in moves
        if move.block in born or not move.block
    ]


def _again(
    parts: Sequence[_Part], number: int, due: defaultdict[int, list[tuple[float, Move]]], fresh: int
) -> tuple[list[Move], int]:
    """A step done again under new block numbers, from `fresh` on, with the deaths that are `due` in it."""
    moves: list[Move] = []
    names: dict[int, int] = {}
    waiting = sorted(due.pop(number, []), key=lambda pair: -pair[0])
    for index, (move, later, place) in enumerate(parts):
        while waiting and waiting[-1][0] * len(parts) <= index:
            moves.append(waiting.pop()[1])
        if not move.block:
            moves.append(move)
            continue
        if move.born:
            names[move.block], fresh = fresh, fresh + 1
        name = names[move.block]
        moves.append(Move(move.born, name, move.size, move.stream))  # `_replace` takes twice as long
        if later:
            due[number + later].append((place, Move(False, name, move.size, move.stream)))
    moves += [move for _, move in reversed(waiting)]
    return moves, fresh


def replay_steps(
    steps: Sequence[Sequence[Move]], scale: float = 1.0, cap: int | None = None, allocator: str = ""
) -> Iterator[MemoryAfterStep]:
    """The steps through the allocator, each storage `scale` times as large.

    But for the smallest (numbers, biases), which are as small in any model. `allocator` has its settings, as a `Trace`.

    Raises:
        OutOfMemory: they do not fit under the cap; after the last step that did.
    """
    model, blocks, peak = make_allocator(allocator, cap), dict[int, Block](), 0
    for moves in steps:
        for born, block, size, stream in moves:
            if not born:
                if block in blocks:
                    model.free(blocks.pop(block))
                elif not block:
                    model.flush()
            elif size:
                blocks[block] = model.malloc(size if size <= MIN_BLOCK else round(size * scale), stream)
                peak = max(peak, model.allocated)
        yield MemoryAfterStep(model.allocated, model.reserved, peak, model.peak_reserved)


def count_fitting_steps(steps: Sequence[Sequence[Move]], scale: float, cap: int, allocator: str = "") -> int:
    """How many of the steps, from the first, fit under a cap."""
    count = 0
    with contextlib.suppress(OutOfMemory):
        for _ in replay_steps(steps, scale, cap, allocator):
            count += 1
    return count
