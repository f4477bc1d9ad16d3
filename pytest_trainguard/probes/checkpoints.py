"""The checkpoints that runs leave: found as the trainer finds them, looked at, and started again from."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path

from pytest_trainguard import faults, folders
from pytest_trainguard.contract import checkpoints
from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.launch import questions
from pytest_trainguard.launch.protocol import RunRequest
from pytest_trainguard.probes.finite_weights import NOT_FINITE, find_bad_weights
from pytest_trainguard.probes.needs import Needs
from pytest_trainguard.probes.runs import Runs
from pytest_trainguard.rows import suffixes
from pytest_trainguard.verdicts import causes
from pytest_trainguard.verdicts.errors import Finding, NotApplicable

Content = tuple[int, str]  # of a file: its size and hash
FolderContent = frozenset[tuple[str, Content]]


@dataclass
class CheckpointFindings:
    """What is known of one trainer's checkpoints.

    Attributes:
        killed_late: a run that was killed in its last step.
        begins_again: a second start after that run took every step again; None where that was not tried.
        second_starts: by what stood in the output folder before.
        sound_files: the content of files that can be loaded and are finite.
    """

    killed_late: Outcome | None = None
    begins_again: bool | None = None
    second_starts: dict[FolderContent, Outcome] = field(default_factory=dict)
    sound_files: set[Content] = field(default_factory=set)


class Checkpoints:
    """The checkpoints of one trainer in one test."""

    def __init__(self, runs: Runs, needs: Needs):
        self._runs, self._needs, self._subject = runs, needs, runs.subject
        self._findings = runs.subject.findings.get(CheckpointFindings, CheckpointFindings)

    def find(self, folder: Path) -> list[Path]:
        """The finished checkpoints in an output folder, oldest first, found as the trainer finds them."""
        return self._subject.find_checkpoints(folder)

    @property
    def by_path(self) -> bool:
        """Whether the program can be told what to resume from, and not only to resume."""
        return self._subject.description.takes_path

    def resume_point(self, folder: Path) -> Path | None:
        """What the trainer is told to carry on from in an output folder; the folder itself where it chooses."""
        return self._subject.server.ask(questions.resume_point, folder)

    def require_resume(self) -> Outcome:
        """The undisturbed run, as `Needs.checkpoints`, of a program that does carry on after a kill.

        Raises:
            NotApplicable: as there; or it begins again at step 0 whatever it has saved, which is case 41's to tell: any
                other case would find the same, and take it for something else.
        """
        reference = self._needs.checkpoints()
        if self._findings.begins_again is None:
            killed = self.killed_late()
            folder = folders.copy(killed.output_dir, self._runs.folder / "killed-late" / "output")
            did = f"{killed.did}, then started again to resume"
            again = self._runs.run(did, output_dir=folder, resume=True)
            all_steps = again.exit == 0 and len(again.losses) >= len(reference.losses)
            self._findings.begins_again = all_steps and bool(self.find(killed.output_dir))
        if self._findings.begins_again:
            raise NotApplicable(
                "a second start begins again at step 0, whatever is saved (case 41, killed): let it carry on",
                "let a second start carry on from what is saved",
            )
        return reference

    @property
    def resumes(self) -> bool:
        """Whether what `require_resume` asks for is so."""
        try:
            self.require_resume()
        except NotApplicable:
            return False
        return True

    @property
    def recoverable(self) -> bool:
        """Whether what `Needs.checkpoints` asks for is there."""
        try:
            self._needs.checkpoints()
        except NotApplicable:
            return False
        return True

    def killed_late(self) -> Outcome:
        """A run that SIGKILL ended in its last step, when most was saved; made once for each trainer.

        Its folder is for all cases: start again, or damage something, in a copy of it (`Guard.copy`).
        """
        if self._findings.killed_late is None:
            last = self._runs.reference.last_step
            did = f"sent SIGKILL in step {last}"
            self._findings.killed_late = self._runs.run(did, fault=faults.kill(last))
        return self._findings.killed_late

    def start_again(self, outcomes: list[Outcome]) -> list[Outcome]:
        """The second start of each run, in its output folder, asked to resume.

        Runs that left the same in their folders, to the last byte, have one second start between them, which is made
        once for each trainer: what a program that repeats itself makes of the same files is the same.
        """
        known = self._findings.second_starts
        did = "{}, then started again to resume".format
        new: dict[FolderContent, Outcome] = {}
        for outcome in outcomes:
            if _content(outcome) not in known:
                new.setdefault(_content(outcome), outcome)
        again = self._runs.run_all(
            [RunRequest(did(one.did), output_dir=one.output_dir, resume=True) for one in new.values()]
        )
        known.update(zip(new, again, strict=True))
        return [dataclasses.replace(known[_content(outcome)], did=did(outcome.did)) for outcome in outcomes]

    def check(self, *outcomes: Outcome) -> None:
        """Every checkpoint that the runs left can be loaded, and every weight in it is finite.

        Raises:
            Finding: one is not; with the file and the tensor.
        """
        owners = {file: outcome for outcome in outcomes for file in self._weights(outcome)}
        content = {file: one.after.get(os.path.relpath(file, one.output_dir)) for file, one in owners.items()}
        unknown = [file for file in owners if content[file] not in self._findings.sound_files]
        bad: dict[Path, str] = {}
        if unknown:
            undisturbed = self._weights(self._runs.reference.outcome)
            bad = self._subject.server.call(find_bad_weights, unknown, undisturbed)
        for file, what in bad.items():
            outcome = owners[file]
            name = file.relative_to(outcome.output_dir)
            told = f"it left a checkpoint that is no good: {name}: {what}"
            if what.endswith(NOT_FINITE):
                raise Finding(outcome.did, told, outcome.last_words, grade="misleads", cause=causes.NOT_FINITE)
            raise Finding(outcome.did, told, outcome.last_words, grade="loses", cause=causes.HALF_WRITTEN)
        self._findings.sound_files |= {known for known in content.values() if known is not None}

    def _weights(self, outcome: Outcome) -> list[Path]:
        found = [file for checkpoint in self.find(outcome.output_dir) for file in checkpoints.files(checkpoint)]
        return [file for file in found if suffixes.weights(file)]


def _content(outcome: Outcome) -> FolderContent:
    return frozenset(outcome.after.items())
