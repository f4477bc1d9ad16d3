"""The largest value that fits, and what would help: against traces made up for the purpose, with knees in them."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_trainguard.contract.settings import Field
from pytest_trainguard.memory import Event, Trace
from pytest_trainguard.memory.answers.alternatives import find_largest_setting, judge_alternatives, propose_changes
from pytest_trainguard.memory.answers.interpolation import interpolate_trace
from pytest_trainguard.memory.answers.prediction import Prediction, format_prediction
from pytest_trainguard.memory.answers.search import Largest, find_largest
from pytest_trainguard.memory.answers.verdict import Judgement, judge_trace
from pytest_trainguard.memory.replay.budget import Limit
from pytest_trainguard.memory.replay.counters import Measured
from pytest_trainguard.memory.replay.sizes import format_size

GIB, MIB = 2**30, 2**20
CONTEXT = 430 * MIB
LIMIT = Limit("16GiB", 16 * GIB, context=CONTEXT)


def made(batch, row=50 * MIB, weights=2 * GIB, adam=2):
    """Weights, activations by row, gradients, and an optimizer step that needs no activations: a knee between."""
    events = [Event("alloc", 1, weights, category="weight", phase="build")]
    events += [Event("alloc", 10 + i, row, category="activation") for i in range(batch)]
    events += [Event("free", 10 + i, row, category="activation", phase="backward") for i in range(batch)]
    events += [Event("alloc", 2, weights, category="gradient", phase="backward")]
    events += [Event("alloc", 3 + i, weights, category="optimizer state", phase="optimizer step") for i in range(adam)]
    return Trace(events)


def fits(batch, **of):
    return judge_trace(made(batch, **of), LIMIT).fits


@pytest.mark.parametrize("start", [20, 270, 600])
def test_the_largest_batch_is_found_to_the_number_in_few_traces(start):
    asked = []

    def judged(value):
        asked.append(value)
        return judge_trace(made(value), LIMIT)

    found = find_largest(judged, start, judge_trace(made(start), LIMIT))
    assert found.exact
    assert fits(found.value)
    assert not fits(found.value + 1)
    assert found.judgement.fits
    assert len(asked) == len(set(asked)) == found.traces <= 6


def as_if(needs):
    """A judgement of which only the sum is known."""
    return Judgement("FITS" if needs <= LIMIT.size else "OUT OF MEMORY", LIMIT, least=needs)


@given(st.integers(0, 20_000), st.integers(1, 900), st.integers(0, 20_000), st.integers(1, 3000), st.integers(1, 5000))
def test_whatever_the_slopes(base, slope, floor, start, highest):
    def needs(value):  # in MiB; flat up to the knee, then a line, in whole segments
        return as_if(max(floor, (base + slope * value) // 20 * 20) * MIB)

    found = find_largest(needs, min(start, highest), needs(min(start, highest)), highest=highest,
                    at_most=60)  # fmt: skip
    true = max((value for value in range(1, highest + 1) if needs(value).fits), default=None)
    assert found.exact
    assert found.value == true
    assert found.beyond == (true or 0) + 1


def test_where_lines_only_creep_the_middle_is_tried():
    def needs(value):  # just over the budget for long, as where fragmentation decides
        return as_if(LIMIT.size + value * MIB // 100 if value > 1234 else value * MIB)

    found = find_largest(needs, 9000, needs(9000), at_most=18)
    assert found.value <= 1234 < found.beyond
    assert found.beyond - found.value <= 2


def test_an_upper_end_and_a_step():
    def needs(value):
        return as_if(value * 100 * MIB)

    assert find_largest(needs, 8, needs(8), highest=64).words == "64"
    assert find_largest(needs, 8, needs(8), step=8).value == 160  # 163 without the step
    assert Largest(53_000, None, 53_021).words == "53000 (53021 does not)"


def test_none_fits_is_said():
    first = judge_trace(made(8, weights=8 * GIB), LIMIT)
    found = find_largest(lambda value: judge_trace(made(value, weights=8 * GIB), LIMIT), 8, first)
    assert (found.value, found.exact, found.words) == (None, True, "none fits")
    assert found.judgement.verdict == "OUT OF MEMORY"


def test_what_cannot_be_traced_is_not_known():
    lost = judge_trace(Trace(unknown="mylib::kernel"), LIMIT)
    assert "mylib::kernel" in find_largest(lambda value: lost, 8, lost).words
    assert "mylib::kernel" in find_largest(lambda value: lost, 8, judge_trace(made(8), LIMIT)).words


def test_a_search_that_does_not_close_says_so():
    found = find_largest(lambda value: judge_trace(made(value), LIMIT), 1, judge_trace(made(1), LIMIT), at_most=1)
    assert not found.exact
    assert found.words == "at least 16 (1 traces made)"
    far = judge_trace(made(900), LIMIT)
    found = find_largest(lambda value: judge_trace(made(value), LIMIT), 900, far, at_most=0)
    assert found.words == "below 900"
    bracket = find_largest(lambda value: judge_trace(made(value), LIMIT), 20, judge_trace(made(20), LIMIT), at_most=2)
    assert bracket.words == f"{bracket.value} ({bracket.beyond} does not)"


class Known:
    """Settings of a trainer: fields by role, and what is launched."""

    def __init__(self, **fields):
        self.fields, self.values = {}, {}
        for role, (path, value, *rest) in fields.items():
            kind = "choice" if rest else type(value).__name__
            self.fields[role] = Field(path, kind, choices=tuple(rest))
            self.values[path] = value

    def role(self, name):
        return self.fields.get(name)

    def production(self, field):
        return self.values[field.path]


KNOWN = Known(
    batch_size=("data.batch", 400),
    accumulation=("accumulate", 1),
    max_length=("length", 512),
    checkpointing=("gradient_checkpointing", False),
    precision=("precision", "fp32", "fp32", "fp16", "bf16"),
    optimizer=("optim", "adamw", "adamw", "adamw_fused"),
    fused=("fused", False),
)


def layered(batch, row, weights, adam):
    """Twelve layers; what decides is now the activations, now the optimizer step, now the gradients beside both."""
    layers = range(12)
    events = [Event("alloc", 1, weights, phase="build", op="weights", category="weight")]
    events += [Event("alloc", 10 + i, batch * row + 4567, op=f"layer {i}", category="activation") for i in layers]
    for i in reversed(layers):
        events.append(Event("alloc", 30 + i, weights // 12, op=f"gradient {i}", phase="backward"))
        events.append(Event("free", 10 + i, batch * row + 4567, op=f"layer {i}", phase="backward"))
    events += [Event("alloc", 50 + i, weights, op="moment", phase="optimizer step") for i in range(adam)]
    return Trace(events)


@given(st.integers(1, 500), st.integers(1, 100), st.integers(1, 30), st.integers(0, 4))
@settings(max_examples=50, deadline=None)
def test_the_largest_takes_six_traces_at_most(start, row, weights, adam):
    size = {"row": row * MIB // 10, "weights": weights * 100 * MIB, "adam": adam}

    def trace(changes):
        return layered(changes.get("batch", start), **size)

    first, known = judge_trace(trace({}), LIMIT), Known(batch_size=("batch", start))
    _, found = find_largest_setting("batch_size", trace, known, LIMIT, first, lambda words: None)
    assert found.exact
    assert found.traces <= 6
    assert found.value is None or judge_trace(layered(found.value, **size), LIMIT).fits
    assert not judge_trace(layered((found.value or 0) + 1, **size), LIMIT).fits


def test_sizes_are_drawn_out_from_what_was_traced():
    def attended(length):  # weights, a line, a parabola
        sizes = [7 * MIB, 1000 * length, 3 * length**2 + 512]
        return Trace([Event("alloc", block, size, op=f"aten::{block}") for block, size in enumerate(sizes)])

    traces = {length: attended(length) for length in (128, 200, 512)}
    assert interpolate_trace(traces, 333) == attended(333)
    assert interpolate_trace(traces, 4096) == attended(4096)
    assert interpolate_trace({128: attended(128)}, 333) is None


def test_what_only_one_of_the_traces_has_keeps_its_size():
    one = Trace([Event("alloc", 1, 100, op="aten::mm"), Event("free", 1, 100, op="aten::mm")])
    masked = Trace([Event("alloc", 1, 8, op="aten::all"), Event("alloc", 2, 200, op="aten::mm")])
    assert interpolate_trace({1: one, 2: masked}, 5) == Trace(
        [Event("alloc", 1, 8, op="aten::all"), Event("alloc", 2, 500, op="aten::mm")]
    )


def test_what_a_trainer_has_settings_for_is_proposed():
    assert propose_changes(KNOWN) == [
        (
            "data.batch = 200, accumulate = 2 (the same effective batch)",
            {"data.batch": 200, "accumulate": 2},
        ),
        ("length = 256", {"length": 256}),
        ("gradient_checkpointing = True", {"gradient_checkpointing": True}),
        ("precision = bf16", {"precision": "bf16"}),
        ("optim = adamw_fused", {"optim": "adamw_fused"}),
        ("fused = True", {"fused": True}),
    ]
    assert propose_changes(Known()) == []
    assert propose_changes(Known(batch_size=("batch", 3), accumulation=("accumulate", 1))) == [
        ("batch = 1 (half the effective batch)", {"batch": 1})
    ]
    done = Known(precision=("precision", "bf16", "fp32", "bf16"), optimizer=("optim", "adamw_fused", "adamw_fused"),
                 checkpointing=("gradient_checkpointing", True), batch_size=("batch", 1))  # fmt: skip
    assert propose_changes(done) == []


def traced(changes):
    if changes.get("fused"):
        return Trace(unknown="mylib::fused")
    row = 50 * MIB // (2 if changes.get("precision") == "bf16" else 1) * changes.get("length", 512) // 512
    return made(changes.get("data.batch", 400), row // (10 if changes.get("gradient_checkpointing") else 1))


def test_what_helps_most_comes_first():
    told = []
    found = judge_alternatives(traced, KNOWN, LIMIT, told.append)
    assert found[0].words == "gradient_checkpointing = True"
    assert found[-1].judgement.verdict == "UNKNOWN"
    assert any(one.words.startswith("PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True") for one in found)
    least = [one.judgement.least for one in found[:-1]]
    assert least == sorted(least)
    assert "tracing with length = 256" in told
    assert found[0].as_dict()["verdict"] == "FITS"


def counted(**of):
    plain = {"allocated": 4 * GIB, "reserved": 5 * GIB, "requested": 4 * GIB, "active": 4 * GIB}
    return Measured(**{**plain, "retries": 0, "ooms": 0, "exit": 0, **of})


@pytest.mark.parametrize(
    ("batch", "measured", "word"),
    [
        (8, None, "FITS"),
        (8, counted(), "FITS"),
        (8, counted(ooms=1), "OUT OF MEMORY"),  # the measurement has the last word,
        (400, counted(), "FITS"),
        (400, counted(exit=1), "OUT OF MEMORY"),  # unless it says nothing
        (265, None, "TIGHT"),
        (265, counted(), "TIGHT"),
    ],
)
def test_what_was_measured_is_held_against_what_was_predicted(batch, measured, word):
    prediction = Prediction(KNOWN, lambda changes: made(batch), LIMIT, measure=measured and (lambda: measured))
    assert prediction.verdict == word
    told = "\n".join(format_prediction(json.loads(json.dumps(prediction.as_dict()))))
    assert ("not measured on a GPU" in told) == (measured is None)
    if measured is not None:
        judged = prediction.judgement
        error = f"{judged.allocated / (4 * GIB) - 1:+.1%}"
        predicted = f"(predicted {format_size(judged.allocated)}, {error})"
        assert f"measured: {measured.verdict}, allocated 4.00 GiB {predicted}" in told


def test_the_largest_by_role():
    first = judge_trace(traced({}), LIMIT)
    assert first.verdict == "OUT OF MEMORY"
    field, found = find_largest_setting("batch_size", traced, KNOWN, LIMIT, first, lambda words: None)
    assert field.path == "data.batch"
    assert fits(found.value)
    assert not fits(found.value + 1)
    assert find_largest_setting("workers", traced, KNOWN, LIMIT, first, lambda words: None) is None
