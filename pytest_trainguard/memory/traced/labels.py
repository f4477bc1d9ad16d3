"""What a moment of training is called: phase, optimizer step, module; and what a storage is for.

Seen at the recorder's doors, so that the program is not changed. In the backward pass no module's code runs; there
each node of the autograd graph is given the name of the module whose forward pass made it.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator

import torch

from pytest_trainguard.memory.traced import fakecuda
from pytest_trainguard.memory.traced.fakecuda import Node
from pytest_trainguard.recorder.doors import Observer
from pytest_trainguard.recorder.tensors import tensors_in

MarkStorage = Callable[[torch.Tensor, str], None]
_KEY = "trainguard"  # in an autograd node's metadata


class Labels(Observer):
    """Follows the program through its phases.

    Attributes:
        step: optimizer steps complete.
        passes: forward passes that were begun, of outermost modules.
    """

    def __init__(self, mark: MarkStorage):
        """`mark` is told what a tensor's storage turned out to be for."""
        self._mark = mark
        self._phase = "build"
        self._local = threading.local()
        self._names: weakref.WeakKeyDictionary[torch.nn.Module, str] = weakref.WeakKeyDictionary()
        self._steps: weakref.WeakKeyDictionary[torch.optim.Optimizer, int] = weakref.WeakKeyDictionary()
        self._saves = 0  # calls of `torch.save` that are going on
        self.step = 0
        self.passes = 0

    @property
    def phase(self) -> str:
        """One of `trace.PHASES`."""
        if self._saves:
            return "save"
        if fakecuda.in_backward_pass():
            self._phase = "optimizer step"  # what comes next, unless another forward pass does
            return "backward"
        return self._phase

    @property
    def module(self) -> str:
        """Qualified name of the module at work, in the backward pass too."""
        stack = self._stack
        if stack:
            return stack[-1]
        node = fakecuda.find_autograd_node()
        return "" if node is None else str(node.metadata.get(_KEY, ""))

    @property
    def inside(self) -> bool:
        """Whether a module's forward pass is going on."""
        return bool(self._stack)

    @property
    def _stack(self) -> list[str]:
        stack: list[str] | None = getattr(self._local, "stack", None)
        if stack is None:
            stack = self._local.stack = []
        return stack

    def fetching(self) -> None:
        """The next forward pass begins here."""
        if self._phase == "optimizer step":
            self._phase = "forward"

    def entered(self, module: torch.nn.Module) -> None:
        stack = self._stack
        if not stack:
            self._enter_outermost(module)
        stack.append(self._names.get(module) or self._find_name(module))

    def _enter_outermost(self, module: torch.nn.Module) -> None:
        self.passes += 1
        self._find_name(module)
        for tensor in (*module.parameters(), *module.buffers()):
            self._mark(tensor, "weight")
        if not fakecuda.in_backward_pass():  # else activation checkpointing computes it again
            self._phase = "forward" if torch.is_grad_enabled() else "evaluation"

    def _find_name(self, module: torch.nn.Module) -> str:
        if module not in self._names:
            for name, inner in module.named_modules():
                self._names[inner] = name or type(module).__name__
        return self._names[module]

    def left(self, module: torch.nn.Module, output: object) -> None:
        stack = self._stack
        name = stack.pop() if stack else ""
        for tensor in tensors_in(output):
            if tensor.grad_fn is not None:
                _name_nodes(tensor.grad_fn, name)

    def stepping(self, optimizer: torch.optim.Optimizer) -> None:
        self._phase = "optimizer step"
        for parameter in _parameters(optimizer):
            self._mark(parameter, "weight")
            if parameter.grad is not None:
                self._mark(parameter.grad, "gradient")

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        for state in optimizer.state.values():
            for tensor in tensors_in(state):
                self._mark(tensor, "optimizer state")
        count = self._steps[optimizer] = self._steps.get(optimizer, 0) + 1
        self.step = max(self.step, count)

    def saving(self) -> None:
        self._saves += 1

    def saved(self) -> None:
        self._saves -= 1


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[torch.nn.Parameter]:
    for group in optimizer.param_groups:
        yield from group["params"]


def _name_nodes(node: Node, name: str) -> None:
    """Give the nodes behind a module's output its name, down to those that inner modules have named."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        metadata = node.metadata
        if _KEY in metadata:
            continue
        metadata[_KEY] = name
        waiting.extend(following for following, _ in node.next_functions if following is not None)
