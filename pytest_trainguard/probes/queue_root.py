"""One root of a training queue: what is put into it, what is run, what is seen, and what must hold.

Nothing in the queue is changed or replaced. What it did is told by its own traces: where each file is afterwards, known
by its content; what its commands, its status and its records say; which files were opened, by the kernel's own account;
and the optimizer steps of the trainings that it started, where torch took any.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from pytest_trainguard import faults
from pytest_trainguard.contract.outcome import Outcome, exit_words
from pytest_trainguard.contract.queues import filled
from pytest_trainguard.faults import Fault
from pytest_trainguard.launch.watch import Event, Held, Leases, Watch
from pytest_trainguard.recorder.timeline import Recording
from pytest_trainguard.subject.subject import Request, Started, Subject
from pytest_trainguard.verdicts.errors import CannotJudge, Finding, NotApplicable

if TYPE_CHECKING:
    from pytest_trainguard.probes.training_queue import TrainingQueue

AGE = 3600  # seconds since a dropped file was written: many queues leave alone what may still be growing
HOLD_LIMIT = 40.0  # seconds that a file is held at the most; the kernel breaks a lease after 45
NEAR = 120  # characters that may stand between a file's name and what is said of it
RECORD_LIMIT = 1 << 24  # bytes of one of the queue's own files that are read
Meanwhile = Callable[[Held, list[Held]], None]


@dataclass(frozen=True)
class Turn:
    """One run of a queue's command.

    Attributes:
        outcome: how it ended; its folder is the queue's root.
        events: what happened to the files of the queue's folders, in order.
        trainings: the recording of each process that took an optimizer step, or met a fault.
        disturbed: what was to be done while a file was held has been done.
        opened: how often a file that waits or is being trained was opened.
    """

    outcome: Outcome
    events: tuple[Event, ...]
    trainings: tuple[Recording, ...]
    disturbed: bool
    opened: int

    @property
    def steps(self) -> int:
        """Optimizer steps of all its trainings."""
        return sum(len(recording.steps) for recording in self.trainings)


class Folders:
    """One root of a queue, and what is in it.

    Attributes:
        root: the folder.
        contract: the queue's.
    """

    def __init__(self, queue: TrainingQueue, root: Path):
        self.queue, self.root, self.contract = queue, root, queue.contract
        self._subject: Subject = queue.guard.subject
        self._config: str | None = None
        self._count = 0
        for name in self.contract.folders:
            (root / name).mkdir(parents=True, exist_ok=True)
        for name, content in self.contract.files.items():
            (root / name).write_text(filled(content, self._values()))

    # --- what is put in

    def drop(self, file: Path, name: str | None = None, folder: str | None = None) -> Path:
        """Put a copy of a file into the inbox (or another folder), whole at once, as `mv` does."""
        into = self.root / (folder or self.contract.inbox) / (name or file.name)
        self._count += 1
        beside = self.root.with_name(f"{self.root.name}-{self._count}")
        beside.write_bytes(file.read_bytes())
        old = time.time() - AGE + self._count
        os.utime(beside, (old, old))
        beside.rename(into)
        return into

    def add(self, file: Path, name: str | None = None, priority: str | None = None) -> Outcome | None:
        """Put a file in by the queue's own command where it has one; else drop it. How that command ended."""
        contract = self.contract
        if not contract.add or (priority and "{priority}" not in contract.add):
            self.drop(file, name, priority)
            return None
        self._count += 1
        given = self.root.with_name(f"{self.root.name}-given-{self._count}") / (name or file.name)
        given.parent.mkdir()
        given.write_bytes(file.read_bytes())
        values = {"file": given, "priority": priority or self._ordinary}
        return self.command("add", f"added {given.name!r}", values).outcome

    @property
    def _ordinary(self) -> str:
        priorities = self.contract.priorities
        return priorities[len(priorities) // 2] if priorities else ""

    # --- what is run

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
        limit = self.queue.patience(files) + (HOLD_LIMIT if meanwhile else 0)
        return self.command("once", did, {}, limit=limit, meanwhile=meanwhile, only_in=only_in, fault=fault)

    def turn_in_training(self, did: str, *, files: int, meanwhile: Callable[[], None]) -> Turn:
        """Run `once` to its end, and do something while torch is in the first step of a training."""
        release = self.root.with_name(f"{self.root.name}-release")
        limit = self.queue.patience(files) + HOLD_LIMIT

        def in_training(started: Started, watch: Watch) -> bool:
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

        return self._run("once", did, {}, limit, faults.pause(1, release), in_training)

    def command(
        self, command: str, did: str, values: dict[str, object] | None = None, *, limit: float | None = None,
        meanwhile: Meanwhile | None = None, only_in: str | None = None, fault: Fault | None = None,
    ) -> Turn:  # fmt: skip
        """Run one of the queue's commands to its end; see `turn`."""
        limit = self.queue.patience(1) if limit is None else limit
        with contextlib.closing(Leases()) as leases:
            for path in self.waiting() if meanwhile else ():
                leases.take(path)

            def while_held(started: Started, watch: Watch) -> bool:
                done = meanwhile is not None and self._disturb(started, watch, leases, meanwhile, only_in)
                leases.close()
                return done

            return self._run(command, did, values or {}, limit, fault, while_held)

    def _run(
        self, command: str, did: str, values: dict[str, object], limit: float, fault: Fault | None,
        disturb: Callable[[Started, Watch], bool],
    ) -> Turn:  # fmt: skip
        argv = self.contract.argv(command, {**self._values(), **values})
        with contextlib.closing(self._watch()) as watch:
            request = Request(did, output_dir=self.root, fault=fault, time_limit=limit or None)
            started = self._subject.start_command(request, argv)
            disturbed = disturb(started, watch)
            outcome = started.outcome()
            if outcome.timed_out:
                told = f"hung, and was ended by the harness after {outcome.seconds:.0f} s"
                raise Finding(did, told, outcome.stack or outcome.last_words)
            try:
                events = watch.read()
            except OSError as error:
                raise CannotJudge(f"{did}: {error.strerror}", outcome.output[-2000:]) from error
        trainings = [r for r in Recording.read_all(started.folder) if r.steps or r.fault_fired]
        ended = [self.root / self.contract.done, self.root / self.contract.failed]
        opened = sum(e.kind == "opened" and e.folder not in ended and self._is_data(e.name) for e in events)
        return Turn(outcome, tuple(events), tuple(trainings), disturbed, opened)

    def _watch(self) -> Watch:
        try:
            return Watch(self._present())
        except OSError as error:
            raise NotApplicable(f"a queue cannot be watched here: {error.strerror}") from error

    def _is_data(self, name: str) -> bool:
        """Not a file of the queue's own, beside the data."""
        return Path(name).suffix == self.queue.files(1)[0].suffix

    def _values(self) -> dict[str, object]:
        """What the placeholders stand for."""
        if self._config is None:
            folder = self.root.with_name(f"{self.root.name}-settings")
            folder.mkdir()
            self._config = self._subject.call("settings_file", folder=str(folder), values=self._subject.base_settings)
        return {"root": self.root, "config": self._config}

    def _disturb(
        self, started: Started, watch: Watch, leases: Leases, meanwhile: Meanwhile, only_in: str | None
    ) -> bool:
        """Wait until somebody wants to open a leased file, and do it then; False where the command ended before."""
        until = time.monotonic() + HOLD_LIMIT
        again: set[Path] = set()
        while time.monotonic() < until and psutil.pid_exists(started.pid):
            if any(path.exists() and watch.unseen(partial(leases.take, path)) for path in again):
                again = set()
            held = leases.wanted()
            if held is None:
                time.sleep(0.001)
                continue
            if only_in is None or held.path.parent == (self.root / only_in).resolve():
                meanwhile(held, leases.others(held))
                return True
            leases.give_back(held)
            again = {held.path, self.root / only_in / held.path.name}
        return False

    # --- what is seen

    def waiting(self) -> list[Path]:
        """The files that wait for their turn, by name."""
        ended = (self.root / self.contract.done, self.root / self.contract.failed)
        found = [path for folder in self._present() if folder not in ended for path in folder.iterdir()]
        return sorted(path for path in found if path.is_file() and not path.is_symlink() and self._is_data(path.name))

    def _present(self) -> list[Path]:
        """The folders that are known by name and are there."""
        names = dict.fromkeys([*self.contract.folders, *self.contract.priorities])
        return [self.root / name for name in names if (self.root / name).is_dir()]

    def places(self, file: Path) -> list[str]:
        """Every path below the root that has the content of a file."""
        content = file.read_bytes()
        return [name for name, found in self._content() if found == content]

    def are_done(self, *files: Path) -> bool:
        """Whether each of the files is in the folder for what is done, and in no other."""
        return all(self._only_in(self.contract.done, file) for file in files)

    def has_failed(self, file: Path) -> bool:
        """Whether a file is in the folder for what failed, and in no other."""
        return self._only_in(self.contract.failed, file)

    def _only_in(self, folder: str, file: Path) -> bool:
        places = self.places(file)
        return bool(places) and all(place.startswith(f"{folder}/") for place in places)

    def _content(self) -> list[tuple[str, bytes]]:
        found = []
        for folder, _, names in os.walk(self.root):
            for name in sorted(names):
                path = Path(folder, name)
                if path.is_file() and not path.is_symlink():
                    with path.open("rb") as content:
                        found.append((str(path.relative_to(self.root)), content.read(RECORD_LIMIT)))
        return found

    def finished(self, turn: Turn, *files: Path) -> list[Path]:
        """Files in the order in which they were done."""
        arrived = [
            event.name for event in turn.events if event.kind == "arrived" and self.contract.done == event.folder.name
        ]
        names = {file: Path(place).name for file in files for place in self.places(file)[:1]}
        if all(name in arrived for name in names.values()):
            return sorted(names, key=lambda file: arrived.index(names[file]))
        # Folders inside the one for the done are not watched: when each file's place last changed, then.
        places = {file: self.root / place for file in files for place in self.places(file)[:1]}
        return sorted(places, key=lambda file: places[file].lstat().st_ctime_ns)

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
        data = {file.read_bytes() for file in self._subject.kept["queue_files"]}
        return told + [content.decode(errors="replace") for _, content in self._content() if content not in data]

    # --- what must hold

    def went_on(self, turn: Turn, *rest: Path, after: str = "") -> None:
        """The queue was not brought down: no signal, no process left, and the `rest` of the files is done.

        It may end non-zero where it says why: then its message names `after`.

        Raises:
            Finding: it was.
        """
        outcome = turn.outcome
        problems = []
        undone = [file for file in rest if not self.are_done(file)]
        if undone:
            shown = "; ".join(f"{file.name} is {self._where(file)}" for file in undone[:3])
            problems.append(
                f"{len(undone)} of {len(rest)} good files are not done ({exit_words(outcome.exit)}): {shown}"
            )
        elif outcome.exit < 0 or (outcome.exit and after not in outcome.complaint):
            problems.append(f"it did not end well: {exit_words(outcome.exit)}")
        if outcome.leftovers:
            shown = ", ".join(f"{left.pid} {left.command} ({left.status})" for left in outcome.leftovers[:3])
            problems.append(f"processes left behind: {shown}")
        if problems:
            raise Finding(outcome.did, "\n".join(problems), outcome.last_words)

    def kept(self, turn: Turn, *files: Path) -> None:
        """None of the files is lost.

        Raises:
            Finding: one is nowhere below the root.
        """
        lost = [file.name for file in files if not self.places(file)]
        if lost:
            raise Finding(
                turn.outcome.did,
                f"lost: {', '.join(lost)}: its content is in no folder any more",
                turn.outcome.last_words,
            )

    def _where(self, file: Path) -> str:
        places = self.places(file)
        return f"at {', '.join(places)}" if places else "in no folder any more"
