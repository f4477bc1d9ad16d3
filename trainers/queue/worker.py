"""What is done with the file in ``processing/``: checked, trained in a process of its own, judged, settled.

`Worker.recover` does the same with what a killed queue left there.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

from trainers.common import files
from trainers.common.errors import show
from trainers.common.process import Run
from trainers.queue import attempt, checks, memory, moves, options, own, recovery, reports, room
from trainers.queue.journal import now
from trainers.queue.layout import PROCESSING
from trainers.queue.ledger import Row
from trainers.queue.reports import Attempt
from trainers.queue.starting import Start, start_program
from trainers.queue.steps import Step, reached
from trainers.queue.stock import Queue, new_report

CHAIN = 100
"""So many of the files trained last are asked for a run folder to go on from, where people have removed some."""


class Worker:
    """Works on one file at a time."""

    def __init__(self, queue: Queue, run: Run, start: Start = start_program) -> None:
        """Begin nothing yet.

        Args:
            queue: an open one.
            run: a signal that it receives ends the trainer in peace, and puts its file back.
            start: how a trainer is started.
        """
        self._queue = queue
        self._run = run
        self._start = start

    def step(self) -> bool:
        """Begin the file whose turn it is, and see it to its end; False where none waits."""
        row = moves.claim(self._queue)
        if row is None:
            return False
        self._run.stage = f"training {show(row.name)}"
        row = self._checked(row)
        if row is not None:
            self._train(row)
        return True

    def recover(self) -> None:
        """Settle what a killed queue left in ``processing/``.

        Raises:
            TrainingFailed: a trainer of before does not end.
        """
        for row in self._queue.ledger.in_folder(PROCESSING):
            self._queue.journal.add("recovering", f"{show(row.name)}: was in {PROCESSING}/ when the queue ended")
            if row.state == "duplicate":
                moves.set_duplicate(self._queue, row)
            elif row.hash is not None:
                self._recover(row, row.hash)

    def _recover(self, row: Row, digest: str) -> None:
        last, report = self._queue.reports.last(digest), self._report(row)
        if last is None or reports.judged(report, last.number):
            self._resettle(row, report)
            return
        attempt.require_ended(last.folder)
        self._conclude(row, last, attempt.judge(last.folder), stopping=True)

    def _resettle(self, row: Row, report: dict[str, Any]) -> None:
        """No attempt has been begun since the report was written: it says what was about to be done."""
        if report["attempts"] or report["state"] != "queued":
            moves.apply(self._queue, row, report)
        else:
            moves.put_back(self._queue, row, "")

    def _report(self, row: Row) -> dict[str, Any]:
        return self._queue.reports.read(row.digest) or new_report(row)

    # ---- before the trainer is started

    def _checked(self, row: Row) -> Row | None:
        """The file, if it is what the ledger says and its rows are sound; else it is settled."""
        path = self._queue.layout.path(*row.place)
        try:
            row = self._same_content(row, files.sha256(path))
            if row.state == "duplicate":
                return None
            faults = checks.faults(path, row.name, self._queue.chosen)
        except FileNotFoundError:
            moves.put_back(self._queue, row, "")
            return None
        except OSError as error:
            faults = [f"cannot be read: {attempt.one_line(str(error))}"]
        if faults:
            more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
            self._fail(row, f"bad_input: {attempt.one_line(faults[0])}{more}")
            return None
        reached(Step.CHECKED)
        return row if self._has_room(row) else None

    def _same_content(self, row: Row, digest: str) -> Row:
        """Somebody may have written into the file since it was read: then it is another one."""
        if digest == row.hash:
            return row
        ledger, line = self._queue.ledger, f"{show(row.name)}: its content has changed while it waited"
        with ledger.transaction():
            owner = ledger.owner(digest)
            if owner is None:
                ledger.change(row.seq, hash=digest, attempts=0)
            else:
                ledger.change(row.seq, hash=digest, state="duplicate", reason=f"same content as {show(owner.name)}")
        self._queue.journal.add("changed", line, file=row.name, hash=digest)
        row = ledger.number(row.seq)
        if row.state == "duplicate":
            moves.set_duplicate(self._queue, row)
        return row

    def _has_room(self, row: Row) -> bool:
        chosen = self._queue.chosen
        if not chosen.recover_disk_full or room.wait(self._queue, lambda: self._run.received is not None):
            return True
        if self._run.received is not None:
            moves.put_back(self._queue, row, "")
        else:
            limits = f"min_free_mib = {chosen.min_free_mib:g}, disk_wait_seconds = {chosen.disk_wait_seconds:g}"
            self._fail(row, f"disk_full: {room.free_mib(self._queue):.0f} MiB are free ({limits})")
        return False

    def _fail(self, row: Row, why: str) -> None:
        """The file fails before it was begun."""
        self._write(row, {**self._report(row), "state": "failed", "reason": why, "retry_at": None})
        self._queue.journal.alert(self._queue.chosen, "failed", f"{show(row.name)}: {why}", file=row.name)

    def _write(self, row: Row, report: dict[str, Any]) -> None:
        self._queue.reports.write(row.digest, report)
        reached(Step.REPORTED)
        moves.apply(self._queue, row, report)

    # ---- the attempt

    def _train(self, row: Row) -> None:
        report, last = self._report(row), self._queue.reports.last(row.digest)
        number = 1 + (last.number if last else 0)
        this = Attempt(number, self._queue.reports.folder(row.digest) / f"attempt-{number}")
        resume = self._resume_from(row)
        changes = reports.changes(report)
        settings = {**self._queue.chosen.trainer_settings, **changes}
        words = self._words(row, this.folder, resume)
        before = memory.look()
        start = {
            "started": now(), "command": words, "resume_from": resume and str(resume), "changed_settings": changes,
            "priority": row.priority, "memory": memory.described(before),
        }  # fmt: skip
        attempt.prepare(this.folder, settings, start)
        reached(Step.PREPARED)
        line = f"{show(row.name)}: attempt {number}" + (f", resumes from {show(resume)}" if resume else "")
        self._queue.journal.add("started", line, file=row.name, hash=row.hash, attempt=number, memory=start["memory"])
        ended = self._watched(row, this.folder, words)
        reached(Step.ENDED)
        self._conclude(row, this, ended, stopping=self._run.received is not None, memory_before=before)

    def _words(self, row: Row, folder: Path, resume: Path | None) -> list[str]:
        values = {
            "{settings}": str(folder / reports.SETTINGS),
            "{data}": str(self._queue.layout.path(*row.place)),
            "{output_dir}": str(self._queue.layout.run(row.digest)),
            "{resume_from}": None if resume is None else str(resume),
            "{status_dir}": str(folder),
        }
        return options.command(self._queue.chosen, values)

    def _resume_from(self, row: Row) -> Path | None:
        """Its own last checkpoint; else that of the file trained last: the optimizer step goes on."""
        mine = self._queue.layout.run(row.digest)
        if any(mine.glob("checkpoint-*")):
            return mine
        trained = self._queue.ledger.trained(CHAIN)
        runs = [self._queue.layout.run(done.digest) for done in trained]
        found = next((run for run in runs if run.is_dir()), None)
        if trained and found != runs[0]:
            line = f"{show(runs[0])} is not there: {show(row.name)} does not go on from {show(trained[0].name)}"
            self._queue.journal.add("chain_broken", line, file=row.name)
        return found

    def _watched(self, row: Row, folder: Path, words: list[str]) -> recovery.Ended:
        """Run the trainer to its end, which may be ours to bring about."""
        chosen, deadline = self._queue.chosen, None
        with attempt.running(folder, words, self._start) as child:
            reached(Step.STARTED)
            while not child.wait(chosen.poll_seconds):
                if self._run.received is not None and deadline is None:
                    deadline = time.monotonic() + chosen.end_timeout
                    child.signal(signal.SIGTERM)
                if deadline is not None and time.monotonic() > deadline:
                    child.kill()
                    late = recovery.Ended("interrupted", f"did not end in {chosen.end_timeout:g} seconds: killed")
                    return success_or(attempt.judge(folder), late)
                if deadline is None and child.silent_for() > chosen.heartbeat_timeout:
                    child.end_hanging()
                    limit = f"no sign of life for {chosen.heartbeat_timeout:g} seconds (heartbeat_timeout)"
                    return attempt.judge(folder, hung=f"{limit}; its stack: {show(folder / reports.STACK)}")
        return seen(attempt.judge(folder))

    # ---- after it

    def _conclude(
        self,
        row: Row,
        this: Attempt,
        ended: recovery.Ended,
        *,
        stopping: bool,
        memory_before: list[memory.Use] | None = None,
    ) -> None:
        """Decide, write the decision into the report, and do it."""
        chosen, report = self._queue.chosen, self._report(row)
        changes = reports.changes(report)
        values = {**own.defaults(chosen), **chosen.trainer_settings, **changes}
        decision = recovery.decide(chosen, ended, reports.tried(report), values, stopping=stopping)
        after = memory.look()
        entry = noted(this, ended, decision, after)
        report |= {
            "state": decision.state, "reason": decision.reason, "attempts": [*report["attempts"], entry],
            "retry_at": time.time() + decision.delay if decision.delay else None,
            "done_number": self._next_done() if decision.state == "done" else None, "priority": row.priority,
        }  # fmt: skip
        self._tell(row, this, ended, decision, entry)
        for line in memory.still_in_use(memory_before or [], after, chosen.memory_warning):
            self._queue.journal.add("memory", f"WARNING {line}", file=row.name)
        self._write(row, report)

    def _next_done(self) -> int:
        return 1 + sum(row.done_number or 0 for row in self._queue.ledger.trained(1))

    def _tell(
        self, row: Row, this: Attempt, ended: recovery.Ended, decision: recovery.Decision, entry: dict[str, Any]
    ) -> None:
        facts = {"file": row.name, "hash": row.hash, "attempt": this.number}
        line = f"{show(row.name)}: attempt {this.number} ended: {ended.kind}: {ended.message}"
        self._queue.journal.add(
            "ended", line, **facts, kind=ended.kind, step=ended.step, exit=ended.exit, memory=entry["memory"]
        )  # fmt: skip
        if decision.recovery:
            self._queue.journal.add("recovery", f"{show(row.name)}: {decision.recovery}", **facts)
        if decision.alert or decision.state == "failed":
            kind = ended.kind if decision.alert else "failed"
            self._queue.journal.alert(self._queue.chosen, kind, f"{show(row.name)}: {decision.reason}", **facts)


def noted(this: Attempt, ended: recovery.Ended, decision: recovery.Decision, after: list[memory.Use]) -> dict[str, Any]:
    """What the report says of an attempt."""
    start = reports.read_start(this.folder)
    return {
        "number": this.number, "started": start.get("started"), "ended": now(), "kind": ended.kind,
        "message": ended.message, "step": ended.step, "exit": ended.exit, "resumed_from": start.get("resume_from"),
        "changed_settings": start.get("changed_settings", {}), "changes": decision.changes,
        "recovery": decision.recovery, "counts": decision.counts, "forgiven": False,
        "memory": {"before": start.get("memory", []), "after": memory.described(after)},
    }  # fmt: skip


def seen(ended: recovery.Ended) -> recovery.Ended:
    """The queue lives: an attempt that left nothing was not lost with it, its keeper was killed."""
    if ended.kind != "lost":
        return ended
    return ended._replace(kind="failed", message="its keeper was killed, and the trainer with it (out of host memory?)")


def success_or(ended: recovery.Ended, other: recovery.Ended) -> recovery.Ended:
    """A success that came in the last moment is one."""
    return ended if ended.kind == "success" else other
