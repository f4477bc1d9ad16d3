"""Inside a run that is looked at closely: whether steps arrive in weights of few bits, and whether they are counted."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from pytest_trainguard.recorder.close_look import CloseLook
from pytest_trainguard.recorder.doors import Observer
from pytest_trainguard.recorder.surroundings import find_caller

SHORT = (torch.bfloat16, torch.float16)


class Rounding(Observer):
    """Follows weights of 16 bits, and the optimizers' counters. Its events are named `look rounded`."""

    def __init__(self, look: CloseLook):
        self._look = look
        self._before: dict[int, torch.Tensor] = {}  # weights of 16 bits, by id, as a step began
        self._optimizers: dict[int, tuple[int, torch.optim.Optimizer]] = {}  # by id

    def stepping(self, optimizer: torch.optim.Optimizer) -> None:
        self._before = {
            id(parameter): parameter.detach().clone()
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter.dtype in SHORT and parameter.grad is not None and not parameter.grad.is_sparse
        }

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        elements = kept = 0
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                before = self._before.get(id(parameter))
                if before is None or parameter.grad is None:
                    continue
                driven = parameter.grad.detach() != 0
                elements += int(driven.sum())
                kept += int((driven & (before == parameter.detach())).sum())
        dtypes = {str(tensor.dtype).removeprefix("torch.") for tensor in self._before.values()}
        self._before = {}
        groups = optimizer.param_groups
        self._look.write(
            "rounded",
            optimizer=self._optimizers.setdefault(id(optimizer), (len(self._optimizers), optimizer))[0],
            name=type(optimizer).__name__,
            # What a schedule warms up to stands in the groups.
            lr=max((float(group.get("lr", 0.0)) for group in groups), default=0.0),
            full=max((float(group.get(key, 0.0)) for group in groups for key in ("initial_lr", "max_lr")), default=0.0),
            elements=elements,
            kept=kept,
            dtype=", ".join(sorted(dtypes)),
            plain=type(optimizer).__module__.startswith("torch.optim."),
            master=_holds_masters(optimizer),
            place=find_caller(),
            **_counter_of(optimizer),
        )


def _holds_masters(optimizer: torch.optim.Optimizer) -> bool:
    """Beside a weight of 16 bits the optimizer keeps the same in 32."""
    for parameter, state in optimizer.state.items():
        if parameter.dtype in SHORT and isinstance(state, dict):
            for held in state.values():
                is_longer = isinstance(held, torch.Tensor) and held.dtype == torch.float32
                alike = is_longer and held.shape == parameter.shape and held.device == parameter.device
                if alike and torch.equal(held.to(parameter.dtype), parameter):
                    return True
    return False


def _counter_of(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The furthest of its counters of steps, and the dtype that this is kept in; nothing where it keeps none."""
    found: dict[str, Any] = {}
    for state in optimizer.state.values():
        count = state.get("step") if isinstance(state, dict) else None
        with contextlib.suppress(TypeError, ValueError, RuntimeError):
            value = float(count)  # type: ignore[arg-type]
            if value >= found.get("counter", value):
                kind = str(count.dtype).removeprefix("torch.") if isinstance(count, torch.Tensor) else "a number"
                found = {"counter": value, "counted_in": kind}
    return found
