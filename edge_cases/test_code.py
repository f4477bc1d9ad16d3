"""Cases 71 to 80: exceptions, in the source and at run time.

For each two things, both required. Statically, where a checker can see it: the trainer's own source is free of it.
Dynamically: raised in the data loader, the forward pass, the optimizer step and the save, it stops the run with its own
type and traceback, the checkpoints stay whole, and the next start recovers.
"""

from __future__ import annotations

from pytest_trainguard import Finding, Guard, edge_case, faults, recovers, stops
from pytest_trainguard.probes.static import StaticCheck

PLACES = {
    "data": "the data loader",
    "forward": "the forward pass",
    "optimizer": "the optimizer step",
    "save": "the save",
}


@edge_case(
    71,
    "UnboundLocalError",
    verdict="stops",
    severity="major",
    brought_about="a checker reads the source; the exception raised in loader, forward, optimizer step, save",
    expects="the source is free of it; raised, it stops with type and traceback, and the next start recovers",
)
def test_71_unbound_local_error(guard: Guard, static_check: StaticCheck) -> None:
    """The post-mortem's `total_steps`: used before the line that assigns it, found after three hours in the queue."""
    static_check.free_of(UnboundLocalError)
    _raised(guard, UnboundLocalError)


@edge_case(
    72,
    "NameError",
    verdict="stops",
    severity="major",
    brought_about="a checker reads the source; the exception raised in loader, forward, optimizer step, save",
    expects="the source is free of it; raised, it stops with type and traceback, and the next start recovers",
)
def test_72_name_error(guard: Guard, static_check: StaticCheck) -> None:
    """A block was moved to another function, one of its names was not."""
    static_check.free_of(NameError)
    _raised(guard, NameError)


@edge_case(
    76,
    "TypeError",
    verdict="stops",
    severity="major",
    brought_about="a checker reads the source; the exception raised in loader, forward, optimizer step, save",
    expects="the source is free of it; raised, it stops with type and traceback, and the next start recovers",
)
def test_76_type_error(guard: Guard, static_check: StaticCheck) -> None:
    """The post-mortem's `num_train_epochs=None`, which a library compared with 0 after the model was loaded."""
    static_check.free_of(TypeError)
    _raised(guard, TypeError)


def _raised(guard: Guard, exception: type[Exception]) -> None:
    """Raise it once at each place, after a checkpoint was saved; then start again."""
    recoverable = guard.recoverable
    step = guard.first_save() + 2 if recoverable else 4
    text = f"{exception.__name__.lower()} raised on purpose"
    # In the middle of a save, where half of it is written: before its last write but one.
    nth = {"save": max(1, guard.writes(step) - 1)}
    outcomes = guard.run_all(
        [
            {
                "did": f"raised {exception.__name__} in {words}",
                "fault": faults.raises(exception, where, step, text, nth.get(where, 1)),
            }
            for where, words in PLACES.items()
        ]
    )
    for outcome in outcomes:
        stops(outcome, exception.__name__, text)
        if "Traceback (most recent call last)" not in outcome.output:
            raise Finding(outcome.did, "it shows no traceback: nobody can tell where it came from", outcome.last_words)
    guard.check_checkpoints(*outcomes)
    if recoverable:
        again = guard.run_all(
            [{"did": f"{o.did}, then started again", "output_dir": o.output_dir, "resume": True} for o in outcomes]
        )
        for outcome in again:
            recovers(outcome, guard.reference())
