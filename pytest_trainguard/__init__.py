"""Puts a team's real training program through the known ways of failing, before it is given an expensive GPU.

The names below are the public ones: with them a team adopts its programs and writes cases of its own, and the catalogue
is written with nothing else. They are resolved when they are first used, so that importing the package costs nothing;
torch is never imported by it outside a run.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_trainguard import casework, damage, faults, memory
    from pytest_trainguard.adapters.transformers import tiny_twin
    from pytest_trainguard.catalog import EdgeCase, edge_case
    from pytest_trainguard.contract import checkpoints, settings
    from pytest_trainguard.contract.outcome import Outcome, exit_words
    from pytest_trainguard.contract.queues import Queue
    from pytest_trainguard.contract.settings import Field
    from pytest_trainguard.contract.trainer import Run, Trainer
    from pytest_trainguard.contract.validation import Validated
    from pytest_trainguard.faults import Fault
    from pytest_trainguard.harm import Cause
    from pytest_trainguard.launch.protocol import RUN_STEPS, RunRequest
    from pytest_trainguard.launch.watch import Held
    from pytest_trainguard.probes.close_look import CloseLook
    from pytest_trainguard.probes.config_fuzz import ConfigFuzz
    from pytest_trainguard.probes.gpu_budget import GpuBudget
    from pytest_trainguard.probes.guard import Guard
    from pytest_trainguard.probes.kill_and_resume import KillAndResume
    from pytest_trainguard.probes.nan_injection import NanInjection
    from pytest_trainguard.probes.oom_probe import OomProbe
    from pytest_trainguard.probes.queue_root import QueueRoot
    from pytest_trainguard.probes.queue_turn import Turn
    from pytest_trainguard.probes.static_check import StaticCheck
    from pytest_trainguard.probes.tiny_overfit import TinyOverfit
    from pytest_trainguard.probes.training_queue import TrainingQueue
    from pytest_trainguard.recorder.timeline import Recording, Step
    from pytest_trainguard.rows import suffixes
    from pytest_trainguard.subject.description import SAVE_EVERY
    from pytest_trainguard.subject.started import StartedRun
    from pytest_trainguard.verdicts import causes, wording
    from pytest_trainguard.verdicts.errors import CannotJudge, Finding, NotApplicable
    from pytest_trainguard.verdicts.gathering import note, noting
    from pytest_trainguard.verdicts.kinds import recovers, rejects, stops, survives
    from pytest_trainguard.verdicts.wording import Wording

# Where each name is at home: a module that it is taken from, or that it is (those in `_MODULES`).
_HOMES = {
    "CannotJudge": "verdicts.errors",
    "Cause": "harm",
    "CloseLook": "probes.close_look",
    "ConfigFuzz": "probes.config_fuzz",
    "EdgeCase": "catalog",
    "Fault": "faults",
    "Field": "contract.settings",
    "Finding": "verdicts.errors",
    "GpuBudget": "probes.gpu_budget",
    "Guard": "probes.guard",
    "Held": "launch.watch",
    "KillAndResume": "probes.kill_and_resume",
    "NanInjection": "probes.nan_injection",
    "NotApplicable": "verdicts.errors",
    "OomProbe": "probes.oom_probe",
    "Outcome": "contract.outcome",
    "Queue": "contract.queues",
    "QueueRoot": "probes.queue_root",
    "RUN_STEPS": "launch.protocol",
    "Recording": "recorder.timeline",
    "Run": "contract.trainer",
    "RunRequest": "launch.protocol",
    "SAVE_EVERY": "subject.description",
    "StartedRun": "subject.started",
    "StaticCheck": "probes.static_check",
    "Step": "recorder.timeline",
    "TinyOverfit": "probes.tiny_overfit",
    "Trainer": "contract.trainer",
    "TrainingQueue": "probes.training_queue",
    "Turn": "probes.queue_turn",
    "Validated": "contract.validation",
    "Wording": "verdicts.wording",
    "edge_case": "catalog",
    "exit_words": "contract.outcome",
    "note": "verdicts.gathering",
    "noting": "verdicts.gathering",
    "recovers": "verdicts.kinds",
    "rejects": "verdicts.kinds",
    "stops": "verdicts.kinds",
    "survives": "verdicts.kinds",
    "tiny_twin": "adapters.transformers",
}
_MODULES = {
    "casework": "casework",
    "causes": "verdicts.causes",
    "checkpoints": "contract.checkpoints",
    "damage": "damage",
    "faults": "faults",
    "memory": "memory",
    "settings": "contract.settings",
    "suffixes": "rows.suffixes",
    "wording": "verdicts.wording",
}

__all__ = [
    "RUN_STEPS",
    "SAVE_EVERY",
    "CannotJudge",
    "Cause",
    "CloseLook",
    "ConfigFuzz",
    "EdgeCase",
    "Fault",
    "Field",
    "Finding",
    "GpuBudget",
    "Guard",
    "Held",
    "KillAndResume",
    "NanInjection",
    "NotApplicable",
    "OomProbe",
    "Outcome",
    "Queue",
    "QueueRoot",
    "Recording",
    "Run",
    "RunRequest",
    "StartedRun",
    "StaticCheck",
    "Step",
    "TinyOverfit",
    "Trainer",
    "TrainingQueue",
    "Turn",
    "Validated",
    "Wording",
    "casework",
    "causes",
    "checkpoints",
    "damage",
    "edge_case",
    "exit_words",
    "faults",
    "memory",
    "note",
    "noting",
    "recovers",
    "rejects",
    "settings",
    "stops",
    "suffixes",
    "survives",
    "tiny_twin",
    "wording",
]


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{_MODULES[name]}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
