"""Expandable segments: sequences worked out by hand, and what must hold of every sequence."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trainguard.memory import Event, Trace
from pytest_trainguard.memory.answers.verdict import judge_trace
from pytest_trainguard.memory.replay import allocator_settings, snapshot
from pytest_trainguard.memory.replay.allocator import Allocator, OutOfMemory
from pytest_trainguard.memory.replay.budget import Limit
from pytest_trainguard.memory.replay.expandable_allocator import ExpandableAllocator
from pytest_trainguard.memory.replay.trace_replay import replay_trace
from tests.memory.test_memory_allocator import MIB, STEPS, run_through


def test_pages_are_mapped_as_they_are_needed():
    allocator = ExpandableAllocator(log=[])
    allocator.malloc(512)
    assert allocator.reserved == 2 * MIB
    first = allocator.malloc(30 * MIB)
    assert allocator.reserved == 42 * MIB
    second = allocator.malloc(25 * MIB)  # 10 MiB were left of the second page
    assert allocator.reserved == 62 * MIB
    assert second.address == first.address + first.size
    assert [entry.action for entry in allocator.log] == ["segment_map", "alloc"] * 3


@pytest.mark.parametrize(("kind", "reserved"), [(Allocator, 30 + 36 + 42 + 48), (ExpandableAllocator, 60)])
def test_a_buffer_that_grows_a_little_each_time(kind, reserved):
    allocator = kind()
    for size in (30, 36, 42, 48):
        allocator.free(allocator.malloc(size * MIB))
    assert allocator.reserved == reserved * MIB


def test_free_pieces_side_by_side_serve_a_large_request_across_what_was_unmapped():
    allocator = ExpandableAllocator(cap=80 * MIB)
    blocks = [allocator.malloc(20 * MIB) for _ in range(4)]
    for place in (0, 2):
        allocator.free(blocks[place])
    with pytest.raises(OutOfMemory):  # 40 MiB are free, not side by side; their pages were given back all the same
        allocator.malloc(60 * MIB)
    assert (allocator.allocated, allocator.reserved, allocator.retries) == (40 * MIB, 40 * MIB, 1)
    assert allocator.malloc(40 * MIB).address == blocks[3].address + 20 * MIB
    assert allocator.reserved == 80 * MIB


def test_a_hole_is_filled_before_the_end_grows():
    allocator = ExpandableAllocator()
    blocks = [allocator.malloc(20 * MIB) for _ in range(3)]
    allocator.free(blocks[1])
    allocator.flush()
    assert allocator.reserved == 40 * MIB
    assert allocator.malloc(15 * MIB).address == blocks[1].address
    assert allocator.reserved == 60 * MIB


@given(STEPS, st.sampled_from([None, 100 * MIB]), st.integers(0, 79))
def test_of_every_sequence(steps, cap, flushed):
    run_through(ExpandableAllocator(cap), steps, flushed)


GROWING = [
    Event(kind, size, size * MIB, op="aten::empty") for size in (30, 36, 42, 48) for kind in ("alloc", "free")
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "reserved"),
    [
        ("", 156),
        ("expandable_segments:False", 156),
        ("expandable_segments:True", 60),
        (" max_split_size_mb:64, expandable_segments:True", 60),
        ("roundup_power2_divisions:[256:1,512:2],expandable_segments:True", 60),
    ],
)
def test_the_programs_settings_of_the_allocator_hold(text, reserved):
    trace = Trace.from_json(Trace(GROWING, allocator=text).to_json())
    assert replay_trace(trace).peak_reserved == reserved * MIB
    found = snapshot.make_snapshot(trace)
    assert {segment["is_expandable"] for segment in found["segments"]} == {reserved == 60}
    assert sum(segment["total_size"] for segment in found["segments"]) == reserved * MIB
    assert pickle.dumps(found)


def test_what_the_model_passes_over_is_said():
    text = "roundup_power2_divisions:[256:1,>:4],garbage_collection_threshold:0.8,backend:cudaMallocAsync"
    assert judge_trace(Trace(GROWING, allocator=text), Limit("1GiB", 1024 * MIB)).notes == [
        "roundup_power2_divisions:[256:1,>:4] of PYTORCH_CUDA_ALLOC_CONF is not in the allocator's model",
        "backend:cudaMallocAsync of PYTORCH_CUDA_ALLOC_CONF is not in the allocator's model",
    ]
    assert not allocator_settings.find_unmodelled("backend:native,expandable_segments:True,max_split_size_mb:128")


def test_they_are_read_as_torch_reads_them(monkeypatch):
    monkeypatch.delenv("PYTORCH_ALLOC_CONF", raising=False)
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF", raising=False)
    assert allocator_settings.read_environment() == ""
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:64")
    assert allocator_settings.read_environment() == "max_split_size_mb:64"
    assert allocator_settings.make_allocator(allocator_settings.read_environment()).max_split == 64 * MIB
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    assert allocator_settings.read_environment() == "expandable_segments:True"
