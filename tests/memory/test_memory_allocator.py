"""The allocator's model: sequences worked out by hand, and what must hold of every sequence."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trainguard.memory.replay.allocator import Allocator, OutOfMemory, round_up, segment_size

KIB, MIB = 2**10, 2**20


@pytest.mark.parametrize(
    ("size", "takes"), [(1, 512), (512, 512), (513, 1024), (MIB, MIB), (MIB + 1, MIB + 512), (3 * MIB, 3 * MIB)]
)
def test_sizes_are_rounded_to_512_bytes(size, takes):
    assert round_up(size) == takes


@pytest.mark.parametrize(
    ("size", "segment"),
    [
        (512, 2 * MIB),
        (MIB, 2 * MIB),
        (MIB + 512, 20 * MIB),
        (10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB),
        (10 * MIB + 512, 12 * MIB),
        (513 * MIB, 514 * MIB),
    ],
)
def test_segments(size, segment):
    assert segment_size(size) == segment


def state(allocator):
    return allocator.allocated, allocator.reserved


def test_small_requests_share_a_segment_until_it_is_full():
    allocator = Allocator()
    allocator.malloc(100)
    assert state(allocator) == (512, 2 * MIB)
    allocator.malloc(MIB)
    assert state(allocator) == (512 + MIB, 2 * MIB)
    allocator.malloc(MIB)  # 1 MiB - 512 bytes are left
    assert state(allocator) == (512 + 2 * MIB, 4 * MIB)
    assert allocator.requested == 100 + 2 * MIB


def test_a_remainder_of_a_mebibyte_is_not_split_off():
    allocator = Allocator()
    allocator.malloc(11 * MIB)  # a segment of 12 MiB, all of which it keeps
    assert state(allocator) == (12 * MIB, 12 * MIB)
    allocator.malloc(10 * MIB + 1)  # a segment of 12 MiB, of which 2 MiB - 512 bytes are split off
    assert state(allocator) == (22 * MIB + 512, 24 * MIB)
    allocator.malloc(MIB + 512)
    assert state(allocator)[1] == 24 * MIB


def test_the_smallest_block_that_fits_is_taken():
    allocator = Allocator()
    large, small, _ = allocator.malloc(40 * MIB), allocator.malloc(30 * MIB), allocator.malloc(50 * MIB)
    places = large.address, small.address
    allocator.free(large)
    allocator.free(small)
    assert allocator.malloc(30 * MIB).address == places[1]
    assert allocator.malloc(30 * MIB).address == places[0]
    assert state(allocator) == (110 * MIB, 120 * MIB)  # 10 of the 40 MiB were split off


def test_free_neighbours_are_merged():
    allocator = Allocator()
    first, second, third = (allocator.malloc(5 * MIB) for _ in range(3))  # in one segment of 20 MiB
    assert allocator.reserved == 20 * MIB
    allocator.free(first)
    allocator.free(third)
    assert sorted(block.size for block in allocator.free_blocks()) == [5 * MIB, 10 * MIB]
    allocator.free(second)
    assert [block.size for block in allocator.free_blocks()] == [20 * MIB]
    assert allocator.malloc(9 * MIB).address == first.address
    assert allocator.reserved == 20 * MIB


def test_under_a_cap_what_is_cached_is_given_back_and_asked_for_again():
    allocator = Allocator(cap=100 * MIB)
    cached, kept = allocator.malloc(60 * MIB), allocator.malloc(20 * MIB)
    allocator.free(cached)
    allocator.malloc(70 * MIB)
    assert (allocator.retries, *state(allocator)) == (1, 90 * MIB, 90 * MIB)
    with pytest.raises(OutOfMemory) as failure:
        allocator.malloc(12 * MIB)
    assert (failure.value.asked, failure.value.allocated) == (12 * MIB, 90 * MIB)
    allocator.free(kept)
    allocator.malloc(12 * MIB)  # in what was freed: 8 MiB of it are split off
    assert (allocator.retries, *state(allocator)) == (2, 82 * MIB, 90 * MIB)


def test_a_segment_of_which_a_part_is_in_use_is_not_given_back():
    allocator = Allocator(cap=40 * MIB)
    parts = [allocator.malloc(9 * MIB) for _ in range(4)]  # two to a segment
    allocator.free(parts[0])
    allocator.free(parts[2])  # 18 MiB are free, in two pieces that cannot be joined
    with pytest.raises(OutOfMemory):
        allocator.malloc(18 * MIB)
    assert state(allocator) == (18 * MIB, 40 * MIB)


def test_a_stream_keeps_its_blocks():
    allocator = Allocator()
    allocator.free(allocator.malloc(30 * MIB, stream=7))
    allocator.malloc(30 * MIB)
    assert allocator.reserved == 60 * MIB
    allocator.malloc(30 * MIB, stream=7)
    assert allocator.reserved == 60 * MIB


def test_with_a_largest_size_to_split_large_blocks_stay_whole():
    allocator = Allocator(max_split=50 * MIB)
    allocator.free(allocator.malloc(100 * MIB))
    small = allocator.malloc(20 * MIB)  # takes no block of 50 MiB or more
    assert allocator.reserved == 120 * MIB
    allocator.free(small)
    allocator.malloc(79 * MIB)  # 100 MiB are 20 MiB and more too large for it
    assert allocator.reserved == 200 * MIB
    allocator.malloc(90 * MIB)
    assert state(allocator) == (80 * MIB + 100 * MIB, 200 * MIB)


def test_with_a_largest_size_to_split_only_as_much_is_given_back_as_is_needed():
    allocator = Allocator(cap=200 * MIB, max_split=50 * MIB)
    blocks = [allocator.malloc(60 * MIB) for _ in range(3)]
    for block in blocks:
        allocator.free(block)
    allocator.malloc(110 * MIB)
    assert (allocator.retries, *state(allocator)) == (0, 110 * MIB, 170 * MIB)


def test_what_it_did_can_be_kept():
    allocator = Allocator(cap=30 * MIB, log=[])
    allocator.free(allocator.malloc(20 * MIB))
    allocator.malloc(30 * MIB)
    assert [entry.action for entry in allocator.log] == [
        "segment_alloc", "alloc", "free_completed", "segment_free", "segment_alloc", "alloc",
    ]  # fmt: skip


SIZES = st.one_of(
    st.integers(1, 4 * KIB), st.integers(1, 2 * MIB), st.integers(1, 64 * MIB), st.sampled_from([MIB, 10 * MIB])
)
STEPS = st.lists(st.tuples(SIZES, st.integers(0, 1), st.one_of(st.none(), st.integers(0, 99))), max_size=80)


def check(allocator, used):
    """Nothing overlaps, nothing is lost, and the sums are those of the blocks."""
    free = allocator.free_blocks()
    spans = sorted((block.address, block.address + block.size) for block in [*used, *free])
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert sum(block.size for block in used) == allocator.allocated
    assert sum(end - start for start, end in spans) == allocator.reserved
    assert sum(block.requested for block in used) == allocator.requested
    assert allocator.requested <= allocator.allocated <= allocator.reserved <= allocator.peak_reserved
    if allocator.cap is not None:
        assert allocator.peak_reserved <= allocator.cap
    assert not any(block.free and block.next is not None and block.next.free for block in [*used, *free])


def run_through(allocator, steps, flushed=None):
    """A sequence of sizes, streams, and which block to give back; `check` after each; at the end nothing is left."""
    used = []
    for number, (size, stream, freed) in enumerate(steps):
        asked = 0
        try:
            used.append(allocator.malloc(size, stream))
        except OutOfMemory as failure:
            asked = failure.asked
        if asked:
            assert allocator.reserved + asked > allocator.cap
        else:
            assert used[-1].size >= size
            assert used[-1].address % 512 == 0
        if freed is not None and used:
            allocator.free(used.pop(freed % len(used)))
        if number == flushed:
            allocator.flush()
        check(allocator, used)
    for block in used:
        allocator.free(block)
    assert allocator.allocated == allocator.requested == 0
    allocator.flush()
    assert allocator.reserved == 0
    assert allocator.free_blocks() == []


@given(STEPS, st.sampled_from([None, 100 * MIB]), st.sampled_from([None, 30 * MIB]))
def test_of_every_sequence(steps, cap, max_split):
    run_through(Allocator(cap, max_split), steps)
