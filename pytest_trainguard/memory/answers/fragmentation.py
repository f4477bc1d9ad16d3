"""What many steps of changing lengths do to GPU memory: what stays in use after them, and what the allocator loses.

A sound program comes to rest: after its first steps no more is in use than before, and the allocator's cache serves
every length. It takes more where a batch is longer than all before, for what is cached is then too small by a little:
how often that happens is a matter of the order, and of how few tensors make up a small model, and says nothing of the
program (the repository's graph network comes to 4.2 times its peak in this way). What it takes in a step that needs no
more than an earlier one does say something: in 200 steps the repository's trainers come to 0.00 of their peak, a buffer
that is made anew each time, a little larger, to 2.5.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from pytest_trainguard.memory.answers.verdict import Judgement, shown
from pytest_trainguard.memory.replay.cards import GIB
from pytest_trainguard.memory.replay.extrapolation import After, Move, carried_on, of_steps, replayed, survived
from pytest_trainguard.memory.replay.trace import Event, Trace
from pytest_trainguard.memory.replay.trace_replay import STEP

STEPS = 200  # in all
TRACED, WARM = 24, 6  # of these, run for real; and of those, the first, in which caches and optimizer states are made
USUAL = 8 * GIB  # how large the job is taken to be where nothing is known of its production settings
LEAST = GIB  # what a smaller one is taken for: below, the allocator's own smallest pieces are all there is to see
# As parts of the allocated peak:
LEAK = 0.1  # by how much what is in use may rise within the traced steps
LOST = 1.0  # what the allocator may take, after the warm steps, in those that need no more than one before them


@dataclass(frozen=True)
class Fragmentation:
    """What came of the steps.

    Attributes:
        after: memory after each step.
        rise: bytes in use after the last traced steps beyond those after the first ones.
        stays: what made the most of it, in words.
        scale: how much larger than traced the storages were made.
        out_of_memory: the step in which memory ran out under the budget; None where it did not, or none was given.
    """

    after: Sequence[After]
    rise: int
    stays: str
    scale: float
    out_of_memory: int | None = None

    @property
    def peak(self) -> int:
        """The most bytes in use."""
        return self.after[-1].peak_allocated

    @property
    def lost(self) -> int:
        """Bytes that the allocator took in steps that needed no more than one before them."""
        return sum(
            now.peak_reserved - before.peak_reserved
            for before, now in pairwise(self.after[WARM:])
            if now.peak_allocated == before.peak_allocated
        )

    @property
    def trouble(self) -> str | None:
        """What is wrong, in words; None where nothing is."""
        if self.rise > LEAK * self.peak:
            return (
                f"what is in use after a step grows: by {shown(self.rise)} ({self.rise / self.peak:.0%} of the peak) "
                f"within {TRACED - WARM} steps; what stays: {self.stays}"
            )
        warm, held = self.after[WARM].peak_reserved, self.after[-1].peak_reserved
        if self.lost > LOST * self.peak:
            return (
                f"what the allocator holds goes on growing where no more is in use: {shown(warm)} after {WARM + 1} "
                f"steps, {shown(held)} after {STEPS}, {held / self.peak:.1f} times the {shown(self.peak)} that are in "
                f"use at the peak: {_CURE}"
            )
        if self.out_of_memory is not None:
            return (
                f"memory runs out in step {self.out_of_memory} of {STEPS}, though the longest batch fits by itself: "
                f"free memory is in pieces that are too small: {_CURE}"
            )
        return None


_CURE = (
    "take buffers once, at their full size; pad lengths to multiples; begin with the longest batch; or set "
    "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True"
)


def look(trace: Trace, production: Judgement | None = None) -> Fragmentation:
    """Carry a trace of changing lengths on to `STEPS` steps, at the size that the job will have.

    Args:
        trace: of `TRACED` steps at any settings.
        production: how the production settings do under the budget; they give the size, and the room that is left.

    Raises:
        ValueError: the trace has too few steps.
    """
    traced = of_steps(trace)
    steps = carried_on(traced, STEPS, WARM, seed=0)
    real = steps[: len(traced) - 1]
    small = list(replayed(real, allocator=trace.allocator))
    fits = production is not None and production.fits
    wanted = max(production.allocated, LEAST) if production is not None and production.allocated else USUAL
    scale = wanted / small[-1].peak_allocated
    after = list(replayed(steps, scale, allocator=trace.allocator))
    rise, (early, late) = _rise(after[: len(real)])
    out = None
    if production is not None and fits:
        out = _out_of_memory(steps, scale, after, production, trace.allocator)
    return Fragmentation(after, rise, _stays(traced, early, late, scale), scale, out)


def _rise(after: Sequence[After]) -> tuple[int, tuple[int, int]]:
    """By how much more is in use after late steps than after early ones; and the two steps that were compared.

    The least of a third of the steps each: how much the last batch left is a matter of its length.
    """
    third = (len(after) - WARM) // 3
    early = min(range(WARM, WARM + third), key=lambda number: after[number].allocated)
    late = min(range(len(after) - third, len(after)), key=lambda number: after[number].allocated)
    return after[late].allocated - after[early].allocated, (early, late)


def _stays(traced: Sequence[Sequence[Event]], early: int, late: int, scale: float) -> str:
    """What was made between two steps and is there after the later one: its kind, how many, how large."""
    born = [event for events in traced[early + 1 : late + 1] for event in events if event.kind == "alloc"]
    gone = {event.block for events in traced[early + 1 : late + 1] for event in events if event.kind == "free"}
    sizes: Counter[tuple[str, str]] = Counter()
    counts: Counter[tuple[str, str]] = Counter()
    for event in born:
        if event.block not in gone:
            sizes[event.op, event.module] += event.size
            counts[event.op, event.module] += 1
    if not sizes:
        return "nothing that was made meanwhile"
    (op, module), size = sizes.most_common(1)[0]
    number = counts[op, module]
    where = f" in {module}" if module else ""
    return f"{number} tensor{'s' if number > 1 else ''} of {op}{where}, {shown(round(size * scale))}"


def _out_of_memory(
    steps: Sequence[Sequence[Move]], scale: float, after: Sequence[After], production: Judgement, allocator: str
) -> int | None:
    """The step in which memory runs out, with as much room over the least up to the peak as production has.

    The tiny program's few tensors are larger parts of the whole than those of production, and need more over their
    peak: so it is held against itself, up to the step of its peak, which stands for the longest batch.
    """
    upto = next(number for number, one in enumerate(after) if one.peak_allocated == after[-1].peak_allocated)
    first, low, high = steps[: upto + 1], 0, after[upto].peak_reserved
    while high - low > STEP:
        middle = (low + high) // 2
        low, high = (low, middle) if survived(first, scale, middle, allocator) == len(first) else (middle, high)
    count = survived(steps, scale, round(high * production.limit.size / production.least), allocator)
    return None if count == len(steps) else count + 1
