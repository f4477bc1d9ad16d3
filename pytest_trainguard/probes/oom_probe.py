"""`oom_probe`: GPU memory runs out in the middle of training; what fits, and whether it stays so over many steps."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from pytest_trainguard import faults
from pytest_trainguard.contract.outcome import Outcome, message_of
from pytest_trainguard.launch.protocol import RunOptions, RunRequest
from pytest_trainguard.memory.answers import fragmentation
from pytest_trainguard.memory.answers.search import Largest
from pytest_trainguard.memory.replay.allocator import SMALL_SEGMENT
from pytest_trainguard.memory.replay.sizes import format_size
from pytest_trainguard.memory.replay.trace import Trace
from pytest_trainguard.memory.replay.trace_replay import CAP_PRECISION, find_least_cap, replay_trace
from pytest_trainguard.probes.gpu_budget import GpuBudget
from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.verdicts import causes
from pytest_trainguard.verdicts.errors import Finding, NotApplicable
from pytest_trainguard.verdicts.gathering import note
from pytest_trainguard.verdicts.wording import names

if TYPE_CHECKING:
    from typing_extensions import Unpack

Part = Literal["build", "step"]
MEMORY = re.compile(r"memory|\boom\b", re.I)
SIZES = re.compile(r"\d(?:\.\d+)? ?(?:[KMGT]i?B|bytes)\b", re.I)
PLACES = ("forward", "backward", "optimizer")


class OomProbe:
    """Raise `torch.OutOfMemoryError`, with torch's own message, once, at one door of one step.

    And without an error: the largest settings that fit, and what many steps do to the allocator; both from traces.
    """

    def __init__(self, guard: Guard, budget: GpuBudget):
        self.guard, self.budget = guard, budget

    def __call__(self, where: str = "forward", step: int = 4, **options: Unpack[RunOptions]) -> Outcome:
        """Run with the error in it.

        Args:
            where: one of `PLACES`.
            step: the optimizer step, counted from 1.
            options: of `Guard.run`.
        """
        options["fault"] = faults.out_of_memory(where, step)
        return self.guard.run(_did(where, step), **options)

    def everywhere(self, step: int = 4, *, census: bool = False) -> list[Outcome]:
        """One run for each of the `PLACES`; with `census`, memory in use is counted after each step."""
        requests = [
            RunRequest(_did(where, step), fault=faults.out_of_memory(where, step), census=census) for where in PLACES
        ]
        return self.guard.run_all(requests)

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
        from pytest_trainguard.memory.answers.tracing import Tracing

        production = self.budget.prediction.judgement if self.budget.limit else None
        traced = Tracing(self.guard.subject, self.budget.limit.device if self.budget.limit else None)
        try:
            trace = traced.trace_varied_lengths(fragmentation.TRACED_STEPS)
            if trace.unknown:
                raise NotApplicable(f"its GPU memory cannot be traced ({trace.unknown}){self._advice}")
            found = fragmentation.find_fragmentation(trace, production)
        except ValueError as why:
            raise NotApplicable(str(why)) from why
        if found.trouble:
            raise Finding(
                f"traced {fragmentation.TRACED_STEPS} steps of changing lengths, and carried them on to "
                f"{fragmentation.EXTRAPOLATED_STEPS} in CUDA's allocator, as a job of {format_size(found.peak)}",
                found.trouble,
                grade="wastes",
            )
        return found

    def under_a_cap(self, part: Part) -> None:
        """At the production settings memory runs out for real, as the model loads or in a step.

        Only where a budget is given. The program runs under fake CUDA, and the allocator's model refuses what does not
        fit a cap below the traced peak: at the operation where a GPU would, as often as the program tries again, with
        torch's own error. It may end, saying so; in a step it may also go on, with all its steps taken.

        Raises:
            Finding: it did otherwise.
        """
        if self.budget.limit is None or self.budget.prediction.judgement.verdict == "UNKNOWN":
            return
        from pytest_trainguard.memory.answers.tracing import CAPPED_TIME_LIMIT, STEPS_PER_TRACE, Tracing

        cap = _cap(self.budget.prediction.trace({}), part)
        if cap is None:
            return
        capped = Tracing(self.guard.subject, self.budget.limit.device).run_capped(cap)
        if capped.timed_out:
            told = f"it did not end within {CAPPED_TIME_LIMIT:.0f} s"
            raise Finding(_capped(cap, part), told, grade="wastes")
        if capped.unknown or not capped.ran_out or (capped.ran_out[0][0] == "build") != (part == "build"):
            return
        message = message_of(capped.output)
        problems = []
        if capped.exit == 0 and (part == "build" or capped.steps < STEPS_PER_TRACE):
            problems.append(f"it ended with exit 0 after {capped.steps} of {STEPS_PER_TRACE} steps")
        if not names(message, MEMORY):
            problems.append("its message does not name memory")
        elif part == "build" and len(SIZES.findall(message)) < 2:
            problems.append("its message does not name what was needed and what was available")
        if problems:
            silent = capped.exit == 0
            note(
                Finding(
                    _capped(cap, part),
                    "; ".join(problems),
                    "\n".join(message.splitlines()[-4:]),
                    grade="misleads" if silent else "unclear",
                    cause=None if silent else causes.UNNAMED,
                )
            )

    @property
    def _advice(self) -> str:
        """What may be missing where the tiny settings put nothing on a GPU."""
        device = self.guard.subject.settings.role("device")
        if device:
            return f": name a GPU in the production settings, {device.path}; the tiny run takes it from there"
        return ': where a setting names the device, say which, fields = {"device": "..."}'


def _cap(trace: Trace, part: Part) -> int | None:
    """Bytes that are too few for the model, or enough for it and too few for a step; None where there is none."""
    found = replay_trace(trace)
    pairs = zip(found.reserved, trace.events, strict=True)
    built = max((reserved for reserved, event in pairs if event.phase == "build"), default=0)
    if part == "build":
        return built // 2 if built >= 2 * SMALL_SEGMENT else None
    least = find_least_cap(trace, found)
    return (built + least) // 2 if built and least - built > 2 * CAP_PRECISION else None


def _capped(cap: int, part: Part) -> str:
    where = "as the model loads" if part == "build" else "in a step"
    return f"gave the production settings {format_size(cap)} of GPU memory, which runs out {where} (fake CUDA)"


def _did(where: str, step: int) -> str:
    return f"let GPU memory run out in the {where} of step {step} (torch.OutOfMemoryError)"
