"""Fake CUDA holds on this build of torch, and says what does not."""

import subprocess
import sys

import pytest
import torch

from pytest_trainguard.memory import fakecuda
from tests import torch_versions


def test_the_self_test_passes_in_a_process_of_its_own():
    done = subprocess.run(
        [sys.executable, "-m", "pytest_trainguard.memory.selftest"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"torch {torch.__version__}: fake CUDA holds")


def test_the_self_test_says_what_broke_in_one_line():
    code = (
        "from pytest_trainguard.memory import fakecuda, selftest\n"
        "def broken(): raise RuntimeError('torch did not put its fake device guard in place')\n"
        "fakecuda._register_device_guard = broken\n"
        "import os, sys; code = selftest.main(); sys.stderr.flush(); os._exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "RuntimeError: torch did not put its fake device guard in place" in done.stderr.splitlines()[-1]


def test_a_torch_outside_what_was_tried_is_named():
    assert fakecuda.untried("2.6.0+cu124") is None
    assert fakecuda.untried("2.15.0") is None
    assert fakecuda.untried("2.5.1") == ("torch 2.5.1 is older than what fake CUDA was tried with, torch 2.6 to 2.15")
    assert fakecuda.untried("3.0.0a0+git1234") == (
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
