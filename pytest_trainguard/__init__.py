"""Puts a team's real training program through the known ways of failing, before it is given an expensive GPU.

The names below are the public ones. They are resolved when they are first used, so that importing the package costs
nothing; torch is never imported by it outside a run.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_trainguard.adapters.transformers import tiny_twin
    from pytest_trainguard.catalog import EdgeCase, edge_case
    from pytest_trainguard.expect import (
        CannotJudge,
        Finding,
        NotApplicable,
        recovers,
        rejects,
        stops,
        survives,
    )
    from pytest_trainguard.faults import Fault
    from pytest_trainguard.probes.guard import Guard
    from pytest_trainguard.queues import Queue
    from pytest_trainguard.recorder.timeline import Recording, Step
    from pytest_trainguard.trainer import Outcome, Run, Trainer

_HOMES = {
    "CannotJudge": "expect",
    "EdgeCase": "catalog",
    "Fault": "faults",
    "Finding": "expect",
    "Guard": "probes.guard",
    "NotApplicable": "expect",
    "Outcome": "trainer",
    "Queue": "queues",
    "Recording": "recorder.timeline",
    "Run": "trainer",
    "Step": "recorder.timeline",
    "Trainer": "trainer",
    "edge_case": "catalog",
    "recovers": "expect",
    "rejects": "expect",
    "stops": "expect",
    "survives": "expect",
    "tiny_twin": "adapters.transformers",
}

__all__ = [
    "CannotJudge",
    "EdgeCase",
    "Fault",
    "Finding",
    "Guard",
    "NotApplicable",
    "Outcome",
    "Queue",
    "Recording",
    "Run",
    "Step",
    "Trainer",
    "edge_case",
    "recovers",
    "rejects",
    "stops",
    "survives",
    "tiny_twin",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
