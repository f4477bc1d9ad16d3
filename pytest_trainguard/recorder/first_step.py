"""Inside a run: the gradient of the first optimizer step, before anything is clipped.

It is on only in runs that are looked at closely, so that two runs can be held against each other in which the same rows
are dealt out otherwise: in parts, at once, in another order.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from pytest_trainguard.recorder.doors import Observer
from pytest_trainguard.recorder.surroundings import find_caller


class FirstStep(Observer):
    """Follows one training program until its first optimizer step. Its event is `look gradient`."""

    def __init__(self, write: Callable[..., None]):
        """`write`: appends one event to the recording."""
        self._write = write
        self._names: dict[int, str] = {}  # of parameters, by id
        self._held: list[torch.Tensor] = []  # those, so that no other gets the id of one
        self._place = ""
        self._done = False

    def forward(self, module: torch.nn.Module, *, outermost: bool) -> None:
        if not self._done and outermost and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            for name, parameter in module.named_parameters():
                if id(parameter) not in self._names:
                    self._held.append(parameter)
                    self._names[id(parameter)] = name

    def backward(self, losses: list[torch.Tensor]) -> None:
        if not self._done:
            self._place = find_caller()

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
        self._write("look gradient", step=0, norms=norms, place=self._place)
        self._held = []
