"""The report as data, from which each of its files is written. Its form is `schema.json` beside this file."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Iterable
from datetime import datetime
from typing import Literal, TypedDict

import pytest

from pytest_trainguard import catalog
from pytest_trainguard.harm import Grade, Problem
from pytest_trainguard.report.causes import CauseEntry, group_by_cause
from pytest_trainguard.report.data import Acceptance, AcceptanceState, CaseVerdict, Prediction, SessionResult, Word
from pytest_trainguard.report.scope import explain_open, explain_scope

VERSION = 2


class TrainerEntry(TypedDict):
    """What came of one trainer."""

    name: str
    source: str
    verdict: Word
    reason: str


class ProblemEntry(TypedDict):
    """One thing that a case found."""

    grade: Grade
    cause: str
    cause_title: str
    cause_guide: str
    verdict: Literal["failed", "advice", "accepted"]
    did: str
    happened: str
    evidence: str


class CaseEntry(TypedDict):
    """What came of one case and one trainer."""

    slug: str
    number: int | None
    title: str
    category: str
    severity: str
    expects: str
    trainer: str
    verdict: Word
    grade: Grade | None
    reason: str
    left_out: bool
    mend: str
    problems: list[ProblemEntry]
    seconds: float
    evidence: str
    alone: str
    framework: str


class AcceptanceEntry(TypedDict):
    """What the team has accepted."""

    trainer: str
    case: str
    cause: str
    grade: Grade
    reason: str
    date: str | None
    expires: str | None
    state: AcceptanceState


class OpenEntry(TypedDict):
    """Critical cases that could be judged, and were not, for one reason."""

    trainer: str
    mend: str
    cases: list[str]


class Coverage(TypedDict):
    """How many cases there are, and how many of each verdict."""

    catalogue: int
    selected: int
    judged: int
    passed: int
    advice: int
    accepted: int
    failed: int
    not_applicable: int
    error: int


class Environment(TypedDict):
    """Where, when and with what the session ran."""

    date: str
    command: str
    seconds: float
    pytest_trainguard: str | None
    pytest: str
    python: str
    platform: str
    cpus: int | None
    torch: str | None
    gpu_budget: str | None
    isolation: str | None


class Report(TypedDict):
    """The whole; `schema.json` says what each part means."""

    version: int
    clearance: str
    why: str
    bar: Grade
    strict: bool
    open: list[OpenEntry]
    exitstatus: int
    notes: list[str]
    left_out: list[str]
    causes: list[CauseEntry]
    acceptances: list[AcceptanceEntry]
    trainers: list[TrainerEntry]
    memory: list[Prediction]
    cases: list[CaseEntry]
    coverage: Coverage
    environment: Environment


def make_report(result: SessionResult) -> Report:
    """The report of a session that ran here, as plain values."""
    return assemble_report(result, _describe_environment(result))


def assemble_report(result: SessionResult, environment: Environment) -> Report:
    """The report as plain values, wherever the session ran."""
    places = {name: place for place, name in enumerate(result.trainers)}
    verdicts = sorted(result.verdicts, key=lambda v: (places.get(v.trainer, len(places)), v.order))
    names = dict.fromkeys([*result.trainers, *(verdict.trainer for verdict in verdicts)])
    return {
        "version": VERSION,
        "clearance": result.clearance,
        "why": explain_clearance(result),
        "bar": result.bar,
        "strict": result.strict,
        "open": _list_open(verdicts),
        "exitstatus": result.exitstatus,
        "notes": list(result.notes),
        "causes": group_by_cause(verdicts),
        "acceptances": [_make_acceptance(acceptance) for acceptance in result.acceptances],
        "left_out": [case.slug for case in result.left_out],
        "trainers": [_make_trainer(name, result.trainers.get(name), verdicts) for name in names],
        "memory": merge_predictions(verdicts),
        "cases": [_make_case(verdict) for verdict in verdicts],
        "coverage": _count(result),
        "environment": environment,
    }


def headline(report: Report) -> str:
    """GO or NO-GO and what stands behind it, in one line; a GO with what it says nothing of beside the word."""
    word = f"{report['clearance']}, but" if tells_open(report) else f"{report['clearance']}:"
    return f"{word} {report['why']}"


def tells_open(report: Report) -> bool:
    """Whether it is a GO of less than could be judged."""
    return report["clearance"] != "NO-GO" and bool(report["open"])


def explain_clearance(result: SessionResult) -> str:
    """What stands behind GO or NO-GO, in one line: what could be judged and was not, and how many of each verdict."""
    counts = result.counts
    told = [f"{counts['passed']} passed", f"{counts['failed']} failed"]
    told += [f"{counts[word]} {word}" for word in ("advice", "accepted") if counts[word]]
    told.append(f"{counts['not_applicable']} not applicable")
    if counts["error"]:
        told.append(f"{counts['error']} not judged")
    if result.exitstatus == pytest.ExitCode.INTERRUPTED:
        told.append("interrupted before the end")
    elif not result.judged:
        told.append("nothing was judged")
    counted = ", ".join(told) + explain_scope(result)
    is_told = result.strict or result.clearance != "NO-GO"
    opened = explain_open(result.open) if is_told else ""
    return f"{opened}; {counted}" if opened else counted


def merge_predictions(verdicts: Iterable[CaseVerdict]) -> list[Prediction]:
    """What was predicted of each trainer's GPU memory; what several cases found out of one, put together."""
    return join_predictions({"trainer": verdict.trainer, **verdict.memory} for verdict in verdicts if verdict.memory)


def join_predictions(predictions: Iterable[Prediction]) -> list[Prediction]:
    """Predictions that name their trainer: one for each of those."""
    found: dict[str, Prediction] = {}
    for one in predictions:
        earlier = found.get(one["trainer"], {"largest_settings": {}})
        largest = {**earlier["largest_settings"], **one["largest_settings"]}
        found[one["trainer"]] = {**one, "largest_settings": largest}
    return list(found.values())


def _list_open(verdicts: Iterable[CaseVerdict]) -> list[OpenEntry]:
    groups: dict[tuple[str, str], list[str]] = {}
    for verdict in verdicts:
        if verdict.open:
            groups.setdefault((verdict.trainer, verdict.mend), []).append(verdict.slug)
    return [{"trainer": trainer, "mend": mend, "cases": cases} for (trainer, mend), cases in groups.items()]


def _make_trainer(name: str, spec: object, verdicts: list[CaseVerdict]) -> TrainerEntry:
    own = [verdict for verdict in verdicts if verdict.trainer == name]
    errors = [verdict.reason for verdict in own if verdict.verdict == "error"]
    words: tuple[Word, ...] = ("error", "failed", "advice", "accepted", "passed")
    there = {verdict.verdict for verdict in own}
    word: Word = next((word for word in words if word in there), "not_applicable")
    return {
        "name": name,
        "source": spec if isinstance(spec, str) else "command",
        "verdict": word,
        "reason": errors[0] if errors else "",
    }


def _make_case(verdict: CaseVerdict) -> CaseEntry:
    return {
        "slug": verdict.slug,
        "number": verdict.number,
        "title": verdict.title,
        "category": verdict.category,
        "severity": verdict.severity,
        "expects": verdict.expects,
        "trainer": verdict.trainer,
        "verdict": verdict.verdict,
        "grade": verdict.grade,
        "reason": verdict.reason,
        "left_out": verdict.left_out,
        "mend": verdict.mend,
        "problems": [_make_problem(problem) for problem in verdict.problems],
        "seconds": verdict.seconds,
        "evidence": verdict.evidence,
        "alone": verdict.alone,
        "framework": verdict.framework,
    }


def _make_problem(problem: Problem) -> ProblemEntry:
    cause = problem.cause
    return {
        "grade": problem.grade,
        "cause": cause.key if cause else "",
        "cause_title": cause.title if cause else "",
        "cause_guide": cause.guide if cause else "",
        "verdict": problem.verdict,
        "did": problem.did,
        "happened": problem.said,
        "evidence": problem.evidence,
    }


def _make_acceptance(acceptance: Acceptance) -> AcceptanceEntry:
    return {
        "trainer": acceptance.trainer,
        "case": acceptance.case,
        "cause": acceptance.cause,
        "grade": acceptance.grade,
        "reason": acceptance.reason,
        "date": acceptance.date.isoformat() if acceptance.date else None,
        "expires": acceptance.expires.isoformat() if acceptance.expires else None,
        "state": acceptance.state,
    }


def _count(result: SessionResult) -> Coverage:
    counts = result.counts
    return {
        "catalogue": sum(case.number is not None for case in catalog.read_cases()),
        "selected": len(result.verdicts),
        "judged": result.judged,
        "passed": counts["passed"],
        "advice": counts["advice"],
        "accepted": counts["accepted"],
        "failed": counts["failed"],
        "not_applicable": counts["not_applicable"],
        "error": counts["error"],
    }


def _describe_environment(result: SessionResult) -> Environment:
    return {
        "date": datetime.fromtimestamp(result.began).astimezone().isoformat(timespec="seconds"),
        "command": result.command,
        "seconds": round(time.time() - result.began, 1),
        "pytest_trainguard": _find_version("pytest-trainguard"),
        "pytest": pytest.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "torch": _find_version("torch"),
        "gpu_budget": result.gpu_budget,
        "isolation": result.isolation or None,
    }


def _find_version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
