"""What a finding is worth: the harm that was seen, and the cause that it has in common with others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Grade = Literal["loses", "misleads", "wastes", "unclear"]
GRADES: tuple[Grade, ...] = get_args(Grade)  # the gravest first
MEANINGS: dict[Grade, str] = {
    "loses": "work or data is lost or damaged",
    "misleads": "it ends as a success, or trains on, while the result is wrong",
    "wastes": "it hangs, crashes late, tries for ever, or blocks the next start",
    "unclear": "it ended early and safely, or went on rightly, but its words do not say enough",
}


@dataclass(frozen=True)
class Cause:
    """What several findings have in common, worked out from what was observed.

    Attributes:
        key: the same for the same cause, in every session: `resume:optimizer-state`.
        title: what it is, in a few words.
        guide: the slug of the case whose page tells how to fix it; that of the finding's own case where empty.
    """

    key: str
    title: str
    guide: str = ""


@dataclass(frozen=True)
class Problem:
    """One thing that a trainer did and a good one would not do.

    Attributes:
        grade: the harm that was seen, which need not be the worst that the case can show.
        said: what happened.
        did: what was done to the trainer.
        evidence: its last words, or other text worth showing.
        cause: what it has in common with other findings; None where it is the case's own.
        verdict: what it came to by the session's bar, once that is known.
    """

    grade: Grade
    said: str
    did: str = ""
    evidence: str = ""
    cause: Cause | None = None
    verdict: Literal["failed", "advice", "accepted"] = "failed"

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Problem:
        """Back from `dataclasses.asdict`."""
        cause = values["cause"]
        return cls(**{**values, "cause": Cause(**cause) if cause else None})


def rank(grade: Grade) -> int:
    """The place of a grade, 0 for the gravest."""
    return GRADES.index(grade)


def worst(problems: Iterable[Problem]) -> Grade:
    """The gravest grade among some problems, of which there is at least one."""
    return min((problem.grade for problem in problems), key=rank)
