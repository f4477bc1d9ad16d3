"""`oom_probe`: GPU memory runs out in the middle of training, as torch itself would say it."""

from __future__ import annotations

from typing import Any

from pytest_trainguard import faults
from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.trainer import Outcome

PLACES = ("forward", "backward", "optimizer")


class OomProbe:
    """Raise `torch.OutOfMemoryError`, with torch's own message, once, at one door of one step."""

    def __init__(self, guard: Guard):
        self.guard = guard

    def __call__(self, where: str = "forward", step: int = 4, **options: Any) -> Outcome:
        """Run with the error in it.

        Args:
            where: one of `PLACES`.
            step: the optimizer step, counted from 1.
            options: of `Guard.run`.
        """
        return self.guard.run(**_request(where, step), **options)

    def everywhere(self, step: int = 4) -> list[Outcome]:
        """One run for each of the `PLACES`."""
        return self.guard.run_all([_request(where, step) for where in PLACES])


def _request(where: str, step: int) -> dict[str, Any]:
    did = f"let GPU memory run out in the {where} of step {step} (torch.OutOfMemoryError)"
    return {"did": did, "fault": faults.out_of_memory(where, step)}
