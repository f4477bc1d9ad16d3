"""What a good trainer does: the four verdict kinds as functions."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_trainguard.contract.outcome import Outcome

from pytest_trainguard.verdicts.errors import Finding
from pytest_trainguard.verdicts.wording import Named, names, said_of

TEMPORARY = re.compile(r"(?<![a-z])te?mp(?!late)|partial")  # a chat_template.jinja is nothing half-written
# A loss is of the weights before its step: what the optimizer forgot shows in the step after.
FIRST_STEP = "the first after the resume: look at the weights, the random generators, the place in the data"
LATER_STEP = "not the first after the resume: look at the state of optimizer and scheduler"
SOON = 2  # optimizer steps that may pass between a fault and the stop


def rejects(outcome: Outcome, *naming: Named, before: str = "step") -> None:
    """It exits non-zero, names the offending things, before the first optimizer step, and leaves no file behind.

    Args:
        outcome: the run.
        naming: what the message must name: a text, a tuple of texts of which one will do, or a pattern.
        before: `"model"` where it must also come before a model is built.

    Raises:
        Finding: it did otherwise.
    """
    problems = _ended_badly(outcome)
    if outcome.recording.steps:
        instead = "it trained instead of rejecting that"
        problems.append(instead if outcome.exit == 0 else f"it trained first: {outcome.how}")
    elif before == "model" and outcome.recording.built_model:
        problems.append("it built a model before it looked")
    if outcome.exit > 0:
        problems += _unnamed(outcome.complaint, naming)
    files = [name for name in outcome.changed() if not name.endswith("/")]
    if files and outcome.exit != 0:  # after exit 0 they need no mention
        problems.append(f"it left in the output folder: {_listed(files)}")
    _judge(outcome, problems)


def survives(outcome: Outcome, *naming: Named, steps: int | None = None, finite: bool = True) -> None:
    """It trains on to the end: exit 0, at least one optimizer step (or just `steps`), every loss finite.

    Args:
        outcome: the run.
        naming: what it must have said; see `rejects`.
        steps: the optimizer steps that it must have taken; any number above 0 where none is given.
        finite: whether every loss must be finite; not so where the fault itself is a loss that is not.

    Raises:
        Finding: it did otherwise.
    """
    problems = []
    taken = len(outcome.recording.steps)
    if outcome.exit != 0:
        problems.append(f"it did not survive: {outcome.how}")
    elif taken == 0:
        problems.append("exit 0 without one optimizer step")
    elif steps is not None and taken != steps:
        problems.append(f"it took {taken} optimizer steps, {steps} were asked for")
    if finite and not outcome.recording.finite:
        problems.append(f"a loss was not finite: {_first_not_finite(outcome)}")
    if outcome.exit == 0:
        problems += _unnamed(outcome.message, naming)
    problems += _left(outcome)
    _judge(outcome, problems)


def _first_not_finite(outcome: Outcome) -> str:
    for step in outcome.recording.steps:
        for loss in step.losses:
            if not math.isfinite(loss):
                return f"{loss} in step {step.number}"
    return ""


def stops(outcome: Outcome, *naming: Named, within: int = SOON) -> None:
    """It ends non-zero, at most `within` optimizer steps after the fault, names it, and leaves nothing behind.

    Whether its checkpoints are whole and finite is for `Guard.check_checkpoints`.

    Raises:
        Finding: it did otherwise.
    """
    problems = _ended_badly(outcome)
    after = len(outcome.recording.steps) - outcome.recording.steps_before_fault
    if after > within:
        problems.append(f"it went on for {after} optimizer steps after the fault")
    if outcome.exit > 0:
        problems += _unnamed(outcome.complaint, naming)
    problems += _left(outcome)
    _judge(outcome, problems)


def recovers(outcome: Outcome, reference: Outcome, *, from_scratch: bool = False) -> None:
    """A second start carries on, and from there its losses equal those of the undisturbed run, bit for bit.

    Args:
        outcome: the second start.
        reference: the undisturbed run to as many steps.
        from_scratch: nothing was saved before the fault, so that starting again at step 0 is right.

    Raises:
        Finding: it did otherwise.
    """
    problems = []
    second, first = outcome.losses, reference.losses
    if outcome.exit != 0:
        problems.append(f"the second start did not carry on: {outcome.how}")
    elif not second:
        problems.append("the second start took no step")
    elif len(second) >= len(first) and not from_scratch:
        problems.append(f"the second start began again at step 0: it took {len(second)} steps of {len(first)}")
    elif second != first[-len(second) :]:
        problems.append(_where_they_part(outcome, reference))
    problems += _left(outcome)
    _judge(outcome, problems)


def _where_they_part(outcome: Outcome, reference: Outcome) -> str:
    skipped = len(reference.losses) - len(outcome.losses)
    pairs = zip(outcome.recording.steps, reference.recording.steps[skipped:], strict=False)
    for number, (ours, theirs) in enumerate(pairs, skipped + 1):
        if ours.loss != theirs.loss:
            rates = f" (learning rate {ours.lr[0]:g}, undisturbed {theirs.lr[0]:g})" if ours.lr != theirs.lr else ""
            losses = f"loss {ours.loss!r}, undisturbed {theirs.loss!r}"
            where = FIRST_STEP if number == skipped + 1 else LATER_STEP
            return f"it parts from the undisturbed run at step {number}: {losses}{rates}; {where}"
    return f"it took {len(outcome.losses)} steps where {len(reference.losses)} were asked for in all"


def _ended_badly(outcome: Outcome) -> list[str]:
    if outcome.timed_out:
        return [f"it {outcome.how}"]
    if outcome.exit == 0:
        return [f"{outcome.how}: a failure that nobody notices"]
    return [f"it was {outcome.how}"] if outcome.exit < 0 else []


def _unnamed(message: str, naming: tuple[Named, ...]) -> list[str]:
    missing = [said_of(wanted) for wanted in naming if not names(message, wanted)]
    return [f"its message does not name {', nor '.join(missing)}"] if missing else []


def _left(outcome: Outcome) -> list[str]:
    problems = []
    if outcome.leftovers:
        shown = ", ".join(f"{left.pid} {left.command} ({left.status})" for left in outcome.leftovers[:3])
        problems.append(f"processes left behind: {shown}")
    unfinished = [name for name in outcome.changed() if name in outcome.after and TEMPORARY.search(name)]
    if unfinished:
        problems.append(f"temporary files or folders left behind: {_listed(unfinished)}")
    return problems


def _listed(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _judge(outcome: Outcome, problems: list[str]) -> None:
    if problems:
        if not any(outcome.how in problem for problem in problems):
            problems[0] += f" ({outcome.how})"
        evidence = outcome.stack if outcome.timed_out else outcome.last_words
        raise Finding(outcome.did, "\n".join(problems), evidence)
