"""What CUDA's kernels take, in bytes: of the kernels themselves, not of what stands in for them without CUDA."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_trainguard.memory.replay.cards import find_workspace_size
from pytest_trainguard.memory.replay.trace import Event, Trace
from pytest_trainguard.memory.replay.trace_replay import replay_trace
from pytest_trainguard.memory.traced import cuda_kernels

ROOT = Path(__file__).parent.parent.parent
MIB = 2**20
PIECE = 256 * 1024 * 4  # bytes of the tensor that most go through


@pytest.fixture(scope="module")
def kinds():
    done = subprocess.run(
        [sys.executable, "-m", "tests.memory.kinds", "kernels"], capture_output=True, text=True, cwd=ROOT, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return {found["name"]: found for found in map(json.loads, done.stdout.splitlines())}


def embedding_bytes(tokens, rows, width=64):
    """Weight and its gradient, output and its gradient, ids; and what the kernel sorts and adds up in."""
    segments = min(tokens, rows)
    parts = tokens // 10 + segments
    kernel = 8 * (3 * tokens + 2 * segments + parts) + 4 * parts * width if tokens > 3072 else 0
    return 4 * width * (2 * rows + 2 * tokens) + 8 * tokens + kernel


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("silu", 4 * PIECE),  # input, output, and their gradients
        ("mish", 4 * PIECE),
        ("rms norm", 4 * PIECE + 1024 * 4 * 2 + 256 * 4),  # with weight, its gradient, and one number a row
        ("log softmax", 4 * PIECE),
        ("softmax", 5 * PIECE),  # the gradient times the output
        ("small embedding", embedding_bytes(3072, 100)),
        ("embedding", embedding_bytes(4096, 100)),
        ("embedding of many rows", embedding_bytes(4096, 100_000)),
    ],
)
def test_a_kernel_takes_what_cuda_takes(kinds, name, wanted):
    assert kinds[name]["unknown"] is None
    assert kinds[name]["peak"] == wanted


def attention_scratch(name, dtype, heads_of_keys=4, width=64):
    """Of the backward of 2 rows, 4 heads and 200 tokens, its gradient laid out as the kernels want it."""
    import torch

    query = torch.empty(2, 200, 4, width, dtype=dtype, device="meta").transpose(1, 2)
    key = torch.empty(2, 200, heads_of_keys, width, dtype=dtype, device="meta").transpose(1, 2)
    func = getattr(torch.ops.aten, f"_scaled_dot_product_{name}_attention_backward").default
    return sum(cuda_kernels.find_scratch_sizes(func, (query, query, key, key), {}))


def test_attention_in_half_precision_adds_up_the_querys_gradient_in_single():
    import torch

    half, single = torch.bfloat16, torch.float32
    rows, padded = 2 * 4 * 200, 2 * 4 * 256  # one number for each row; lengths are rounded up to 128
    assert attention_scratch("flash", half) == padded * 4 + padded * 64 * 4
    assert attention_scratch("flash", half, heads_of_keys=2) == padded * 4 + padded * 64 * 4 + 2 * rows * 64 * 2
    assert attention_scratch("efficient", single) == rows * 4
    assert attention_scratch("efficient", half) == rows * 4 + padded * 128 * 4
    assert attention_scratch("cudnn", half) == rows * 4 + rows * 64 * 4


def test_giving_back_the_cache_is_in_the_trace(kinds):
    assert kinds["empty cache"]["emptied"] == 3  # torch.cuda, torch.cuda.memory, torch.accelerator


def test_the_current_stream_can_be_asked_for_as_a_number(kinds):
    assert kinds["raw stream"]["returned"] == 0


def test_a_cache_that_is_given_back_is_not_reserved_any_longer():
    events = [Event("alloc", 1, 30 * MIB), Event("free", 1, 30 * MIB), Event("empty cache", 0, 0),
              Event("alloc", 2, 40 * MIB), Event("free", 2, 40 * MIB)]  # fmt: skip
    trace = Trace(events)
    assert Trace.from_json(trace.to_json()) == trace
    assert replay_trace(trace).peak_reserved == 40 * MIB
    assert replay_trace(Trace([event for event in events if event.kind != "empty cache"])).peak_reserved == 70 * MIB


def test_every_operation_that_cuda_has_a_kernel_for_in_place_of_a_composite_is_listed():
    assert cuda_kernels.find_unlisted() == []


def test_a_new_one_is_found_in_torchs_own_list():
    declared = (
        "- func: silu_backward(Tensor grad, Tensor self) -> Tensor\n"
        "  structured_delegate: silu_backward.grad_input\n"
        "  dispatch:\n"
        "    CompositeImplicitAutograd: math_silu_backward\n\n"
        "- func: new_norm(Tensor self) -> Tensor\n"
        "  dispatch:\n"
        "    CPU, CUDA: new_norm_kernel\n"
        "    CompositeImplicitAutograd: new_norm_composite\n\n"
        "- func: plain(Tensor self) -> Tensor\n"
        "  dispatch:\n"
        "    CompositeImplicitAutograd: plain\n"
    )
    assert cuda_kernels.find_unlisted(declared) == ["new_norm"]


@pytest.mark.parametrize(
    ("capability", "mib"), [((7, 5), 8), ((8, 0), 8), ((8, 9), 8), ((9, 0), 32), ((10, 0), 32), ((12, 0), 32)]
)
def test_a_cublas_workspace_is_larger_from_hopper_on(capability, mib):
    assert find_workspace_size(capability) // MIB == mib
