"""What a report is made of, as plain data: the verdicts of a session, and what it was asked for."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pytest_trainguard.catalog import EdgeCase
from pytest_trainguard.harm import Grade, Problem, rank

Word = Literal["passed", "advice", "accepted", "failed", "not_applicable", "error"]
Clearance = Literal["GO", "GO WITH ADVICE", "NO-GO"]
AcceptanceState = Literal["used", "unneeded", "outgrown", "expired", "open"]
CRITICAL = ("loses", "misleads")  # severities of cases that are told where they could be judged, and were not
Prediction = dict[str, Any]  # of GPU memory, as `memory` gives it and schema.json describes it


@dataclass(frozen=True)
class CaseVerdict:
    """What came of one case and one trainer.

    Attributes:
        slug: of the case, as are number, title, category, severity and `expects`.
        trainer: its name.
        verdict: the word; `advice` where all that was found is below the bar.
        reason: why it does not apply or was not judged, or what happened; empty where the case passed.
        problems: what was found, as values of `harm.Problem`, the gravest first.
        evidence: what the harness itself has to show, where it could not judge.
        alone: the command that runs this case alone.
        framework: what the trainer trains with, as the guides of the cases call it.
        seconds: that it took.
        memory: what was predicted of the trainer's GPU memory, where that was found out.
        xfail: the reason of the xfail mark that it bears, for which what it found is accepted; empty without one.
        left_out: it was not run for a mark of pytest's, and says nothing of the trainer.
        mend: where it does not apply for a reason that the team can mend, how; see `NotApplicable`.
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
    problems: tuple[Problem, ...]
    evidence: str
    alone: str
    framework: str
    seconds: float
    memory: Prediction | None
    xfail: str = ""
    left_out: bool = False
    mend: str = ""

    @property
    def open(self) -> bool:
        """A critical case that could be judged, and was not."""
        return self.verdict == "not_applicable" and bool(self.mend) and self.severity in CRITICAL

    @property
    def heading(self) -> str:
        """Number and title, as a person is told of the case."""
        return self.title if self.number is None else f"{self.number} {self.title}"

    @property
    def order(self) -> tuple[bool, int, str]:
        """For an order by number, cases without one last."""
        return self.number is None, self.number or 0, self.slug

    @property
    def grade(self) -> Grade | None:
        """The gravest of its problems."""
        return min((problem.grade for problem in self.problems), key=rank, default=None)

    def as_values(self) -> dict[str, Any]:
        """As plain values, which can cross to another process."""
        return asdict(self)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> CaseVerdict:
        """Back from `as_values`."""
        return cls(**{**values, "problems": tuple(Problem.from_values(each) for each in values["problems"])})


@dataclass(frozen=True)
class Acceptance:
    """What a team lives with for now: one cause in one case of one trainer.

    Attributes:
        trainer: its name.
        case: the slug.
        cause: its key; as `report.causes` finds it.
        grade: the gravest that is accepted.
        reason: why, in the team's words.
        date: when it was accepted; None for an xfail mark.
        expires: the last day on which it holds; None for always.
        state: what this session made of it. `used`: it found just that. `unneeded`: it did not find it any more.
            `outgrown`: it found it graver than it was accepted. `expired`: it found it after the last day. `open`: the
            case was not run, or it cannot be told.
    """

    trainer: str
    case: str
    cause: str
    grade: Grade
    reason: str
    date: datetime.date | None = None
    expires: datetime.date | None = None
    state: AcceptanceState = "open"


@dataclass(frozen=True)
class SessionResult:
    """What one session came to.

    Attributes:
        verdicts: one for each trainer and case, in the order of their ends.
        trainers: the name to `module:Class`, or to a command line's table.
        bar: the mildest grade that is NO-GO.
        left_out: the catalogue's cases that were not run for `--fast` alone.
        narrowed: the options that may have left only a part.
        began: seconds since the epoch.
        command: how pytest was called.
        gpu_budget: as it was given.
        exitstatus: pytest's.
        problems: what went wrong with the session itself, a line each.
        trainers_left_out: how many of the project's `--trainer` left out.
        acceptances: what the team has accepted, and what this session made of each.
        own_cases: trainer and slug of each of the project's own cases that there are, run or not.
        strict: a critical case that could be judged, and was not, is NO-GO.
        isolation: how runs were kept from the world, in a line; empty where none was started.
        forms: how programs were given their settings as options, a line each.
        notes: what else is to be known of it, a line each: files of the project that failed to load.
    """

    verdicts: list[CaseVerdict]
    trainers: Mapping[str, object]
    bar: Grade
    left_out: list[EdgeCase]
    narrowed: Sequence[str]
    began: float
    command: str
    gpu_budget: str | None
    exitstatus: int
    problems: list[str]
    trainers_left_out: int = 0
    acceptances: Sequence[Acceptance] = ()
    own_cases: Sequence[tuple[str, str]] = ()
    strict: bool = False
    isolation: str = ""
    forms: Sequence[str] = ()
    notes: Sequence[str] = ()

    @property
    def counts(self) -> Counter[str]:
        """How many of each verdict."""
        return Counter(verdict.verdict for verdict in self.verdicts)

    @property
    def judged(self) -> int:
        """How many passed, or were found something of."""
        return sum(self.counts[word] for word in ("passed", "advice", "accepted", "failed"))

    @property
    def open(self) -> list[CaseVerdict]:
        """The critical cases that could be judged, and were not."""
        return [verdict for verdict in self.verdicts if verdict.open]

    @property
    def clearance(self) -> Clearance:
        """GO where something was judged, nothing failed and nothing was left open."""
        bad = self.counts["failed"] or self.counts["error"] or self.exitstatus or (self.strict and self.open)
        if bad or not self.judged:
            return "NO-GO"
        return "GO WITH ADVICE" if self.counts["advice"] else "GO"
