"""Inside a run: a number that is none in a gradient which an optimizer really takes its step with."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable

import torch

TIMES = 3  # that it is tried: a program may rightly leave out every step whose gradient is not finite


class SpoiltGradient:
    """Spoils the gradient of one parameter of each optimizer that a backward pass reaches.

    It is spoilt as it is computed, and not ahead of the step: what looks at gradients looks between the two. A backward
    pass may compute gradients that nobody uses, as a generator's loss does for the critic: so each optimizer that is
    known gets a spoilt one, and it is looked at whether one of them still had it in its step.
    """

    def __init__(self, spoil: Callable[[torch.Tensor], torch.Tensor], fire: Callable[[], None]):
        """`spoil` puts the number into a tensor; `fire` is called as it comes about, once for each backward pass."""
        self._spoil, self._fire = spoil, fire
        self._optimizers: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self._spoilt: dict[int, torch.Tensor] = {}  # by the optimizer's id: its parameter
        self._times = 0

    def arm(self, module: torch.nn.Module | None) -> None:
        """Spoil what the backward pass that begins computes; of `module` where no optimizer has taken a step yet."""
        self.disarm()
        self._spoilt = {}
        groups: dict[int, Iterable[torch.Tensor]] = {
            id(optimizer): [p for group in optimizer.param_groups for p in group["params"]]
            for optimizer in self._optimizers
        }
        if not groups and module is not None:
            groups = {0: module.parameters()}
        for owner, parameters in groups.items():
            for parameter in parameters:
                if parameter.requires_grad:
                    hook = functools.partial(self._spoil_one, owner, parameter)
                    self._hooks.append(parameter.register_hook(hook))

    def disarm(self) -> None:
        """Leave the gradients that are computed from here on alone."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _spoil_one(self, owner: int, parameter: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor | None:
        if owner in self._spoilt:
            return None
        if not self._spoilt:
            self._times += 1
            self._fire()
        self._spoilt[owner] = parameter
        return self._spoil(torch.ones_like(gradient))

    def was_cleared(self) -> bool:
        """Another backward pass begins: whether all that was spoilt is gone by now, as after one for an attack."""
        return bool(self._spoilt) and self._times < TIMES and all(map(_is_gone, self._spoilt.values()))

    def was_lost(self, optimizer: torch.optim.Optimizer) -> bool:
        """An optimizer takes its step: whether what was put into its gradient has been thrown away before."""
        self._optimizers.add(optimizer)
        parameter = self._spoilt.pop(id(optimizer), None)
        if parameter is None:
            return False
        if not _is_gone(parameter):
            self._spoilt = {}  # one step with it is what was wanted: what became of the others is no matter
            return False
        return self._times < TIMES


def _is_gone(parameter: torch.Tensor) -> bool:
    return parameter.grad is None or bool(parameter.grad.isfinite().all())
