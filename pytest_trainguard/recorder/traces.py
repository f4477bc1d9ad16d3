"""Inside a run: what of a training program's state changes between two optimizer steps, where nothing is to change.

It is on only in runs that are looked at closely. What changes there by intent, and what an evaluation left, is judged
elsewhere (`casework.silent.traces`), by two runs of which one evaluates more often.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from pytest_trainguard.recorder.doors import Observer
from pytest_trainguard.recorder.states import digest, parameters_of


@dataclass
class _After:
    """How an optimizer's step left things.

    Attributes:
        step: the number of steps that were done.
        weights: a copy of each parameter, by id.
        state: a digest of what the optimizer keeps of each parameter; empty where it has none.
    """

    step: int = 0
    weights: dict[int, torch.Tensor] = field(default_factory=dict)
    state: str = ""


class Traces(Observer):
    """Follows one training program. Its events are `look between`, `look drift` and `look backwards`."""

    def __init__(self, write: Callable[..., None]):
        """`write`: appends one event to the recording."""
        self._write = write
        self._steps = 0
        self._names: dict[int, str] = {}  # of parameters, by id
        self._held: list[torch.Tensor] = []  # parameters, so that no other gets the id of one
        self._after: dict[int, tuple[torch.optim.Optimizer, _After]] = {}  # by id
        self._norms: dict[int, tuple[torch.nn.Module, dict[str, torch.Tensor]]] = {}  # running statistics, by id
        self._passed: set[int] = set()  # models with a pass that had gradients, since the step before
        self._starts: list[float] = []  # norms of the gradients at the start of each backward pass since then

    def forward(self, module: torch.nn.Module, *, outermost: bool) -> None:
        if not outermost or torch.compiler.is_compiling() or next(module.parameters(), None) is None:
            return
        norms = {name: inner for name, inner in module.named_modules() if _has_statistics(inner)}
        for inner in norms.values():
            self._norms.setdefault(id(inner), (inner, _statistics(inner)))
        for name, parameter in module.named_parameters():
            if id(parameter) not in self._names:
                self._held.append(parameter)
                self._names[id(parameter)] = name
        if torch.is_grad_enabled() and id(module) not in self._passed:
            self._passed.add(id(module))
            drifted = [f"{name}.running_mean" for name, inner in norms.items() if self._has_drifted(inner)]
            if drifted:
                self._write("look drift", step=self._steps, names=drifted)

    def _has_drifted(self, norm: torch.nn.Module) -> bool:
        _, known = self._norms[id(norm)]
        return any(not torch.equal(now, known[name]) for name, now in _statistics(norm).items())

    def backward(self, losses: list[torch.Tensor]) -> None:
        held = {id(p): p for optimizer, _ in self._after.values() for p in parameters_of(optimizer)}
        found = [p.grad.detach() for p in held.values() if p.grad is not None and not p.grad.is_sparse]
        self._starts.append(float(torch.nn.utils.get_total_norm(found)) if found else 0.0)

    def stepping(self, optimizer: torch.optim.Optimizer) -> None:
        _, after = self._after.get(id(optimizer), (optimizer, _After()))
        moved: dict[str, float] = {}
        for parameter in parameters_of(optimizer):
            before, now = after.weights.get(id(parameter)), parameter.detach()
            if before is not None and before.shape == now.shape and not torch.equal(before, now):
                far = float((now.float() - before.float()).norm() / before.float().norm().clamp(min=1e-12))
                moved[self._names.get(id(parameter), "a tensor of no module")] = far / torch.finfo(now.dtype).eps
        changed = bool(after.state) and after.state != _digest_of(optimizer)
        if moved or changed:
            self._write("look between", step=self._steps, since=after.step, moved=moved, state=changed)
        self._write("look backwards", step=self._steps, starts=self._starts)

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        self._steps += 1
        weights = {id(p): p.detach().clone() for p in parameters_of(optimizer) if p.is_floating_point()}
        self._after[id(optimizer)] = optimizer, _After(self._steps, weights, _digest_of(optimizer))
        self._norms = {key: (inner, _statistics(inner)) for key, (inner, _) in self._norms.items()}
        self._passed, self._starts = set(), []


def _has_statistics(module: torch.nn.Module) -> bool:
    kind = torch.nn.modules.batchnorm._NormBase
    return isinstance(module, kind) and bool(module.track_running_stats) and module.running_mean is not None


def _statistics(norm: torch.nn.Module) -> dict[str, torch.Tensor]:
    found = {"running_mean": norm.running_mean, "running_var": norm.running_var}
    return {name: value.detach().clone() for name, value in found.items() if isinstance(value, torch.Tensor)}


def _digest_of(optimizer: torch.optim.Optimizer) -> str:
    """Of what it keeps of each parameter: momentum, a count of steps; empty where that cannot be told."""
    with contextlib.suppress(Exception):  # a fake tensor, which has no values
        return digest([optimizer.state.get(parameter, {}) for parameter in parameters_of(optimizer)])
    return ""
