"""The timeline as a picture, and the snapshot as torch's own tools read it."""

import pickle
import re

import pytest
from torch.cuda import _memory_viz

from pytest_trainguard.memory.answers import timeline
from pytest_trainguard.memory.answers.verdict import PART_NAMES, judge_trace
from pytest_trainguard.memory.replay.budget import parse_budget, resolve_budget
from pytest_trainguard.memory.replay.cards import WORKSPACE
from pytest_trainguard.memory.replay.snapshot import make_snapshot, write_snapshot
from pytest_trainguard.memory.replay.trace_replay import find_peak_composition, replay_trace
from tests.memory.traces import MIB, small_program

TRACE = small_program()


def test_torchs_own_tools_read_the_snapshot(tmp_path):
    write_snapshot(tmp_path / "memory.pickle", TRACE, WORKSPACE)
    snapshot = pickle.loads((tmp_path / "memory.pickle").read_bytes())
    found = replay_trace(TRACE, workspace=WORKSPACE)
    told = _memory_viz.segsum(snapshot)  # which checks that every segment's blocks add up
    assert f"segments: {len(snapshot['segments'])}" in told
    assert sum(segment["total_size"] for segment in snapshot["segments"]) == found.reserved[-1]
    assert sum(segment["allocated_size"] for segment in snapshot["segments"]) == found.allocated[-1]
    history = _memory_viz.trace(snapshot)
    assert history.count("cudaMalloc") == sum(e["action"] == "segment_alloc" for e in snapshot["device_traces"][0])
    assert "cudaMalloc" in history
    flames = _memory_viz.memory(snapshot, format_flamegraph=lambda lines: lines)
    assert "stream_0;active_allocated;build:1:aten::empty 209715200" in flames
    assert "Active Memory Timeline" in _memory_viz.trace_plot(snapshot)


@pytest.mark.skipif(not hasattr(_memory_viz, "filter_alloc_free_pairs"), reason="torch 2.6 has no such filter")
def test_every_free_in_it_has_its_request(capsys):
    snapshot = make_snapshot(TRACE)
    born = sum(event.kind == "alloc" for event in TRACE.events) - sum(event.kind == "free" for event in TRACE.events)
    left = _memory_viz.filter_alloc_free_pairs(snapshot)["device_traces"][0]
    assert sum(entry["action"] == "alloc" for entry in left) == born
    assert capsys.readouterr().out == ""


def test_the_end_of_memory_is_in_the_snapshot():
    snapshot = make_snapshot(TRACE, cap=2000 * MIB)
    last = snapshot["device_traces"][0][-1]
    assert last["action"] == "oom"
    assert 0 <= last["device_free"] < last["size"]
    assert "raise OutOfMemoryError" in _memory_viz.trace(snapshot)
    _memory_viz.segsum(snapshot)


def test_the_series_hold_the_peak():
    found = replay_trace(TRACE, workspace=WORKSPACE)
    for points in (10, 10_000):
        drawn = timeline.sample_memory(TRACE, found, WORKSPACE, points)
        assert len(drawn["event"]) <= points
        sums = [sum(drawn[name][i] for name in PART_NAMES) for i in range(len(drawn["event"]))]
        highest = max(range(len(sums)), key=sums.__getitem__)
        assert sums[highest] == found.peak_allocated
        stood = find_peak_composition(TRACE, found, WORKSPACE).by_category
        assert {name: drawn[name][highest] for name in PART_NAMES if drawn[name][highest]} == stood


def test_phases_begin_where_they_change():
    assert [name for _, name in timeline.find_phase_starts(TRACE)] == [
        "build", "forward", "backward", "optimizer step", "forward", "backward", "optimizer step",
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "begins"), [("memory.svg", b"<?xml"), ("memory.png", b"\x89PNG")])
def test_a_picture_is_drawn(tmp_path, name, begins):
    limit = resolve_budget(parse_budget("8GiB"))
    timeline.check_timeline_path(tmp_path / name)
    timeline.draw_timeline(tmp_path / name, TRACE, limit, judge_trace(TRACE, limit))
    drawn = (tmp_path / name).read_bytes()
    assert drawn.startswith(begins)
    if name.endswith(".svg"):
        for text in ("FITS", "budget 8GiB", "activations", "weights", "backward"):
            assert re.search(f">[^<]*{text}[^<]*</text>".encode(), drawn), text


def test_what_cannot_be_drawn_is_told_first(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"memory\.gif: a timeline is drawn as \.svg or \.png"):
        timeline.check_timeline_path(tmp_path / "memory.gif")
    monkeypatch.setattr(timeline, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs matplotlib: pip install"):
        timeline.check_timeline_path(tmp_path / "memory.svg")
