"""Cases 71 to 80: exceptions, in the source and at run time.

For each two things, both required. Statically, where a checker can see it: the trainer's own source is free of it.
Dynamically: raised in the data loader, the forward pass, the optimizer step and the save, it stops the run with its own
type and traceback, the checkpoints stay whole, and the next start recovers.
"""

from __future__ import annotations

import contextlib

from pytest_trainguard import (
    Finding,
    Guard,
    NotApplicable,
    RunRequest,
    StaticCheck,
    edge_case,
    faults,
    note,
    noting,
    recovers,
    stops,
)

PLACES = {
    "data": "the data loader, as it made the batch of step {step}",
    "forward": "the forward pass of step {step}",
    "optimizer": "the optimizer step {step}",
    "save": "the save after step {step}",
}


@edge_case(
    "unbound-local-error",
    number=71,
    title="UnboundLocalError",
    verdict="stops",
    severity="misleads",
    brought_about="a checker reads the source; the exception raised in loader, forward, optimizer step, save",
    expects="the source is free of it; raised, it stops with type and traceback, and the next start recovers",
)
def test_unbound_local_error(guard: Guard, static_check: StaticCheck) -> None:
    """The post-mortem's `total_steps`: used before the line that assigns it, found after three hours in the queue."""
    static_check.free_of(UnboundLocalError)
    _raised(guard, UnboundLocalError)


@edge_case(
    "name-error",
    number=72,
    title="NameError",
    verdict="stops",
    severity="wastes",
    brought_about="a checker reads the source; the exception raised in loader, forward, optimizer step, save",
    expects="the source is free of it; raised, it stops with type and traceback, and the next start recovers",
)
def test_name_error(guard: Guard, static_check: StaticCheck) -> None:
    """A block was moved to another function, one of its names was not."""
    static_check.free_of(NameError)
    _raised(guard, NameError)


@edge_case(
    "attribute-error",
    number=73,
    title="AttributeError",
    verdict="stops",
    severity="misleads",
    brought_about="a checker reads the source; the exception raised in loader, forward, optimizer step, save",
    expects="the source is free of it; raised, it stops with type and traceback, and the next start recovers",
)
def test_attribute_error(guard: Guard, static_check: StaticCheck) -> None:
    """A setting was renamed; the line that reads it under the old name is reached when training ends."""
    static_check.free_of(AttributeError)
    _raised(guard, AttributeError)


@edge_case(
    "key-error",
    number=74,
    title="KeyError",
    verdict="stops",
    severity="misleads",
    brought_about="a checker reads the source; the exception raised in loader, forward, optimizer step, save",
    expects="the source is free of it; raised, it stops with type and traceback, and the next start recovers",
)
def test_key_error(guard: Guard, static_check: StaticCheck) -> None:
    """One row in a million has no such key, and it comes up in the second night."""
    _free_of(KeyError, static_check)
    _raised(guard, KeyError)


@edge_case(
    "index-error",
    number=75,
    title="IndexError",
    verdict="stops",
    severity="misleads",
    brought_about="a checker reads the source; the exception raised in loader, forward, optimizer step, save",
    expects="the source is free of it; raised, it stops with type and traceback, and the next start recovers",
)
def test_index_error(guard: Guard, static_check: StaticCheck) -> None:
    """A loop over indices takes the end of its list for the end of its data, and trains on less."""
    _free_of(IndexError, static_check)
    _raised(guard, IndexError)


@edge_case(
    "type-error",
    number=76,
    title="TypeError",
    verdict="stops",
    severity="misleads",
    brought_about="a checker reads the source; the exception raised in loader, forward, optimizer step, save",
    expects="the source is free of it; raised, it stops with type and traceback, and the next start recovers",
)
def test_type_error(guard: Guard, static_check: StaticCheck) -> None:
    """The post-mortem's `num_train_epochs=None`, which a library compared with 0 after the model was loaded."""
    static_check.free_of(TypeError)
    _raised(guard, TypeError)


@edge_case(
    "value-error",
    number=77,
    title="ValueError",
    verdict="stops",
    severity="misleads",
    brought_about="the exception raised in loader, forward, optimizer step, save",
    expects="raised, it stops with type and traceback, and the next start recovers",
)
def test_value_error(guard: Guard) -> None:
    """A batch of another shape than all others: the last one, after nine hours."""
    _raised(guard, ValueError)


@edge_case(
    "zero-division-error",
    number=78,
    title="ZeroDivisionError",
    verdict="stops",
    severity="misleads",
    brought_about="a checker reads the source; the exception raised in loader, forward, optimizer step, save",
    expects="the source is free of it; raised, it stops with type and traceback, and the next start recovers",
)
def test_zero_division_error(guard: Guard, static_check: StaticCheck) -> None:
    """A mean over the correct answers, in the first evaluation in which there were none."""
    _free_of(ZeroDivisionError, static_check)
    _raised(guard, ZeroDivisionError)


@edge_case(
    "recursion-error",
    number=79,
    title="RecursionError",
    verdict="stops",
    severity="misleads",
    brought_about="the exception raised in loader, forward, optimizer step, save",
    expects="raised, it stops with type and traceback, and the next start recovers",
)
def test_recursion_error(guard: Guard) -> None:
    """A tree in the data that is deeper than all that were tried."""
    _raised(guard, RecursionError)


@edge_case(
    "memory-error",
    number=80,
    title="MemoryError",
    verdict="stops",
    severity="misleads",
    brought_about="the exception raised in loader, forward, optimizer step, save",
    expects="raised, it stops with type and traceback, and the next start recovers",
)
def test_memory_error(guard: Guard) -> None:
    """A row so long that the host's memory could not hold its tensor; some programs take that for a full disk."""
    _raised(guard, MemoryError)


def _free_of(exception: type[Exception], static_check: StaticCheck) -> None:
    """Where a checker can see it at all, which it can of few; what is left is for the run to show."""
    with contextlib.suppress(NotApplicable):
        static_check.free_of(exception)


def _raised(guard: Guard, exception: type[Exception]) -> None:
    """Raise it once at each place, after a checkpoint was saved; then start again."""
    recoverable = guard.checkpoints.recoverable
    step = guard.reference.first_save + 2 if recoverable else 4
    text = "raised on purpose, to see what comes of it"
    # In the middle of a save, where half of it is written: before its last write but one.
    nth = {"save": max(1, guard.reference.writes_after(step) - 1)}
    outcomes = guard.run_all(
        [
            RunRequest(
                f"raised {exception.__name__} in {words.format(step=step)}",
                fault=faults.raises(exception, where, step, text, nth.get(where, 1)),
            )
            for where, words in PLACES.items()
        ]
    )
    for outcome in outcomes:
        with noting():
            stops(outcome, exception.__name__, text)
            if "Traceback (most recent call last)" not in outcome.output:
                told = "it shows no traceback: nobody can tell where it came from"
                note(Finding(outcome.did, told, outcome.last_words, grade="unclear"))
    guard.checkpoints.check(*outcomes)
    if recoverable:
        for outcome in guard.checkpoints.start_again(outcomes):
            with noting():
                recovers(outcome, guard.reference.outcome)
