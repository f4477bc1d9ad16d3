"""On the CPU the trace is held against what the allocator really does, to the byte."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
# What kernels and numbers take that no operation returns: wrapped numbers, a layer norm's sums, a generator's state.
INSIDE_KERNELS = {4, 8, 2048, 5056}


def peak_of(changes):
    now = most = 0
    for change in changes:
        now += change
        most = max(most, now)
    return most


@pytest.mark.parametrize("config", [{"optimizer": "foreach"}, {"optimizer": "adafactor", "checkpointing": True}])
def test_the_trace_is_what_the_allocator_does(config):
    done = subprocess.run(
        [sys.executable, "-m", "tests.memory.truth", json.dumps({"batch_size": 8, **config})],
        capture_output=True, text=True, cwd=ROOT, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    counted = json.loads(done.stdout)
    real = [size if kind == "alloc" else -size for kind, size in counted["real"]]
    allocator = counted["allocator"]
    # Each storage that the trace has is one that the allocator gave, and took back.
    assert Counter(real) - Counter(allocator) == Counter()
    more = Counter(allocator) - Counter(real)
    assert {abs(size) for size in more} <= INSIDE_KERNELS
    if not config.get("checkpointing"):
        assert peak_of(real) == peak_of(allocator)
    # With fake tensors nothing is different, in kind, size or order.
    assert counted["fake"] == counted["real"]
