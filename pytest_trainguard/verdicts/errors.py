"""The exceptions that carry a verdict.

VerdictError
├── Finding          the trainer did something else: failed, or advice, by the harm that was seen
├── NotApplicable    the trainer lacks what the case is about: not applicable, with what to add
└── CannotJudge      the harness itself could not tell: error, never green
"""

from __future__ import annotations

from collections.abc import Sequence

from pytest_trainguard.harm import Cause, Grade, Problem, worst


class VerdictError(Exception):
    """A verdict other than passed."""


class Finding(VerdictError, AssertionError):
    """The trainer did not do what a good one does.

    Attributes:
        problems: what it did instead, at least one thing.
    """

    def __init__(
        self, did: str, happened: str, evidence: str = "", *, grade: Grade = "misleads", cause: Cause | None = None
    ):
        """One problem.

        Args:
            did: what was done to the trainer.
            happened: what it did, one thing a line.
            evidence: its last words, or other text worth showing.
            grade: the harm that was seen.
            cause: what it has in common with findings of other cases, if anything.
        """
        super().__init__(f"{did}: {happened}")
        self.problems: tuple[Problem, ...] = (Problem(grade, happened, did, evidence, cause),)

    @classmethod
    def joined(cls, problems: Sequence[Problem]) -> Finding:
        """Of several problems, at least one."""
        finding = cls(problems[0].did, problems[0].said)
        finding.problems = tuple(problems)
        told, before = [], ""
        for problem in problems:  # what was done to it is said once
            told.append(problem.said if problem.did == before else f"{problem.did}: {problem.said}")
            before = problem.did
        finding.args = ("\n".join(told),)
        return finding

    @property
    def grade(self) -> Grade:
        """The gravest of its problems."""
        return worst(self.problems)

    @property
    def did(self) -> str:
        """What was done to the trainer."""
        return self.problems[0].did

    @property
    def happened(self) -> str:
        """What the trainer did, one thing a line."""
        return "\n".join(problem.said for problem in self.problems)

    @property
    def evidence(self) -> str:
        """Its last words."""
        return self.problems[0].evidence


class NotApplicable(VerdictError):
    """The case says nothing about this trainer; the message says what to add so that it does.

    Attributes:
        mend: where the team can mend that, how, in the same few words for all cases that it keeps from being judged;
            empty where it is the program's nature: it has no queue, no tokenizer, no text in its rows.
    """

    def __init__(self, reason: str, mend: str = ""):
        super().__init__(reason)
        self.mend = mend


class CannotJudge(VerdictError):
    """The harness could not bring the case about, or could not tell what came of it."""

    def __init__(self, reason: str, evidence: str = ""):
        super().__init__(reason)
        self.evidence = evidence.rstrip()
