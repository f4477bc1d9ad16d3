"""A file's moves once it is taken in: its turn, its end, back to its place. Each is one rename in one transaction."""

from __future__ import annotations

import time
from typing import Any

from trainers.common.errors import show
from trainers.queue import turns
from trainers.queue.layout import DONE, FAILED, PRIORITIES, PROCESSING
from trainers.queue.ledger import Row
from trainers.queue.steps import Step, reached
from trainers.queue.stock import Queue, forgiven, new_report, note_attempts, note_missing

TARGETS = {"done": DONE, "failed": FAILED}


def next_row(queue: Queue) -> Row | None:
    """The file whose turn it is; nothing is changed."""
    return _choose(queue)[0]


def _choose(queue: Queue) -> tuple[Row | None, dict[str, int]]:
    now, longest = time.time(), queue.chosen.backoff_max
    heads = {priority: queue.ledger.head(priority, now, longest) for priority in PRIORITIES}
    waiting = [priority for priority, row in heads.items() if row is not None]
    passed = queue.ledger.passed_over()
    chosen = turns.choose(waiting, passed, queue.chosen.starvation_bound)
    return (heads[chosen], turns.after(chosen, waiting, passed)) if chosen else (None, passed)


def claim(queue: Queue) -> Row | None:
    """Move the file whose turn it is into ``processing/``; None where none waits."""
    while True:
        with queue.ledger.transaction():
            row, passed = _choose(queue)
            if row is None:
                return None
            try:
                file = queue.layout.move(*row.place, PROCESSING, row.name, row.hash)
            except FileNotFoundError:
                note_missing(queue, row)
                continue
            reached(Step.CLAIMED)
            queue.ledger.change(row.seq, state="processing", folder=PROCESSING, file=file, reason="", retry_at=None)
            queue.ledger.pass_over(passed)
        reached(Step.CLAIM_NOTED)
        return queue.ledger.number(row.seq)


def put_back(queue: Queue, row: Row, why: str) -> None:
    """Back to its place in its priority, with nothing changed."""
    _settle(queue, row, row.priority, {"state": "queued", "reason": why, "retry_at": None})


def apply(queue: Queue, row: Row, report: dict[str, Any]) -> None:
    """Do what a report says."""
    values = {
        "state": report["state"], "reason": report["reason"], "retry_at": report["retry_at"],
        "done_number": report["done_number"], "attempts": len(report["attempts"]),
    }  # fmt: skip
    _settle(queue, row, TARGETS.get(report["state"], row.priority), values, report)


def _settle(queue: Queue, row: Row, target: str, values: dict[str, Any], report: dict[str, Any] | None = None) -> None:
    with queue.ledger.transaction():
        try:
            file = queue.layout.move(*row.place, target, row.name, row.hash)
        except FileNotFoundError:
            values["reason"] = f"{values['reason']}; its file was removed from {PROCESSING}/ meanwhile".lstrip("; ")
            values["state"] = "done" if values["state"] == "done" else "missing"
            queue.ledger.change(row.seq, folder=None, file=None, **values)
        else:
            reached(Step.MOVED)
            queue.ledger.change(row.seq, folder=target, file=file, **values)
        if report is not None and row.hash is not None:
            note_attempts(queue.ledger, row.hash, report)
    reached(Step.SETTLED)
    line = f"{show(row.name)}: {values['state']}" + (f": {values['reason']}" if values["reason"] else "")
    queue.journal.add(values["state"], line, file=row.name, hash=row.hash)


def set_duplicate(queue: Queue, row: Row) -> None:
    """A file in ``processing/`` that turned out to be of the same content as another one."""
    _settle(queue, row, DONE, {"state": "duplicate", "reason": row.reason})


# ---- what people ask for


def retry(queue: Queue, row: Row) -> None:
    """Put a failed file back into its priority, last, to be tried as if it were new.

    Raises:
        FileNotFoundError: it is gone.
    """
    with queue.ledger.transaction():
        report = queue.reports.read(row.digest) or new_report(row)
        queue.reports.write(row.digest, forgiven(report))
        file = queue.layout.move(*row.place, row.priority, row.name, row.hash)
        queue.ledger.change(
            row.seq, state="queued", folder=row.priority, file=file, reason="to be tried again", retry_at=None,
            position=queue.ledger.last_position() + 1,
        )  # fmt: skip
    queue.journal.add("retry", file=row.name, hash=row.hash)


def reprioritise(queue: Queue, row: Row, priority: str) -> None:
    """Move a waiting file to another priority, last.

    Raises:
        FileNotFoundError: it is gone.
    """
    with queue.ledger.transaction():
        file = queue.layout.move(*row.place, priority, row.name, row.hash)
        queue.ledger.change(
            row.seq, folder=priority, file=file, priority=priority, position=queue.ledger.last_position() + 1
        )
    queue.journal.add("reprioritised", file=row.name, hash=row.hash, priority=priority)
