"""The loop: take in what has come, train the next, until there is nothing more or a signal ends it."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from trainers.common import files
from trainers.common.errors import Interrupted, TrainingFailed, reason, show
from trainers.common.lock import RunLock
from trainers.common.process import Run
from trainers.queue import opening, options, own, warm
from trainers.queue.layout import Layout
from trainers.queue.ledger import transient
from trainers.queue.starting import Start
from trainers.queue.stock import Queue, Stock
from trainers.queue.worker import Worker

SLEEP_SECONDS = 0.2
"""Longest sleep in one piece: a signal is answered after at most so long."""
QUIET_SECONDS = 60.0
"""After so long without trouble, trouble is a new one."""


def serve(run: Run, layout: Layout, *, once: bool) -> None:
    """Train what the queue holds.

    Args:
        run: its signals are deferred here: the trainer saves first.
        layout: of the queue.
        once: end as soon as everything that is there now has been trained or has failed.

    Raises:
        InputError: the settings are wrong, or another process trains in this queue.
        Interrupted: by a signal; the file that was being trained is back in its place.
        TrainingFailed: the disk stays full.
    """
    chosen = options.load(layout.root)
    options.require_program(chosen)
    own.check(chosen)
    # The warm server is forked first of all: nothing is open yet that it could hold on to.
    with warm.starter(own.preload(chosen), run.say, at_once=not once) as start:
        layout.make()
        with RunLock(layout.root, "queue folder") as lock, run.deferred_signals():
            if lock.taken_over:
                run.say(f"taking over from PID {lock.taken_over}, which has ended")
            _sessions(run, layout, start, once=once)
    if run.received is not None:
        raise Interrupted(run.received)


def _sessions(run: Run, layout: Layout, start: Start, *, once: bool) -> None:
    """Open the ledger as often as it takes: a full disk is waited for, a damaged ledger made again."""
    patience = max(options.load(layout.root).disk_wait_seconds, QUIET_SECONDS)
    deadline = time.monotonic() + patience
    while run.received is None:
        began = time.monotonic()
        trouble = _session(run, layout, start, once=once)
        if trouble is None:
            return
        if time.monotonic() - began > QUIET_SECONDS:  # it went well for a while: this trouble is a new one
            deadline = time.monotonic() + patience
        if time.monotonic() > deadline:
            raise TrainingFailed(f"{trouble}; given up after {patience:g} seconds, nothing is lost")
        run.say(trouble)
        sleep(run, 1.0)


def _session(run: Run, layout: Layout, start: Start, *, once: bool) -> str | None:
    """One life of the ledger. Returns what ended it too early: the disk is full, the ledger is gone or damaged."""
    try:
        with opening.opened(layout, run.say, daemon=True) as queue:
            return Loop(queue, run, start, once=once).run()
    except TrainingFailed as error:
        if error.kind != "disk_full":
            raise
        return str(error)
    except OSError as error:
        if error.errno not in files.NO_ROOM:
            raise
        return f"{show(layout.root)}: {reason(error)}"
    except sqlite3.DatabaseError as error:
        if transient(error) and "full" not in str(error):
            raise TrainingFailed(f"ledger {show(layout.ledger)}: {error}") from None
        return f"ledger {show(layout.ledger)}: {error}"


def sleep(run: Run, seconds: float) -> None:
    """Sleep, unless a signal comes."""
    deadline = time.monotonic() + seconds
    while run.received is None and (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, SLEEP_SECONDS))


class Loop:
    """The loop over one open ledger."""

    def __init__(self, queue: Queue, run: Run, start: Start, *, once: bool) -> None:
        """``start``: how a trainer is started. ``once``: end when what is there now is through."""
        self._queue = queue
        self._run = run
        self._once = once
        self._stock = Stock(queue)
        self._worker = Worker(queue, run, start)
        self._paused = False

    def run(self) -> str | None:
        """Until a signal or, once, until all is through: None. Or until the ledger is no longer there: that."""
        self._stock.agree()
        self._worker.recover()
        self._queue.journal.add("begins", "begins" + (", once" if self._once else ""))
        last = self._queue.ledger.last_seq()
        present = set(self._stock.waiting)
        patience = time.monotonic() + 2 * self._queue.chosen.unfinished_seconds
        while self._run.received is None:
            if not self._queue.ledger.is_there():
                return "the ledger was removed: it is made again"
            self._stock.take_in()
            last = max([last, *self._arrived(present)])
            paused = self._pausing()
            if self._once and (paused or self._through(last, present, patience)):
                return None
            if paused or not self._worker.step():
                sleep(self._run, self._queue.chosen.poll_seconds)
        self._queue.journal.add("ends", "ends")
        return None

    def _arrived(self, present: set[Path]) -> list[int]:
        """Numbers of the files that were not finished when we began, and are taken now."""
        taken = present - set(self._stock.waiting)
        present -= taken
        return [self._queue.ledger.last_seq()] if taken else []

    def _through(self, last: int, present: set[Path], patience: float) -> bool:
        """Whether all that was there at the beginning is through, but for files that are never finished."""
        if self._queue.ledger.waits_until(last):
            return False
        if not present or time.monotonic() > patience:
            for path, why in self._stock.waiting.items():
                self._queue.journal.add("left", f"{show(path.name)}: left in {path.parent.name}/: {why}")
            return True
        return False

    def _pausing(self) -> bool:
        paused = self._queue.layout.paused.exists()
        if paused != self._paused:
            self._paused = paused
            self._queue.journal.add("paused" if paused else "resumed", "paused" if paused else "goes on")
        return paused
