"""Cases 61 to 70: the flow of training."""

from __future__ import annotations

import re
from itertools import pairwise

from pytest_trainguard import (
    Finding,
    Guard,
    Outcome,
    edge_case,
    faults,
    recovers,
    stops,
    survives,
)
from pytest_trainguard.expect import Wording, names
from pytest_trainguard.probes.numbers import NanInjection
from pytest_trainguard.probes.overfit import TinyOverfit

NOT_FINITE = Wording(
    "what was not finite (NaN, infinity)", re.compile(r"\bnan\b|not finite|non-?finite|\binf(inity|inite)?\b", re.I)
)
FINAL_LOSS, DROP = 0.5, 0.7  # of the post-mortem's tiny-overfit check
HANG_LIMIT, SLACK = (
    2.0,
    10.0,
)  # seconds: the limit that the trainer is given, and what the harness allows beyond it


@edge_case(
    63,
    "already trained",
    verdict="survives",
    severity="major",
    brought_about="a start to resume a run whose saved step is its last",
    expects="ends at once, exit 0, its weights untouched",
)
def test_63_already_trained(guard: Guard) -> None:
    """A job that was queued twice trained for another epoch over the weights that had been released."""
    reference = guard.needs_checkpoints()
    folder = guard.copy(reference.output_dir)
    before = {path.name for path in guard.checkpoints(folder)}
    outcome = guard.run("started again to resume after its last step", output_dir=folder, resume=True)
    if outcome.exit != 0:
        raise Finding(outcome.did, f"it did not end well: {outcome.how}", outcome.last_words)
    if outcome.losses:
        raise Finding(outcome.did, f"it trained on: {outcome.how}", outcome.last_words)
    touched = [name for name in outcome.changed() if name in outcome.before and before & set(name.split("/"))]
    if touched:
        raise Finding(outcome.did, f"it changed its checkpoints: {', '.join(touched[:4])}", outcome.last_words)


@edge_case(
    64,
    "NaN loss",
    verdict="stops",
    severity="critical",
    brought_about="NaN put into the batch, an activation, a gradient, the loss, at step 4",
    expects="stops, naming it; every saved weight is finite",
)
def test_64_nan_loss(nan_injection: NanInjection, guard: Guard) -> None:
    """One NaN at noon, and every checkpoint after it was NaN too: the run had to begin again."""
    outcomes = nan_injection.everywhere(step=4)
    for outcome in outcomes:
        stops(outcome, NOT_FINITE)
    guard.check_checkpoints(*outcomes)


@edge_case(
    65,
    "infinite loss",
    verdict="survives/stops",
    severity="critical",
    brought_about="the loss overflows at step 4, without and with a gradient scaler",
    expects="a gradient scaler skips the step and goes on with a smaller scale; without one, stops",
)
def test_65_infinite_loss(nan_injection: NanInjection, guard: Guard) -> None:
    """Half precision overflows now and then: with a scaler that is weather, without one it is the end."""
    scaled = bool(guard.reference().recording.scales)
    outcome = _infinite(nan_injection)
    if scaled:
        _skipped(outcome, guard)
        return
    stops(outcome, NOT_FINITE)
    guard.check_checkpoints(outcome)
    half = _half_precision(guard)
    if half:
        with_scaler = _infinite(nan_injection, settings=half)
        if with_scaler.recording.scales:
            _skipped(with_scaler, guard)


def _infinite(nan_injection: NanInjection, **options: object) -> Outcome:
    """A loss that overflows to infinity; where this loss does not overflow, infinity itself."""
    outcome = nan_injection("loss", step=4, number="overflow", **options)
    if outcome.exit == 0 and outcome.recording.finite:
        return nan_injection("loss", step=4, number="inf", **options)
    return outcome


def _half_precision(guard: Guard) -> dict[str, object]:
    """The setting that turns fp16 on, where the trainer has one that the harness can recognise."""
    precision = guard.subject.role("precision")
    choice = next((c for c in precision.choices if re.search(r"fp16|float16|^16", str(c))), None) if precision else None
    return {precision.path: choice} if precision and choice else {}


def _skipped(outcome: Outcome, guard: Guard) -> None:
    survives(outcome, finite=False)
    scales = outcome.recording.scales
    if not any(after < before for before, after in pairwise(scales)):
        raise Finding(outcome.did, f"the gradient scaler's scale never became smaller: {scales}", outcome.last_words)
    guard.check_checkpoints(outcome)


@edge_case(
    66,
    "loss does not fall",
    verdict="survives",
    severity="critical",
    brought_about="tiny-overfit: 32 examples, 50 steps",
    expects="the final loss is below 0.5 and more than 70 % below the first",
)
def test_66_loss_does_not_fall(tiny_overfit: TinyOverfit) -> None:
    """A fusion trainer was shipped that did not train: its metrics were made up, its gradient was cut."""
    result = tiny_overfit(examples=32, steps=50)
    if not (result.last < FINAL_LOSS and result.drop > DROP):
        raise Finding(
            result.outcome.did,
            f"the loss went from {result.first:.3f} to {result.last:.3f} ({result.drop:.0%} lower); "
            f"name settings that learn faster in `overfit`, if it only needs a higher learning rate",
            result.outcome.last_words,
        )


@edge_case(
    70,
    "no progress",
    verdict="stops",
    severity="major",
    brought_about="a step that never returns",
    expects="stops within its stated limit, with the stack of where it hung",
)
def test_70_no_progress(guard: Guard) -> None:
    """A loader waited for a worker that had died, all weekend long."""
    limit = guard.needs("hang_timeout")
    seconds = max(HANG_LIMIT, limit.bounds.get("ge", 0.0), limit.bounds.get("gt", 0.0) + 1)
    value = int(seconds) if limit.kind == "int" else seconds
    outcome = guard.run(
        f"made step 4 hang, with {limit.path}={value}",
        fault=faults.hang(4), settings={limit.path: value}, time_limit=seconds + SLACK,
    )  # fmt: skip
    stops(outcome)
    if not names(outcome.output, re.compile(r'most recent call|File ".*", line \d+')):
        raise Finding(outcome.did, "it stopped, but shows no stack of where it hung", outcome.last_words)
    guard.check_checkpoints(outcome)
    if guard.recoverable:
        again = guard.run(f"{outcome.did}, then started again", output_dir=outcome.output_dir, resume=True)
        recovers(again, guard.reference())
