"""What the harness makes of a trainer, from undisturbed runs: its roles, its saves, its epochs, its resuming."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_trainguard.catalog import EdgeCase
from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.launch.protocol import RUN_STEPS
from pytest_trainguard.memory.replay.budget import Limit
from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.setup.applies import DoesNotApply, list_not_applicable
from pytest_trainguard.setup.roles import Roles, find_roles
from pytest_trainguard.subject.subject import Subject
from pytest_trainguard.verdicts.errors import CannotJudge, Finding, NotApplicable
from pytest_trainguard.verdicts.gathering import gathering
from pytest_trainguard.verdicts.kinds import recovers

RUNS_A_CASE = 4  # 157 in 43 cases that apply, of a small program; 300 in 80
START = 0.1  # seconds that a run takes beside the program's own time


@dataclass(frozen=True)
class Diagnosis:
    """What was found of one trainer.

    Attributes:
        name: the trainer's.
        framework: what it trains with.
        told: how it is given its settings; empty of a class.
        works_in_output: whether it is started in its output folder, which its command does not name.
        reference: its undisturbed run.
        rows: of the piece of data that a run gets; None where it has no data.
        roles: what its settings do.
        saves: the steps after which it saved.
        files: what it saved, from its output folder.
        epoch: optimizer steps of an epoch; None where it does not count epochs.
        stated: whether the table says that number itself.
        repeats: why it does not repeat itself; empty where it does.
        resumes: why it cannot resume; empty where it can.
        parts: where a resumed run parts from the undisturbed one; empty where it is exact.
        lacking: the cases that would not apply.
        cases: how many there are.
        seconds: that a preflight will take, roughly.
    """

    name: str
    framework: str
    told: str
    works_in_output: bool
    reference: Outcome
    rows: int | None
    roles: Roles
    saves: tuple[int, ...]
    files: tuple[str, ...]
    epoch: int | None
    stated: bool
    repeats: str
    resumes: str
    parts: str
    lacking: tuple[DoesNotApply, ...]
    cases: int
    seconds: float


def diagnose(
    subject: Subject, folder: Path, cases: dict[EdgeCase, Callable[..., Any]], limit: Limit | None = None
) -> Diagnosis:
    """Make a trainer's undisturbed runs, and say what follows from them. No more runs are started of it then.

    Args:
        subject: the trainer.
        folder: an empty one.
        cases: of the catalogue, with their tests.
        limit: of GPU memory, where there is one.

    Raises:
        CannotJudge: it cannot be loaded, or its undisturbed run fails.
    """
    own = folder / "doctor"
    own.mkdir(parents=True)
    guard = Guard(subject, own)
    reference = guard.reference.outcome
    repeats = _why(guard.needs.repeatable_run)
    resumes, parts = _try_to_resume(guard) if not repeats else (repeats, "")
    roles = find_roles(guard)
    found = subject.find_checkpoints(reference.output_dir)
    lacking = list_not_applicable(subject, folder, cases, limit)
    applying = len(cases) - len(lacking)
    second = guard.reference.second_outcome
    epoch, stated = _find_epoch(subject)
    return Diagnosis(
        name=subject.name,
        framework=guard.reference.framework,
        told=subject.server.settings_told,
        works_in_output=subject.works_in_output,
        reference=reference,
        rows=None if subject.data is None else subject.description.rows,
        roles=roles,
        saves=guard.reference.saves,
        files=tuple(os.path.relpath(path, reference.output_dir) for path in found),
        epoch=epoch,
        stated=stated,
        repeats=repeats,
        resumes=resumes,
        parts=parts,
        lacking=tuple(lacking),
        cases=len(cases),
        seconds=RUNS_A_CASE * applying * (second.seconds + START),
    )


def _why(look: Callable[[], object]) -> str:
    """Why something is not so, in the first line of what is raised; empty where it is."""
    try:
        look()
    except (NotApplicable, CannotJudge) as reason:
        return str(reason).splitlines()[0]
    return ""


def _try_to_resume(guard: Guard) -> tuple[str, str]:
    """Why it cannot resume, and where it parts from the undisturbed run where it does; empty for neither.

    The run that it is to carry on from is ended by SIGKILL in its last step: so it leaves what a run leaves that was
    not finished.
    """
    if not guard.subject.description.resumes:
        return "its command names nothing to resume from: {resume_from}, or resume = ...", ""
    try:
        reference = guard.checkpoints.require_resume()
        killed = guard.checkpoints.killed_late()
        did = "ended in its last step, then started again to resume"
        again = guard.run(did, output_dir=guard.copy(killed.output_dir), resume=True)
        with gathering():
            recovers(again, reference)
    except (NotApplicable, CannotJudge) as reason:
        return str(reason).splitlines()[0], ""
    except Finding as finding:
        return "", finding.problems[0].said.splitlines()[0]
    return "", ""


def _find_epoch(subject: Subject) -> tuple[int | None, bool]:
    """The optimizer steps of an epoch, where the command counts epochs, and whether its table says them."""
    spec, given = subject.spec, subject.server.spec
    if isinstance(spec, str) or "steps_per_epoch" not in spec:
        return None, False
    steps = spec["steps_per_epoch"]
    assert isinstance(steps, int)
    return steps, not isinstance(given, str) and "steps_per_epoch" in given


def fits_an_epoch(epoch: int) -> bool:
    """Whether runs of the usual number of steps end with an epoch of so many."""
    return epoch <= RUN_STEPS and RUN_STEPS % epoch == 0
