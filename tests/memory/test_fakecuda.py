"""Fake CUDA holds on this build of torch, and says what does not."""

import subprocess
import sys

import pytest
import torch

from pytest_trainguard.memory.traced import fakecuda
from tests import torch_versions


def test_the_self_test_passes_in_a_process_of_its_own():
    done = subprocess.run(
        [sys.executable, "-m", "pytest_trainguard.memory.traced.selftest"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"torch {torch.__version__}: fake CUDA holds")


def test_the_self_test_says_what_broke_in_one_line():
    code = (
        "from pytest_trainguard.memory.traced import fakecuda, selftest\n"
        "def broken(): raise RuntimeError('torch did not put its fake device guard in place')\n"
        "fakecuda._register_device_guard = broken\n"
        "import os, sys; code = selftest.main(); sys.stderr.flush(); os._exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "RuntimeError: torch did not put its fake device guard in place" in done.stderr.splitlines()[-1]


def test_a_torch_outside_what_was_tried_is_named():
    assert fakecuda.describe_untried("2.6.0+cu124") is None
    assert fakecuda.describe_untried("2.15.0") is None
    assert fakecuda.describe_untried("2.5.1") == (
        "torch 2.5.1 is older than what fake CUDA was tried with, torch 2.6 to 2.15"
    )
    assert fakecuda.describe_untried("3.0.0a0+git1234") == (
        "torch 3.0.0a0+git1234 is newer than what fake CUDA was tried with, torch 2.6 to 2.15"
    )


def test_what_is_said_to_be_tried_is_what_the_trial_tries():
    tried = [tuple(map(int, version.split(".")[:2])) for version in torch_versions.VERSIONS]
    assert tried == [fakecuda.OLDEST, fakecuda.NEWEST]


def test_virtual_functions_have_the_places_of_torchs_own_header():
    places = fakecuda._virtual_functions("ATen/detail/AcceleratorHooksInterface.h", "AcceleratorHooksInterface")
    assert places["hasPrimaryContext"] == places["init"] - 1  # in every version
    assert min(place for name, place in places.items() if not name.startswith("~")) == 2  # after the two destructors


def test_a_build_without_its_headers_is_refused_by_name():
    with pytest.raises(RuntimeError, match=r"comes without its header ATen/moved\.h"):
        fakecuda._virtual_functions("ATen/moved.h", "Moved")
    with pytest.raises(RuntimeError, match="has no Moved"):
        fakecuda._virtual_functions("ATen/detail/AcceleratorHooksInterface.h", "Moved")


def _described(tensor):
    return tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.dtype, tensor.device


@pytest.mark.parametrize("func", sorted(fakecuda._DIRECT, key=str), ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_is_answered_directly_is_what_the_mode_answers(func, dtype):
    mode, aten = fakecuda.FakeMode(), torch.ops.aten
    with mode:
        whole = torch.empty(4, 6, 8, dtype=dtype)
        turned, part = whole.transpose(0, 2), whole[1:, 2:]
        matrix, narrow = torch.empty(8, 5, dtype=dtype), torch.empty(5, 8, dtype=dtype)[:, 3:]
    others = {
        aten.view.default: [(whole, [24, 8]), (whole, [-1, 2]), (part, [3, 4, 2, 4])],
        aten._unsafe_view.default: [(whole, [24, 8])],
        aten.t.default: [(matrix,), (narrow,)],
        aten.transpose.int: [(tensor, 0, -1) for tensor in (whole, turned, part)],
        aten.permute.default: [(tensor, [2, 0, 1]) for tensor in (whole, turned, part)],
        aten.unsqueeze.default: [(tensor, 1) for tensor in (whole, turned, part)],
        aten.squeeze.dim: [(whole, 0), (whole[:1], 0)],
        aten.expand.default: [(tensor, [2, -1, -1, -1]) for tensor in (whole, turned)],
        aten.select.int: [(tensor, 1, 2) for tensor in (whole, turned, part)],
        aten.slice.Tensor: [(tensor, 1, 1, 4) for tensor in (whole, turned, part)],
        aten.detach.default: [(whole,), (part,)],
        aten.mm.default: [(matrix, narrow), (narrow, matrix.t())],
        aten.bmm.default: [(tensor, tensor.transpose(1, 2)) for tensor in (whole, turned, part)],
    }
    for args in others[func]:
        found = mode.run_directly(func, args, {})
        with mode:
            wanted = func(*args)
        assert _described(found) == _described(wanted)
        shared = [tensor.untyped_storage()._cdata == args[0].untyped_storage()._cdata for tensor in (found, wanted)]
        assert shared == [func not in (aten.mm.default, aten.bmm.default)] * 2


def test_where_there_is_more_to_find_out_nothing_is_answered_directly():
    mode, aten = fakecuda.FakeMode(), torch.ops.aten
    with mode:
        matrix, constant = torch.empty(3, 3), torch.tensor([[1.0]])
    assert mode.run_directly(aten.mm.default, (matrix, torch.zeros(3, 3)), {}) is None  # a real one, to be made fake
    assert mode.run_directly(aten.t.default, (constant,), {}) is None  # its value is known, and its transpose's then
    assert mode.run_directly(aten.add.Tensor, (matrix, matrix), {}) is None
    elsewhere = fakecuda.FakeTensor(mode, torch.empty(3, 3, device="meta"), torch.device("meta"))
    assert mode.run_directly(aten.mm.default, (matrix, elsewhere), {}) is None  # and refused
