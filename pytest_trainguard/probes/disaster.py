"""`kill_and_resume`: real kills in mid-training and in mid-save, loss of power, and the second start after them."""

from __future__ import annotations

import random
import signal
from dataclasses import dataclass
from pathlib import Path

from pytest_trainguard import expect, faults
from pytest_trainguard.faults import power
from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.subject import STEPS
from pytest_trainguard.trainer import Outcome


@dataclass(frozen=True)
class Recovery:
    """What a kill and a second start came to.

    Attributes:
        killed: the run that was killed.
        resumed: the second start, in the same output folder.
        reference: the undisturbed run to as many steps.
        from_scratch: nothing had been saved when the kill came.
    """

    killed: Outcome
    resumed: Outcome
    reference: Outcome
    from_scratch: bool

    def check(self) -> None:
        """The second start carries on, its losses those of the undisturbed run to the bit.

        Raises:
            Finding: it does not.
        """
        expect.recovers(self.resumed, self.reference, from_scratch=self.from_scratch)


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
        reference = self.guard.needs_checkpoints()
        saved = self.guard.first_save()
        if step is None:
            step = random.Random(self.guard.subject.name).randint(saved + 1, STEPS)
        killed = self.kill(step, signum)
        resumed = self._again(killed.output_dir, f"{killed.did}, then started again to resume")
        return Recovery(killed, resumed, reference, from_scratch=step <= saved)

    def kill(self, step: int, signum: signal.Signals = signal.SIGKILL) -> Outcome:
        """Kill in the forward pass of `step`, counted from 1; the killed run."""
        return self.guard.run(f"sent {signum.name} in step {step}", fault=faults.kill(step, signum))

    def in_save(self, step: int, nth: int) -> Outcome:
        """Kill at the `nth` write to the output folder after `step`; the killed run."""
        return self.guard.run(
            f"sent SIGKILL at write {nth} of the save after step {step}", fault=faults.kill_in_save(step, nth)
        )

    def power_loss(self, killed: Outcome, state: str) -> Recovery:
        """Lose what the killed run had not made durable, then resume.

        Args:
            killed: a run that was ended by SIGKILL; it is not touched.
            state: one of `power.STATES`.
        """
        folder = self.guard.copy(killed.output_dir)
        lost = power.lose(folder, killed.output_dir, killed.recording, state)
        names = ", ".join(lost[:3]) or "nothing"
        resumed = self._again(
            folder, f"{killed.did}; {power.STATES[state]} (lost: {names}); then started again to resume"
        )
        return Recovery(killed, resumed, self.guard.reference(), from_scratch=False)

    def _again(self, output_dir: Path, did: str) -> Outcome:
        return self.guard.run(did, output_dir=output_dir, resume=True)
