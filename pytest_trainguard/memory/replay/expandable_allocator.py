"""The caching allocator with expandable segments (`PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True`).

Each pool of a stream has one segment: a range of addresses that is never used up, into which pages are mapped where
they are needed, and from which they are unmapped again. Free pieces side by side serve a large request, however they
came about. Follows `find_expandable_block`, `map_block` and `unmap_block` of `c10/cuda/CUDACachingAllocator.cpp`; the
cap holds as the driver's does, for the pages that are mapped.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from pytest_trainguard.memory.replay.allocator import (
    LARGE_SEGMENT,
    MIN_BLOCK,
    SMALL_SEGMENT,
    Allocator,
    Block,
    OutOfMemory,
    Pool,
    remove_free_block,
)

RANGE_SIZE = LARGE_SEGMENT << 24  # bytes of addresses that a segment has


@dataclass
class ExpandableAllocator(Allocator):
    """One device's caching allocator, whose segments grow and shrink by pages of 2 MiB (small requests) or 20 MiB."""

    _holes: dict[tuple[int, bool], list[Block]] = field(default_factory=dict)  # unmapped, by address; the last endless

    def flush(self) -> None:
        """Unmap every page that is free as a whole."""
        for pool in self._pools.values():
            for _, _, block in list(pool):
                self._unmap(pool, block)

    def _best_fit(self, pool: Pool, size: int) -> Block | None:
        """The smallest free block; one that can grow counts as large as it can become, so that it is used last."""
        place = bisect_left(pool, (size,))
        if place == len(pool):
            return None
        while place + 1 < len(pool) and _reach(pool[place + 1][2]) < _reach(pool[place][2]):
            place += 1
        return pool.pop(place)[2]

    def _splits(self, block: Block, size: int) -> bool:
        return block.size - size >= MIN_BLOCK

    def _new_segment(self, size: int, small: bool, stream: int, pool: Pool) -> Block:
        if not self._has_room(self._wanted(size, small, stream)):
            self.retries += 1
            self.flush()
        wanted = self._wanted(size, small, stream)
        if not self._has_room(wanted):
            raise OutOfMemory(wanted, self.allocated, self.reserved)
        block = self._place(size, small, stream)
        for piece, part in list(_row(block, size)):
            if not piece.mapped:
                block = self._map(pool, piece, _whole_pages(part, small))
        remove_free_block(pool, block)
        return block

    def _wanted(self, size: int, small: bool, stream: int) -> int:
        """Bytes to be mapped for a request."""
        row = _row(self._place(size, small, stream), size)
        return sum(_whole_pages(part, small) for piece, part in row if not piece.mapped)

    def _place(self, size: int, small: bool, stream: int) -> Block:
        """The first block of the lowest row of free and unmapped ones that is long enough."""
        for hole in self._holes.get((stream, small)) or self._new_range(small, stream):
            start = hole.before if hole.before is not None and hole.before.free else hole
            if sum(part for _, part in _row(start, size)) == size:
                return start
        raise AssertionError("the last hole is endless")

    def _new_range(self, small: bool, stream: int) -> list[Block]:
        self._next_address = -(-self._next_address // LARGE_SEGMENT) * LARGE_SEGMENT
        whole = Block(self._next_address, RANGE_SIZE, small, stream)
        whole.free = whole.mapped = False
        self._next_address += RANGE_SIZE
        self._holes[stream, small] = [whole]
        return self._holes[stream, small]

    def _map(self, pool: Pool, hole: Block, size: int) -> Block:
        """Give the lowest bytes of a hole memory; the free block that comes of it."""
        block = hole
        if size < hole.size:
            block = Block(hole.address, size, hole.small, hole.stream)
            _link(hole.before, block)
            _link(block, hole)
            hole.address, hole.size = hole.address + size, hole.size - size
        else:
            self._holes[hole.stream, hole.small].remove(hole)
        block.free = block.mapped = True
        self.reserved += size
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        self._tell("segment_map", block)
        self._put_back(pool, block)
        return block

    def _unmap(self, pool: Pool, block: Block) -> None:
        """Take the memory from the whole pages of a free block; what is left of it at both ends stays free."""
        page = _page(block.small)
        start, end = -(-block.address // page) * page, (block.address + block.size) // page * page
        if end <= start:
            return
        remove_free_block(pool, block)
        row = [block.before, self._left(pool, block, block.address, start), block,
               self._left(pool, block, end, block.address + block.size), block.next]  # fmt: skip
        block.address, block.size, block.free, block.mapped = start, end - start, False, False
        kept = [one for place, one in enumerate(row) if one is not None or place in (0, 4)]
        for one, following in pairwise(kept):
            _link(one, following)
        self.reserved -= block.size
        self._tell("segment_unmap", block)
        self._into_holes(block)

    def _left(self, pool: Pool, block: Block, start: int, end: int) -> Block | None:
        """A piece of a block that stays mapped and free; None where there is nothing of it."""
        if start == end:
            return None
        piece = Block(start, end - start, block.small, block.stream)
        insort(pool, (piece.size, piece.address, piece))
        return piece

    def _into_holes(self, block: Block) -> None:
        """As one with the holes beside it."""
        holes = self._holes[block.stream, block.small]
        after, before = block.next, block.before
        if after is not None and not after.mapped:
            after.address, after.size = block.address, block.size + after.size
            _link(before, after)
            block = after
        else:
            insort(holes, block, key=lambda hole: hole.address)
        if before is not None and not before.mapped:
            block.address, block.size = before.address, before.size + block.size
            _link(before.before, block)
            holes.remove(before)


def _row(block: Block | None, size: int) -> Iterator[tuple[Block, int]]:
    """Neighbours from a block on, as long as they are free or unmapped, and how much of each is needed for `size`."""
    while size and block is not None and (block.free or not block.mapped):
        part = min(size, block.size)
        yield block, part
        size, block = size - part, block.next


def _reach(block: Block) -> int:
    return block.size + (block.next.size if block.next is not None and not block.next.mapped else 0)


def _page(small: bool) -> int:
    return SMALL_SEGMENT if small else LARGE_SEGMENT


def _whole_pages(size: int, small: bool) -> int:
    return -(-size // _page(small)) * _page(small)


def _link(before: Block | None, after: Block | None) -> None:
    if before is not None:
        before.next = after
    if after is not None:
        after.before = before
