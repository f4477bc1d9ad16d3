"""Which cases would not apply to a trainer, and the line each that would change that.

Every case is begun, as in a preflight, with a trainer of which no run is started any more: what it says before it asks
for one is what it would say there. What only a disturbed run shows is not found this way.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_trainguard.catalog import EdgeCase
from pytest_trainguard.memory.replay.budget import Limit
from pytest_trainguard.probes.config_fuzz import ConfigFuzz
from pytest_trainguard.probes.gpu_budget import GpuBudget
from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.probes.kill_and_resume import KillAndResume
from pytest_trainguard.probes.nan_injection import NanInjection
from pytest_trainguard.probes.oom_probe import OomProbe
from pytest_trainguard.probes.tiny_overfit import TinyOverfit
from pytest_trainguard.probes.training_queue import TrainingQueue
from pytest_trainguard.subject.subject import Subject
from pytest_trainguard.verdicts.errors import NotApplicable
from pytest_trainguard.verdicts.gathering import gathering


@dataclass(frozen=True)
class DoesNotApply:
    """A case that says nothing of a trainer.

    Attributes:
        case: which.
        reason: why, and what to add.
    """

    case: EdgeCase
    reason: str


def list_not_applicable(
    subject: Subject, folder: Path, cases: dict[EdgeCase, Callable[..., Any]], limit: Limit | None = None
) -> list[DoesNotApply]:
    """The cases that would not apply. The trainer is sealed for it, and stays so.

    Args:
        subject: a trainer whose undisturbed runs were made.
        folder: an empty one, for what cases put down.
        cases: with their tests.
        limit: of GPU memory, where there is one.
    """
    subject.sealed = True
    return list(_begin_all(subject, folder, cases, limit))


def _begin_all(
    subject: Subject, folder: Path, cases: dict[EdgeCase, Callable[..., Any]], limit: Limit | None
) -> Iterator[DoesNotApply]:
    for case, test in cases.items():
        own = folder / case.slug
        own.mkdir()
        wanted = list(inspect.signature(test).parameters)
        if "static_check" in wanted:
            continue  # it reads sources, and starts nothing that could be refused
        try:
            with gathering():
                test(**_make_fixtures(wanted, Guard(subject, own), limit))
        except NotApplicable as reason:
            yield DoesNotApply(case, str(reason))
        except Exception:  # it applies: it wanted a run, or it found something without one
            continue


def _make_fixtures(wanted: list[str], guard: Guard, limit: Limit | None) -> dict[str, object]:
    """What a case's test is given, by name; see `probes.fixtures`."""
    budget = GpuBudget(guard, limit, lambda report: None, None)
    made: dict[str, Callable[[], object]] = {
        "guard": lambda: guard,
        "gpu_budget": lambda: budget,
        "oom_probe": lambda: OomProbe(guard, budget),
        "kill_and_resume": lambda: KillAndResume(guard),
        "nan_injection": lambda: NanInjection(guard),
        "tiny_overfit": lambda: TinyOverfit(guard),
        "config_fuzz": lambda: ConfigFuzz(guard, guard.folder.name),
        "training_queue": lambda: TrainingQueue(guard),
    }
    return {name: made[name]() for name in wanted}
