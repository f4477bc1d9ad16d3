"""Inside a run: what memory is in use, counted so exactly that a leak shows within some steps of a small model."""

from __future__ import annotations

import contextlib
import gc
import sys

import torch

from pytest_trainguard import linux
from pytest_trainguard.recorder.doors import Observer
from pytest_trainguard.recorder.tensors import tensors_in
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


def held_by_tensors() -> int:
    """The bytes of all tensors that Python holds, each storage counted once."""
    found = {}
    for thing in gc.get_objects():
        if issubclass(type(thing), torch.Tensor):
            with contextlib.suppress(
                RuntimeError, NotImplementedError
            ):  # a sparse tensor, or one that is only pretended
                storage = thing.untyped_storage()
                found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


class Census(Observer):
    """Counts after every optimizer step, and in evaluations: passes without gradients, or in evaluation mode."""

    def __init__(self, recorder: Recorder):
        self.recorder = recorder
        self._passes = self._rows = 0  # of the evaluation that is under way

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        self._passes = self._rows = 0
        self.recorder.write("memory", step=self.recorder.steps, **census())

    def forward(self, module: torch.nn.Module, *, outermost: bool) -> None:
        if outermost and torch.is_grad_enabled() and module.training:
            self._passes = self._rows = 0

    def forwarded(
        self, module: torch.nn.Module, inputs: tuple[object, ...], output: object, *, outermost: bool
    ) -> None:
        if not outermost or (torch.is_grad_enabled() and module.training):
            return
        given = [tensor for tensor in tensors_in(list(inputs)) if tensor.dim()]
        rows = given[0].shape[0] if given else 0
        self._passes, self._rows = self._passes + 1, self._rows + rows
        few = self._passes & (self._passes - 1) == 0  # every tensor is looked at: after 1, 2, 4, 8 ... passes
        self.recorder.write(
            "evaluated",
            step=self.recorder.steps,
            number=self._passes,
            rows=rows,
            rows_so_far=self._rows,
            given=sum(tensor.nbytes for tensor in given),
            held=held_by_tensors() if few else None,
        )
