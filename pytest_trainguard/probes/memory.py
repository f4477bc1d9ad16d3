"""`oom_probe`: GPU memory runs out in the middle of training; what fits, and whether it stays so over many steps."""

from __future__ import annotations

from typing import Any

from pytest_trainguard import faults
from pytest_trainguard.expect import Finding, NotApplicable
from pytest_trainguard.memory import fragmentation
from pytest_trainguard.memory.search import Largest
from pytest_trainguard.memory.verdict import shown
from pytest_trainguard.probes.budget import GpuBudget
from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.trainer import Outcome

PLACES = ("forward", "backward", "optimizer")


class OomProbe:
    """Raise `torch.OutOfMemoryError`, with torch's own message, once, at one door of one step.

    And without an error: the largest settings that fit, and what many steps do to the allocator; both from traces.
    """

    def __init__(self, guard: Guard, budget: GpuBudget):
        self.guard, self.budget = guard, budget

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

    def largest(self, role: str = "batch_size", budget: str | None = None) -> Largest:
        """The largest value of a setting that fits the budget: `oom_probe.largest("max_length", "40GiB").value`.

        See `GpuBudget.largest`.
        """
        return self.budget.largest(role, budget)

    def changing_lengths(self) -> fragmentation.Fragmentation:
        """What `fragmentation.STEPS` steps of changing lengths do to GPU memory; under the budget where one is given.

        Raises:
            NotApplicable: the trainer puts nothing on a GPU, cannot be traced, or has no rows of many lengths.
            Finding: memory in use grows, the allocator's does, or it runs out.
        """
        from pytest_trainguard.memory.predict import Tracing

        production = self.budget.prediction.judgement if self.budget.limit else None
        traced = Tracing(self.guard.subject, self.budget.limit.device if self.budget.limit else None)
        try:
            trace = traced.varied(fragmentation.TRACED)
            if trace.unknown:
                raise NotApplicable(f"its GPU memory cannot be traced ({trace.unknown}){self._advice}")
            found = fragmentation.look(trace, production)
        except ValueError as why:
            raise NotApplicable(str(why)) from why
        if found.trouble:
            raise Finding(
                f"traced {fragmentation.TRACED} steps of changing lengths, and carried them on to "
                f"{fragmentation.STEPS} in CUDA's allocator, as a job of {shown(found.peak)}",
                found.trouble,
            )
        return found

    @property
    def _advice(self) -> str:
        """What may be missing where the tiny settings put nothing on a GPU."""
        if self.guard.subject.role("device"):
            return ": have it train on the GPU that production names, also at its tiny settings"
        return ': where a setting names the device, say which, fields = {"device": "..."}'


def _request(where: str, step: int) -> dict[str, Any]:
    did = f"let GPU memory run out in the {where} of step {step} (torch.OutOfMemoryError)"
    return {"did": did, "fault": faults.out_of_memory(where, step)}
