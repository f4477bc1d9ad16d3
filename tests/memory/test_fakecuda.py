"""Fake CUDA holds on this build of torch, and says what does not."""

import subprocess
import sys


def test_the_self_test_passes_in_a_process_of_its_own():
    done = subprocess.run(
        [sys.executable, "-m", "pytest_trainguard.memory.selftest"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


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
