"""The repository's own trainers at full size: traced without a GPU, in seconds, without their tensors' memory."""

import pytest

from pytest_trainguard.memory.answers.tracing import Tracing
from pytest_trainguard.memory.replay.device import Device

GIB = 2**30


@pytest.fixture(scope="module")
def transformer(pad):
    return Tracing(pad.subject("Transformer", "trainers.preflight:Transformer"))


@pytest.fixture(scope="module")
def roberta(transformer):
    return transformer.trace()


def test_roberta_base_is_traced_with_its_evaluation_and_its_save(roberta, transformer, composition):
    assert roberta.unknown is None
    assert roberta.notes == []
    found = composition(roberta)
    parameters = 111_209_474  # as the program itself says
    assert found["weight"] == pytest.approx(4 * parameters, rel=1e-3)
    states = [e.size for e in roberta.events if e.category == "optimizer state" and e.kind == "alloc"]
    assert max(e.step for e in roberta.events) == 2
    # 12 layers keep about 34 halves for each token and unit of width in bf16 (Korthikanti et al. 2022, eq. 2, flash).
    assert 11 * GIB < found["activation"] < 14 * GIB
    assert sum(states) >= 2 * 4 * parameters
    assert {"evaluation", "forward", "backward", "optimizer step", "build"} <= {e.phase for e in roberta.events}
    assert found.left == 0


def test_roberta_base_takes_no_memory_of_its_tensors(roberta, transformer):
    assert transformer.figures["peak_rss"] < 1.2e9


def test_its_rows_are_all_of_the_greatest_length(roberta):
    inputs = {e.size for e in roberta.events if e.category == "input" and e.kind == "alloc"}
    assert 64 * 512 * 8 in inputs


def test_attention_takes_the_kernel_of_the_card(pad):
    small = {"layers": 2, "hidden_size": 256, "heads": 4, "batch_size": 8, "precision": "fp16"}
    subject = pad.subject("Transformer", "trainers.preflight:Transformer")
    kernels = {}
    for name, capability in (("a100", (8, 0)), ("h100", (9, 0)), ("p100", (6, 0))):
        trace = Tracing(subject, Device(name, capability, 80 * GIB)).trace(small)
        assert trace.unknown is None
        kernels[name] = {e.op.split("_attention")[0] for e in trace.events if "dot_product" in e.op}
    # Batches with a shorter row have a mask, which rules flash attention out.
    assert kernels["a100"] == {"aten::_scaled_dot_product_efficient", "aten::_scaled_dot_product_flash"}
    assert kernels["h100"] == {"aten::_scaled_dot_product_cudnn"}
    assert kernels["p100"] == {"aten::_scaled_dot_product_efficient"}


@pytest.mark.parametrize("name", ["Gnn", "Fusion"])
def test_the_graph_trainers_are_traced(pad, name, composition):
    small = {"max_nodes": 256, "batch_size": 4, "max_length": 128, "layers": 2}
    if name == "Gnn":
        del small["max_length"], small["layers"]
    trace = Tracing(pad.subject(name, f"trainers.preflight:{name}")).trace(small)
    assert trace.unknown is None
    found = composition(trace)
    assert found["weight"] > 4 * 4_000_000
    assert any(e.op == "aten::index_select" for e in trace.events)
