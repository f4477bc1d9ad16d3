"""Cases 41 to 50: the process and the system around it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from pytest_trainguard import CannotJudge, Finding, Guard, NotApplicable, edge_case, faults, recovers, rejects, survives
from pytest_trainguard.faults import power
from pytest_trainguard.probes.disaster import KillAndResume
from pytest_trainguard.subject import SAVE_EVERY, Started

WORKERS_GRACE = 9.0  # seconds; torch's loader workers look every 5 s whether their parent still lives
HELD_LIMIT = 30.0  # seconds until a run must have come to the step it is held in


@edge_case(
    41,
    "killed",
    verdict="recovers",
    severity="critical",
    brought_about="SIGKILL at a random step",
    expects="recovers: a second start carries on, its losses those of an undisturbed run",
    fast=True,
)
def test_41_killed(kill_and_resume: KillAndResume) -> None:
    """A preempted machine, the out-of-memory killer: no handler runs, nothing is flushed."""
    kill_and_resume().check()


@edge_case(
    42,
    "power loss",
    verdict="recovers",
    severity="critical",
    brought_about="SIGKILL in the middle of a save and right after it; what was not fsynced is lost",
    expects="recovers from the last durable checkpoint",
)
def test_42_power_loss(kill_and_resume: KillAndResume, guard: Guard) -> None:
    """A rename without an fsync leaves a file of length zero under the final name (ext4, XFS)."""
    reference = guard.needs_checkpoints()
    saved = guard.first_save() + SAVE_EVERY  # the second save: there is one to go back to
    writes = guard.writes(saved)
    if not writes:
        raise NotApplicable(f"no write to the output folder is seen after step {saved}")
    after, middle = guard.run_all(
        [kill_and_resume.killed_in(saved + 1), kill_and_resume.killed_in_save(saved, nth=max(1, writes // 2))]
    )
    states = [(after, state) for state in power.STATES] + [(middle, "empty"), (middle, "unnamed")]
    again = guard.run_all([kill_and_resume.after_power_loss(killed, state) for killed, state in states])
    for outcome in again:
        recovers(outcome, reference)


@edge_case(
    46,
    "no permission",
    verdict="rejects",
    severity="major",
    brought_about="an output folder that may not be written to, data that may not be read, as an ordinary user",
    expects="rejects before the first step, naming the folder or the file",
)
def test_46_no_permission(guard: Guard) -> None:
    """The folder of the results belonged to the colleague who had made it; that came out at the first save."""
    folder = guard.folder / "not-writable"
    folder.mkdir(mode=0o555)
    rejects(
        guard.run("given an output folder that it may not write to", output_dir=folder, ordinary_user=True),
        str(folder),
    )
    if guard.subject.data is None:
        return
    data = guard.folder / "not-readable" / guard.data().name
    shutil.copytree(guard.data(), data) if guard.data().is_dir() else _copy(guard.data(), data)
    mode = data.stat().st_mode
    data.chmod(0)
    try:
        rejects(guard.run("given data that it may not read", data=data, ordinary_user=True), data.name)
    finally:
        data.chmod(mode)  # so that it can be removed


def _copy(file: Path, to: Path) -> None:
    to.parent.mkdir()
    shutil.copy(file, to)


@edge_case(
    48,
    "two instances",
    verdict="rejects",
    severity="critical",
    brought_about="a second start on the same output folder; then a lock left by a killed run",
    expects="the second start rejects, naming the PID of the first; a stale lock is taken over",
)
def test_48_two_instances(guard: Guard) -> None:
    """Two jobs of one queue wrote their checkpoints over each other for a weekend."""
    reference = guard.reference()
    release = guard.folder / "release"
    first = guard.start("held in step 3 while a second start came", fault=faults.pause(3, release))
    try:
        _wait_until_held(first)
        folder = first.output_dir
        second = guard.run(f"started on the output folder of a running process (PID {first.pid})", output_dir=folder)
        rejects(second, str(first.pid))
    finally:
        release.touch()
        outcome = first.outcome()
    survives(outcome, steps=len(reference.losses))
    killed = guard.run("sent SIGKILL in step 3", fault=faults.kill(3))
    again = guard.run("started again on the output folder of a killed run, its lock still there",
                      output_dir=killed.output_dir, resume=guard.recoverable)  # fmt: skip
    survives(again)


def _wait_until_held(started: Started) -> None:
    until = time.monotonic() + HELD_LIMIT
    while not started.recording.fault_fired:
        if time.monotonic() > until:
            raise CannotJudge("the first run did not come to the step that it was to be held in")
        time.sleep(0.01)


@edge_case(
    49,
    "zombies",
    verdict="survives/stops",
    severity="major",
    brought_about="the run ends, fails, or is killed with loader workers alive",
    expects="no process is left, alive or defunct",
)
def test_49_zombies(guard: Guard) -> None:
    """Loader workers of dead runs held the GPU's memory until somebody logged in and killed them."""
    workers = guard.subject.role("workers")
    settings = {workers.path: 2} if workers else {}
    ways = {
        "ended": None,
        "failed": faults.raises(ValueError, "forward", 4),
        "was killed": faults.kill(4),
    }
    outcomes = guard.run_all(
        [
            {
                "did": f"run with loader workers; it {way}",
                "fault": fault,
                "settings": settings,
                "grace": WORKERS_GRACE,
            }
            for way, fault in ways.items()
        ],
        side_by_side=3,
    )
    if not any(step.children for outcome in outcomes for step in outcome.recording.steps):
        raise NotApplicable('no worker process is ever seen: name the setting, fields = {"workers": "..."}')
    for outcome in outcomes:
        if outcome.leftovers:
            shown = ", ".join(f"PID {left.pid} ({left.status}): {left.command}" for left in outcome.leftovers)
            raise Finding(outcome.did, f"{len(outcome.leftovers)} processes were left: {shown}", outcome.last_words)
