"""`kill_and_resume`: real kills in mid-training and in mid-save, loss of power, and the second start after them."""

from __future__ import annotations

import random
import signal
from dataclasses import dataclass

from pytest_trainguard import faults
from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.damage import power
from pytest_trainguard.launch.protocol import RunRequest
from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.verdicts import causes
from pytest_trainguard.verdicts.errors import Finding
from pytest_trainguard.verdicts.gathering import gathering
from pytest_trainguard.verdicts.kinds import recovers


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
    """

    killed: Outcome
    resumed: Outcome
    reference: Outcome
    from_scratch: bool
    alike: Outcome | None = None

    def check(self) -> None:
        """The second start carries on, its losses those of the undisturbed run to the bit.

        Raises:
            Finding: it does not.
        """
        if self.alike is None:
            recovers(self.resumed, self.reference, from_scratch=self.from_scratch)
            return
        recovers(self.alike, self.reference, from_scratch=self.from_scratch)
        # It does, as long as strings hash alike.
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


class KillAndResume:
    """End a run for real, then start it again where it was."""

    def __init__(self, guard: Guard):
        self.guard = guard

    def __call__(self, step: int | None = None, signum: signal.Signals = signal.SIGKILL) -> Recovery:
        """Kill in the forward pass of `step`, then resume.

        Args:
            step: counted from 1; by default one at random after the first checkpoint, the same for one trainer
                each time.
            signum: the signal.

        Raises:
            NotApplicable: the trainer leaves no checkpoint before its end, or does not repeat itself.
        """
        reference = self.guard.needs.checkpoints()
        saved = self.guard.reference.first_save
        if step is None:
            last = max(saved + 1, self.guard.reference.last_step)
            step = random.Random(self.guard.subject.name).randint(saved + 1, last)
        (killed,) = self.guard.run_all([self.killed_in(step, signum)])
        did = f"{killed.did}, then started again to resume"
        from_scratch = step <= saved
        kept = self.guard.copy(killed.output_dir)
        (resumed,) = self.guard.run_all([RunRequest(did, output_dir=killed.output_dir, resume=True, anew=True)])
        alike = None
        if not _recovers(resumed, reference, from_scratch):
            alike = self.guard.run(did, output_dir=kept, resume=True)
        return Recovery(killed, resumed, reference, from_scratch, alike)

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
