"""What a moment of training is called: phase, optimizer step, module; and what a storage is for.

Read off torch's public hooks, so that the program is not changed. In the backward pass no module's code runs; there
each node of the autograd graph is given the name of the module whose forward pass made it.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from pytest_trainguard.memory.traced import fakecuda
from pytest_trainguard.memory.traced.values import tensors_in

MarkStorage = Callable[[torch.Tensor, str], None]
_KEY = "trainguard"  # in an autograd node's metadata


class Labels:
    """Follows the program through its phases.

    Attributes:
        step: optimizer steps complete.
        saving: the program is writing a checkpoint.
    """

    def __init__(self, mark: MarkStorage):
        """`mark` is told what a tensor's storage turned out to be for."""
        self._mark = mark
        self._phase = "build"
        self._local = threading.local()
        self._names: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
        self._handles: list[Any] = []
        self._steps: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self.step = 0
        self.saving = 0

    def install(self) -> None:
        """Put the hooks in place."""
        self._handles = [
            register_module_forward_pre_hook(self._entered),
            register_module_forward_hook(self._left, always_call=True),
            register_optimizer_step_pre_hook(self._stepping),
            register_optimizer_step_post_hook(self._stepped),
        ]

    def remove(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()

    @property
    def phase(self) -> str:
        """One of `trace.PHASES`."""
        if self.saving:
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

    def fetched(self) -> None:
        """A batch is fetched: the next forward pass begins here."""
        if self._phase == "optimizer step":
            self._phase = "forward"

    def _entered(self, module: Any, inputs: Any) -> None:
        stack = self._stack
        if not stack:
            self._outermost(module)
        stack.append(self._names.get(module) or self._named(module))

    def _outermost(self, module: Any) -> None:
        self._named(module)
        for tensor in (*module.parameters(), *module.buffers()):
            self._mark(tensor, "weight")
        if not fakecuda.in_backward_pass():  # else activation checkpointing computes it again
            self._phase = "forward" if torch.is_grad_enabled() else "evaluation"

    def _named(self, module: Any) -> str:
        if module not in self._names:
            for name, inner in module.named_modules():
                self._names[inner] = name or type(module).__name__
        return self._names[module]

    def _left(self, module: Any, inputs: Any, output: Any) -> None:
        stack = self._stack
        name = stack.pop() if stack else ""
        for tensor in tensors_in(output if isinstance(output, torch.Tensor | tuple | list) else _values(output)):
            if tensor.grad_fn is not None:
                _name_nodes(tensor.grad_fn, name)

    def _stepping(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self._phase = "optimizer step"
        for parameter in _parameters(optimizer):
            self._mark(parameter, "weight")
            if parameter.grad is not None:
                self._mark(parameter.grad, "gradient")

    def _stepped(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        for state in optimizer.state.values():
            for tensor in tensors_in(state):
                self._mark(tensor, "optimizer state")
        count = self._steps[optimizer] = self._steps.get(optimizer, 0) + 1
        self.step = max(self.step, count)

    def around_save(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, known as saving."""

        @functools.wraps(original)
        def save(*args: Any, **kwargs: Any) -> Any:
            self.saving += 1
            try:
                return original(*args, **kwargs)
            finally:
                self.saving -= 1

        return save


def _values(output: Any) -> list[Any]:
    """What a module returned in an object of its own, as transformers' models do."""
    return list(output.values()) if hasattr(output, "values") and callable(output.values) else []


def _parameters(optimizer: Any) -> Iterator[Any]:
    for group in optimizer.param_groups:
        yield from group["params"]


def _name_nodes(node: Any, name: str) -> None:
    """Give the nodes behind a module's output its name, down to those that inner modules have named."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        metadata = node.metadata
        if _KEY in metadata:
            continue
        metadata[_KEY] = name
        waiting.extend(following for following, _ in node.next_functions if following is not None)
