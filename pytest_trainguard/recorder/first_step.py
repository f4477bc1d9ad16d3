"""Inside a run: the gradient of the first optimizer step, before anything is clipped.

It is on only in runs that are looked at closely, so that two runs can be held against each other in which the same rows
are dealt out otherwise: in parts, at once, in another order.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any

import torch

from pytest_trainguard.recorder.close_look import shape_of
from pytest_trainguard.recorder.doors import Observer
from pytest_trainguard.recorder.states import digest
from pytest_trainguard.recorder.surroundings import find_caller
from pytest_trainguard.recorder.tensors import tensors_in

WALKED = 2000  # nodes of a loss's graph that are looked at
MOVED = ("RollBackward", "FlipBackward")  # of what holds each row against its neighbour, or its opposite


class FirstStep(Observer):
    """Follows one training program until its first optimizer step. Its event is `look gradient`."""

    def __init__(self, write: Callable[..., None]):
        """`write`: appends one event to the recording."""
        self._write = write
        self._names: dict[int, str] = {}  # of parameters, by id
        self._held: list[torch.Tensor] = []  # those, so that no other gets the id of one
        self._place = ""
        self._drawn: list[object] = []  # the random states as the first pass began
        self._rows = 0  # of what goes in
        self._square = False
        self._done = False

    def forward(self, module: torch.nn.Module, *, outermost: bool) -> None:
        if not self._done and outermost and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            self._drawn = self._drawn or _random_states()
            for name, parameter in module.named_parameters():
                if id(parameter) not in self._names:
                    self._held.append(parameter)
                    self._names[id(parameter)] = name

    def forwarded(
        self, module: torch.nn.Module, inputs: tuple[object, ...], output: object, *, outermost: bool
    ) -> None:
        if not self._done and outermost and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            first = next((tensor for tensor in tensors_in(list(inputs)) if tensor.dim()), None)
            self._rows = 0 if first is None else len(first)

    def backward(self, losses: list[torch.Tensor]) -> None:
        if not self._done:
            self._place = find_caller()
            self._square = self._square or any(_has_square(loss, self._rows) for loss in losses)

    def clipping(self, parameters: list[torch.Tensor]) -> None:
        self._note()

    def stepping(self, optimizer: torch.optim.Optimizer) -> None:
        self._note()

    def _note(self) -> None:
        """Write the norm of each gradient. Clipping each parameter by itself is done when the first one is."""
        if self._done:
            return
        self._done = True
        gradients = [(self._names[id(p)], p.grad) for p in self._held if p.grad is not None and not p.grad.is_sparse]
        norms = {name: float(gradient.detach().float().norm()) for name, gradient in gradients}
        drawn = self._drawn != _random_states()
        self._write("look gradient", step=0, norms=norms, place=self._place, drawn=drawn, square=self._square)
        self._held = []


def _random_states() -> list[object]:
    numpy = sys.modules.get("numpy")
    known = [] if numpy is None else [digest(numpy.random.get_state(legacy=False))]
    return [digest(torch.get_rng_state()), digest(random.getstate()), *known]


def _has_square(loss: torch.Tensor, rows: int) -> bool:
    """Rows are held against each other on the way to a loss: there are two dimensions of rows, or they are moved on."""
    waiting: list[Any] = [loss.grad_fn]
    seen: set[Any] = set()
    while waiting and len(seen) < WALKED:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if shape_of(node).count(rows) > 1 or str(node.name()).startswith(MOVED):
            return True
        waiting += [behind for behind, _ in node.next_functions if not hasattr(behind, "variable")]
    return False
