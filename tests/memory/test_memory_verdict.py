"""A trace held against budgets: the four words, what takes the memory, and what a person reads."""

import json

import pytest

from pytest_trainguard.memory import Event, Trace, Workspace
from pytest_trainguard.memory.answers.verdict import Judgement, format_headline, format_verdict, judge_trace
from pytest_trainguard.memory.replay.budget import Limit
from pytest_trainguard.memory.replay.cards import WORKSPACE
from pytest_trainguard.memory.replay.sizes import format_size

GIB, MIB = 2**30, 2**20
CONTEXT = 430 * MIB
TRACE = Trace(
    [
        Event("alloc", 1, 4 * GIB, category="weight", op="aten::empty", phase="build"),
        Event("alloc", 2, 2 * GIB, category="activation", op="aten::mm", module="layers.0"),
        Event("alloc", 3, 2 * GIB, category="activation", op="aten::mm", module="layers.1"),
        Event("free", 3, 2 * GIB, category="activation", op="aten::mm", module="layers.1", phase="backward"),
        Event("free", 2, 2 * GIB, category="activation", op="aten::mm", module="layers.0", phase="backward"),
        Event("alloc", 4, 4 * GIB, category="gradient", op="aten::mm", module="layers.0", phase="backward"),
    ],
    workspaces=[Workspace("cublas", "main", 0, 1)],
    torch="2.13.0+cpu",
)


def limit(gib, headroom=0.1):
    return Limit(f"{gib}GiB", int(gib * GIB), context=CONTEXT, headroom=headroom)


def test_it_fits():
    judged = judge_trace(TRACE, limit(16))
    assert (judged.verdict, judged.fits, judged.reason) == ("FITS", True, "")
    # 4 GiB fit into neither of the two cached blocks of 2 GiB: 12 GiB are taken, of which 8 are in use at one time.
    assert judged.reserved == 12 * GIB + 20 * MIB
    assert judged.allocated == 8 * GIB + WORKSPACE
    assert judged.needs == judged.reserved + CONTEXT
    assert judged.breakdown == {
        "weights": 4 * GIB, "gradients": 0, "optimizer state": 0, "activations": 4 * GIB, "inputs": 0,
        "temporaries": 0, "workspaces": WORKSPACE, "CUDA context": CONTEXT,
        "fragmentation": 4 * GIB + 20 * MIB - WORKSPACE,
    }  # fmt: skip
    assert sum(judged.breakdown.values()) == judged.needs
    assert judged.peak == "aten::mm in layers.1, forward of step 1"


def test_headroom_makes_it_tight():
    assert judge_trace(TRACE, limit(13)).verdict == "TIGHT"
    assert "of the budget; 10% should stay free" in judge_trace(TRACE, limit(13)).reason
    assert judge_trace(TRACE, limit(13, headroom=0)).verdict == "FITS"


def test_a_cache_that_has_to_be_given_back_makes_it_tight():
    judged = judge_trace(TRACE, limit(10))
    assert (judged.verdict, judged.fits, judged.retries) == ("TIGHT", True, 1)
    assert judged.needs <= 10 * GIB
    assert "gives back its cache once" in judged.reason
    assert sum(judged.breakdown.values()) == judged.needs


def test_it_does_not_fit():
    judged = judge_trace(TRACE, limit(8))
    assert (judged.verdict, judged.fits) == ("OUT OF MEMORY", False)
    assert judged.reason == (
        "memory runs out at aten::mm in layers.1, forward of step 1: 2.00 GiB more are wanted, 6.43 GiB are in use"
    )
    assert judged.needs > 8 * GIB
    # It would survive where both cached blocks can be given back, but for the segment of the workspace.
    assert abs(judged.least - (8 * GIB + 20 * MIB + CONTEXT)) <= 4 * MIB
    assert format_headline(judged) == "OUT OF MEMORY: 8.44 GiB at the least, 450 MiB over 8GiB (8.00 GiB)"


@pytest.mark.parametrize(
    ("trace", "says"),
    [
        (Trace(TRACE.events, unknown="mylib::kernel"), "unknown: mylib::kernel could not be traced"),
        (Trace([], unknown="the program puts nothing on the GPU"), "unknown: the program puts nothing on the GPU"),
        (Trace(), "unknown: nothing was put on the device"),
    ],
)
def test_what_could_not_be_traced_is_unknown(trace, says):
    judged = judge_trace(trace, limit(16))
    assert (judged.verdict, judged.fits, judged.reason) == ("UNKNOWN", False, says)
    assert says in format_verdict(judged)[0]
    assert judged.needs == 0


def test_what_a_person_reads():
    lines = "\n".join(
        format_verdict(judge_trace(Trace(TRACE.events, ["kernels' own memory is guessed"], torch="2.13"), limit(16)))
    )
    assert lines.startswith("FITS: 12.42 GiB of 16GiB (16.00 GiB), 3.58 GiB to spare")
    assert "the peak: aten::mm in layers.1, forward of step 1" in lines
    assert "    weights            4.00 GiB  32.2% ████████" in lines
    assert "optimizer state" not in lines  # there is none
    assert "largest there: weight of aten::empty 4.00 GiB; activation of aten::mm in layers.0 2.00 GiB" in lines
    assert "less certain: kernels' own memory is guessed" in lines
    assert lines.endswith("predicted with fake CUDA tensors, torch 2.13")


def test_as_json():
    plain = json.loads(json.dumps(judge_trace(TRACE, limit(8)).as_dict()))
    assert plain["verdict"] == "OUT OF MEMORY"
    assert plain["budget"]["size"] == 8 * GIB
    assert Judgement.from_dict({**plain, "more": 1}) == judge_trace(TRACE, limit(8))
    assert plain["largest"][0] == {"what": "weight of aten::empty", "bytes": 4 * GIB}


def test_sizes_in_words():
    assert [format_size(size) for size in (0, 1536, 430 * MIB, GIB, 40 * GIB)] == [
        "0 bytes", "1.5 KiB", "430 MiB", "1.00 GiB", "40.00 GiB",
    ]  # fmt: skip
