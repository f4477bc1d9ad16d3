"""Several findings of one case: what is only unclear does not end it, since something graver may follow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from pytest_trainguard.harm import Problem
from pytest_trainguard.verdicts.errors import Finding

_gathered: ContextVar[list[Problem] | None] = ContextVar("trainguard_gathered", default=None)


@contextmanager
def gathering() -> Iterator[list[Problem]]:
    """While a case runs: the problems that it notes without ending."""
    found: list[Problem] = []
    token = _gathered.set(found)
    try:
        yield found
    finally:
        _gathered.reset(token)


def note(finding: Finding) -> None:
    """Keep a finding, and go on with the case.

    Raises:
        Finding: that very one, outside of a case: in an ordinary test nobody gathers.
    """
    found = _gathered.get()
    if found is None:
        raise finding
    found += [problem for problem in finding.problems if problem not in found]


@contextmanager
def noting() -> Iterator[None]:
    """Around what is judged by itself, as one of several runs: a finding there does not end the case."""
    try:
        yield
    except Finding as finding:
        note(finding)
