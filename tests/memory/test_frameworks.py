"""transformers' Trainer, peft, Lightning and PyTorch Geometric, unmodified, under fake CUDA."""

import pytest

FRAMEWORKS = "frameworks"


@pytest.fixture
def traced(tracing, composition):
    def traced(name, **settings):
        trace = tracing(f"{FRAMEWORKS}:{name}").trace(settings)
        return trace, composition(trace)

    return traced


def known(traced, name, **settings):
    trace, found = traced(name, **settings)
    assert trace.unknown is None
    return trace, found


def sizes(trace, category, kind="alloc"):
    return [event.size for event in trace.events if event.category == category and event.kind == kind]


def test_transformers_trainer_trains_evaluates_and_saves(traced):
    trace, found = known(traced, "HuggingFace")
    assert found["optimizer state"] == 2 * (found["weight"] - 2 * 4 * 32)  # no rotary frequencies
    assert {"forward", "backward", "optimizer step", "evaluation"} <= {event.phase for event in trace.events}
    assert "model.layers.3.self_attn.q_proj" in {event.module for event in trace.events}
    assert any(event.op == "aten::_scaled_dot_product_efficient_attention" for event in trace.events)


def test_transformers_trainer_with_half_precision_and_checkpointing(traced):
    plain = known(traced, "HuggingFace", precision="bf16")[1]
    fp16 = known(traced, "HuggingFace", precision="fp16")[1]
    less = known(traced, "HuggingFace", precision="bf16", checkpointing=True)[1]
    assert fp16["optimizer state"] == plain["optimizer state"]  # its scaler skipped no step
    assert less["activation"] < 0.7 * plain["activation"]


def test_lora_keeps_states_of_its_adapters_alone(traced):
    trace, found = known(traced, "HuggingFace", lora=True, precision="bf16")
    adapters = 4 * 4 * 8 * (256 + 256 + 256 + 128)  # 4 layers; rank 8; q is (256, 256), v (256, 128)
    assert found["optimizer state"] == 2 * adapters
    assert sum(sizes(trace, "gradient")) == 2 * adapters
    assert any("lora_A" in event.module for event in trace.events)
    checkpointed = known(traced, "HuggingFace", lora=True, precision="bf16", checkpointing=True)[1]
    assert checkpointed.peak < found.peak


def test_eager_attention_keeps_its_matrices(traced):
    eager = known(traced, "HuggingFace", attention="eager", max_length=256)[1]
    fused = known(traced, "HuggingFace", attention="sdpa", max_length=256)[1]
    assert eager.peak > fused.peak + 2 * 4 * 16 * 4 * 256 * 256  # matrices of all rows and heads


def test_lightning_trains_with_each_precision_and_accumulation(traced):
    weights = 4 * (256 * 1024 + 1024 + 10 * 1024 + 10)
    for settings in ({}, {"precision": "bf16"}, {"precision": "fp16"}, {"accumulation": 2}):
        trace, found = known(traced, "Lit", **settings)
        assert found["weight"] == weights
        assert found["optimizer state"] == 2 * weights
        assert max(event.step for event in trace.events) == 2


def test_graph_networks_whose_sizes_are_the_datas_own(traced):
    trace, found = known(traced, "Graphs")
    masks = [event for event in trace.events if event.op == "aten::nonzero"]
    assert masks  # edges dropped at random: as many as were kept
    assert sum(sizes(trace, "optimizer state")) == 2 * found["weight"]


def test_a_size_that_the_weights_decide_is_unknown_and_named(traced):
    trace, _ = traced("Graphs", attention="topk")
    assert trace.unknown is not None
    assert trace.unknown.startswith("aten::")
    assert "forward" in trace.unknown
