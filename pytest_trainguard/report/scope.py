"""Of how many cases and trainers a session's GO is, where it is not of all, and what it says nothing of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pytest_trainguard import catalog
from pytest_trainguard.report.data import CaseVerdict, SessionResult

MOST_MENDS = 3  # that are told in one line


def explain_scope(result: SessionResult) -> str:
    """What ` (of 1 of 80 cases: -k left the others out)` says; nothing where all were judged or do not apply.

    Of a project's own cases those count that were collected for the trainer; of the catalogue's the 80, not those that
    stand beside them without a number. The silent errors are counted for themselves, where one was judged or all of the
    80 were.
    """
    cases = _count_cases(result)
    parts = [*cases, *_count_silent(result, alone=not cases), *_count_trainers(result)]
    if not parts:
        return ""
    reasons = [*result.narrowed, *(["skip marks"] if any(verdict.left_out for verdict in result.verdicts) else [])]
    why = f": {join_words(reasons)} left the others out" if reasons else ""
    return f" (of {join_words(parts)}{why})"


def explain_open(verdicts: Sequence[CaseVerdict]) -> str:
    """What keeps critical cases from being judged, the line that most need first; empty where there are none.

    `13 critical cases could not be judged: seed the program with run.seed (11), save a checkpoint (2)`.
    """
    if not verdicts:
        return ""
    mends = Counter(verdict.mend for verdict in verdicts).most_common()
    told = [mend if len(mends) == 1 else f"{mend} ({count})" for mend, count in mends[:MOST_MENDS]]
    more = [f"and {len(mends) - MOST_MENDS} more"] if len(mends) > MOST_MENDS else []
    cases = f"{len(verdicts)} critical case{'' if len(verdicts) == 1 else 's'}"
    return f"{cases} could not be judged: {', '.join([*told, *more])}"


def _count_cases(result: SessionResult) -> list[str]:
    every = catalog.read_cases()
    catalogue = {case.slug for case in every if case.number is not None and case.family is catalog.CATALOGUE}
    beside = {case.slug for case in every} - catalogue
    counts, totals = [], []
    for trainer in result.trainers:
        own = [verdict for verdict in result.verdicts if verdict.trainer == trainer and verdict.slug not in beside]
        counts.append(len({verdict.slug for verdict in own if not verdict.left_out}))
        there = {slug for name, slug in result.own_cases if name == trainer}
        totals.append(len(catalogue | there | {verdict.slug for verdict in own}))
    if counts == totals:
        return []
    return [f"{_span(counts)} of {max(totals)} cases"]


def _count_silent(result: SessionResult, *, alone: bool) -> list[str]:
    """Of how many of the silent errors; `alone`: nothing is said of other cases, nor need it be if all were judged."""
    silent = {case.slug for case in catalog.read_cases() if case.family is catalog.SILENT}
    judged = [verdict for verdict in result.verdicts if verdict.slug in silent and not verdict.left_out]
    counts = [len({verdict.slug for verdict in judged if verdict.trainer == trainer}) for trainer in result.trainers]
    whole = min(counts, default=0) == len(silent)
    if not counts or (not judged and not alone) or (whole and alone):
        return []
    return [f"{_span(counts)} of {len(silent)} silent errors"]


def _span(counts: Sequence[int]) -> str:
    """`3`, or `3 to 5`."""
    least, most = min(counts), max(counts)
    return f"{least}" if least == most else f"{least} to {most}"


def _count_trainers(result: SessionResult) -> list[str]:
    if not result.trainers_left_out:
        return []
    return [f"{len(result.trainers)} of {len(result.trainers) + result.trainers_left_out} trainers"]


def join_words(words: Sequence[str]) -> str:
    """Words as a sentence lists them: `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
