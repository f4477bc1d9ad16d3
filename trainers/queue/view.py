"""What the queue looks like: `status` as JSON or as text, `list`. Names are shown without control characters."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from trainers.common import lock, status
from trainers.common.errors import show
from trainers.queue import entries, journal, moves
from trainers.queue.layout import FOLDERS, INBOX, PRIORITIES, identity
from trainers.queue.ledger import Row
from trainers.queue.stock import Queue

EVENTS = 8
"""So many of the last events stand in the text."""


def as_json(queue: Queue) -> dict[str, Any]:
    """Everything: how many files are in each folder and state, each file, and the process that trains."""
    rows, recoveries = queue.ledger.rows(), queue.ledger.recoveries()
    known = [described(row, recoveries.get(row.hash or "", [])) for row in rows]
    return {**summary(queue), "files": known + [_untaken(*place) for place in untaken(queue)]}


def summary(queue: Queue) -> dict[str, Any]:
    """The same without the files: the ledger knows how many are done, only what waits is looked at."""
    counts = queue.ledger.counts("folder")
    for folder in (INBOX, *PRIORITIES):
        counts[folder] = len(os.listdir(queue.layout.folder(folder)))
    return {
        "root": str(queue.layout.root),
        "counts": {folder: counts[folder] for folder in FOLDERS},
        "states": queue.ledger.counts("state"),
        "daemon": daemon(queue),
    }


def daemon(queue: Queue) -> dict[str, Any]:
    """The process that trains: whether it runs, and on what it is at work."""
    pid = lock.holder(queue.layout.root)
    return {
        "running": pid is not None,
        "pid": pid or None,
        "paused": queue.layout.paused.exists(),
        "current": current(queue) if pid is not None else None,
    }


def current(queue: Queue) -> dict[str, Any] | None:
    """The file that is being trained, and how far its trainer says that it is."""
    for row in queue.ledger.in_state("processing"):
        last = queue.reports.last(row.hash) if row.hash else None
        beat = status.read_heartbeat(last.folder) if last else None
        return {
            "name": row.name, "priority": row.priority, "attempt": last.number if last else None,
            "step": beat.step if beat else None, "stage": beat.stage if beat else None,
        }  # fmt: skip
    return None


def described(row: Row, recoveries: list[str]) -> dict[str, Any]:
    """One file, for JSON, with what was recovered from while it was trained."""
    trains = row.hash is not None and row.state not in ("duplicate", "rejected")
    return {
        "name": row.name, "state": row.state, "folder": row.folder, "file": row.file, "priority": row.priority,
        "attempts": row.attempts, "reason": row.reason, "hash": row.hash,
        "run": f"runs/{identity(row.digest)}" if trains else None, "recoveries": recoveries if trains else [],
    }  # fmt: skip


def untaken(queue: Queue) -> list[tuple[str, str]]:
    """Folder and name of what was put in and is not taken in yet."""
    found = []
    for folder in (INBOX, *PRIORITIES):
        names = set(os.listdir(queue.layout.folder(folder)))
        found += [(folder, name) for name in sorted(names - queue.ledger.names_in(folder))]
    return found


def _untaken(folder: str, name: str) -> dict[str, Any]:
    why = "not taken in yet"
    if entries.half_named(name):
        why = "its name says that it is not finished: it is taken when it is renamed"
    return {
        "name": name, "state": "inbox", "folder": folder, "file": name,
        "priority": folder if folder in PRIORITIES else "normal",
        "attempts": 0, "reason": why, "hash": None, "run": None, "recoveries": [],
    }  # fmt: skip


def as_text(queue: Queue) -> str:
    """A screen for people; its length does not grow with the files."""
    told = summary(queue)
    lines = [f"queue {show(queue.layout.root)}: {_daemon_line(told['daemon'])}"]
    lines.append("  ".join(f"{folder} {count}" for folder, count in told["counts"].items()))
    others = {state: told["states"][state] for state in ("rejected", "duplicate", "missing") if told["states"][state]}
    if others:
        lines.append("of these  " + "  ".join(f"{state} {count}" for state, count in others.items()))
    following = moves.next_row(queue)
    if following is not None:
        lines.append(f"next      {show(following.name)} ({following.priority})")
    failed = queue.ledger.newest("failed", 5)
    lines += [f"failed    {show(row.name)}: {one_line(row.reason)}" for row in failed]
    return "\n".join([*lines, *_events(queue.layout.log)])


def _daemon_line(daemon: dict[str, Any]) -> str:
    if not daemon["running"]:
        line = "nothing runs"
    elif (now := daemon["current"]) is None:
        line = f"PID {daemon['pid']} waits for files"
    else:
        at = f", step {now['step']}, {one_line(str(now['stage']))}" if now["step"] is not None else ""
        line = f"PID {daemon['pid']} trains {show(now['name'])}, attempt {now['attempt']}{at}"
    return line + (", paused" if daemon["paused"] else "")


def _events(log: Path) -> list[str]:
    events = [event for event in journal.last_lines(log, 4 * EVENTS) if event.get("message")]
    return [f"{event.get('time', '')}  {one_line(str(event['message']))}" for event in events[-EVENTS:]]


def as_list(queue: Queue) -> str:
    """Every file: those that wait in the order of their priorities, then the others; one line each."""
    waiting = [row for priority in PRIORITIES for row in queue.ledger.in_order(priority)]
    others = [row for row in queue.ledger.rows() if row.state != "queued"]
    lines = [_line(row) for row in (*waiting, *others)]
    lines += [f"{'inbox':<10} {folder:<10} {show(name)}" for folder, name in untaken(queue)]
    return "\n".join(lines) or "nothing was ever put in"


def _line(row: Row) -> str:
    pause = row.retry_at - time.time() if row.retry_at and row.state == "queued" else 0
    why = one_line(row.reason) + (f" (again in {pause:.0f} s)" if pause > 0 else "")
    where = row.priority if row.state == "queued" else row.folder or "-"
    return f"{row.state:<10} {where:<10} {show(row.name)}" + (f"  {why}" if why else "")


def one_line(text: str) -> str:
    """Text from files as it may stand on a terminal."""
    return show(text) if text else ""
