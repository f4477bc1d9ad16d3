"""Cases 61 to 70: the flow of training."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from pytest_trainguard import (
    RUN_STEPS,
    CannotJudge,
    Finding,
    Guard,
    NanInjection,
    NotApplicable,
    Outcome,
    RunRequest,
    TinyOverfit,
    Validated,
    Wording,
    causes,
    checkpoints,
    edge_case,
    faults,
    note,
    noting,
    recovers,
    rejects,
    stops,
    survives,
    wording,
)
from pytest_trainguard.casework import damaged_checkpoints
from pytest_trainguard.casework.long_run import run_long
from pytest_trainguard.casework.relabelled import RELABELLED_STEPS, Relabelled
from pytest_trainguard.casework.rewritten import find_rewritten
from pytest_trainguard.damage import checkpoints as damaged
from pytest_trainguard.damage import weights

NOT_FINITE = Wording(
    "what was not finite (NaN, infinity)", re.compile(r"\bnan\b|not finite|non-?finite|\binf(inity|inite)?\b", re.I)
)
WANTS_GPU = re.compile(r"\b(?:cuda|gpus?)\b", re.I)
NO_STEPS = Wording(
    "the number of steps (0)", re.compile(r"(?<![\w./-])0(?![\w/-]|\.\d)|\b(?:no|zero) (?:\w+ )?steps?\b", re.I)
)
LONG_RUN, LONG_LIMIT = 300, 60.0  # optimizer steps, and seconds
FEW, MANY = 3, 64  # rows, and batches that one optimizer step is to be accumulated from
VALIDATION = re.compile(r"\b(?:validation|eval|val\b|early|overfit)", re.I)
ONE_ANSWER = Wording(
    "no word of one class, or of predictions that are all the same",
    re.compile(
        r"(?:one|single)[-_ ]class|degenerate|collapsed?(?![\w=])|constant[-_ ](?:prediction|output|answer)|"
        r"(?:same|identical) (?:class|label|answer|prediction|output)|"
        r"(?:all|every) (?:\w+ ){0,3}(?:predictions?|answers?|outputs?) (?:\w+ ){0,3}(?:same|identical|alike)",
        re.I,
    ),
)
NONE_RIGHT = Wording(
    "no word of an accuracy of 0 %, or of predictions that are all wrong",
    re.compile(
        r"zero[-_ ]accuracy|accuracy (?:of|is|was) (?:0|zero)(?![.\d]*[1-9])|"
        r"(?:warn|error|fail|alert|suspicious)[^\n]*accuracy\W{1,3}0(?![.\d]*[1-9])|"
        r"(?:all|every) (?:\w+ ){0,3}(?:predictions?|answers?) (?:\w+ ){0,3}(?:wrong|incorrect)|"
        r"\b(?:no|none|not one) (?:\w+ ){0,4}(?:correct|right)\b",
        re.I,
    ),
)
HANG_LIMIT, SLACK = (
    2.0,
    10.0,
)  # seconds: the limit that the trainer is given, and what the harness allows beyond it


@edge_case(
    "zero-training-steps",
    number=61,
    title="zero training steps",
    verdict="rejects/survives",
    severity="misleads",
    brought_about="0 optimizer steps asked for; 0 epochs; more batches to accumulate than there are rows",
    expects="rejects, naming the numbers; few rows may also be trained on, with at least one optimizer step",
)
def test_zero_training_steps(guard: Guard) -> None:
    """`len(loader) // accumulation` is 0 for a small file: the loop ends before it begins, and all went well.

    Where the number of steps rules over that of epochs, 0 epochs may be no matter, as long as all the steps are taken.
    """
    requests = [RunRequest("asked for 0 optimizer steps", steps=0), *_no_epochs(guard), *_few_rows(guard)]
    none, *others = guard.run_all([replace(request, time_limit=guard.patience) for request in requests])
    taken = len(none.recording.steps)
    with noting():
        if none.exit == 0 and taken:
            raise Finding(none.did, f"it took {taken} of them: it reads 0 as no limit", none.last_words)
        if none.exit != 0:
            rejects(none, NO_STEPS, cause=causes.UNCHECKED_SETTINGS)
        elif not wording.names(none.message, NO_STEPS):  # what was asked for, done and said is no lie
            saved = bool(guard.checkpoints.find(none.output_dir))
            told = "exit 0 after 0 optimizer steps, as asked for, and it does not say that nothing was trained"
            told += ", and saves weights all the same" if saved else ""
            raise Finding(
                none.did,
                told,
                none.last_words,
                grade="misleads" if saved else "unclear",
                cause=causes.UNCHECKED_SETTINGS,
            )
    for outcome, request in zip(others, requests[1:], strict=True):
        with noting():
            if outcome.exit == 0:
                survives(outcome, steps=None if request.data else RUN_STEPS)
            else:
                rows = [wording.number(FEW, "the number of rows")] if request.data else []
                set_to = [
                    wording.number(value, name) for name, value in request.settings.items() if isinstance(value, int)
                ]
                rejects(outcome, *set_to, *rows, cause=causes.UNCHECKED_SETTINGS)


def _no_epochs(guard: Guard) -> list[RunRequest]:
    """One request with 0 epochs, where there is a setting for them."""
    epochs = guard.subject.settings.role("epochs")
    return [RunRequest(f"set {epochs.path} = 0", settings={epochs.path: 0})] if epochs else []


def _few_rows(guard: Guard) -> list[RunRequest]:
    """One request with fewer rows than an optimizer step wants, where gradients can be accumulated."""
    many = guard.subject.settings.role("accumulation")
    if many is None or guard.subject.data is None:
        return []
    value = int(min(MANY, many.bounds.get("le", MANY)))
    data = guard.subject.make_data(guard.folder / "few", FEW)
    did = f"trained on {FEW} rows with {many.path} = {value}"
    return [RunRequest(did, settings={many.path: value}, data=data)]


@edge_case(
    "negative-global-step",
    number=62,
    title="negative global step",
    verdict="rejects",
    severity="misleads",
    brought_about="the step count in every saved checkpoint made negative, checksums and all",
    expects="rejects, naming the step",
)
def test_negative_global_step(guard: Guard) -> None:
    """A step count of 32 bits ran over: the schedule went up and not down, and the run had no end.

    Where a checkpoint holds checksums they are made to fit, as if the program had saved the number itself. A number
    that stands there for readers alone, beside the one that the program goes by, may be any.
    """
    reference = guard.checkpoints.require_resume()
    folder = guard.copy(reference.output_dir)
    saved = guard.checkpoints.find(folder)
    changed = guard.subject.server.call(damaged.negate_step_counts, [str(path) for path in saved], str(folder))
    if not changed:
        raise damaged_checkpoints.not_to_be_changed(
            guard,
            saved,
            "its checkpoints hold no step count that could be made negative: a whole number named 'step' or "
            "'global_step' in a JSON file, or at the top of what torch.save wrote",
        )
    newest = Path(list(changed)[-1])
    outcome = guard.run(
        f"made the step saved in {newest.relative_to(folder)} negative ({changed[str(newest)]}), and those before it, "
        "then started again to resume",
        output_dir=folder, resume=True, time_limit=guard.patience,
    )  # fmt: skip
    saves = guard.reference.saves
    if outcome.exit == 0 and saves and outcome.losses == reference.losses[saves[-1] :]:
        raise NotApplicable(
            f"it carries on where it was, whatever {newest.relative_to(folder)} says: it goes by another step count"
        )
    rejects(outcome, ("negative", *map(str, changed.values())), cause=causes.UNCHECKED_STATE)


@edge_case(
    "already-trained",
    number=63,
    title="already trained",
    verdict="survives",
    severity="loses",
    brought_about="a start to resume a run whose saved step is its last",
    expects="ends at once, exit 0, its weights untouched",
    fast=True,
)
def test_already_trained(guard: Guard) -> None:
    """A job that was queued twice trained for another epoch over the weights that had been released.

    A program that saves as it ends, whatever it did, may put the same checkpoint in its place once more, in one step.
    """
    reference = guard.checkpoints.require_resume()
    saves, taken = guard.reference.saves, len(reference.losses)
    if saves and saves[-1] < taken:
        raise NotApplicable(f"no checkpoint of its last step: it takes {taken}, and saves step {saves[-1]} last")
    folder = guard.copy(reference.output_dir)
    before = {path.name for path in guard.checkpoints.find(folder)}
    outcome = guard.run("started again to resume after its last step", output_dir=folder, resume=True)
    if outcome.exit != 0:
        raise Finding(outcome.did, f"it did not end well: {outcome.how}", outcome.last_words, grade="wastes")
    if outcome.losses:
        raise Finding(outcome.did, f"it trained on: {outcome.how}", outcome.last_words)
    touched = [name for name in outcome.changed() if name in outcome.before and before & set(name.split("/"))]
    touched = find_rewritten(guard, outcome, touched)
    if touched:
        told = f"it changed its checkpoints: {', '.join(touched[:4])}"
        raise Finding(outcome.did, told, outcome.last_words, grade="loses")


@edge_case(
    "nan-loss",
    number=64,
    title="NaN loss",
    verdict="stops",
    severity="misleads",
    brought_about="NaN put into the batch, an activation, a gradient, the loss, at step 4",
    expects="stops, naming it; every saved weight is finite",
    fast=True,
)
def test_nan_loss(nan_injection: NanInjection, guard: Guard) -> None:
    """One NaN at noon, and every checkpoint after it was NaN too: the run had to begin again."""
    outcomes = nan_injection.everywhere(step=4)
    for outcome in outcomes:
        with noting():
            stops(outcome, NOT_FINITE, cause=causes.NOT_FINITE)
    guard.checkpoints.check(*outcomes)


@edge_case(
    "infinite-loss",
    number=65,
    title="infinite loss",
    verdict="survives/stops",
    severity="misleads",
    brought_about="the loss overflows at step 4, without and with a gradient scaler",
    expects="stops; or a gradient scaler skips the step, and goes on with a smaller scale",
)
def test_infinite_loss(nan_injection: NanInjection, guard: Guard) -> None:
    """Half precision overflows now and then: with a scaler that is weather, without one it is the end."""
    scaled = bool(guard.reference.outcome.recording.scales)
    outcome = _infinite(nan_injection)
    if scaled and outcome.exit == 0:
        _skipped(outcome, guard)
        return
    stops(outcome, NOT_FINITE, cause=causes.NOT_FINITE)
    guard.checkpoints.check(outcome)
    if scaled:
        return
    half = _half_precision(guard)
    if half:
        _with_scaler(nan_injection, guard, half)


def _with_scaler(nan_injection: NanInjection, guard: Guard, half: Mapping[str, object]) -> None:
    """The same in half precision. A program may refuse that without a GPU: then it is told of where it is launched."""
    try:
        outcome = _infinite(nan_injection, settings=half)
    except CannotJudge as error:
        if not WANTS_GPU.search(error.evidence):
            raise
        launched = guard.subject.settings.role("precision")
        if launched is not None and guard.subject.settings.production(launched) in half.values():
            ((path, value),) = half.items()
            raise NotApplicable(
                f"with {path} = {value}, as it is launched, it wants a GPU, and its gradient scaler is not seen here: "
                "run this case on a machine with a GPU",
                "run this case on a machine with a GPU",
            ) from error
        return  # what it is launched with has no scaler, and was judged
    if outcome.recording.scales and outcome.exit == 0:
        _skipped(outcome, guard)
    elif outcome.recording.scales:
        stops(outcome, NOT_FINITE, cause=causes.NOT_FINITE)


def _infinite(nan_injection: NanInjection, settings: Mapping[str, object] | None = None) -> Outcome:
    """A loss that overflows to infinity; where this loss does not overflow, infinity itself."""
    outcome = nan_injection("loss", step=4, number="overflow", settings=settings or {})
    if outcome.exit == 0 and outcome.recording.finite:
        return nan_injection("loss", step=4, number="inf", settings=settings or {})
    return outcome


def _half_precision(guard: Guard) -> dict[str, object]:
    """The setting that turns fp16 on, where the trainer has one that the harness can recognise."""
    precision = guard.subject.settings.role("precision")
    choice = next((c for c in precision.choices if re.search(r"fp16|float16|^16", str(c))), None) if precision else None
    return {precision.path: choice} if precision and choice else {}


def _skipped(outcome: Outcome, guard: Guard) -> None:
    survives(outcome, finite=False)
    scales = outcome.recording.scales
    if not any(after < before for before, after in pairwise(scales)):
        raise Finding(outcome.did, f"the gradient scaler's scale never became smaller: {scales}", outcome.last_words)
    guard.checkpoints.check(outcome)


@edge_case(
    "loss-does-not-fall",
    number=66,
    title="loss does not fall",
    verdict="survives",
    severity="misleads",
    brought_about="tiny-overfit: 32 examples, 50 steps",
    expects="the final loss is below 0.5 and more than 70 % below the first; one with another floor (noise, a density, "
    "two networks against each other) comes clearly below where it stands untrained, or below a stated `overfit_below`",
    fast=True,
)
def test_loss_does_not_fall(tiny_overfit: TinyOverfit) -> None:
    """A fusion trainer was shipped that did not train: its metrics were made up, its gradient was cut."""
    result = tiny_overfit(examples=32, steps=50)
    problem = tiny_overfit.find_problem(result)
    if problem and tiny_overfit.learns_slowly:
        note(
            Finding(result.outcome.did, f"it learns, and slowly: {problem}", result.outcome.last_words, grade="unclear")
        )
    elif problem:
        raise Finding(result.outcome.did, problem, result.outcome.last_words)


@edge_case(
    "validation-loss-rises",
    number=67,
    title="validation loss rises",
    verdict="survives/stops",
    severity="misleads",
    brought_about="every row to train on given one label, every row to validate on another",
    expects="the kept best checkpoint is that of the lowest validation loss, with its weights; or stops early",
)
def test_validation_loss_rises(guard: Guard) -> None:
    """`best = model.state_dict()` is no copy: the best model of a run of three days was the last one, overfitted."""
    relabelled = Relabelled(guard)
    outcome = relabelled.run_opposed()
    if outcome.exit != 0:
        stops(outcome)
        if not wording.names(
            outcome.last_words.rpartition("\n")[2], VALIDATION
        ):  # lines before may well be of validations
            said = "it stopped, and does not say that it is for the validation"
            note(Finding(outcome.did, said, outcome.last_words, grade="unclear"))
        return
    survives(outcome)
    told = relabelled.read_validations(outcome)
    if len(told.losses) < 2:
        known = guard.subject.settings.role("eval_every")
        raise NotApplicable(
            f"{len(told.losses)} validation losses are seen in {len(outcome.losses)} steps: say where they stand with "
            "validation_losses(self, output_dir)"
            + ("" if known else ', and how often it validates, fields = {"eval_every": "..."}'),
            "tell its validation losses with validation_losses(self, output_dir)",
        )
    lowest, last = min(told.losses, key=lambda step: told.losses[step]), max(told.losses)
    if told.losses[lowest] == told.losses[last]:
        raise NotApplicable(
            f"its validation loss is lowest at the last of {len(outcome.losses)} steps, although training and "
            "validation disagree: give `overfit` settings that learn faster",
            Relabelled.LEARN_FASTER,
        )
    if len(outcome.losses) < RELABELLED_STEPS:  # it stopped early
        return
    rose = f"its validation loss rose from {told.losses[lowest]:.3f} (step {lowest}) to {told.losses[last]:.3f}"
    if told.best is None:
        none = "and it keeps no best checkpoint (or say where it is: best_checkpoint(self, output_dir))"
        note(Finding(outcome.did, f"{rose} (step {last}), {none}", outcome.last_words, grade="unclear"))
        return
    wrong = _what_is_wrong_with_the_best(told, told.best, outcome, guard)
    if wrong:
        raise Finding(outcome.did, f"{rose} (step {last}), {wrong}", outcome.last_words)


def _what_is_wrong_with_the_best(told: Validated, best: Path, outcome: Outcome, guard: Guard) -> str | None:
    lowest = min(told.losses.values())
    if not best.exists():
        return f"and {best.name}, its best checkpoint, is no longer there"
    newest = guard.checkpoints.find(outcome.output_dir)[-1]
    step = checkpoints.step_of(best)
    step = guard.subject.server.call(damaged.read_step_count, best) if step is None else step
    if step is None:
        raise NotApplicable(
            f"of which step {best.name} is cannot be told: put the step into its name, or into the file"
        )
    if told.losses.get(step) != lowest:
        return f"and {best.name}, its best checkpoint, is of step {step}"
    if best != newest and guard.subject.server.call(weights.hold_same_weights, best, newest):
        return f"and {best.name}, its best checkpoint, holds the weights of the last step ({newest.name})"
    return None


@edge_case(
    "degenerate-output",
    number=68,
    title="degenerate output",
    verdict="survives/stops",
    severity="misleads",
    brought_about="every row to train on given one label, so that every validation row is given the same answer",
    expects="flagged by name: one class, every prediction the same; evaluated in evaluation mode, or nothing of it is "
    "seen",
)
def test_degenerate_output(guard: Guard) -> None:
    """A classifier of rare defects never saw one, said "none" to everything, and was 98 % right."""
    relabelled = Relabelled(guard)
    outcome = relabelled.run_one_sided()
    _flagged(outcome, ONE_ANSWER, relabelled, "every validation row was given the same class")


@edge_case(
    "accuracy-0",
    number=69,
    title="accuracy 0 %",
    verdict="survives/stops",
    severity="misleads",
    brought_about="every row to train on given one label, every row to validate on another",
    expects="flagged by name: accuracy 0, every prediction wrong; evaluated in evaluation mode, or nothing of it is "
    "seen",
)
def test_accuracy_0(guard: Guard) -> None:
    """Two label files sorted in different orders: what looked like a hopeless model had learnt it all, permuted.

    That a number among others is 0.000 flags nothing: nobody reads it.
    """
    relabelled = Relabelled(guard)
    outcome = relabelled.run_opposed()
    _flagged(outcome, NONE_RIGHT, relabelled, "no validation row was given its label")


def _flagged(outcome: Outcome, name: Wording, relabelled: Relabelled, happened: str) -> None:
    """It says so by name, and ends well, or stops for it."""
    if outcome.exit == 0:
        survives(outcome)
    if wording.names(outcome.message, name):
        if outcome.exit != 0:
            stops(outcome, name)
        return
    relabelled.require_one_answer(outcome)
    told = f"{happened}, and it does not flag that: {name.said}"
    note(Finding(outcome.did, told, outcome.last_words, grade="unclear"))


@edge_case(
    "no-progress",
    number=70,
    title="no progress",
    verdict="stops",
    severity="wastes",
    brought_about="a step that never returns",
    expects="stops within its stated limit, with the stack of where it hung",
)
def test_no_progress(guard: Guard) -> None:
    """A loader waited for a worker that had died, all weekend long."""
    limit = guard.needs.setting("hang_timeout")
    seconds = max(HANG_LIMIT, limit.bounds.get("ge", 0.0), limit.bounds.get("gt", 0.0) + 1)
    value = int(seconds) if limit.kind == "int" else seconds
    outcome = guard.run(
        f"made step 4 hang, with {limit.path}={value}",
        fault=faults.hang(4), settings={limit.path: value}, time_limit=seconds + SLACK,
    )  # fmt: skip
    stops(outcome)
    if not wording.names(outcome.output, re.compile(r'most recent call|File ".*", line \d+')):
        told = "it stopped, but shows no stack of where it hung"
        note(Finding(outcome.did, told, outcome.last_words, grade="unclear"))
    guard.checkpoints.check(outcome)
    if guard.checkpoints.recoverable:
        (again,) = guard.checkpoints.start_again([outcome])
        recovers(again, guard.reference.outcome)


@edge_case(
    "long-run",
    title="300 steps",
    verdict="survives",
    severity="misleads",
    brought_about="300 optimizer steps on the tiny settings",
    expects="survives, and every loss is finite",
)
def test_long_run(guard: Guard) -> None:
    """A group whose rewards were all alike had a standard deviation of 0: dividing by it comes about by chance.

    Where a step is slow they are as many as a minute allows. Source: rlresearch/dr-tulu#18.
    """
    guard.needs.losses()
    outcome = run_long(guard, LONG_RUN, LONG_LIMIT)
    taken = len(outcome.recording.steps)
    bad = next((step.number for step in outcome.recording.steps if not all(map(math.isfinite, step.losses))), None)
    if bad is not None and outcome.exit == 0:
        told = f"the loss of step {bad} is not finite, and it trained on, exit 0"
        raise Finding(outcome.did, told, outcome.last_words, cause=causes.NOT_FINITE)
    if outcome.exit != 0 and not (outcome.timed_out and outcome.stepping):
        of_it = wording.names(outcome.message, NOT_FINITE)
        told = f"it ended of a loss that is not finite after {taken} optimizer steps" if of_it else ""
        told = told or f"it fails after {taken} optimizer steps: {outcome.how}"
        raise Finding(outcome.did, told, outcome.last_words, grade="wastes", cause=causes.find_crash(outcome))
