"""One run of a queue's command: what was seen of it, and what must hold after it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pytest_trainguard.contract.outcome import Outcome, exit_words
from pytest_trainguard.launch.watch import Event
from pytest_trainguard.probes.queue_files import QueueFiles
from pytest_trainguard.recorder.timeline import Recording
from pytest_trainguard.verdicts.errors import Finding


@dataclass(frozen=True)
class Turn:
    """One run of a queue's command.

    Attributes:
        files: of the queue, as they are by now.
        outcome: how it ended; its folder is the queue's root.
        events: what happened to the files of the queue's folders, in order.
        trainings: the recording of each process that took an optimizer step, or met a fault.
        disturbed: what was to be done while a file was held has been done.
    """

    files: QueueFiles
    outcome: Outcome
    events: tuple[Event, ...]
    trainings: tuple[Recording, ...]
    disturbed: bool

    @property
    def steps(self) -> int:
        """Optimizer steps of all its trainings."""
        return sum(len(recording.steps) for recording in self.trainings)

    @property
    def opened(self) -> int:
        """How often a file that waits or is being trained was opened."""
        ended = self.files.ended_folders()
        opened = [event for event in self.events if event.kind == "opened" and event.folder not in ended]
        return sum(self.files.is_data(event.name) for event in opened)

    def order_of_ends(self, *files: Path) -> list[Path]:
        """Files in the order in which they were done."""
        done = self.files.contract.done
        arrived = [event.name for event in self.events if event.kind == "arrived" and event.folder.name == done]
        places = {file: self.files.root / place for file in files for place in self.files.places(file)[:1]}
        if all(place.name in arrived for place in places.values()):
            return sorted(places, key=lambda file: arrived.index(places[file].name))
        # Folders inside the one for the done are not watched: when each file's place last changed, then.
        return sorted(places, key=lambda file: places[file].lstat().st_ctime_ns)

    def check_went_on(self, *rest: Path, after: str = "") -> None:
        """The queue was not brought down: no signal, no process left, and the `rest` of the files is done.

        It may end non-zero where it says why: then its message names `after`.

        Raises:
            Finding: it was.
        """
        outcome = self.outcome
        problems = []
        undone = [file for file in rest if not self.files.are_done(file)]
        if undone:
            shown = "; ".join(f"{file.name} is {self.files.describe_place(file)}" for file in undone[:3])
            problems.append(
                f"{len(undone)} of {len(rest)} good files are not done ({exit_words(outcome.exit)}): {shown}"
            )
        elif outcome.exit < 0 or (outcome.exit and after not in outcome.complaint):
            problems.append(f"it did not end well: {exit_words(outcome.exit)}")
        if outcome.leftovers:
            shown = ", ".join(f"{left.pid} {left.command} ({left.status})" for left in outcome.leftovers[:3])
            problems.append(f"processes left behind: {shown}")
        if problems:
            raise Finding(outcome.did, "\n".join(problems), outcome.last_words, grade="wastes")

    def check_nothing_lost(self, *files: Path) -> None:
        """Each of the files is still somewhere below the root.

        Raises:
            Finding: one is not.
        """
        lost = [file.name for file in files if not self.files.places(file)]
        if lost:
            raise Finding(
                self.outcome.did,
                f"lost: {', '.join(lost)}: its content is in no folder any more",
                self.outcome.last_words,
                grade="loses",
            )


@dataclass
class QueueFindings:
    """What is known of one trainer's queue.

    Attributes:
        files: of its data, all of them different.
        undisturbed: its turn with one file and nothing in the way.
        problem: why that turn shows that nothing can be said of disturbed ones.
    """

    files: list[Path]
    undisturbed: Turn | None = None
    problem: str = ""

    def patience(self, files: int) -> float | None:
        """Seconds after which a turn with so many files is taken for hung; None where it is not known yet."""
        return None if self.undisturbed is None else 10 + 4 * files * self.undisturbed.outcome.seconds
