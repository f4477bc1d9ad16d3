"""A model of CUDA's caching allocator, as torch has it (the `native` backend), over addresses that nobody backs.

Sizes, pools, best fit, splitting, merging, the flush and the retry follow `c10/cuda/CUDACachingAllocator.cpp`; the
constants are those of `c10/core/AllocatorConfig.h`, unchanged from torch 1.0 to 2.13. Left out: CUDA graphs' private
pools, garbage collection by threshold, and blocks that wait for the event of another stream.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from typing import NamedTuple

MIN_BLOCK = 512  # bytes; every size is rounded up to a multiple of this
SMALL = 2**20  # the largest request of the small pool
SMALL_SEGMENT = 2 * 2**20  # what is taken from the driver for small requests
LARGE_SEGMENT = 20 * 2**20  # what is taken for requests under MIN_LARGE
MIN_LARGE = 10 * 2**20
ROUND_LARGE = 2 * 2**20  # requests from MIN_LARGE on have a segment of their own, rounded up to this
FIRST_ADDRESS = 0x7F00_0000_0000


class OutOfMemory(Exception):
    """What is asked for does not fit under the cap, even after everything that is cached was given back.

    Attributes:
        asked: bytes of the segment that was wanted from the driver.
        allocated, reserved: bytes then.
    """

    def __init__(self, asked: int, allocated: int, reserved: int):
        super().__init__(f"{asked} bytes, {reserved} reserved")
        self.asked, self.allocated, self.reserved = asked, allocated, reserved


class Action(NamedTuple):
    """One thing that the allocator did, in the words of torch's own memory snapshots."""

    action: str  # segment_alloc, segment_free, alloc, free_completed
    address: int
    size: int
    stream: int


class Block:
    """A stretch of a segment: in use, or free and in its pool. Neighbours are those in the same segment.

    One that is not `mapped` has addresses and no memory (`expandable_allocator`); it is in no pool.
    """

    __slots__ = ("address", "before", "free", "mapped", "next", "requested", "size", "small", "stream")

    def __init__(self, address: int, size: int, small: bool, stream: int):
        self.address, self.size, self.small, self.stream = address, size, small, stream
        self.requested = 0
        self.free = self.mapped = True
        self.before: Block | None = None
        self.next: Block | None = None

    @property
    def whole(self) -> bool:
        """The block is all of its segment."""
        return self.before is None and self.next is None


Pool = list[tuple[int, int, Block]]  # free blocks by size, then address


def round_up(size: int) -> int:
    """Bytes that a request takes: a multiple of `MIN_BLOCK`, and one at least."""
    return max(MIN_BLOCK, -(-size // MIN_BLOCK) * MIN_BLOCK)


def segment_size(size: int) -> int:
    """Bytes that are taken from the driver for a rounded request that no cached block can serve."""
    if size <= SMALL:
        return SMALL_SEGMENT
    return LARGE_SEGMENT if size < MIN_LARGE else -(-size // ROUND_LARGE) * ROUND_LARGE


@dataclass
class Allocator:
    """One device's caching allocator.

    Attributes:
        cap: bytes that it may take from the driver (`set_per_process_memory_fraction`); None for no limit.
        max_split: `max_split_size_mb` of PYTORCH_CUDA_ALLOC_CONF, in bytes: blocks from there on are not split.
        log: what was done, where a list is given.
        requested, allocated, reserved: bytes asked for, in use with rounding, and taken from the driver.
        retries: how often everything cached was given back to the driver for one request.
    """

    cap: int | None = None
    max_split: int | None = None
    log: list[Action] | None = None
    requested: int = 0
    allocated: int = 0
    reserved: int = 0
    peak_reserved: int = 0
    retries: int = 0
    _pools: dict[tuple[int, bool], Pool] = field(default_factory=dict)
    _next_address: int = FIRST_ADDRESS

    def malloc(self, requested: int, stream: int = 0) -> Block:
        """A block of at least `requested` bytes.

        Raises:
            OutOfMemory: not under the cap.
        """
        size = round_up(requested)
        small = size <= SMALL
        pool = self._pools.get((stream, small))
        if pool is None:
            pool = self._pools[stream, small] = []
        block = self._best_fit(pool, size) or self._new_segment(size, small, stream, pool)
        if self._splits(block, size):
            self._split(block, size, pool)
        block.free = False
        block.requested = requested
        self.requested += requested
        self.allocated += block.size
        self._tell("alloc", block)
        return block

    def free(self, block: Block) -> None:
        """Take a block back, and merge it with its free neighbours."""
        self.requested -= block.requested
        self.allocated -= block.size
        self._tell("free_completed", block)
        self._put_back(self._pools[block.stream, block.small], block)

    def _put_back(self, pool: Pool, block: Block) -> None:
        """Into its pool, as one with its free neighbours."""
        before, after = block.before, block.next
        if before is not None and before.free:
            remove_free_block(pool, before)
            block.address, block.size, block.before = before.address, block.size + before.size, before.before
            if block.before is not None:
                block.before.next = block
        if after is not None and after.free:
            remove_free_block(pool, after)
            block.size, block.next = block.size + after.size, after.next
            if block.next is not None:
                block.next.before = block
        block.free = True
        insort(pool, (block.size, block.address, block))

    def flush(self) -> None:
        """Give every cached segment that is free as a whole back to the driver (`torch.cuda.empty_cache`)."""
        for pool in self._pools.values():
            for _, _, block in [entry for entry in pool if entry[2].whole]:
                self._release(pool, block)

    def free_blocks(self) -> list[Block]:
        """Every cached block that is not in use."""
        return [entry[2] for pool in self._pools.values() for entry in pool]

    def _best_fit(self, pool: Pool, size: int) -> Block | None:
        """The smallest free block that is large enough, taken out of its pool."""
        place = bisect_left(pool, (size,))
        if place == len(pool):
            return None
        if self.max_split is not None:
            found = pool[place][0]
            oversize = found >= self.max_split if size < self.max_split else found >= size + LARGE_SEGMENT
            if oversize:
                return None
        return pool.pop(place)[2]

    def _splits(self, block: Block, size: int) -> bool:
        rest = block.size - size
        if block.small:
            return rest >= MIN_BLOCK
        return rest > SMALL and (self.max_split is None or size < self.max_split)

    def _split(self, block: Block, size: int, pool: Pool) -> None:
        rest = Block(block.address + size, block.size - size, block.small, block.stream)
        rest.before, rest.next = block, block.next
        if rest.next is not None:
            rest.next.before = rest
        block.size, block.next = size, rest
        insort(pool, (rest.size, rest.address, rest))

    def _new_segment(self, size: int, small: bool, stream: int, pool: Pool) -> Block:
        wanted = segment_size(size)
        if not self._has_room(wanted):
            if not (self._release_oversize(pool, size) and self._has_room(wanted)):
                self.retries += 1
                self.flush()
            if not self._has_room(wanted):
                raise OutOfMemory(wanted, self.allocated, self.reserved)
        block = Block(self._next_address, wanted, small, stream)
        self._next_address += -(-wanted // ROUND_LARGE) * ROUND_LARGE
        self.reserved += wanted
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        self._tell("segment_alloc", block)
        return block

    def _has_room(self, size: int) -> bool:
        return self.cap is None or self.reserved + size <= self.cap

    def _release_oversize(self, pool: Pool, size: int) -> bool:
        """With `max_split`: give back cached blocks of that size or more, only as many as this request needs."""
        if self.max_split is None:
            return False
        oversize = [entry for entry in pool if entry[0] >= self.max_split and entry[2].whole]
        wanted = max(size, self.max_split)
        one = next((block for block_size, _, block in oversize if block_size >= wanted), None)
        if one is not None:
            self._release(pool, one)
            return True
        released = 0
        while released < wanted and oversize:
            block_size, _, block = oversize.pop()
            self._release(pool, block)
            released += block_size
        return released >= wanted

    def _release(self, pool: Pool, block: Block) -> None:
        remove_free_block(pool, block)
        self.reserved -= block.size
        self._tell("segment_free", block)

    def _tell(self, action: str, block: Block) -> None:
        if self.log is not None:
            self.log.append(Action(action, block.address, block.size, block.stream))


def remove_free_block(pool: Pool, block: Block) -> None:
    """Out of its pool."""
    del pool[bisect_left(pool, (block.size, block.address))]
