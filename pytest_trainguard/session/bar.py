"""The bar between advice and NO-GO: from which grade on a finding fails a trainer, and what is accepted for now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import pytest

from pytest_trainguard.catalog import EdgeCase
from pytest_trainguard.harm import GRADES, Grade, Problem, rank
from pytest_trainguard.report.data import Word
from pytest_trainguard.session.acceptances import Acceptances

DEFAULT: Grade = "wastes"


@dataclass(frozen=True)
class Bar:
    """What is NO-GO.

    Attributes:
        grade: the mildest grade that is; what is milder is advice.
        acceptances: what the team has accepted, which is no NO-GO either.
    """

    grade: Grade = DEFAULT
    acceptances: Acceptances = field(default_factory=Acceptances)

    def weigh(self, problems: Iterable[Problem], trainer: str, case: EdgeCase) -> tuple[Problem, ...]:
        """Problems of one case and trainer with what each comes to, the gravest first."""
        weighed = [replace(problem, verdict=self._weigh(problem, trainer, case)) for problem in problems]
        return tuple(sorted(weighed, key=lambda problem: rank(problem.grade)))

    def _weigh(self, problem: Problem, trainer: str, case: EdgeCase) -> Literal["failed", "advice", "accepted"]:
        if rank(problem.grade) > rank(self.grade):
            return "advice"
        return "accepted" if self.acceptances.accept(problem, trainer, case.slug) else "failed"


def sum_up(problems: Sequence[Problem]) -> Word:
    """What weighed problems come to together; there is at least one."""
    words = {problem.verdict for problem in problems}
    return "failed" if "failed" in words else "accepted" if "accepted" in words else "advice"


BAR = pytest.StashKey[Bar]()  # of the session


def parse_bar(text: str) -> Bar:
    """The bar of a command line or an ini file.

    Raises:
        ValueError: it is no grade.
    """
    if text not in GRADES:
        raise ValueError(f"{text!r} is no grade; there are, the gravest first, {', '.join(GRADES)}")
    return Bar(text)
