"""All that is asked of one trainer under one budget, each thing found out once, whoever asks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from pytest_trainguard.contract.settings import Field
from pytest_trainguard.memory.answers import measure, timeline
from pytest_trainguard.memory.answers.alternatives import Alternative, Settings, Tracer, largest_of, what_helps
from pytest_trainguard.memory.answers.measure import Measured
from pytest_trainguard.memory.answers.search import Largest
from pytest_trainguard.memory.answers.verdict import Judgement, judge, shown, text
from pytest_trainguard.memory.replay.budget import Limit, limit_of, parse_budget, parse_headroom

SIZES = ("batch_size", "max_length")  # the roles whose largest fitting value is looked for


def _silent(words: str) -> None:
    """Tell nobody."""


class Busy(Exception):
    """The GPU that is present is too small, or others are using it."""


class Prediction:
    """A trainer's memory under a budget.

    Attributes:
        settings: what is known of the trainer's settings.
        trace: traces the trainer with changed settings; the same ones are traced once.
        limit: the budget.
        largest: by role, what `largest_of` found so far.
        alternatives: what `what_helps` found, once that was asked for.
    """

    def __init__(
        self, settings: Settings, trace: Tracer, limit: Limit, tell: Callable[[str], None] = _silent,
        measure: Callable[[], Measured] | None = None,
    ):  # fmt: skip
        self.settings, self.trace, self.limit, self._tell, self._measure = settings, trace, limit, tell, measure
        self.largest: dict[str, tuple[Field, Largest]] = {}
        self.alternatives: list[Alternative] = []

    @cached_property
    def judgement(self) -> Judgement:
        """The production settings held against the budget."""
        self._tell("tracing the production settings")
        return judge(self.trace({}), self.limit)

    @cached_property
    def measured(self) -> Measured | None:
        """The production settings on the GPU that is present, under the budget; None where they cannot be measured."""
        if self._measure is None:
            return None
        self._tell("measuring the production settings on the GPU")
        return self._measure()

    @property
    def word(self) -> str:
        """The verdict: what was measured, where it was and says something; else what is predicted."""
        measured = self.measured
        if measured is None or measured.word == "UNKNOWN" or (measured.word, self.judgement.word) == ("FITS", "TIGHT"):
            return self.judgement.word
        return measured.word

    def find_largest(self, role: str) -> tuple[Field, Largest] | None:
        """The largest value of the setting that plays a role; see `largest_of`."""
        if role not in self.largest:
            found = largest_of(role, self.trace, self.settings, self.limit, self.judgement, self._tell)
            if found is None:
                return None
            self.largest[role] = found
        return self.largest[role]

    def find_alternatives(self) -> list[Alternative]:
        """What would help; see `what_helps`."""
        if not self.alternatives:
            self.alternatives = what_helps(self.trace, self.settings, self.limit, self._tell)
        return self.alternatives

    def find_all(self) -> None:
        """The largest batch and length, and what would help; nothing where the production settings are unknown."""
        if self.judgement.word == "UNKNOWN":
            return
        for role in SIZES:
            self.find_largest(role)
        self.find_alternatives()

    @cached_property
    def over_time(self) -> dict[str, Any] | None:
        """Memory over the trace of the production settings; see `timeline.over_time`."""
        return timeline.over_time(self.trace({}), self.limit)

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for JSON; sizes in bytes."""
        found = {
            role: {"setting": field.path, "value": one.value, "beyond": one.beyond, "exact": one.exact,
                   "traces": one.traces, "unknown": one.unknown}
            for role, (field, one) in self.largest.items()
        }  # fmt: skip
        helps = [one.as_dict() for one in self.alternatives]
        measured = {**asdict(self.measured), "verdict": self.measured.word} if self.measured else None
        return {**self.judgement.as_dict(), "measured": measured, "largest_settings": found, "alternatives": helps}


@contextlib.contextmanager
def predicting(
    trainer: object, budget: str, *, headroom: str = "10%", root: Path | None = None,
    tell: Callable[[str], None] = _silent,
) -> Iterator[Prediction]:  # fmt: skip
    """A trainer's memory under a budget, outside pytest; its processes end with the context.

    Where a GPU is present and the budget names no card, it is measured there too.

    Args:
        trainer: a `Trainer` subclass that can be imported, `module:Class`, or the table of a command line.
        budget: `40GiB`, `40GB`, `80%`, a card's name, or bytes.
        headroom: share of the budget that should stay free.
        root: the folder that the trainer's relative paths start from, and its modules; by default the current one.
        tell: takes what is being done, in words.

    Raises:
        ValueError: the budget or the headroom is none; in one line.
        Busy: the GPU that is present cannot be measured on as it is.
    """
    from pytest_trainguard.memory.answers.tracing import tracing

    asked, present = parse_budget(budget), measure.look()
    limit = limit_of(asked, present.device if present else None, parse_headroom(headroom))
    measures = present is not None and asked.card is None  # a name asks about that card, whatever is here
    if present is not None and measures and (why := measure.obstacle(present, limit)):
        raise Busy(f"{why}; to predict only, hide the GPU: CUDA_VISIBLE_DEVICES=")
    with tracing(trainer, device=limit.device, root=root) as traced:
        on_gpu = partial(measure.on_gpu, traced, limit.cap) if measures else None
        yield Prediction(traced.subject, traced.trace, limit, tell, on_gpu)


def lines(report: dict[str, Any]) -> list[str]:
    """A `Prediction.as_dict` as a person reads it: so that one that crossed a process reads the same."""
    *told, source = text(Judgement.from_dict(report))
    told.append(_against(report) if report["measured"] else f"{source}; not measured on a GPU")
    for found in report["largest_settings"].values():
        one = Largest(found["value"], None, found["beyond"], found["exact"], found["traces"], found["unknown"])
        told.append(f"  the largest {found['setting']} that fits: {one.words}")
    if report["alternatives"]:
        told.append("  what would help, computed:")
        told += [f"    {_line(one)}" for one in report["alternatives"]]
    return told


def _against(report: dict[str, Any]) -> str:
    """What was measured, beside what was predicted."""
    measured = report["measured"]
    peaks = []
    for name in ("allocated", "reserved"):
        error = f", {report[name] / measured[name] - 1:+.1%}" if measured[name] and report[name] else ""
        peaks.append(f"{name} {shown(measured[name])} (predicted {shown(report[name])}{error})")
    return (
        f"  measured: {measured['verdict']}, {', '.join(peaks)}, {measured['retries']} retries, {measured['ooms']} OOMs"
    )


def _line(one: dict[str, Any]) -> str:
    said = one["reason"] if one["verdict"] == "UNKNOWN" else f"{shown(one['needs'])}, {one['verdict']}"
    return f"{one['words']}: {said}"
