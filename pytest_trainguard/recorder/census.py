"""Inside a run: what memory is in use, counted so exactly that a leak shows within some steps of a small model."""

from __future__ import annotations

import gc
import sys

import torch

from pytest_trainguard import linux
from pytest_trainguard.recorder.doors import Observer
from pytest_trainguard.recorder.writer import Recorder

PYTHON_BLOCK = 64  # bytes, about: what one of Python's own small blocks takes


def census() -> dict[str, int]:
    """What is in use after a garbage collection.

    Returns:
        `tensors` alive; of these, `graphs` that hold on to what they were computed from; `heap`, the bytes in use (0
        where the C library does not tell). Not resident memory: that moves in pages, and is not given back at once.
    """
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    taken = linux.heap()
    return {
        "tensors": len(tensors),
        "graphs": sum(tensor.grad_fn is not None for tensor in tensors),
        "heap": taken + PYTHON_BLOCK * sys.getallocatedblocks() if taken else 0,
    }


class Census(Observer):
    """Counts after every optimizer step."""

    def __init__(self, recorder: Recorder):
        self.recorder = recorder

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        self.recorder.write("memory", step=self.recorder.steps, **census())
