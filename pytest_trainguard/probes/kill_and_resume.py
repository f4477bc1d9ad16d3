"""`kill_and_resume`: real kills in mid-training and in mid-save, loss of power, and the second start after them."""

from __future__ import annotations

import random
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pytest_trainguard import faults
from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.damage import power
from pytest_trainguard.launch.protocol import RunRequest
from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.probes.saved_state import find_differing
from pytest_trainguard.rows import suffixes
from pytest_trainguard.subject.reference import find_saves
from pytest_trainguard.verdicts import causes
from pytest_trainguard.verdicts.errors import Finding
from pytest_trainguard.verdicts.gathering import gathering
from pytest_trainguard.verdicts.kinds import recovers

EPOCH = 3  # batches: in the eight steps of a run two epochs end


@dataclass(frozen=True)
class Course:
    """An undisturbed run to hold a resumed one against.

    Attributes:
        data: what it trained on; None for the trainer's own piece of data.
        outcome: how it ended.
        saves: the optimizer steps after which it saved.
    """

    data: Path | None
    outcome: Outcome
    saves: tuple[int, ...]


@dataclass(frozen=True)
class Recovery:
    """What a kill and a second start came to.

    Attributes:
        killed: the run that was killed.
        resumed: the second start, in the same output folder.
        reference: the undisturbed run to as many steps.
        from_scratch: nothing had been saved when the kill came.
        alike: the same second start, in an interpreter whose strings hash as the first one's; None where it was not
            made.
        third: a start after a second kill, which came when the second start had saved; None where it was not made.
        saved_otherwise: what the second start saved, and the undisturbed run otherwise: its name, to what differs.
    """

    killed: Outcome
    resumed: Outcome
    reference: Outcome
    from_scratch: bool
    alike: Outcome | None = None
    third: Outcome | None = None
    saved_otherwise: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """The second start carries on, its losses those of the undisturbed run to the bit, and so does a third.

        Raises:
            Finding: it does not; or what it saves is not what it would have saved.
        """
        if self.alike is not None:
            recovers(self.alike, self.reference, from_scratch=self.from_scratch)
            self._check_hashing()
        recovers(self.resumed, self.reference, from_scratch=self.from_scratch)
        if self.third is not None:
            recovers(self.third, self.reference, lost=causes.SECOND_RESUME, damaged=causes.SECOND_RESUME)
        if self.saved_otherwise:
            self._tell_what_differs()

    def _check_hashing(self) -> None:
        """The second start recovers as long as strings hash alike."""
        try:
            with gathering():
                recovers(self.resumed, self.reference, from_scratch=self.from_scratch)
        except Finding as finding:
            told = (
                "it is another training than the undisturbed run's where strings hash otherwise, as in every new "
                "process (PYTHONHASHSEED): the order of a set of strings, or hash(), goes into it; sort the set"
            )
            raise Finding(
                self.resumed.did, f"{told}: {finding.problems[0].said}", self.resumed.last_words, grade="misleads",
                cause=causes.HASH_ORDER,
            ) from finding  # fmt: skip

    def _tell_what_differs(self) -> None:
        names = list(self.saved_otherwise)
        more = f", and {len(names) - 1} more" if len(names) > 1 else ""
        raise Finding(
            self.resumed.did,
            f"its losses are those of the undisturbed run, and what it saves is not: {names[0]} "
            f"({self.saved_otherwise[names[0]]}){more}: an average, a counter or a buffer that no loss shows was begun "
            "anew: save it, and restore it",
            self.resumed.last_words,
            grade="misleads",
            cause=causes.SAVED_OTHERWISE,
        )


class KillAndResume:
    """End a run for real, then start it again where it was."""

    def __init__(self, guard: Guard):
        self.guard = guard

    def __call__(self, step: int | None = None, signum: signal.Signals = signal.SIGKILL) -> Recovery:
        """Kill in the forward pass of `step`, then resume; kill the second start, too, and resume again.

        It trains on so few rows that epochs end in between, where the program takes so few.

        Args:
            step: counted from 1; by default one at random after the first checkpoint, the same for one trainer
                each time.
            signum: the signal.

        Raises:
            NotApplicable: the trainer leaves no checkpoint before its end, or does not repeat itself.
        """
        course = self._find_course()
        reference, saved = course.outcome, min(course.saves, default=len(course.outcome.recording.steps))
        if step is None:
            step = self._choose_step(course)
        from_scratch = step <= saved
        (killed,) = self.guard.run_all([replace(self.killed_in(step, signum), data=course.data)])
        did = f"{killed.did}, then started again to resume"
        again = RunRequest(did, data=course.data, resume=True)
        kept, second = self.guard.copy(killed.output_dir), self.guard.copy(killed.output_dir)
        (resumed,) = self.guard.run_all([replace(again, output_dir=killed.output_dir, anew=True)])
        if not _recovers(resumed, reference, from_scratch):
            (alike,) = self.guard.run_all([replace(again, output_dir=kept)])
            return Recovery(killed, resumed, reference, from_scratch, alike)
        third = None if from_scratch else self._kill_again(again, second, course, step)
        differing = {} if from_scratch else self._compare_saved(resumed, reference)
        return Recovery(killed, resumed, reference, from_scratch, None, third, differing)

    def _find_course(self) -> Course:
        """The undisturbed run on three batches an epoch; on the usual rows where the program does not take so few."""
        guard = self.guard
        outcome, saves = guard.needs.checkpoints(), guard.reference.saves
        usual = Course(None, outcome, saves or (guard.reference.first_save,))
        rows = EPOCH * guard.reference.rows_of_a_step
        if guard.subject.data is None or not 0 < rows < guard.subject.description.rows:
            return usual
        data = guard.subject.make_data(guard.folder / "short", rows)
        (short,) = guard.run_all([RunRequest(f"trained undisturbed on {rows} rows", data=data, states=True)])
        alike = len(short.losses) == len(outcome.losses) and short.recording.finite
        if short.exit != 0 or not alike or find_saves(guard.subject, short) != saves:
            return usual
        return Course(data, short, saves)

    def _choose_step(self, course: Course) -> int:
        """One after the first checkpoint; where there is one, such that the second start begins within an epoch."""
        last = max(min(course.saves) + 1, self.guard.reference.last_step)
        steps = range(min(course.saves) + 1, last + 1)
        begins = {step: max(saved for saved in course.saves if saved < step) for step in steps}
        within = [step for step in steps if begins[step] % EPOCH and begins[step] < 2 * EPOCH]
        return random.Random(self.guard.subject.name).choice(within or list(steps))

    def _kill_again(self, again: RunRequest, folder: Path, course: Course, step: int) -> Outcome | None:
        """The start after a second kill, which comes in the step after the first save of the second start."""
        begun = max(saved for saved in course.saves if saved < step)
        later = [saved for saved in course.saves if begun < saved < self.guard.reference.last_step]
        if not later:
            return None
        second = replace(self.killed_in(later[0] - begun + 1), data=course.data, output_dir=folder, resume=True)
        did = f"{again.did}, killed in step {later[0] + 1}"
        (killed,) = self.guard.run_all([replace(second, did=did)])
        (third,) = self.guard.run_all(
            [replace(again, did=f"{did}, and started a third time", output_dir=killed.output_dir)]
        )
        return third

    def _compare_saved(self, resumed: Outcome, reference: Outcome) -> dict[str, str]:
        """What is saved otherwise than undisturbed; not what two undisturbed runs save differently."""
        guard = self.guard
        found = self._differing(resumed, reference)
        if found:
            usual = self._differing(guard.reference.second_outcome, guard.reference.outcome)
            found = {name: what for name, what in found.items() if name not in usual}
        return found

    def _differing(self, one: Outcome, other: Outcome) -> dict[str, str]:
        names = [
            name
            for name, content in one.after.items()
            if suffixes.weights(Path(name)) and other.after.get(name, content) != content
        ]
        if not names:
            return {}
        files = [[outcome.output_dir / name for name in names] for outcome in (one, other)]
        return self.guard.subject.server.call(find_differing, *files)

    def killed_in(self, step: int, signum: signal.Signals = signal.SIGKILL) -> RunRequest:
        """A run that is killed in the forward pass of `step`, counted from 1; for `Guard.run_all`."""
        return RunRequest(f"sent {signum.name} in step {step}", fault=faults.kill(step, signum))

    def killed_in_save(self, step: int, nth: int) -> RunRequest:
        """A run that is killed at the `nth` write to the output folder after `step`; for `Guard.run_all`."""
        did = f"sent SIGKILL at write {nth} of the save after step {step}"
        return RunRequest(did, fault=faults.kill_in_save(step, nth))

    def after_power_loss(self, killed: Outcome, state: str) -> RunRequest:
        """The second start after a loss of power; for `Guard.run_all`.

        Args:
            killed: a run that was ended by SIGKILL. Its folder is not touched: what it had not made durable is lost in
                a copy of it.
            state: one of `power.DISK_STATES`.
        """
        folder = self.guard.copy(killed.output_dir)
        lost = ", ".join(power.lose_unsynced(folder, killed.output_dir, killed.recording, state)[:3]) or "nothing"
        did = f"{killed.did}; {power.DISK_STATES[state]} (lost: {lost}); then started again to resume"
        return RunRequest(did, output_dir=folder, resume=True)


def _recovers(outcome: Outcome, reference: Outcome, from_scratch: bool) -> bool:
    with gathering() as noted:
        try:
            recovers(outcome, reference, from_scratch=from_scratch)
        except Finding:
            return False
    return not noted
