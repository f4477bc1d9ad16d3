"""A run of many optimizer steps on the tiny settings, which saves and validates at its end alone."""

from __future__ import annotations

from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.probes.guard import Guard

__all__ = ["run_long"]


def run_long(guard: Guard, steps: int, time_limit: float) -> Outcome:
    """Train for so many steps, and as many epochs as these take; ended after `time_limit` seconds."""
    roles = guard.subject.settings.role
    rare = {
        field.path: steps for role in ("save_every", "eval_every") if (field := roles(role)) and field.allows(steps)
    }
    did = f"trained for {steps} optimizer steps"
    outcome = guard.run(did, steps=steps, settings=rare, time_limit=time_limit)
    epochs = roles("epochs")
    if epochs and outcome.exit == 0 and len(outcome.recording.steps) < steps and epochs.allows(steps):
        more = {**rare, epochs.path: steps}
        outcome = guard.run(did, steps=steps, settings=more, time_limit=time_limit)
    return outcome
