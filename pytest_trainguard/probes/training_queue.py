"""`training_queue`: the trainer's queue, its files, and what it does undisturbed; see `Folders` for one turn of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytest_trainguard.contract.outcome import exit_words
from pytest_trainguard.contract.queues import Queue
from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.probes.queue_root import Folders, Turn
from pytest_trainguard.verdicts.errors import CannotJudge, NotApplicable


class TrainingQueue:
    """The queue of one trainer in one test; `fresh` makes a root for it to work in."""

    def __init__(self, guard: Guard):
        self.guard = guard
        self._roots = 0

    @property
    def exists(self) -> bool:
        """Whether the trainer names a queue."""
        return self.guard.subject.description["queue"] is not None

    @property
    def contract(self) -> Queue:
        """What the trainer says of its queue.

        Raises:
            NotApplicable: it has none.
        """
        if not self.exists:
            raise NotApplicable('no queue: name its command and folders, queue = Queue(once="... {root}")')
        return Queue(**self.guard.subject.description["queue"])

    def needs(self, name: str, example: str) -> Any:
        """A part of the contract that not every queue has.

        Raises:
            NotApplicable: it is not named, with what to add.
        """
        found = getattr(self.contract, name)
        if not found:
            raise NotApplicable(f"the queue names no {name.replace('_', ' ')}: add it, Queue(..., {name}={example})")
        return found

    def files(self, count: int) -> list[Path]:
        """Files of the trainer's data, all of them different.

        Raises:
            NotApplicable: the trainer has no data, or data that is a folder.
            CannotJudge: the data has too few rows for so many different files.
        """
        subject = self.guard.subject
        made: list[Path] = subject.kept.setdefault("queue_files", [])
        while len(made) < count:
            rows = subject.description["rows"] - len(made)
            path = subject.make_data(subject.folder / f"queued-{len(made)}", max(rows, 1), seed=len(made))
            if path is None:
                raise NotApplicable('no data: give it a sample, sample = "path/of/the/data"')
            if path.is_dir():
                raise NotApplicable("its data is a folder: a queue takes files, give it a sample that is one")
            if rows < 1 or any(path.read_bytes() == other.read_bytes() for other in made):
                raise CannotJudge(f"its data has too few rows for {count} different files: set rows to a larger number")
            made.append(path.rename(path.with_name(f"file-{len(made)}{path.suffix}")))
        return made[:count]

    def fresh(self) -> Folders:
        """A new root, with the folders that the contract names in it.

        Raises:
            CannotJudge: the queue does not even train one file undisturbed.
        """
        self.undisturbed()
        return self._root()

    def _root(self) -> Folders:
        self._roots += 1
        return Folders(self, self.guard.folder / f"queue-{self._roots}")

    def undisturbed(self) -> Turn:
        """One file, dropped in and trained, with nothing in the way. Done once for each trainer.

        Raises:
            CannotJudge: it is not done afterwards.
        """
        contract, kept = self.contract, self.guard.subject.kept
        if "queue_problem" in kept:
            raise CannotJudge(kept["queue_problem"])
        if "queue_turn" not in kept:
            folders = self._root()
            (file,) = self.files(1)
            folders.drop(file)
            turn = folders.turn("dropped in one file")
            where = folders.places(file)
            if turn.outcome.exit != 0 or not folders.are_done(file):
                found = ", ".join(where) or "nowhere"
                kept["queue_problem"] = (
                    f"the undisturbed queue fails: {exit_words(turn.outcome.exit)}; its one file is to be in "
                    f"{contract.done}/, and is {found}"
                )
                raise CannotJudge(kept["queue_problem"], turn.outcome.output[-4000:] + turn.outcome.stack)
            kept["queue_turn"] = turn
        found_turn: Turn = kept["queue_turn"]
        return found_turn

    def patience(self, files: int) -> float:
        """Seconds after which a turn with so many files is taken for hung."""
        kept = self.guard.subject.kept
        return float(10 + 4 * files * kept["queue_turn"].outcome.seconds) if "queue_turn" in kept else 0.0

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
