"""Opening a queue: its folders, its settings, its ledger; a lost or damaged ledger is made again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from filelock import FileLock

from trainers.common import lock
from trainers.common.errors import InputError, show
from trainers.queue import ledger as ledgers
from trainers.queue import options
from trainers.queue.journal import Journal
from trainers.queue.layout import Layout
from trainers.queue.ledger import Damaged, Ledger
from trainers.queue.reports import Reports
from trainers.queue.stock import Queue, Stock

LOCK = ".ledger.lock"
"""Held while the ledger is opened, so that it is made, or set aside, by one process only."""


@contextlib.contextmanager
def opened(layout: Layout, say: Callable[[str], None], *, daemon: bool = False) -> Iterator[Queue]:
    """An open queue.

    Args:
        layout: of the queue; folders that are missing are made.
        say: is told what people should see.
        daemon: whether this process is the one that trains. It looks at the whole ledger.

    Raises:
        InputError: the settings are wrong; or the ledger is damaged while another process trains.
    """
    chosen = options.load(layout.root)
    layout.make()
    journal = Journal(layout.log, say)
    with FileLock(layout.root / LOCK):
        ledger, fresh = _open(layout, journal, daemon=daemon)
        queue = Queue(layout, chosen, ledger, Reports(layout), journal)
        try:
            if fresh:
                rebuild(queue)
        except BaseException:
            ledger.close()
            raise
    with ledger:
        yield queue


def _open(layout: Layout, journal: Journal, *, daemon: bool) -> tuple[Ledger, bool]:
    """The ledger, and whether it knows nothing yet."""
    try:
        ledger = Ledger(layout.ledger)
        if not ledger.made or daemon:
            _verified(ledger)
        return ledger, ledger.made
    except Damaged as damage:
        pid = lock.holder(layout.root)
        if pid is not None and not daemon:
            message = f"ledger {show(layout.ledger)} is damaged ({damage}); the queue with PID {pid} mends it"
            raise InputError(message) from None
        aside = ledgers.set_aside(layout.ledger)
        line = f"the ledger was damaged ({damage}): it is kept as {aside.name}, and made again from the folders"
        journal.add("ledger_damaged", line, kept=aside.name)
        return Ledger(layout.ledger), True


def _verified(ledger: Ledger) -> None:
    try:
        ledger.verify()
    except BaseException:
        ledger.close()
        raise


def rebuild(queue: Queue) -> None:
    """Fill an empty ledger from folders and reports."""
    Stock(queue).agree()
    missing = [report for report in queue.reports.all() if queue.ledger.owner(report["hash"]) is None]
    with queue.ledger.transaction():
        for report in missing:
            state = "done" if report["state"] == "done" else "missing"
            queue.ledger.add_gone(report, state)
    rows = queue.ledger.last_seq()
    if rows:
        queue.journal.add("ledger_made", f"the ledger is made from the folders: {rows} files", files=rows)
