"""A trace replayed through the allocator's model: its peaks, what stood there, or where memory ran out."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from pytest_trainguard.memory.replay.allocator import Block, OutOfMemory
from pytest_trainguard.memory.replay.allocator_settings import make_allocator
from pytest_trainguard.memory.replay.trace import Event, Trace

CAP_PRECISION = 4 * 2**20  # bytes; a segment is a multiple of 2 MiB
WORKSPACE_CATEGORY = "workspace"  # the category of what a library holds for itself, in every composition


@dataclass(frozen=True)
class Instant:
    """One moment of a trace.

    Attributes:
        index: of the event in the trace.
        event: the allocation at which it stands.
        allocated, reserved: bytes right after it; of a failed one, right before.
    """

    index: int
    event: Event
    allocated: int
    reserved: int

    @property
    def where(self) -> str:
        """The moment in words: `aten::mm in encoder.layer.3, backward of step 2`."""
        module = f" in {self.event.module}" if self.event.module else ""
        when = "while the model is built" if self.event.phase == "build" else f"{self.event.phase} of step"
        number = "" if self.event.phase == "build" else f" {self.event.step + 1}"
        when = when if self.event.phase != "optimizer step" else "optimizer step"
        return f"{self.event.op or 'an allocation'}{module}, {when}{number}"


@dataclass
class Replay:
    """What came of a replay.

    Attributes:
        peak: the instant with the most bytes allocated; None for a trace without allocations.
        peak_reserved: the most bytes taken from the driver.
        peak_requested: bytes that were asked for at `peak`, before rounding.
        retries: how often the allocator had to give back all that was cached.
        failed: where memory ran out; None where it did not.
        asked: bytes of the request that failed, as wanted from the driver.
        allocated, reserved: bytes after each event, up to the end or the failure.
        sizes: bytes that each storage takes, by its block number; workspaces are numbered from -1 down.
    """

    peak: Instant | None = None
    peak_reserved: int = 0
    peak_requested: int = 0
    retries: int = 0
    failed: Instant | None = None
    asked: int = 0
    allocated: array[int] = field(default_factory=lambda: array("q"))
    reserved: array[int] = field(default_factory=lambda: array("q"))
    sizes: dict[int, int] = field(default_factory=dict)

    @property
    def peak_allocated(self) -> int:
        """The most bytes in use, with rounding and workspaces."""
        return self.peak.allocated if self.peak else 0

    @property
    def fragmentation(self) -> int:
        """Bytes that were taken from the driver beyond what was ever in use at one time."""
        return self.peak_reserved - self.peak_allocated


def replay_trace(trace: Trace, cap: int | None = None, *, workspace: int = 0) -> Replay:
    """Run a trace through the allocator.

    Args:
        trace: what the program did.
        cap: bytes that the allocator may take; None for no limit.
        workspace: bytes of one library workspace on the card in question; see `trace.Workspace`.
    """
    allocator = make_allocator(trace.allocator, cap)
    found = Replay()
    blocks: dict[int, Block] = {}
    highest = -1
    for index, event in add_workspaces(trace, workspace):
        try:
            if event.kind == "alloc" and event.size:  # an empty tensor takes nothing
                block = blocks[event.block] = allocator.malloc(event.size, event.stream)
                found.sizes[event.block] = block.size
            elif event.block in blocks:
                allocator.free(blocks.pop(event.block))
            elif event.kind == "empty cache":
                allocator.flush()
        except OutOfMemory as failure:
            found.failed = Instant(index, event, failure.allocated, failure.reserved)
            found.asked = failure.asked
            break
        if allocator.allocated > highest:
            highest = allocator.allocated
            found.peak = Instant(index, event, highest, allocator.reserved)
            found.peak_requested = allocator.requested
        found.allocated.append(allocator.allocated)
        found.reserved.append(allocator.reserved)
    found.peak_reserved, found.retries = allocator.peak_reserved, allocator.retries
    return found


def find_least_cap(trace: Trace, found: Replay, workspace: int = 0, *, over: int = 0) -> int:
    """The smallest cap under which a trace survives, to `CAP_PRECISION` bytes.

    Args:
        trace: what the program did.
        found: its replay without a cap.
        workspace: as in that replay.
        over: a cap that is known to be too small.
    """
    low, high = max(over, found.peak_allocated - 1), found.peak_reserved
    while high - low > CAP_PRECISION:
        middle = (low + high) // 2
        if replay_trace(trace, middle, workspace=workspace).failed:
            low = middle
        else:
            high = middle
    return high


def add_workspaces(trace: Trace, size: int) -> Iterator[tuple[int, Event]]:
    """A trace's events with their indices, and the birth of each workspace where it was first used."""
    waiting = sorted(trace.workspaces, key=lambda workspace: workspace.at, reverse=True) if size else []
    number = 0
    for index, event in enumerate(trace.events):
        while waiting and waiting[-1].at <= index:
            used, number = waiting.pop(), number - 1
            op = f"{used.library} ({used.thread} thread)"
            yield index, Event("alloc", number, size, used.stream, WORKSPACE_CATEGORY, op, "", event.phase, event.step)
        yield index, event


@dataclass(frozen=True)
class PeakComposition:
    """What stood in memory at an instant, in bytes with rounding, by each of its names; largest first."""

    by_category: dict[str, int]
    by_op: dict[str, int]
    by_module: dict[str, int]
    largest: list[tuple[Event, int]]


def find_peak_composition(trace: Trace, found: Replay, workspace: int = 0, largest: int = 5) -> PeakComposition:
    """What stood in memory at the peak of a replay (with the same `workspace`)."""
    alive: dict[int, Event] = {}
    last = found.peak.index if found.peak else -1
    peak_block = found.peak.event.block if found.peak else 0
    for index, event in add_workspaces(trace, workspace):
        if index > last:
            break
        if event.kind == "free":
            alive.pop(event.block, None)
        elif event.size:
            alive[event.block] = event
            if index == last and event.block == peak_block:
                break
    sized = [(event, found.sizes[event.block]) for event in alive.values()]
    sized.sort(key=lambda pair: -pair[1])
    return PeakComposition(
        _summed((event.category, size) for event, size in sized),
        _summed((event.op, size) for event, size in sized),
        _summed((event.module, size) for event, size in sized),
        sized[:largest],
    )


def _summed(pairs: Iterator[tuple[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for name, size in pairs:
        total[name] += size
    return dict(total.most_common())
