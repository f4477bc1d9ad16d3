"""Cases 61 to 70: the flow of training."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

from pytest_trainguard import (
    Finding,
    Guard,
    NotApplicable,
    Outcome,
    edge_case,
    faults,
    recovers,
    rejects,
    stops,
    survives,
)
from pytest_trainguard.expect import Wording, names, number
from pytest_trainguard.probes.numbers import NanInjection
from pytest_trainguard.probes.overfit import TinyOverfit
from pytest_trainguard.subject import STEPS

NOT_FINITE = Wording(
    "what was not finite (NaN, infinity)", re.compile(r"\bnan\b|not finite|non-?finite|\binf(inity|inite)?\b", re.I)
)
NO_STEPS = Wording(
    "the number of steps (0)", re.compile(r"(?<![\w./-])0(?![\w/-]|\.\d)|\b(?:no|zero) (?:\w+ )?steps?\b", re.I)
)
FEW, MANY = 3, 64  # rows, and batches that one optimizer step is to be accumulated from
FINAL_LOSS, DROP = 0.5, 0.7  # of the post-mortem's tiny-overfit check
HANG_LIMIT, SLACK = (
    2.0,
    10.0,
)  # seconds: the limit that the trainer is given, and what the harness allows beyond it


@edge_case(
    61,
    "zero training steps",
    verdict="rejects/survives",
    severity="major",
    brought_about="0 optimizer steps asked for; 0 epochs; more batches to accumulate than there are rows",
    expects="rejects, naming the numbers; few rows may also be trained on, with at least one optimizer step",
)
def test_61_zero_training_steps(guard: Guard) -> None:
    """`len(loader) // accumulation` is 0 for a small file: the loop ends before it begins, and all went well.

    Where the number of steps rules over that of epochs, 0 epochs may be no matter, as long as all the steps are taken.
    """
    requests = [{"did": "asked for 0 optimizer steps", "steps": 0}, *_no_epochs(guard), *_few_rows(guard)]
    none, *others = guard.run_all([{"time_limit": guard.patience, **request} for request in requests])
    taken = len(none.recording.steps)
    if none.exit == 0 and taken:
        raise Finding(none.did, f"it took {taken} of them: it reads 0 as no limit", none.last_words)
    rejects(none, NO_STEPS)
    for outcome, request in zip(others, requests[1:], strict=True):
        if outcome.exit == 0:
            survives(outcome, steps=STEPS if "data" not in request else None)
        else:
            rejects(outcome, *map(number, request["settings"].values()), *[number(FEW)] * ("data" in request))


def _no_epochs(guard: Guard) -> list[dict[str, Any]]:
    """One request with 0 epochs, where there is a setting for them."""
    epochs = guard.subject.role("epochs")
    return [{"did": f"set {epochs.path} = 0", "settings": {epochs.path: 0}}] if epochs else []


def _few_rows(guard: Guard) -> list[dict[str, Any]]:
    """One request with fewer rows than an optimizer step wants, where gradients can be accumulated."""
    many = guard.subject.role("accumulation")
    if many is None or guard.subject.data is None:
        return []
    value = int(min(MANY, many.bounds.get("le", MANY)))
    data = guard.subject.make_data(guard.folder / "few", FEW)
    did = f"trained on {FEW} rows with {many.path} = {value}"
    return [{"did": did, "settings": {many.path: value}, "data": data}]


@edge_case(
    62,
    "negative global step",
    verdict="rejects",
    severity="major",
    brought_about="the step count in every saved checkpoint made negative, checksums and all",
    expects="rejects, naming the step",
)
def test_62_negative_global_step(guard: Guard) -> None:
    """A step count of 32 bits ran over: the schedule went up and not down, and the run had no end.

    Where a checkpoint holds checksums they are made to fit, as if the program had saved the number itself.
    """
    reference = guard.needs_checkpoints()
    folder = guard.copy(reference.output_dir)
    saved = guard.checkpoints(folder)
    changed = guard.subject.call("negative_steps", checkpoints=[str(path) for path in saved])
    if not changed:
        raise NotApplicable(
            "its checkpoints hold no step count that could be made negative: a whole number named 'step' or "
            "'global_step' in a JSON file, or at the top of what torch.save wrote"
        )
    newest = Path(list(changed)[-1])
    outcome = guard.run(
        f"made the step saved in {newest.relative_to(folder)} negative ({changed[str(newest)]}), and those before it, "
        "then started again to resume",
        output_dir=folder, resume=True, time_limit=guard.patience,
    )  # fmt: skip
    rejects(outcome, ("negative", *map(str, changed.values())))


@edge_case(
    63,
    "already trained",
    verdict="survives",
    severity="major",
    brought_about="a start to resume a run whose saved step is its last",
    expects="ends at once, exit 0, its weights untouched",
    fast=True,
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
    fast=True,
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
    fast=True,
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
