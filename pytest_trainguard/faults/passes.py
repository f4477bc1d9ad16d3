"""Inside a run: which forward passes train, so that a fault "in step 3" does not come about in a validation.

A program may validate after its second step and before it saves that one: torch has completed two steps by then, and a
run that was killed there has saved nothing.
"""

from __future__ import annotations

import weakref

import torch


class TrainingPasses:
    """Tells outermost forward passes that train from those that only look.

    One that trains builds a graph. Where some pass of this run was of a module with parameters that learn, or in
    training mode, only such passes count: so a validation without `no_grad` is told by its evaluation mode, and a
    program that trains in evaluation mode on purpose has its faults all the same.

    Attributes:
        training: the outermost pass that is under way, or was the last, trains.
        module: the module of the last pass that trained, or None.
    """

    def __init__(self) -> None:
        self.training = False
        self._most = (False, False)  # of the passes with a graph: has parameters that learn; is in training mode
        self._module: weakref.ref[torch.nn.Module] | None = None

    @property
    def module(self) -> torch.nn.Module | None:
        """See the class."""
        return self._module() if self._module else None

    def begin(self, module: torch.nn.Module) -> bool:
        """An outermost pass begins: whether it trains."""
        graph = torch.is_grad_enabled()
        kind = (any(parameter.requires_grad for parameter in module.parameters()), module.training)
        if graph:
            self._most = max(self._most, kind)
        self.training = graph and kind == self._most
        if self.training:
            self._module = weakref.ref(module)
        return self.training

    def holds(self, inner: torch.nn.Module) -> bool:
        """Whether the pass of this module, the outermost or one inside it, is part of training."""
        in_mode = inner.training or not self._most[1]
        return self.training and in_mode and torch.is_grad_enabled()

    def expected(self) -> bool:
        """Whether the next pass will train, as far as can be told: nothing was set up for a validation."""
        module = self.module
        in_mode = module is None or module.training or not self._most[1]
        return in_mode and torch.is_grad_enabled()
