"""Traces replayed: the peak, what stood there, and where memory ran out."""

from pytest_trainguard.memory import Event, Trace, Workspace
from pytest_trainguard.memory.replay.trace_replay import find_peak_composition, replay_trace

MIB = 2**20


def born(block, size, **of):
    return Event("alloc", block, size, **of)


def died(block, size, **of):
    return Event("free", block, size, **of)


STEP = Trace(
    [
        born(1, 100 * MIB, category="weight", op="aten::empty", phase="build"),
        born(2, 30 * MIB, category="activation", op="aten::mm", module="encoder.0"),
        born(3, 30 * MIB, category="activation", op="aten::mm", module="encoder.1"),
        born(4, 0, category="temporary"),
        died(4, 0),
        born(5, 100 * MIB, category="gradient", op="aten::mm", module="encoder.1", phase="backward"),
        died(3, 30 * MIB, phase="backward"),
        died(2, 30 * MIB, phase="backward"),
        born(6, 40 * MIB, category="temporary", op="aten::add", phase="optimizer step", step=1),
        died(99, 5, phase="optimizer step"),  # born before the trace began
    ],
    workspaces=[Workspace("cublas", "main", 0, 1), Workspace("cublas", "autograd", 0, 5)],
)


def test_the_peak_and_what_stood_there():
    found = replay_trace(STEP, workspace=8 * MIB)
    assert found.peak_allocated == (260 + 16) * MIB
    assert found.peak_reserved == (300 + 20) * MIB  # both workspaces in one segment; 40 MiB fit into no cached block
    assert found.peak.index == 5
    assert found.peak.where == "aten::mm in encoder.1, backward of step 1"
    assert found.failed is None
    assert found.peak_requested == (260 + 16) * MIB
    stood = find_peak_composition(STEP, found, workspace=8 * MIB)
    assert stood.by_category["weight"] == stood.by_category["gradient"] == 100 * MIB
    assert stood.by_category["activation"] == 60 * MIB
    assert sum(stood.by_category.values()) == found.peak_allocated
    assert sum(stood.by_op.values()) == sum(stood.by_module.values()) == found.peak_allocated
    assert stood.by_module["encoder.1"] == 130 * MIB
    assert [event.block for event, _ in stood.largest[:2]] == [1, 5]


def test_without_workspaces():
    found = replay_trace(STEP)
    assert (found.peak_allocated, found.peak_reserved, found.fragmentation) == (260 * MIB, 300 * MIB, 40 * MIB)
    assert len(found.allocated) == len(found.reserved) == len(STEP.events)
    assert found.allocated[-1] == 240 * MIB
    assert found.peak.event.block == 5


def test_the_instant_of_running_out():
    found = replay_trace(STEP, cap=200 * MIB)
    assert found.failed.index == 5
    assert found.asked == 100 * MIB
    assert (found.failed.allocated, found.failed.reserved) == (160 * MIB, 160 * MIB)
    assert found.peak_allocated == 160 * MIB
    assert found.retries == 1
    assert len(found.allocated) == 5


def test_what_just_fits_fits():
    assert replay_trace(STEP, cap=260 * MIB).failed is None
    assert replay_trace(STEP, cap=260 * MIB - 1).failed is not None


def test_an_optimizer_step_and_the_building_are_named():
    only = Trace([born(1, 5, op="aten::empty", phase="build")])
    assert replay_trace(only).peak.where == "aten::empty, while the model is built"
    assert (
        replay_trace(Trace([born(1, 5, phase="optimizer step", step=1)])).peak.where
        == "an allocation, optimizer step 2"
    )


def test_an_empty_trace():
    found = replay_trace(Trace())
    assert (found.peak, found.peak_allocated, found.peak_reserved) == (None, 0, 0)
    assert find_peak_composition(Trace(), found).by_category == {}
