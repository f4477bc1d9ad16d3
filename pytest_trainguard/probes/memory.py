"""`oom_probe`: GPU memory runs out in the middle of training, as torch itself would say it."""

from __future__ import annotations

from pytest_trainguard import faults
from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.trainer import Outcome


class OomProbe:
    """Raise `torch.OutOfMemoryError`, with torch's own message, once, at one door of one step."""

    def __init__(self, guard: Guard):
        self.guard = guard

    def __call__(self, where: str = "forward", step: int = 4, **options: object) -> Outcome:
        """Run with the error in it.

        Args:
            where: `forward`, `backward` or `optimizer`.
            step: the optimizer step, counted from 1.
            options: of `Guard.run`.
        """
        fault = faults.out_of_memory(where, step)
        did = f"let GPU memory run out in the {where} of step {step} (torch.OutOfMemoryError)"
        return self.guard.run(did, fault=fault, **options)
