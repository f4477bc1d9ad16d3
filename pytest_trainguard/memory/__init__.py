"""GPU memory: what a training step will need, with or without a GPU, and whether it fits a budget.

A trace lists the births and deaths of tensor storages during a few real optimizer steps: it is made in `traced`,
inside the run. What follows from it is in `replay`: the model of CUDA's caching allocator, budgets, cards. What people
ask is answered in `answers`: whether it fits, the largest batch, what would help, the timeline. The names below are
resolved when they are first used; torch is imported by none of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_trainguard.memory.answers.fragmentation import EXTRAPOLATED_STEPS, TRACED_STEPS
    from pytest_trainguard.memory.answers.prediction import Prediction, predicting
    from pytest_trainguard.memory.answers.tracing import trace_of, tracing
    from pytest_trainguard.memory.answers.verdict import Judgement
    from pytest_trainguard.memory.replay.budget import Budget, parse_budget
    from pytest_trainguard.memory.replay.device import Device
    from pytest_trainguard.memory.replay.trace import Event, Trace, Workspace

_HOMES = {
    "EXTRAPOLATED_STEPS": "answers.fragmentation",
    "TRACED_STEPS": "answers.fragmentation",
    "Budget": "replay.budget",
    "Device": "replay.device",
    "Event": "replay.trace",
    "Judgement": "answers.verdict",
    "Prediction": "answers.prediction",
    "Trace": "replay.trace",
    "Workspace": "replay.trace",
    "parse_budget": "replay.budget",
    "predicting": "answers.prediction",
    "trace_of": "answers.tracing",
    "tracing": "answers.tracing",
}

__all__ = [
    "EXTRAPOLATED_STEPS",
    "TRACED_STEPS",
    "Budget",
    "Device",
    "Event",
    "Judgement",
    "Prediction",
    "Trace",
    "Workspace",
    "parse_budget",
    "predicting",
    "trace_of",
    "tracing",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
