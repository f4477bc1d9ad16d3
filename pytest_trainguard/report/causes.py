"""Findings by their cause: each cause once, with the cases that ran into it, the gravest first."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypedDict

from pytest_trainguard.harm import Grade, Problem, rank
from pytest_trainguard.report.data import CaseVerdict

LINE = re.compile(r"(?<=@)(.+):\d+$")  # where an exception was raised: a file and a line of it


class CauseEntry(TypedDict):
    """One cause in one trainer; `schema.json` says what each part means."""

    key: str
    title: str
    grade: Grade
    verdict: str
    trainer: str
    cases: list[str]
    did: str
    happened: str
    alone: str
    guide: str
    framework: str


def group_by_cause(verdicts: Iterable[CaseVerdict]) -> list[CauseEntry]:
    """The causes of all that was found, what is NO-GO first, then the gravest, then those of most cases."""
    found: dict[tuple[str, str, str], list[tuple[CaseVerdict, Problem]]] = {}
    for verdict in sorted(verdicts, key=lambda verdict: verdict.order):
        for problem in verdict.problems:
            key = find_key(problem.cause.key if problem.cause else "", verdict.slug)
            found.setdefault((verdict.trainer, key, problem.verdict), []).append((verdict, problem))
    entries = [_make_entry(key, word, pairs) for (_, key, word), pairs in found.items()]
    order = {"failed": 0, "advice": 1, "accepted": 2}
    return sorted(entries, key=lambda entry: (order[entry["verdict"]], rank(entry["grade"]), -len(entry["cases"])))


def find_key(cause: str, slug: str) -> str:
    """The key of a problem's cause.

    Args:
        cause: its key, empty where the problem is the case's own.
        slug: of the case.
    """
    return cause or f"case:{slug}"


def find_stable_key(key: str) -> str:
    """A cause's key without the line of an exception, which moves with every change above it."""
    return LINE.sub(r"\1", key)


def _make_entry(key: str, word: str, pairs: list[tuple[CaseVerdict, Problem]]) -> CauseEntry:
    verdict, problem = min(pairs, key=lambda pair: rank(pair[1].grade))
    return {
        "key": key,
        "title": problem.cause.title if problem.cause else verdict.title,
        "grade": problem.grade,
        "verdict": word,
        "trainer": verdict.trainer,
        "cases": list(dict.fromkeys(one.slug for one, _ in pairs)),
        "did": problem.did,
        "happened": problem.said,
        "alone": verdict.alone,
        "guide": (problem.cause.guide if problem.cause else "") or verdict.slug,
        "framework": verdict.framework,
    }
