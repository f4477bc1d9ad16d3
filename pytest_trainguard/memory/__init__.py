"""GPU memory: what a training step will need, with or without a GPU, and whether it fits a budget.

A trace (`trace`) lists the births and deaths of tensor storages during a few real optimizer steps; everything else
follows from it: the replay through CUDA's caching allocator, the verdict, what would help, the timeline. The names
below are resolved when they are first used; torch is imported by none of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_trainguard.memory.budget import Budget, parse_budget
    from pytest_trainguard.memory.device import Device
    from pytest_trainguard.memory.predict import trace_of, tracing
    from pytest_trainguard.memory.prediction import Prediction, predicting
    from pytest_trainguard.memory.trace import Event, Trace, Workspace
    from pytest_trainguard.memory.verdict import Judgement

_HOMES = {
    "Budget": "budget",
    "Device": "device",
    "Event": "trace",
    "Judgement": "verdict",
    "Prediction": "prediction",
    "Trace": "trace",
    "Workspace": "trace",
    "parse_budget": "budget",
    "predicting": "prediction",
    "trace_of": "predict",
    "tracing": "predict",
}

__all__ = [
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


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
