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

from pytest_trainguard.memory.answers.verdict import Judgement
from pytest_trainguard.memory.replay.extrapolation import (
    MemoryAfterStep,
    Move,
    count_fitting_steps,
    extend_steps,
    replay_steps,
    split_into_steps,
)
from pytest_trainguard.memory.replay.sizes import GIB, format_size
from pytest_trainguard.memory.replay.trace import Event, Trace
from pytest_trainguard.memory.replay.trace_replay import CAP_PRECISION

EXTRAPOLATED_STEPS = 200  # in all
TRACED_STEPS = 24  # of these, run for real
WARM_UP_STEPS = 6  # the first of those, in which caches and optimizer states are made
USUAL_PEAK = 8 * GIB  # how large the job is taken to be where nothing is known of its production settings
LEAST_PEAK = GIB  # what a smaller one is taken for: below, the allocator's own smallest pieces are all there is to see
# As parts of the allocated peak:
LEAK_SHARE = 0.1  # by how much what is in use may rise within the traced steps
LOST_SHARE = 1.0  # what the allocator may take, after the warm steps, in those that need no more than one before them


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

    after: Sequence[MemoryAfterStep]
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
            for before, now in pairwise(self.after[WARM_UP_STEPS:])
            if now.peak_allocated == before.peak_allocated
        )

    @property
    def trouble(self) -> str | None:
        """What is wrong, in words; None where nothing is."""
        if self.rise > LEAK_SHARE * self.peak:
            return (
                f"what is in use after a step grows: by {format_size(self.rise)} ({self.rise / self.peak:.0%} of the "
                f"peak) within {TRACED_STEPS - WARM_UP_STEPS} steps; what stays: {self.stays}"
            )
        warm, held = self.after[WARM_UP_STEPS].peak_reserved, self.after[-1].peak_reserved
        if self.lost > LOST_SHARE * self.peak:
            return (
                f"what the allocator holds goes on growing where no more is in use: {format_size(warm)} after "
                f"{WARM_UP_STEPS + 1} steps, {format_size(held)} after {EXTRAPOLATED_STEPS}, {held / self.peak:.1f} "
                f"times the {format_size(self.peak)} that are in use at the peak: {_REMEDY}"
            )
        if self.out_of_memory is not None:
            return (
                f"memory runs out in step {self.out_of_memory} of {EXTRAPOLATED_STEPS}, though the longest batch fits "
                f"by itself: free memory is in pieces that are too small: {_REMEDY}"
            )
        return None


_REMEDY = (
    "take buffers once, at their full size; pad lengths to multiples; begin with the longest batch; or set "
    "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True"
)


def find_fragmentation(trace: Trace, production: Judgement | None = None) -> Fragmentation:
    """Carry a trace of changing lengths on to `EXTRAPOLATED_STEPS` steps, at the size that the job will have.

    Args:
        trace: of `TRACED` steps at any settings.
        production: how the production settings do under the budget; they give the size, and the room that is left.

    Raises:
        ValueError: the trace has too few steps.
    """
    traced = split_into_steps(trace)
    steps = extend_steps(traced, EXTRAPOLATED_STEPS, WARM_UP_STEPS, seed=0)
    real = steps[: len(traced) - 1]
    small = list(replay_steps(real, allocator=trace.allocator))
    fits = production is not None and production.fits
    wanted = max(production.allocated, LEAST_PEAK) if production is not None and production.allocated else USUAL_PEAK
    scale = wanted / small[-1].peak_allocated
    after = list(replay_steps(steps, scale, allocator=trace.allocator))
    rise, (early, late) = _measure_growth(after[: len(real)])
    out = None
    if production is not None and fits:
        out = _find_failing_step(steps, scale, after, production, trace.allocator)
    return Fragmentation(after, rise, _describe_growth(traced, early, late, scale), scale, out)


def _measure_growth(after: Sequence[MemoryAfterStep]) -> tuple[int, tuple[int, int]]:
    """By how much more is in use after late steps than after early ones; and the two steps that were compared.

    The least of a third of the steps each: how much the last batch left is a matter of its length.
    """
    third = (len(after) - WARM_UP_STEPS) // 3
    early = min(range(WARM_UP_STEPS, WARM_UP_STEPS + third), key=lambda number: after[number].allocated)
    late = min(range(len(after) - third, len(after)), key=lambda number: after[number].allocated)
    return after[late].allocated - after[early].allocated, (early, late)


def _describe_growth(traced: Sequence[Sequence[Event]], early: int, late: int, scale: float) -> str:
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
    return f"{number} tensor{'s' if number > 1 else ''} of {op}{where}, {format_size(round(size * scale))}"


def _find_failing_step(
    steps: Sequence[Sequence[Move]],
    scale: float,
    after: Sequence[MemoryAfterStep],
    production: Judgement,
    allocator: str,
) -> int | None:
    """The step in which memory runs out, with as much room over the least up to the peak as production has.

    The tiny program's few tensors are larger parts of the whole than those of production, and need more over their
    peak: so it is held against itself, up to the step of its peak, which stands for the longest batch.
    """
    upto = next(number for number, one in enumerate(after) if one.peak_allocated == after[-1].peak_allocated)
    first, low, high = steps[: upto + 1], 0, after[upto].peak_reserved
    while high - low > CAP_PRECISION:
        middle = (low + high) // 2
        fit = count_fitting_steps(first, scale, middle, allocator) == len(first)
        low, high = (low, middle) if fit else (middle, high)
    count = count_fitting_steps(steps, scale, round(high * production.limit.size / production.least), allocator)
    return None if count == len(steps) else count + 1
