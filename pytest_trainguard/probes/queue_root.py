"""One root of a training queue: its commands are run, and what they did is seen.

Nothing in the queue is changed or replaced. What it did is told by its own traces: where each file is afterwards, known
by its content; what its commands, its status and its records say; which files were opened, by the kernel's own account;
and the optimizer steps of the trainings that it started, where torch took any.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from pytest_trainguard import faults
from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.contract.queues import Queue, filled
from pytest_trainguard.faults import Fault
from pytest_trainguard.launch import questions
from pytest_trainguard.launch.protocol import Command, ProcessRequest
from pytest_trainguard.launch.watch import Leases, Watch
from pytest_trainguard.probes.queue_files import QueueFiles
from pytest_trainguard.probes.queue_holding import (
    HOLD_LIMIT,
    Disturb,
    Meanwhile,
    leave_alone,
    while_held,
    while_training,
)
from pytest_trainguard.probes.queue_turn import QueueFindings, Turn
from pytest_trainguard.recorder.timeline import Recording
from pytest_trainguard.rows import suffixes
from pytest_trainguard.subject.subject import Subject
from pytest_trainguard.verdicts.errors import CannotJudge, Finding, NotApplicable

NEAR = 120  # characters that may stand between a file's name and what is said of it


class QueueRoot:
    """One root of a queue.

    Attributes:
        root: the folder.
        contract: what the trainer says of its queue.
        files: what is in the folder.
    """

    def __init__(self, subject: Subject, contract: Queue, root: Path, findings: QueueFindings):
        self._subject, self.contract, self.root, self._findings = subject, contract, root, findings
        self.files = QueueFiles(root, contract, suffixes.whole(findings.files[0]))
        self._added = 0
        for name, content in contract.files.items():
            (root / name).write_text(filled(content, self._placeholders))

    @cached_property
    def _placeholders(self) -> dict[str, object]:
        """What the placeholders stand for."""
        folder = self.root.with_name(f"{self.root.name}-settings")
        folder.mkdir()
        config = self._subject.server.ask(questions.settings_file, folder, self._subject.settings.base)
        return {"root": self.root, "config": config}

    def add(self, file: Path, name: str | None = None, priority: str | None = None) -> Outcome | None:
        """Put a file in by the queue's own command where it has one; else drop it. How that command ended."""
        contract = self.contract
        if not contract.add or (priority and "{priority}" not in contract.add):
            self.files.drop(file, name, priority)
            return None
        self._added += 1
        given = self.root.with_name(f"{self.root.name}-given-{self._added}") / (name or file.name)
        given.parent.mkdir()
        given.write_bytes(file.read_bytes())
        values = {"file": given, "priority": priority or self._ordinary_priority}
        return self._run("add", f"added {given.name!r}", values).outcome

    @property
    def _ordinary_priority(self) -> str:
        priorities = self.contract.priorities
        return priorities[len(priorities) // 2] if priorities else ""

    def command(self, command: str, did: str) -> Turn:
        """Run one of the queue's commands to its end."""
        return self._run(command, did)

    def turn(
        self, did: str, *, files: int = 1, meanwhile: Meanwhile | None = None, only_in: str | None = None,
        fault: Fault | None = None,
    ) -> Turn:  # fmt: skip
        """Run `once` to its end, with so many `files` in the queue.

        Args:
            did: what was done, in words.
            files: how many files wait; the time limit goes by it.
            meanwhile: called while whoever wants to open a waiting file is kept waiting, with that file and with those
                that nobody has opened yet. None of them can be opened in it, which would wait for itself.
            only_in: not before that file is in this folder.
            fault: comes about in every training that the queue starts.
        """
        if meanwhile is None:
            return self._run("once", did, limit=self._limit(files), fault=fault)
        with contextlib.closing(Leases()) as leases:
            for path in self.files.waiting():
                leases.take(path)
            disturb = while_held(leases, meanwhile, None if only_in is None else self.root / only_in)
            return self._run("once", did, limit=self._limit(files, HOLD_LIMIT), fault=fault, disturb=disturb)

    def turn_in_training(self, did: str, *, files: int, meanwhile: Callable[[], None]) -> Turn:
        """Run `once` to its end, and do something while torch is in the first step of a training."""
        release = self.root.with_name(f"{self.root.name}-release")
        limit = self._limit(files, HOLD_LIMIT)
        disturb = while_training(release, limit or HOLD_LIMIT, meanwhile)
        return self._run("once", did, limit=limit, fault=faults.pause(1, release), disturb=disturb)

    def _limit(self, files: int, held: float = 0.0) -> float | None:
        """Seconds for a turn with so many files, and those that a file may be held."""
        patience = self._findings.patience(files)
        return (patience or 0.0) + held or None

    def _run(
        self, command: str, did: str, values: dict[str, object] | None = None, *, limit: float | None = None,
        fault: Fault | None = None, disturb: Disturb = leave_alone,
    ) -> Turn:  # fmt: skip
        argv = self.contract.argv(command, {**self._placeholders, **(values or {})})
        request = ProcessRequest(did, time_limit=limit or self._limit(1))
        with contextlib.closing(self._watch()) as watch:
            started = self._subject.start_command(Command(request, tuple(argv), self.root, fault))
            disturbed = disturb(started, watch)
            outcome = started.outcome()
            if outcome.timed_out:
                told = f"hung, and was ended by the harness after {outcome.seconds:.0f} s"
                raise Finding(did, told, outcome.stack or outcome.last_words, grade="wastes")
            try:
                events = watch.read()
            except OSError as error:
                raise CannotJudge(f"{did}: {error.strerror}", outcome.output[-2000:]) from error
        trainings = [r for r in Recording.read_all(started.folder) if r.steps or r.fault_fired]
        return Turn(self.files, outcome, tuple(events), tuple(trainings), disturbed)

    def _watch(self) -> Watch:
        try:
            return Watch(self.files.present_folders())
        except OSError as error:
            raise NotApplicable(f"a queue cannot be watched here: {error.strerror}") from error

    def tells(self, name: str, turn: Turn, about: re.Pattern[str] | None = None) -> bool:
        """Whether the queue says something of a file by its name, and what it is `about` in the same breath.

        It may say so in what the command printed, in its status, in a file of its own below the root, or by putting the
        entry into the folder for what failed.
        """
        told = [turn.outcome.output, *self._records()]
        if about is None:
            return any(name in text for text in told) or os.path.lexists(self.root / self.contract.failed / name)
        near = f"{re.escape(name)}.{{0,{NEAR}}}?(?:{about.pattern})|(?:{about.pattern}).{{0,{NEAR}}}?{re.escape(name)}"
        return any(re.search(near, text, about.flags | re.DOTALL) for text in told)

    def _records(self) -> list[str]:
        """What its status says, and every file below the root that is no data."""
        told = [self.command("status", "asked for its status").outcome.output] if self.contract.status else []
        data = {file.read_bytes() for file in self._findings.files}
        return told + [content.decode(errors="replace") for _, content in self.files.contents() if content not in data]
