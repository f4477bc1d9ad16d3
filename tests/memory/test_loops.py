"""A plain loop under fake CUDA: what its choices do to memory, held against what follows from the sizes."""

import pytest

from tests.memory.programs.loops import WIDTH

WEIGHTS = 4 * (1000 * WIDTH + 4 * (WIDTH * WIDTH + WIDTH + 2 * WIDTH) + 2 * WIDTH + 2)


@pytest.fixture
def traced(tracing, composition):
    def traced(**settings):
        loop = tracing("loops:Loop")
        trace = loop.trace(settings)
        assert trace.unknown is None
        assert trace.how == "fake cuda"
        assert len(trace.notes) == bool(settings.get("evaluate"))
        found = composition(trace)
        assert found.left == 0
        return trace, found

    return traced


def test_weights_gradients_and_optimizer_state_are_what_the_model_has(traced):
    trace, found = traced()
    assert found["weight"] == WEIGHTS
    assert found["optimizer state"] == 2 * WEIGHTS
    states = [event for event in trace.events if event.category == "optimizer state" and event.kind == "alloc"]
    assert {event.phase for event in states} == {"optimizer step"}
    gradients = [event for event in trace.events if event.category == "gradient" and event.kind == "alloc"]
    assert sum(event.size for event in gradients) == 2 * WEIGHTS  # anew in each of the two steps
    assert {event.step for event in trace.events} == {0, 1, 2}


def test_rows_are_all_of_the_greatest_length(traced):
    trace, _ = traced()
    inputs = [event.size for event in trace.events if event.category == "input" and event.kind == "alloc"]
    assert max(inputs) == 8 * 32 * 64


def test_a_block_of_activations_has_its_module_and_operation(traced):
    trace, _ = traced()
    kept = [event for event in trace.events if event.category == "activation" and event.op == "aten::relu"]
    births = [event for event in kept if event.kind == "alloc"]
    assert [event.module for event in births] == [f"blocks.{i}" for i in range(4)] * 2
    assert {event.size for event in births} == {4 * 32 * 64 * WIDTH}
    matrix = [event for event in trace.events if event.phase == "backward" and event.op == "aten::mm"]
    assert {event.module for event in matrix} == {*(f"blocks.{i}.projection" for i in range(4)), "head"}


def test_mixed_precision_keeps_half_of_what_matrix_products_keep(traced):
    for precision in ("bf16", "fp16"):
        trace, _ = traced(precision=precision)
        kept = [e.size for e in trace.events if e.category == "activation" and e.op == "aten::relu"]
        assert set(kept) == {2 * 32 * 64 * WIDTH}
        states = [e.size for e in trace.events if e.category == "optimizer state" and e.kind == "alloc"]
        assert sum(states) == 2 * WEIGHTS  # the scaler skipped no step


def test_accumulation_takes_no_more_than_its_micro_batch(traced):
    trace, found = traced(accumulation=4, batch_size=8)
    assert found["activation"] < traced(batch_size=16)[1]["activation"]
    backward = [e for e in trace.events if e.phase == "backward" and e.op == "aten::nll_loss_backward"]
    assert len([e for e in backward if e.kind == "alloc"]) == 8  # four in each of two steps


def test_checkpointing_keeps_the_inputs_of_blocks_alone(traced):
    plain, checkpointed = (traced(batch_size=128, layers=12, checkpointing=c)[1] for c in (False, True))
    assert checkpointed.peak < 0.65 * plain.peak  # of two tensors a block, one
    assert checkpointed.at.phase == "backward"


@pytest.mark.parametrize(
    ("name", "state"), [("sgd", 0), ("adafactor", None), ("fused", 2), ("single", 2), ("foreach", 2)]
)
def test_optimizers_keep_what_they_keep(traced, name, state):
    trace, _ = traced(optimizer=name)
    kept = sum(e.size for e in trace.events if e.category == "optimizer state" and e.kind == "alloc")
    steps = 4 * 19 if name == "fused" else 0  # which fused kernels keep on the device, a number for each parameter
    assert kept == state * WEIGHTS + steps if state is not None else 0 < kept < WEIGHTS / 50


def test_foreach_needs_room_beside_that_fused_does_not(traced):
    peaks = {name: traced(optimizer=name)[1].of_phase["optimizer step"] for name in ("foreach", "single", "fused")}
    assert peaks["fused"] < peaks["single"] < peaks["foreach"]
    assert traced(optimizer="adamw")[1].of_phase["optimizer step"] == peaks["foreach"]  # what torch takes on CUDA


def test_the_evaluation_is_part_of_the_peak(traced):
    plain, (trace, larger) = traced()[1], traced(evaluate=4096)
    assert "made up (predicted classes, counts of them)" in trace.notes[0]
    assert larger.at.phase == "evaluation"
    assert larger.peak > plain.peak + 4 * 4096 * 64 * WIDTH


def test_an_average_of_the_weights_is_a_second_model(traced):
    assert traced(ema=True)[1]["weight"] + traced(ema=True)[1]["temporary"] >= 2 * WEIGHTS


def test_loader_workers_are_run_in_process(traced):
    assert traced(workers=4)[1].peak == traced()[1].peak


def test_matrix_products_of_both_threads_are_noted(traced):
    trace, _ = traced()
    assert [(w.library, w.thread) for w in trace.workspaces] == [("cublas", "main"), ("cublas", "autograd")]
    assert trace.events[trace.workspaces[1].at].phase == "backward"


def test_a_program_that_refuses_such_rows_is_traced_on_its_own(tracing, composition):
    trace = tracing("loops:Loop").trace({"refuses": 200})
    assert trace.unknown is None
    assert trace.notes[0].startswith(
        "with rows as they are in the data, not the longest ones together: the program ends"
    )
    assert trace.notes[0].endswith("exit 2 after 0 optimizer steps: rows.jsonl: a row has over 200 characters")
    assert composition(trace).peak < composition(tracing("loops:Loop").trace({})).peak


def test_gradients_that_meet_are_added_in_place_as_autograd_does_on_a_gpu(traced):
    trace, _ = traced()
    births = [event.op for event in trace.events if event.phase == "backward" and event.kind == "alloc"]
    assert "aten::mm" in births
    assert "aten::add" not in births
