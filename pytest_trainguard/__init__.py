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
    from pytest_trainguard.contract.outcome import Outcome
    from pytest_trainguard.contract.queues import Queue
    from pytest_trainguard.contract.trainer import Run, Trainer
    from pytest_trainguard.faults import Fault
    from pytest_trainguard.launch.protocol import RunRequest
    from pytest_trainguard.probes.guard import Guard
    from pytest_trainguard.recorder.timeline import Recording, Step
    from pytest_trainguard.verdicts.errors import CannotJudge, Finding, NotApplicable
    from pytest_trainguard.verdicts.kinds import recovers, rejects, stops, survives

_HOMES = {
    "CannotJudge": "verdicts.errors",
    "EdgeCase": "catalog",
    "Fault": "faults",
    "Finding": "verdicts.errors",
    "Guard": "probes.guard",
    "NotApplicable": "verdicts.errors",
    "Outcome": "contract.outcome",
    "Queue": "contract.queues",
    "Recording": "recorder.timeline",
    "Run": "contract.trainer",
    "RunRequest": "launch.protocol",
    "Step": "recorder.timeline",
    "Trainer": "contract.trainer",
    "edge_case": "catalog",
    "recovers": "verdicts.kinds",
    "rejects": "verdicts.kinds",
    "stops": "verdicts.kinds",
    "survives": "verdicts.kinds",
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
    "RunRequest",
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
