"""Starting runs of the trainer, disturbed or not, and finding out whether what disturbs them came about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.faults import Fault
from pytest_trainguard.launch.protocol import RUN_STEPS, RunOptions, RunRequest
from pytest_trainguard.subject.reference import Reference, tell_slow
from pytest_trainguard.subject.started import StartedRun
from pytest_trainguard.subject.subject import Subject
from pytest_trainguard.verdicts.errors import CannotJudge, NotApplicable

if TYPE_CHECKING:
    from typing_extensions import Unpack

_NO_DOOR = {
    "build": "the program makes no model of torch modules",
    "move": "the program moves no model to a device",
    "read": "the program opens no data where Python sees it (at that time)",
    "sync": "the program never calls fsync in its output folder",
    "data": "the program takes no batch from a torch DataLoader",
    "save": "the program writes nothing to its output folder",
    "batch": "no floating-point number passes through its model",
    "gradient": "its model has no parameter that learns",
}


class Runs:
    """The runs of one trainer in one test.

    Attributes:
        subject: the trainer as the harness sees it.
        folder: an empty folder of this test's own.
        reference: the undisturbed run, made once for each trainer.
    """

    def __init__(self, subject: Subject, folder: Path):
        self.subject, self.folder = subject, folder
        self.reference = Reference.shared(subject)

    def run(self, did: str, **options: Unpack[RunOptions]) -> Outcome:
        """Start a run, wait for its end.

        Args:
            did: what is done to it, in words; a finding begins with this.
            options: see `RunRequest`.

        Raises:
            NotApplicable: the fault is not possible in this program.
            CannotJudge: the undisturbed run fails, or this one could not be followed.
            TypeError: there is no such option.
        """
        outcome = self.start(did, **options).outcome()
        self._require_time(outcome, options.get("time_limit"), options.get("steps", RUN_STEPS))
        return self._require_fault(outcome, options.get("fault"))

    def start(self, did: str, **options: Unpack[RunOptions]) -> StartedRun:
        """Start a run and go on; see `run`."""
        unknown = sorted(set(options) - set(RunOptions.__annotations__))
        if unknown:
            known = ", ".join(RunOptions.__annotations__)
            raise TypeError(f"a run has no option {unknown[0]!r}; there are {known}")
        return self._start(RunRequest(did, **options))

    def run_all(self, requests: Sequence[RunRequest], side_by_side: int = 2) -> list[Outcome]:
        """Several runs that have nothing to do with each other, a few at a time.

        Returns:
            outcomes in order, without those whose fault is not possible in this program.

        Raises:
            NotApplicable: none of the faults is possible.
        """
        outcomes: list[Outcome] = []
        passed_by: list[NotApplicable] = []
        if self._needs_the_machine():
            side_by_side = 1
        for first in range(0, len(requests), side_by_side):
            batch = requests[first : first + side_by_side]
            started = [self._start(request) for request in batch]
            for one, request in zip(started, batch, strict=True):
                try:
                    outcome = one.outcome()
                    self._require_time(outcome, request.time_limit, request.steps)
                    outcomes.append(self._require_fault(outcome, request.fault))
                except NotApplicable as reason:
                    passed_by.append(reason)
        if passed_by and not outcomes:
            raise passed_by[0]
        return outcomes

    def _start(self, request: RunRequest) -> StartedRun:
        self.reference.make()  # first: nothing can be said of a trainer that fails undisturbed
        return self.subject.start(request)

    def _needs_the_machine(self) -> bool:
        """Whether the program holds what two runs on a machine share, a port or a lock, and here they do share it."""
        recording = self.reference.outcome.recording
        return not self.subject.apart and bool(recording.reached("port") or recording.reached("lock"))

    def _require_time(self, outcome: Outcome, limit: float | None, asked: int) -> None:
        """It was not ended by the session's own time limit on its way to the steps that it was asked for.

        Raises:
            CannotJudge: it was, which is no fault of the program's.
        """
        if limit is not None or not outcome.timed_out or not outcome.stepping:
            return
        for_each = len(self.reference.outcome.recording.steps) / RUN_STEPS  # more than 1 with several optimizers
        if len(outcome.recording.steps) <= asked * for_each:
            raise CannotJudge(f"{self.subject.name}: {outcome.did}: {tell_slow(outcome, asked)}")

    def _require_fault(self, outcome: Outcome, fault: Fault | None) -> Outcome:
        """The outcome, where the fault did come about in the run, and not beside what is trained.

        A number that is none spoils every loss after it. Where each is as undisturbed it fell into what the program
        makes no use of: a column that the model is not given, a validation that nothing tells from training. A
        gradient may be one that no loss shows and that is saved all the same.

        Raises:
            NotApplicable: the fault is not possible in this program.
            CannotJudge: the run ended before it.
        """
        _require_event(outcome, fault)
        spoils = fault is not None and fault.kind in ("nan", "inf") and fault.where != "gradient"
        if spoils and outcome.exit == 0 and outcome.losses and outcome.losses == self.reference.outcome.losses:
            raise NotApplicable(f"{fault} changed no loss: it did not come into anything that is trained on")
        return outcome

    @property
    def patience(self) -> float:
        """Seconds after which a short run is taken for hung; see `Reference.patience`."""
        return self.reference.patience


def _require_event(outcome: Outcome, fault: Fault | None) -> None:
    """The fault did come about in the run. Raises as `Runs._require_fault`."""
    if fault is None or fault.kind in ("offline", "gpus") or outcome.recording.fault_fired:
        return
    if outcome.exit == 0 and fault.step > len(outcome.recording.steps) + 1:
        taken = f"the run ends after {len(outcome.recording.steps)} optimizer steps"
        to_add = f"let it take run.max_steps ({RUN_STEPS})"
        raise NotApplicable(f"{fault} never happened: {taken}; {to_add}", to_add)
    if outcome.exit == 0:
        raise NotApplicable(f"{fault} is not possible here: {_NO_DOOR.get(fault.where, 'no such event in the run')}")
    evidence = outcome.stack if outcome.timed_out else outcome.output[-4000:]
    raise CannotJudge(f"{fault}: the run ended before that: {outcome.how}", evidence)
