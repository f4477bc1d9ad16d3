"""Ledger and folders are made to agree: what was put in, what was moved by hand, what a crash left half done."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from trainers.common import files
from trainers.common.errors import reason, show
from trainers.queue import entries, reports
from trainers.queue.journal import Journal
from trainers.queue.layout import DONE, FAILED, INBOX, PRIORITIES, PROCESSING, Layout, identity
from trainers.queue.ledger import Ledger, Row
from trainers.queue.options import QueueSettings
from trainers.queue.steps import Step, reached

BATCH = 200
"""Files that are taken in together: one wait for the disk."""
DEFAULT_PRIORITY = "normal"


@dataclass
class Queue:
    """An open queue: everything that its parts share."""

    layout: Layout
    chosen: QueueSettings
    ledger: Ledger
    reports: reports.Reports
    journal: Journal


class Found(NamedTuple):
    """An entry that the ledger does not know.

    Attributes:
        folder: where it is.
        file: its name there.
        digest: SHA-256 of its content; None: it is no training file,
        reason: and this is why.
    """

    folder: str
    file: str
    digest: str | None
    reason: str = ""


class Stock:
    """Looks into the folders, and makes the ledger agree."""

    def __init__(self, queue: Queue) -> None:
        """``queue``: an open one."""
        self._queue = queue
        self._layout = queue.layout
        self._ledger = queue.ledger
        self._settling = entries.Settling(queue.chosen.settle_seconds, queue.chosen.unfinished_seconds)
        self._starting = False
        self.waiting: dict[Path, str] = {}
        """Files that are not taken yet, and why, as of the last look."""

    def take_in(self) -> None:
        """Take what anybody has put into the inbox or the priority folders; note what has gone."""
        self.waiting = {}
        self._layout.make()  # somebody may have removed a folder that was empty
        for folder in (INBOX, *PRIORITIES, PROCESSING):  # nothing is being trained now
            self._take(folder, self._strangers(folder))
        for folder in PRIORITIES:
            self._note_gone(folder)
        self._settling.forget(set(self.waiting))

    def take_one(self, folder: str, file: str) -> None:
        """Take one file that is known to be finished, unless that has been done meanwhile."""
        if self._ledger.at(folder, file) is None:
            self._take(folder, [file], finished=True)

    def agree(self) -> None:
        """At a start: every folder, those first that say the most."""
        self._starting = True
        for folder in (DONE, FAILED, PROCESSING):
            self._take(folder, self._strangers(folder), finished=True)
        self._starting = False
        self.take_in()
        for folder in (DONE, FAILED):
            self._note_gone(folder)

    def _strangers(self, folder: str) -> list[str]:
        present = set(os.listdir(self._layout.folder(folder)))
        return sorted(present - self._ledger.names_in(folder), key=os.fsencode)

    def _take(self, folder: str, names: Iterable[str], *, finished: bool = False) -> None:
        for batch in _batches(self._looked_at(folder, names, finished=finished)):
            reached(Step.HASHED)
            with self._ledger.transaction():
                told = [told for found in batch if (told := self._place(found))]
                self._layout.sync(folder, *PRIORITIES, DONE, FAILED)
                reached(Step.TAKEN)
            reached(Step.NOTED)
            for event, line, name in told:
                self._queue.journal.add(event, line, file=name)

    def _looked_at(self, folder: str, names: Iterable[str], *, finished: bool) -> Iterator[Found]:
        for name in names:
            path = self._layout.path(folder, name)
            try:
                found = self._look(folder, name, path, finished=finished)
            except FileNotFoundError:  # taken away again
                continue
            except OSError as error:
                self.waiting[path] = f"cannot be read: {reason(error)}"
                continue
            if found is not None:
                yield found

    def _look(self, folder: str, name: str, path: Path, *, finished: bool) -> Found | None:
        if not finished and entries.half_named(name):
            self.waiting[path] = self._settling.waits(path) or ""
            return None
        why = entries.foreign(path, self._queue.chosen.suffixes)
        if why is not None:
            return Found(folder, name, None, why)
        waits = None if finished else self._settling.waits(path)
        if waits is None:
            before = entries.signature(path)
            digest = files.sha256(path)
            if finished or entries.signature(path) == before:
                return Found(folder, name, digest)
            waits = "changed while it was read"
        self.waiting[path] = waits
        return None

    # ---- one entry, inside a transaction; what people are told of it

    def _place(self, found: Found) -> tuple[str, str, str] | None:
        try:
            if self._ledger.at(found.folder, found.file) is not None:  # by a command, since we looked
                return None
            if found.digest is None:
                return self._reject(found)
            owner = self._ledger.owner(found.digest)
            if owner is None:
                return self._newcomer(found)
            if self._is_there(owner):
                return self._duplicate(found, owner)
            return self._returned(found, owner)
        except FileNotFoundError:
            return None
        except OSError as error:
            self.waiting[self._layout.path(found.folder, found.file)] = f"cannot be moved: {reason(error)}"
            return None

    def _is_there(self, row: Row) -> bool:
        return (
            row.folder is not None and row.file is not None and os.path.lexists(self._layout.path(row.folder, row.file))
        )

    def _move(self, found: Found, target: str) -> str:
        return self._layout.move(found.folder, found.file, target, found.file, found.digest, sync=False)

    def _reject(self, found: Found) -> tuple[str, str, str]:
        target = DONE if found.folder == DONE else FAILED
        file = self._move(found, target)
        self._ledger.add(found.file, target, file, "rejected", DEFAULT_PRIORITY, reason=found.reason)
        return "rejected", f"{show(found.file)}: rejected: {found.reason}", found.file

    def _duplicate(self, found: Found, owner: Row) -> tuple[str, str, str]:
        state = "trained" if owner.state == "done" else owner.state
        why = f"same content as {show(owner.name)}, which was {state} already"
        why += f" ({owner.reason}); retry tries it again" if owner.state == "failed" else ""
        target = found.folder if found.folder in (DONE, FAILED) else FAILED if owner.state == "failed" else DONE
        file = self._move(found, target)
        self._ledger.add(
            found.file, target, file, "duplicate", owner.priority, hash=found.digest, reason=why,
        )  # fmt: skip
        return "duplicate", f"{show(found.file)}: not trained: {why}", found.file

    def _newcomer(self, found: Found) -> tuple[str, str, str]:
        """A file of content that the ledger has never seen; the reports may have."""
        assert found.digest is not None
        report = self._queue.reports.read(found.digest)
        target, state = self._belongs(found, report, _priority_in(report))
        values = self._values(found, report, target, state)
        values["name"] = report.get("name", found.file) if found.folder in (DONE, FAILED, PROCESSING) else found.file
        file = self._move(found, target)
        self._ledger.add(folder=target, file=file, state=state, hash=found.digest, **values)
        note_attempts(self._ledger, found.digest, report)
        return "taken", f"{show(found.file)}: {_at(state, target)}", found.file

    def _returned(self, found: Found, owner: Row) -> tuple[str, str, str]:
        """The file of a row whose place is empty: moved by hand, or by a step that a crash cut off."""
        assert found.digest is not None
        report = self._queue.reports.read(found.digest)
        if owner.state == "done":
            report = {**report, "state": "done", "reason": report.get("reason") or owner.reason}
        target, state = self._belongs(found, report, owner.priority)
        values = self._values(found, report, target, state)
        if values["priority"] != owner.priority and state == "queued":
            values["position"] = self._ledger.last_position() + 1
        if target not in PRIORITIES:
            values["priority"] = owner.priority
        if found.file != owner.file:
            values["name"] = found.file
        if owner.done_number is not None:
            values["done_number"] = owner.done_number
        file = self._move(found, target)
        self._ledger.change(owner.seq, folder=target, file=file, state=state, **values)
        note_attempts(self._ledger, found.digest, report)
        return "returned", f"{show(found.file)}: {_at(state, target)}", found.file

    def _belongs(self, found: Found, report: dict[str, Any], priority: str) -> tuple[str, str]:
        """Folder and state of a file, by where it was found and what its report says."""
        if found.folder in (FAILED, DONE):
            return found.folder, found.folder
        if found.folder == PROCESSING and self._starting:
            return PROCESSING, "processing"
        if report.get("state") == "done":
            return DONE, "done"
        return (found.folder if found.folder in PRIORITIES else priority), "queued"

    def _values(self, found: Found, report: dict[str, Any], target: str, state: str) -> dict[str, Any]:
        """What the ledger says of a file, besides its place."""
        assert found.digest is not None
        values: dict[str, Any] = {
            "attempts": len(report.get("attempts", [])),
            "retry_at": None,
            "done_number": report.get("done_number"),
            "reason": report.get("reason", ""),
            "priority": target if target in PRIORITIES else _priority_in(report),
        }
        if state == "queued" and report.get("state") == "failed":  # put back by hand: that is a `retry`
            self._queue.reports.write(found.digest, forgiven(report))
            values["reason"] = "to be tried again"
        elif state == "queued" and report.get("retry_at") is not None:
            values["retry_at"] = float(report["retry_at"])
        elif state in ("done", "failed") and report.get("state") != state:
            values["reason"] = f"found in {target}/; nothing says why"
        elif state == "done" and found.folder != DONE:
            values["reason"] = f"{report['reason']} before; it was put in again"
        return values

    def _note_gone(self, folder: str) -> None:
        present = set(os.listdir(self._layout.folder(folder)))
        for file in self._ledger.names_in(folder) - present:
            with self._ledger.transaction():
                row = self._ledger.at(folder, file)
                if row is None or self._is_there(row):  # moved by a command, since we looked
                    continue
                note_missing(self._queue, row)


def note_missing(queue: Queue, row: Row) -> None:
    """A row whose file is in no folder any more; inside a transaction."""
    where = {"queued": f"removed from {row.folder}/ while it waited", "failed": f"removed from {row.folder}/"}
    state = "missing" if row.state in (*where, "processing") else row.state
    why = where.get(row.state, f"removed from {row.folder}/")
    if row.reason and row.state != "queued":
        why = f"{row.reason}; its file was {why}"
    queue.ledger.change(row.seq, folder=None, file=None, state=state, reason=why)
    queue.journal.add("missing", f"{show(row.name)}: {why}" if state == "missing" else None, file=row.name)


def note_attempts(ledger: Ledger, digest: str, report: dict[str, Any]) -> None:
    """The ledger repeats what the report says of each attempt; inside a transaction."""
    for attempt in report.get("attempts", []):
        ledger.note_attempt(digest, attempt)


def forgiven(report: dict[str, Any]) -> dict[str, Any]:
    """The report of a file that shall be tried again as if it were new; what was tried stays in it."""
    attempts = [{**attempt, "forgiven": True} for attempt in report["attempts"]]
    return {**report, "attempts": attempts, "state": "queued", "reason": "to be tried again", "retry_at": None}


def new_report(row: Row) -> dict[str, Any]:
    """The report of a file that nothing was done with yet."""
    return {
        "name": row.name, "hash": row.hash, "run": f"runs/{identity(row.digest)}", "priority": row.priority,
        "state": "queued", "reason": "", "attempts": [], "retry_at": None, "done_number": None,
    }  # fmt: skip


def _priority_in(report: dict[str, Any]) -> str:
    priority = report.get("priority")
    return priority if priority in PRIORITIES else DEFAULT_PRIORITY


def _at(state: str, folder: str) -> str:
    return f"waits in {folder}/" if state == "queued" else f"is in {folder}/"


def _batches(found: Iterable[Found]) -> Iterator[list[Found]]:
    batch: list[Found] = []
    for one in found:
        batch.append(one)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
