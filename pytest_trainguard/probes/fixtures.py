"""The fixtures. Each is made for the test's `trainer`; a test that uses one runs once for each trainer.

A team's own test may override `trainer` with a fixture that returns a `Trainer` subclass or `"module:Class"`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_trainguard.probes.close_look import CloseLook
    from pytest_trainguard.probes.config_fuzz import ConfigFuzz
    from pytest_trainguard.probes.gpu_budget import GpuBudget
    from pytest_trainguard.probes.guard import Guard
    from pytest_trainguard.probes.kill_and_resume import KillAndResume
    from pytest_trainguard.probes.nan_injection import NanInjection
    from pytest_trainguard.probes.oom_probe import OomProbe
    from pytest_trainguard.probes.static_check import StaticCheck
    from pytest_trainguard.probes.tiny_overfit import TinyOverfit
    from pytest_trainguard.probes.training_queue import TrainingQueue


@pytest.fixture
def guard(trainer: object, request: pytest.FixtureRequest, tmp_path: Path) -> Guard:
    """Start runs of the trainer, disturbed or not; see `pytest_trainguard.Guard`."""
    from pytest_trainguard.probes.guard import Guard
    from pytest_trainguard.session.preflight import get_preflight
    from pytest_trainguard.session.verdicts import FRAMEWORK

    guard = Guard(get_preflight(request.config).find_subject(trainer), tmp_path)
    request.node.stash[FRAMEWORK] = lambda: guard.reference.framework
    return guard


@pytest.fixture
def kill_and_resume(guard: Guard) -> KillAndResume:
    """Kill the run in mid-training and start it again; see `KillAndResume`."""
    from pytest_trainguard.probes.kill_and_resume import KillAndResume

    return KillAndResume(guard)


@pytest.fixture
def nan_injection(guard: Guard) -> NanInjection:
    """Put NaN or infinity into a run; see `NanInjection`."""
    from pytest_trainguard.probes.nan_injection import NanInjection

    return NanInjection(guard)


@pytest.fixture
def oom_probe(guard: Guard, gpu_budget: GpuBudget) -> OomProbe:
    """Let GPU memory run out in a step; find out what fits; see `OomProbe`."""
    from pytest_trainguard.probes.oom_probe import OomProbe

    return OomProbe(guard, gpu_budget)


@pytest.fixture
def gpu_budget(guard: Guard, request: pytest.FixtureRequest) -> GpuBudget:
    """Hold the production settings against --gpu-budget; see `GpuBudget`."""
    from pytest_trainguard.probes.gpu_budget import GpuBudget
    from pytest_trainguard.session.preflight import get_preflight
    from pytest_trainguard.session.verdicts import MEMORY

    def note(report: dict[str, Any]) -> None:
        request.node.stash[MEMORY] = report

    drawn = request.config.option.trainguard_memory_timeline
    preflight = get_preflight(request.config)
    return GpuBudget(guard, preflight.gpu_limit, note, Path(drawn) if drawn else None, preflight.other_gpu_limits)


@pytest.fixture
def tiny_overfit(guard: Guard) -> TinyOverfit:
    """Have the trainer learn a few examples by heart; see `TinyOverfit`."""
    from pytest_trainguard.probes.tiny_overfit import TinyOverfit

    return TinyOverfit(guard)


@pytest.fixture
def close_look(guard: Guard) -> CloseLook:
    """Runs in which nothing is disturbed, looked at closely; see `CloseLook`."""
    from pytest_trainguard.probes.close_look import CloseLook

    return CloseLook(guard)


@pytest.fixture
def config_fuzz(guard: Guard, request: pytest.FixtureRequest) -> ConfigFuzz:
    """Try settings inside and outside their ranges; see `ConfigFuzz`."""
    from pytest_trainguard.probes.config_fuzz import ConfigFuzz

    return ConfigFuzz(guard, request.node.nodeid)


@pytest.fixture
def static_check(guard: Guard) -> StaticCheck:
    """Have the trainer's own source looked at by a type checker; see `StaticCheck`."""
    from pytest_trainguard.probes.static_check import StaticCheck

    return StaticCheck(guard)


@pytest.fixture
def training_queue(guard: Guard) -> TrainingQueue:
    """The trainer's queue, one turn of it at a time; see `TrainingQueue`."""
    from pytest_trainguard.probes.training_queue import TrainingQueue

    return TrainingQueue(guard)
