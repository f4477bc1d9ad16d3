"""What a good trainer does: the four verdict kinds as functions."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_trainguard.contract.outcome import Outcome

from pytest_trainguard.harm import Cause, Grade, Problem
from pytest_trainguard.verdicts import causes
from pytest_trainguard.verdicts.errors import Finding
from pytest_trainguard.verdicts.gathering import note
from pytest_trainguard.verdicts.parting import find_differing_states
from pytest_trainguard.verdicts.wording import Named, describe, names

TEMPORARY = re.compile(r"(?<![a-z])te?mp(?!late)|partial")  # a chat_template.jinja is nothing half-written
SOON = 2  # optimizer steps that may pass between a fault and the stop


class _Judgement:
    """What is wrong with one run, gathered before it is told."""

    def __init__(self, outcome: Outcome):
        self.outcome = outcome
        self.problems: list[Problem] = []

    def add(self, grade: Grade, said: str, cause: Cause | None = None) -> None:
        """One more problem."""
        evidence = self.outcome.stack if self.outcome.timed_out else self.outcome.last_words
        self.problems.append(Problem(grade, said, self.outcome.did, evidence, cause))

    def tell(self) -> None:
        """Raise what was found; what is no more than unclear is noted, and the case goes on."""
        if not self.problems:
            return
        how = self.outcome.how
        if not any(how in problem.said for problem in self.problems):
            self.problems[0] = replace(self.problems[0], said=f"{self.problems[0].said} ({how})")
        finding = Finding.joined(self.problems)
        if finding.grade != "unclear":
            raise finding
        note(finding)


def rejects(outcome: Outcome, *naming: Named, before: str = "step", cause: Cause | None = None) -> None:
    """It exits non-zero, names the offending things, before the first optimizer step, and leaves no file behind.

    Args:
        outcome: the run.
        naming: what the message must name: a text, a tuple of texts of which one will do, or a pattern.
        before: `"model"` where it must also come before a model is built.
        cause: why it does not reject, where the case knows what it has in common with others.

    Raises:
        Finding: it did otherwise. That it ended early and safely, and its words say too little, is noted only.
    """
    judged = _Judgement(outcome)
    _require_failure(judged, cause)
    if outcome.recording.steps:
        if outcome.exit == 0:
            judged.add("misleads", "it trained instead of rejecting that", cause)
        else:
            judged.add("wastes", f"it trained first: {outcome.how}", cause)
    elif before == "model" and outcome.recording.built_model:
        judged.add("unclear", "it built a model before it looked", causes.LATE_CHECKS)
    if outcome.exit > 0:
        _require_names(judged, outcome.complaint, naming)
    files = outcome.left()
    if files and outcome.exit != 0:  # after exit 0 they need no mention
        judged.add("unclear", f"it left in the output folder: {_listed(files)}", causes.LEAVES_FILES)
    judged.tell()


def survives(outcome: Outcome, *naming: Named, steps: int | None = None, finite: bool = True) -> None:
    """It trains on to the end: exit 0, at least one optimizer step (or just `steps`), every loss finite.

    Args:
        outcome: the run.
        naming: what it must have said; see `rejects`.
        steps: the optimizer steps that it must have taken; any number above 0 where none is given.
        finite: whether every loss must be finite; not so where the fault itself is a loss that is not.

    Raises:
        Finding: it did otherwise. That it went on rightly, and its words say too little, is noted only.
    """
    judged = _Judgement(outcome)
    taken = len(outcome.recording.steps)
    if outcome.exit != 0:
        judged.add("wastes", f"it did not survive: {outcome.how}", causes.find_crash(outcome))
    elif taken == 0:
        judged.add("misleads", "exit 0 without one optimizer step")
    elif steps is not None and taken != steps:
        judged.add("misleads", f"it took {taken} optimizer steps, {steps} were asked for")
    if finite and not outcome.recording.finite:
        judged.add("misleads", f"a loss was not finite: {_first_not_finite(outcome)}")
    if outcome.exit == 0:
        _require_names(judged, outcome.message, naming)
    _require_nothing_left(judged)
    judged.tell()


def _first_not_finite(outcome: Outcome) -> str:
    for step in outcome.recording.steps:
        for loss in step.losses:
            if not math.isfinite(loss):
                return f"{loss} in step {step.number}"
    return ""


def stops(outcome: Outcome, *naming: Named, within: int = SOON, cause: Cause | None = causes.SWALLOWS) -> None:
    """It ends non-zero, at most `within` optimizer steps after the fault, names it, and leaves nothing behind.

    Whether its checkpoints are whole and finite is for `guard.checkpoints.check`.

    Args:
        outcome: the run.
        naming: what the message must name; see `rejects`.
        within: optimizer steps that it may take after the fault.
        cause: why it goes on, where it does.

    Raises:
        Finding: it did otherwise. That it stopped rightly, and its words say too little, is noted only.
    """
    judged = _Judgement(outcome)
    _require_failure(judged, cause)
    after = len(outcome.recording.steps) - outcome.recording.steps_before_fault
    if after > within and outcome.exit != 0:  # after exit 0 it needs no mention
        judged.add("wastes", f"it went on for {after} optimizer steps after the fault", cause)
    if outcome.exit > 0:
        _require_names(judged, outcome.complaint, naming)
    _require_nothing_left(judged)
    judged.tell()


def recovers(
    outcome: Outcome,
    reference: Outcome,
    *,
    from_scratch: bool = False,
    lost: Cause | None = None,
    damaged: Cause | None = None,
) -> None:
    """A second start carries on, and from there its losses equal those of the undisturbed run, bit for bit.

    Args:
        outcome: the second start.
        reference: the undisturbed run to as many steps.
        from_scratch: nothing was saved before the fault, so that starting again at step 0 is right.
        lost: the cause, where it does not carry on, if the case knows it.
        damaged: the cause, where it takes a damaged state for another than it was: no other state was lost then.

    Raises:
        Finding: it did otherwise.
    """
    judged = _Judgement(outcome)
    second, first = outcome.losses, reference.losses
    if outcome.exit != 0:
        crash = lost or causes.find_crash(outcome)
        judged.add("loses", f"the second start did not carry on: {outcome.how}", crash)
    elif not second:
        judged.add("misleads", "the second start took no step", lost)
    elif len(second) >= len(first) and not from_scratch:
        again = f"the second start began again at step 0: it took {len(second)} steps of {len(first)}"
        judged.add("loses", again, lost or causes.BEGINS_AGAIN)
    elif second != first[-len(second) :]:
        states = find_differing_states(outcome, reference)
        otherwise = damaged if damaged and (not states or "weights" in states) else causes.resumes_otherwise(states)
        judged.add("misleads", _where_they_part(outcome, reference, states), otherwise)
    _require_nothing_left(judged)
    judged.tell()


def _where_they_part(outcome: Outcome, reference: Outcome, states: list[str]) -> str:
    skipped = len(reference.losses) - len(outcome.losses)
    pairs = zip(outcome.recording.steps, reference.recording.steps[skipped:], strict=False)
    for number, (ours, theirs) in enumerate(pairs, skipped + 1):
        if ours.loss != theirs.loss:
            rates = f" (learning rate {ours.lr[0]:g}, undisturbed {theirs.lr[0]:g})" if ours.lr != theirs.lr else ""
            losses = f"loss {ours.loss!r}, undisturbed {theirs.loss!r}"
            differ = f"; as it began, these differed: {', '.join(states)}" if states else ""
            return f"it parts from the undisturbed run at step {number}: {losses}{rates}{differ}"
    return f"it took {len(outcome.losses)} steps where {len(reference.losses)} were asked for in all"


def _require_failure(judged: _Judgement, swallows: Cause | None) -> None:
    outcome = judged.outcome
    if outcome.timed_out:
        judged.add("wastes", f"it {outcome.how}")
    elif outcome.exit == 0:
        judged.add("misleads", f"{outcome.how}: a failure that nobody notices", swallows)
    elif outcome.exit < 0:
        judged.add("wastes", f"it was {outcome.how}")


def _require_names(judged: _Judgement, message: str, naming: tuple[Named, ...]) -> None:
    missing = [describe(wanted) for wanted in naming if not names(message, wanted)]
    if missing:
        judged.add("unclear", f"its message does not name {', nor '.join(missing)}", causes.UNNAMED)


def _require_nothing_left(judged: _Judgement) -> None:
    outcome = judged.outcome
    if outcome.leftovers:
        shown = ", ".join(f"{left.pid} {left.command} ({left.status})" for left in outcome.leftovers[:3])
        judged.add("wastes", f"processes left behind: {shown}", causes.LEAVES_PROCESSES)
    unfinished = [name for name in outcome.changed() if name in outcome.after and TEMPORARY.search(name)]
    if unfinished:
        judged.add("unclear", f"temporary files or folders left behind: {_listed(unfinished)}", causes.LEAVES_TEMPORARY)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
