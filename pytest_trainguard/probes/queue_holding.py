"""Doing something to a queue's files at the very moment when somebody wants to open one of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil

from pytest_trainguard.launch.watch import Held, Leases, Watch
from pytest_trainguard.recorder.timeline import Recording
from pytest_trainguard.subject.started import StartedRun

HOLD_LIMIT = 40.0  # seconds that a file is held at the most; the kernel breaks a lease after 45
Meanwhile = Callable[[Held, list[Held]], None]
Disturb = Callable[[StartedRun, Watch], bool]  # whether it did what it was to do


def leave_alone(started: StartedRun, watch: Watch) -> bool:
    """Do nothing."""
    return False


def while_held(leases: Leases, meanwhile: Meanwhile, only_in: Path | None) -> Disturb:
    """Wait until somebody wants to open a leased file, and do it then; not where the command ends before.

    Args:
        leases: of the files that wait; they are given back at the end.
        meanwhile: what is to be done, with that file and with those that nobody has opened yet.
        only_in: not before that file is in this folder.
    """

    def disturb(started: StartedRun, watch: Watch) -> bool:
        try:
            return _do_while_held(started, watch, leases, meanwhile, only_in)
        finally:
            leases.close()

    return disturb


def _do_while_held(
    started: StartedRun, watch: Watch, leases: Leases, meanwhile: Meanwhile, only_in: Path | None
) -> bool:
    until = time.monotonic() + HOLD_LIMIT
    again: set[Path] = set()
    while time.monotonic() < until and psutil.pid_exists(started.pid):
        if any(path.exists() and watch.unseen(partial(leases.take, path)) for path in again):
            again = set()
        held = leases.wanted()
        if held is None:
            time.sleep(0.001)
            continue
        if only_in is None or held.path.parent == only_in.resolve():
            meanwhile(held, leases.others(held))
            return True
        leases.give_back(held)
        again = {held.path, only_in / held.path.name}
    return False


def while_training(release: Path, limit: float, meanwhile: Callable[[], None]) -> Disturb:
    """Wait until a training stands still in torch (`faults.pause`), do it, and let it go on by making a file."""

    def disturb(started: StartedRun, watch: Watch) -> bool:
        until = time.monotonic() + limit
        try:
            while not any(recording.fault_fired for recording in Recording.read_all(started.folder)):
                if time.monotonic() > until or not psutil.pid_exists(started.pid):
                    return False
                time.sleep(0.02)
            meanwhile()
            return True
        finally:
            release.touch()

    return disturb
