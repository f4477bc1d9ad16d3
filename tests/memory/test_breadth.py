"""What people train is traced, or it is said why not: one tiny model of each kind."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_trainguard.memory.traced import places
from tests.memory.programs import breadth

ROOT = Path(__file__).parent.parent.parent
# By kind, what the reason must say; all others are traced.
NOT_TRACED = {
    "endless loop": r"breadth.py:\d+: a loop whose end depends on what the model computes",
    "SHiRA": r"breadth.py:\d+: what is done there cannot be traced without a GPU \(.*Sparse",
    "sparse embedding": r"breadth.py:\d+: what is done there cannot be traced without a GPU \(.*Sparse",
    "sparse embedding bag": r"breadth.py:\d+: what is done there cannot be traced without a GPU \(.*Sparse",
    "flex attention": r"breadth.py:\d+: what is done there cannot be traced without a GPU \(.*flex_attention",
    "torch.func": r"breadth.py:\d+: what is done there cannot be traced without a GPU",
    "nested tensors": r"breadth.py:\d+: what is done there cannot be traced without a GPU",
    "DDP, gloo": r"breadth.py:\d+: what is done there cannot be traced without a GPU",
    "DDP, nccl": r"breadth.py:\d+: what is done there cannot be traced without a GPU \(.*NCCL",
    "FSDP2, nccl": r"breadth.py:\d+: what is done there cannot be traced without a GPU \(.*NCCL",
    "CUDA graph": r"CUDA graphs, which keep memory pools of their own",
    "own fault": r"the program's own run ends with RuntimeError: a and b must have same reduction dim",
    "own error": r"the program's own run ends with KeyError: 'learning_rat'",
}
NOTED = {
    "Mixtral": "balanced routing", "Qwen MoE": "balanced routing", "loop over experts": "balanced routing",
    "one expert a token": "balanced routing", "GRU": "cell by cell", "packed LSTM": "cell by cell",
    "torch.compile": "left out",
}  # fmt: skip


@pytest.fixture(scope="module")
def kinds():
    done = subprocess.run(
        [sys.executable, "-m", "tests.memory.kinds", "breadth"], capture_output=True, text=True, cwd=ROOT, timeout=900
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return {found["name"]: found for found in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", [name for name in breadth.KINDS if name not in NOT_TRACED])
def test_a_kind_is_traced(kinds, name):
    assert kinds[name]["unknown"] is None
    assert kinds[name]["peak"] > 0
    assert any(NOTED.get(name, "") in note for note in kinds[name]["notes"] or [""])


@pytest.mark.parametrize("name", NOT_TRACED)
def test_what_is_not_traced_is_told_as_what_it_is(kinds, name):
    assert re.match(NOT_TRACED[name], kinds[name]["unknown"] or "traced"), kinds[name]["unknown"]


def test_a_generation_ends_at_its_greatest_length(kinds):
    assert kinds["greedy generation"]["returned"] == kinds["sampled generation"]["returned"] == [2, 16]


def test_an_error_of_a_program_is_no_limit_of_the_tracing():
    def raised(error):
        try:
            raise error
        except Exception as caught:
            return caught

    assert not places.is_limit(raised(RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x5 and 4x4)")))
    assert not places.is_limit(raised(NotImplementedError("forward")))
    assert not places.is_limit(raised(AssertionError()))
    assert places.is_limit(raised(AssertionError("Torch not compiled with CUDA enabled")))
    assert places.is_limit(raised(RuntimeError("Could not run 'aten::nonzero' with arguments from the 'Meta' backend")))
    assert places.find_place(raised(KeyError("rows"))).startswith("test_breadth.py:")
