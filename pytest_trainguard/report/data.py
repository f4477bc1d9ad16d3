"""What a report is made of, as plain data: the verdicts of a session, and what it was asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pytest_trainguard.catalog import EdgeCase

Word = Literal["passed", "failed", "not_applicable", "error"]
Prediction = dict[str, Any]  # of GPU memory, as `memory` gives it and schema.json describes it


@dataclass(frozen=True)
class CaseVerdict:
    """What came of one case and one trainer.

    Attributes:
        slug: of the case, as are number, title, category, severity and `expects`.
        trainer: its name.
        verdict: the word.
        reason: what happened; empty where the case passed.
        did: what was done to the trainer, where it failed.
        evidence: the trainer's last words, or other text worth showing.
        alone: the command that runs this case alone.
        seconds: that it took.
        memory: what was predicted of the trainer's GPU memory, where that was found out.
    """

    slug: str
    number: int | None
    title: str
    category: str
    severity: str
    expects: str
    trainer: str
    verdict: Word
    reason: str
    did: str
    evidence: str
    alone: str
    seconds: float
    memory: Prediction | None

    @property
    def heading(self) -> str:
        """Number and title, as a person is told of the case."""
        return self.title if self.number is None else f"{self.number} {self.title}"

    @property
    def order(self) -> tuple[bool, int, str]:
        """For an order by number, cases without one last."""
        return self.number is None, self.number or 0, self.slug

    def as_values(self) -> dict[str, Any]:
        """As plain values, which can cross to another process."""
        return asdict(self)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> CaseVerdict:
        """Back from `as_values`."""
        return cls(**values)


@dataclass(frozen=True)
class SessionResult:
    """What one session came to.

    Attributes:
        verdicts: one for each trainer and case, in the order of their ends.
        trainers: the name to `module:Class`, or to a command line's table.
        left_out: the catalogue's cases that were not run for `--fast` alone.
        narrowed: the options that left only a part, in one line.
        began: seconds since the epoch.
        command: how pytest was called.
        gpu_budget: as it was given.
        exitstatus: pytest's.
        problems: what went wrong with the session itself, a line each.
    """

    verdicts: list[CaseVerdict]
    trainers: Mapping[str, object]
    left_out: list[EdgeCase]
    narrowed: str
    began: float
    command: str
    gpu_budget: str | None
    exitstatus: int
    problems: list[str]

    @property
    def counts(self) -> Counter[str]:
        """How many of each verdict."""
        return Counter(verdict.verdict for verdict in self.verdicts)

    @property
    def judged(self) -> int:
        """How many passed or failed."""
        return self.counts["passed"] + self.counts["failed"]

    @property
    def clearance(self) -> Literal["GO", "NO-GO"]:
        """GO where something was judged, nothing failed and nothing was left open."""
        bad = self.counts["failed"] or self.counts["error"] or self.exitstatus
        return "NO-GO" if bad or not self.judged else "GO"
