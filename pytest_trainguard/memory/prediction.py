"""All that is asked of one trainer under one budget. Each set of settings is traced once, whoever asks."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cached_property
from typing import Any

from pytest_trainguard.memory.alternatives import Alternative, Settings, Tracer, largest_of, what_helps
from pytest_trainguard.memory.budget import Limit
from pytest_trainguard.memory.search import Largest
from pytest_trainguard.memory.trace import Trace
from pytest_trainguard.memory.verdict import Judgement, judge, shown, text
from pytest_trainguard.settings import Field

SIZES = ("batch_size", "max_length")  # the roles whose largest fitting value is looked for


def _silent(words: str) -> None:
    """Tell nobody."""


class Prediction:
    """A trainer's memory under a budget.

    Attributes:
        settings: what is known of the trainer's settings.
        limit: the budget.
        largest: by role, what `largest_of` found so far.
        alternatives: what `what_helps` found, once that was asked for.
    """

    def __init__(self, settings: Settings, trace: Tracer, limit: Limit, tell: Callable[[str], None] = _silent):
        self.settings, self.limit, self._trace, self._tell = settings, limit, trace, tell
        self._traces: dict[str, Trace] = {}
        self.largest: dict[str, tuple[Field, Largest]] = {}
        self.alternatives: list[Alternative] = []

    def trace(self, changes: dict[str, Any]) -> Trace:
        """The trace of the production settings with some changed."""
        key = json.dumps(changes, sort_keys=True, default=str)
        if key not in self._traces:
            self._traces[key] = self._trace(changes)
        return self._traces[key]

    @cached_property
    def judgement(self) -> Judgement:
        """The production settings held against the budget."""
        self._tell("tracing the production settings")
        return judge(self.trace({}), self.limit)

    def find_largest(self, role: str) -> tuple[Field, Largest] | None:
        """The largest value of the setting that plays a role; see `largest_of`."""
        if role not in self.largest:
            found = largest_of(role, self.trace, self.settings, self.limit, self.judgement, self._tell)
            if found is None:
                return None
            self.largest[role] = found
        return self.largest[role]

    def find_all(self) -> None:
        """The largest batch and length, and what would help; nothing where the production settings are unknown."""
        if self.judgement.word == "UNKNOWN":
            return
        for role in SIZES:
            self.find_largest(role)
        self.alternatives = what_helps(self.trace, self.settings, self.limit, self._tell)

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for JSON; sizes in bytes."""
        found = {
            role: {"setting": field.path, "value": one.value, "beyond": one.beyond, "exact": one.exact,
                   "traces": one.traces, "unknown": one.unknown}
            for role, (field, one) in self.largest.items()
        }  # fmt: skip
        helps = [one.as_dict() for one in self.alternatives]
        return {**self.judgement.as_dict(), "largest_settings": found, "alternatives": helps}


def lines(report: dict[str, Any]) -> list[str]:
    """A `Prediction.as_dict` as a person reads it: so that one that crossed a process reads the same."""
    told = text(Judgement.from_dict(report))
    for found in report["largest_settings"].values():
        one = Largest(found["value"], None, found["beyond"], found["exact"], found["traces"], found["unknown"])
        told.append(f"  the largest {found['setting']} that fits: {one.words}")
    if report["alternatives"]:
        told.append("  what would help, computed:")
        told += [f"    {_line(one)}" for one in report["alternatives"]]
    return told


def _line(one: dict[str, Any]) -> str:
    said = one["reason"] if one["verdict"] == "UNKNOWN" else f"{shown(one['needs'])}, {one['verdict']}"
    return f"{one['words']}: {said}"
