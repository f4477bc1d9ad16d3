"""`training_queue`: the trainer's queue, its files, and what it does undisturbed; `QueueRoot` is one root of it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, overload

from pytest_trainguard.contract.outcome import exit_words
from pytest_trainguard.contract.queues import Queue
from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.probes.queue_root import QueueRoot
from pytest_trainguard.probes.queue_turn import QueueFindings, Turn
from pytest_trainguard.rows import suffixes
from pytest_trainguard.verdicts.errors import CannotJudge, NotApplicable


class TrainingQueue:
    """The queue of one trainer in one test; `fresh` makes a root for it to work in."""

    def __init__(self, guard: Guard):
        self.guard = guard
        self._findings = guard.subject.findings.get(QueueFindings, lambda: QueueFindings([]))
        self._roots = 0

    @property
    def exists(self) -> bool:
        """Whether the trainer names a queue."""
        return self.guard.subject.description.queue is not None

    @property
    def contract(self) -> Queue:
        """What the trainer says of its queue.

        Raises:
            NotApplicable: it has none.
        """
        queue = self.guard.subject.description.queue
        if queue is None:
            raise NotApplicable('no queue: name its command and folders, queue = Queue(once="... {root}")')
        return queue

    @overload
    def needs(self, name: Literal["priorities"], example: str) -> tuple[str, ...]: ...

    @overload
    def needs(self, name: Literal["retry", "status", "add", "metadata", "processing"], example: str) -> str: ...

    def needs(self, name: str, example: str) -> object:
        """A part of the contract that not every queue has.

        Raises:
            NotApplicable: it is not named, with what to add.
        """
        found: object = getattr(self.contract, name)
        if not found:
            raise NotApplicable(f"the queue names no {name.replace('_', ' ')}: add it, Queue(..., {name}={example})")
        return found

    def files(self, count: int) -> list[Path]:
        """Files of the trainer's data, all of them different.

        Raises:
            NotApplicable: the trainer has no data, or data that is a folder.
            CannotJudge: the data has too few rows for so many different files.
        """
        made = self._findings.files
        _ = self.contract  # what is wrong with the data is no matter where there is no queue
        while len(made) < count:
            made.append(self._make_file(made, count))
        return made[:count]

    def _make_file(self, made: list[Path], count: int) -> Path:
        """One more file, unlike those that were `made`."""
        subject = self.guard.subject
        rows = subject.description.rows - len(made)
        folder = subject.server.new_folder("queued")  # of its own: a trainer may make a folder there, and not twice
        path = subject.make_data(folder, max(rows, 1), seed=len(made))
        if path is None:
            raise NotApplicable('no data: give it a sample, sample = "path/of/the/data"')
        if path.is_dir():
            raise NotApplicable("its data is a folder: a queue takes files, give it a sample that is one")
        if rows < 1 or any(path.read_bytes() == other.read_bytes() for other in made):
            raise CannotJudge(f"its data has too few rows for {count} different files: set rows to a larger number")
        return path.rename(path.with_name(f"file-{len(made)}{suffixes.whole(path)}"))

    def fresh(self) -> QueueRoot:
        """A new root, with the folders that the contract names in it.

        Raises:
            CannotJudge: the queue does not even train one file undisturbed.
        """
        self.undisturbed()
        return self._new_root()

    def _new_root(self) -> QueueRoot:
        self._roots += 1
        root = self.guard.folder / f"queue-{self._roots}"
        return QueueRoot(self.guard.subject, self.contract, root, self._findings)

    def undisturbed(self) -> Turn:
        """One file, dropped in and trained, with nothing in the way. Done once for each trainer.

        Raises:
            CannotJudge: it is not done afterwards.
        """
        findings, contract = self._findings, self.contract
        if findings.problem:
            raise CannotJudge(findings.problem)
        if findings.undisturbed is None:
            (file,) = self.files(1)
            root = self._new_root()
            root.files.drop(file)
            turn = root.turn("dropped in one file")
            if turn.outcome.exit != 0 or not root.files.are_done(file):
                found = ", ".join(root.files.places(file)) or "nowhere"
                findings.problem = (
                    f"the undisturbed queue fails: {exit_words(turn.outcome.exit)}; its one file is to be in "
                    f"{contract.done}/, and is {found}"
                )
                raise CannotJudge(findings.problem, turn.outcome.output[-4000:] + turn.outcome.stack)
            findings.undisturbed = turn
        return findings.undisturbed

    def trained(self, *turns: Turn) -> float:
        """How many files' worth was trained: by optimizer steps where torch takes any, else by reads.

        Raises:
            CannotJudge: neither was seen undisturbed.
        """
        one = self.undisturbed()
        if one.steps:
            return sum(turn.steps for turn in turns) / one.steps
        if not one.opened:
            raise CannotJudge("no process was seen to open the undisturbed queue's file")
        return sum(turn.opened for turn in turns) / one.opened
