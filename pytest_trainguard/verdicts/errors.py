"""The exceptions that carry a verdict.

VerdictError
├── Finding          the trainer did something else: failed
├── NotApplicable    the trainer lacks what the case is about: not applicable, with what to add
└── CannotJudge      the harness itself could not tell: error, never green
"""

from __future__ import annotations


class VerdictError(Exception):
    """A verdict other than passed."""


class Finding(VerdictError, AssertionError):
    """The trainer did not do what a good one does.

    Attributes:
        did: what was done to it.
        happened: what it did, one thing a line.
        evidence: its last words, or other text worth showing.
    """

    def __init__(self, did: str, happened: str, evidence: str = ""):
        super().__init__(f"{did}: {happened}")
        self.did, self.happened, self.evidence = did, happened, evidence


class NotApplicable(VerdictError):
    """The case says nothing about this trainer; the message says what to add so that it does."""


class CannotJudge(VerdictError):
    """The harness could not bring the case about, or could not tell what came of it."""

    def __init__(self, reason: str, evidence: str = ""):
        super().__init__(reason)
        self.evidence = evidence.rstrip()
