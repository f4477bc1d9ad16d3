"""All that is asked of one trainer under one budget, each thing found out once, whoever asks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypedDict

from pytest_trainguard.contract.settings import Field
from pytest_trainguard.memory.answers import present_gpu, timeline
from pytest_trainguard.memory.answers.alternatives import (
    Alternative,
    Settings,
    TraceFunction,
    find_largest_setting,
    judge_alternatives,
)
from pytest_trainguard.memory.answers.search import Largest
from pytest_trainguard.memory.answers.verdict import Judgement, format_verdict, judge_trace
from pytest_trainguard.memory.replay.budget import Limit, parse_headroom, resolve_budgets
from pytest_trainguard.memory.replay.cards import find_card
from pytest_trainguard.memory.replay.counters import Measured
from pytest_trainguard.memory.replay.device import Device
from pytest_trainguard.memory.replay.sizes import format_size
from pytest_trainguard.memory.replay.trace import Trace

SIZE_ROLES = ("batch_size", "max_length")  # the roles whose largest fitting value is looked for


def _silent(words: str) -> None:
    """Tell nobody."""


class GpuBusy(Exception):
    """The GPU that is present is too small, or others are using it."""


class Compared(TypedDict):
    """The production settings under one of several budgets; sizes in bytes."""

    budget: str
    size: int
    verdict: str
    needs: int
    least: int
    reason: str


class Prediction:
    """A trainer's memory under a budget.

    Attributes:
        settings: what is known of the trainer's settings.
        trace: traces the trainer with changed settings; the same ones are traced once.
        limit: the budget.
        others: further budgets, that the production settings alone are held against.
        largest: by role, what `find_largest_setting` found so far.
        alternatives: what `judge_alternatives` found, once that was asked for.
    """

    def __init__(
        self, settings: Settings, trace: TraceFunction, limit: Limit, tell: Callable[[str], None] = _silent,
        measure: Callable[[], Measured] | None = None, others: Sequence[Limit] = (),
        trace_on: Callable[[Device], Trace] | None = None,
    ):  # fmt: skip
        """`trace_on` traces the production settings on another card, for the budgets of `others`."""
        self.settings, self.trace, self.limit, self._tell, self._measure = settings, trace, limit, tell, measure
        self.others, self._trace_on = others, trace_on
        self.largest: dict[str, tuple[Field, Largest]] = {}
        self.alternatives: list[Alternative] = []

    @cached_property
    def judgement(self) -> Judgement:
        """The production settings held against the budget."""
        self._tell("tracing the production settings")
        return judge_trace(self.trace({}), self.limit)

    @cached_property
    def measured(self) -> Measured | None:
        """The production settings on the GPU that is present, under the budget; None where they cannot be measured."""
        if self._measure is None:
            return None
        self._tell("measuring the production settings on the GPU")
        return self._measure()

    @property
    def verdict(self) -> str:
        """The verdict: what was measured, where it was and says something; else what is predicted."""
        measured = self.measured
        if (
            measured is None
            or measured.verdict == "UNKNOWN"
            or (measured.verdict, self.judgement.verdict) == ("FITS", "TIGHT")
        ):
            return self.judgement.verdict
        return measured.verdict

    def find_largest(self, role: str) -> tuple[Field, Largest] | None:
        """The largest value of the setting that plays a role; see `find_largest_setting`."""
        if role not in self.largest:
            found = find_largest_setting(role, self.trace, self.settings, self.limit, self.judgement, self._tell)
            if found is None:
                return None
            self.largest[role] = found
        return self.largest[role]

    def find_alternatives(self) -> list[Alternative]:
        """What would help; see `judge_alternatives`."""
        if not self.alternatives:
            self.alternatives = judge_alternatives(self.trace, self.settings, self.limit, self._tell)
        return self.alternatives

    def find_all(self) -> None:
        """The largest batch and length, and what would help; nothing where the production settings are unknown."""
        if self.judgement.verdict == "UNKNOWN":
            return
        for role in SIZE_ROLES:
            self.find_largest(role)
        self.find_alternatives()

    @cached_property
    def compared(self) -> list[Compared]:
        """The production settings under each budget, this one first; empty where there is one alone."""
        found = [self.judgement] if self.others else []
        for limit in self.others:
            self._tell(f"holding it against {limit.text}")
            trace = self._trace_on(limit.device) if self._trace_on else self.trace({})
            found.append(judge_trace(trace, limit))
        return [
            {"budget": one.limit.text, "size": one.limit.size, "verdict": one.verdict, "needs": one.needs,
             "least": one.least, "reason": one.reason}
            for one in found
        ]  # fmt: skip

    @cached_property
    def over_time(self) -> dict[str, Any] | None:
        """Memory over the trace of the production settings; see `timeline.sample_for_report`."""
        return timeline.sample_for_report(self.trace({}), self.limit)

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for JSON; sizes in bytes."""
        found = {
            role: {"setting": field.path, "value": one.value, "beyond": one.beyond, "exact": one.exact,
                   "traces": one.traces, "unknown": one.unknown}
            for role, (field, one) in self.largest.items()
        }  # fmt: skip
        helps = [one.as_dict() for one in self.alternatives]
        measured = {**asdict(self.measured), "verdict": self.measured.verdict} if self.measured else None
        return {**self.judgement.as_dict(), "measured": measured, "largest_settings": found, "alternatives": helps,
                "compared": self.compared}  # fmt: skip


@contextlib.contextmanager
def predicting(
    trainer: object, budget: str, *, headroom: str = "10%", root: Path | None = None,
    tell: Callable[[str], None] = _silent,
) -> Iterator[Prediction]:  # fmt: skip
    """A trainer's memory under a budget, outside pytest; its processes end with the context.

    Where a GPU is present and the budget names no card, it is measured there too.

    Args:
        trainer: a `Trainer` subclass that can be imported, `module:Class`, or the table of a command line.
        budget: `40GiB`, `40GB`, `80%`, a card's name, or bytes; several with commas between them, of which the first
            is the one; or nothing, for the card that is present, or else all named cards.
        headroom: share of the budget that should stay free.
        root: the folder that the trainer's relative paths start from, and its modules; by default the current one.
        tell: takes what is being done, in words.

    Raises:
        ValueError: the budget or the headroom is none; in one line.
        GpuBusy: the GPU that is present cannot be measured on as it is.
    """
    from pytest_trainguard.memory.answers.measure import measure_on_gpu
    from pytest_trainguard.memory.answers.tracing import tracing

    present = present_gpu.find_gpu()
    limit, *others = resolve_budgets(budget, present.device if present else None, parse_headroom(headroom))
    measures = present is not None and find_card(limit.text) is None  # a name asks about that card, whatever is here
    if present is not None and measures and (why := present_gpu.find_obstacle(present, limit)):
        raise GpuBusy(f"{why}; to predict only, hide the GPU: CUDA_VISIBLE_DEVICES=")
    with tracing(trainer, device=limit.device, root=root) as traced:
        on_gpu = partial(measure_on_gpu, traced, limit.cap) if measures else None
        yield Prediction(traced.subject.settings, traced.trace, limit, tell, on_gpu, others, traced.trace_on)


def format_prediction(report: dict[str, Any]) -> list[str]:
    """A `Prediction.as_dict` as a person reads it: so that one that crossed a process reads the same."""
    *told, source = format_verdict(Judgement.from_dict(report))
    told.append(_format_measured(report) if report["measured"] else f"{source}; not measured on a GPU")
    told += _format_compared(report.get("compared", []))  # an older report has none
    for found in report["largest_settings"].values():
        one = Largest(found["value"], None, found["beyond"], found["exact"], found["traces"], found["unknown"])
        told.append(f"  the largest {found['setting']} that fits: {one.words}")
    if report["alternatives"]:
        told.append("  what would help, computed:")
        told += [f"    {_format_alternative(one)}" for one in report["alternatives"]]
    return told


def _format_compared(compared: Sequence[Compared]) -> list[str]:
    """The table of several budgets."""
    lines = ["  under each budget:"] if compared else []
    width = max((len(one["budget"]) for one in compared), default=0)
    for one in compared:
        if one["verdict"] == "UNKNOWN":
            said = one["reason"]
        elif one["verdict"] == "OUT OF MEMORY":
            said = f"{format_size(one['least'])} at the least, {format_size(one['least'] - one['size'])} over"
        else:
            said = f"{format_size(one['needs'])}, {format_size(one['size'] - one['needs'])} to spare"
        lines.append(f"    {one['budget']:<{width}} {format_size(one['size']):>11}  {one['verdict']:<13}  {said}")
    return lines


def _format_measured(report: dict[str, Any]) -> str:
    """What was measured, beside what was predicted."""
    measured = report["measured"]
    peaks = []
    for name in ("allocated", "reserved"):
        error = f", {report[name] / measured[name] - 1:+.1%}" if measured[name] and report[name] else ""
        peaks.append(f"{name} {format_size(measured[name])} (predicted {format_size(report[name])}{error})")
    return (
        f"  measured: {measured['verdict']}, {', '.join(peaks)}, {measured['retries']} retries, {measured['ooms']} OOMs"
    )


def _format_alternative(one: dict[str, Any]) -> str:
    said = one["reason"] if one["verdict"] == "UNKNOWN" else f"{format_size(one['needs'])}, {one['verdict']}"
    return f"{one['words']}: {said}"
