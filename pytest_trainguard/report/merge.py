"""One report of a preflight that was spread over several machines, each of which wrote one of its own."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping

import pytest

from pytest_trainguard import catalog
from pytest_trainguard.harm import GRADES, Cause, Problem, rank
from pytest_trainguard.report.data import Acceptance, AcceptanceState, CaseVerdict, SessionResult, Word
from pytest_trainguard.report.json_report import (
    AcceptanceEntry,
    CaseEntry,
    Environment,
    ProblemEntry,
    Report,
    assemble_report,
    join_predictions,
)

GRAVITY: tuple[Word, ...] = ("failed", "error", "advice", "accepted", "passed", "not_applicable")  # the gravest first
STATES: tuple[AcceptanceState, ...] = ("expired", "outgrown", "used", "unneeded", "open")  # what counts most first


def merge_reports(reports: Mapping[str, Report]) -> Report:
    """Put reports together: their trainers and cases, and what follows from all of them.

    Args:
        reports: by the names of their files, at least one.

    Raises:
        ValueError: they are not of one preflight: their bars, versions or trainers differ; in one line.
        KeyError: one is not as `schema.json` says, as are AttributeError and TypeError.
    """
    _require_same("bar", {name: report["bar"] for name, report in reports.items()})
    versions = {name: report["environment"]["pytest_trainguard"] for name, report in reports.items()}
    _require_same("version of pytest-trainguard", versions)
    names = dict.fromkeys(trainer["name"] for report in reports.values() for trainer in report["trainers"])
    trainers = {name: _find_source(name, reports) for name in names}
    verdicts, notes = _join_cases(reports)
    every = list(reports.values())
    result = SessionResult(
        verdicts=verdicts,
        trainers=trainers,
        bar=every[0]["bar"],
        left_out=[],
        narrowed=[],
        began=0,
        command="",
        gpu_budget=None,
        exitstatus=max(_find_exit(report) for report in every),
        problems=[],
        strict=any(report.get("strict", False) for report in every),
        acceptances=_join_acceptances([one for report in every for one in report.get("acceptances", [])]),
    )
    report = assemble_report(result, _join_environments([report["environment"] for report in every]))
    missing = _find_missing(result)
    notes += [f"{name}: {len(slugs)} cases are in none of the reports: {', '.join(slugs)}" for name, slugs in missing]
    left_out = {slug for report in every for slug in report.get("left_out", [])}
    notes += [_tell_exit(name, report) for name, report in reports.items() if _find_exit(report)]
    return {
        **report,
        "left_out": sorted(left_out - {verdict.slug for verdict in verdicts}),
        "memory": join_predictions(one for report in every for one in report["memory"]),
        "notes": [*dict.fromkeys(note for report in every for note in report.get("notes", [])), *notes],
    }


def _require_same(what: str, values: Mapping[str, object]) -> None:
    """Whether a value is the same in all reports.

    Args:
        what: the value is.
        values: by the names of the reports' files.

    Raises:
        ValueError: it is not.
    """
    first = next(iter(values))
    for name, value in values.items():
        if value != values[first]:
            raise ValueError(f"{name}: its {what} is {value}, that of {first} is {values[first]}")


def _find_source(trainer: str, reports: Mapping[str, Report]) -> str:
    """Where a trainer comes from.

    Raises:
        ValueError: from one place in one report and from another in another: they are two programs.
    """
    found = {
        name: entry["source"]
        for name, report in reports.items()
        for entry in report["trainers"]
        if entry["name"] == trainer
    }
    _require_same(f"trainer {trainer}", found)
    return next(iter(found.values()))


def _join_cases(reports: Mapping[str, Report]) -> tuple[list[CaseVerdict], list[str]]:
    """One verdict for each trainer and case, and what is to be said of those that were judged twice."""
    chosen: dict[tuple[str, str], tuple[str, CaseEntry]] = {}
    notes = []
    for name, report in reports.items():
        for case in report["cases"]:
            key = case["trainer"], case["slug"]
            if key not in chosen:
                chosen[key] = name, case
                continue
            before, other = chosen[key]
            graver = _find_gravity(case) < _find_gravity(other)
            if case["verdict"] != other["verdict"]:
                counts = case if graver else other
                told = f"{other['verdict']} in {before}, {case['verdict']} in {name}: {counts['verdict']} counts"
                notes.append(f"{case['trainer']}: {case['slug']} is {told}")
            if graver:
                chosen[key] = name, case
    return [_read_verdict(case) for _, case in chosen.values()], notes


def _find_gravity(case: CaseEntry) -> tuple[int, int]:
    return GRAVITY.index(case["verdict"]), len(GRADES) if case["grade"] is None else rank(case["grade"])


def _read_verdict(case: CaseEntry) -> CaseVerdict:
    """A case's verdict as the session had it, of which the report's entry was made."""
    return CaseVerdict(
        slug=case["slug"],
        number=case["number"],
        title=case["title"],
        category=case["category"],
        severity=case["severity"],
        expects=case.get("expects", ""),
        trainer=case["trainer"],
        verdict=case["verdict"],
        reason=case["reason"],
        problems=tuple(_read_problem(problem) for problem in case["problems"]),
        evidence=case.get("evidence", ""),
        alone=case["alone"],
        framework=case.get("framework", ""),
        seconds=case["seconds"],
        memory=None,
        left_out=case.get("left_out", False),
        mend=case.get("mend", ""),
    )


def _read_problem(entry: ProblemEntry) -> Problem:
    cause = Cause(entry["cause"], entry["cause_title"], entry["cause_guide"]) if entry["cause"] else None
    return Problem(entry["grade"], entry["happened"], entry["did"], entry["evidence"], cause, entry["verdict"])


def _join_acceptances(entries: Iterable[AcceptanceEntry]) -> list[Acceptance]:
    """What the team has accepted, each once: what one part made of it counts more than that another did not look."""
    chosen: dict[tuple[str, str, str], AcceptanceEntry] = {}
    for entry in entries:
        key = entry["trainer"], entry["case"], entry["cause"]
        if key not in chosen or STATES.index(entry["state"]) < STATES.index(chosen[key]["state"]):
            chosen[key] = entry
    return [_read_acceptance(entry) for entry in chosen.values()]


def _read_acceptance(entry: AcceptanceEntry) -> Acceptance:
    date, expires = (datetime.date.fromisoformat(day) if day else None for day in (entry["date"], entry["expires"]))
    return Acceptance(
        entry["trainer"], entry["case"], entry["cause"], entry["grade"], entry["reason"], date, expires, entry["state"]
    )


def _find_exit(report: Report) -> int:
    """How a session ended, where its cases do not explain it: interrupted, or something beside them went wrong."""
    counts, status = report["coverage"], report["exitstatus"]
    strict = report.get("strict", False) and report.get("open")
    # Of a part, nothing may apply.
    explained = counts["failed"] or counts["error"] or strict or not counts["judged"]
    harmless = status == pytest.ExitCode.NO_TESTS_COLLECTED or (status == pytest.ExitCode.TESTS_FAILED and explained)
    return 0 if harmless else status


def _tell_exit(name: str, report: Report) -> str:
    return f"{name}: the session itself was no GO, it ended with exit code {report['exitstatus']}: {report['why']}"


def _find_missing(result: SessionResult) -> list[tuple[str, list[str]]]:
    """Of each trainer, the catalogue's cases of which there is no verdict."""
    there = {(verdict.trainer, verdict.slug) for verdict in result.verdicts}
    every = [(name, case.slug) for name in result.trainers for case in catalog.read_cases()]
    missing = {name: [slug for of, slug in every if of == name and (of, slug) not in there] for name in result.trainers}
    return [(name, slugs) for name, slugs in missing.items() if slugs]


def _join_environments(every: list[Environment]) -> Environment:
    """When the first began, how long the longest took, and what differed, one after the other."""
    return {
        "date": min(one.get("date", "") for one in every),
        "command": "\n".join(dict.fromkeys(one.get("command", "") for one in every)),
        "seconds": max(one.get("seconds", 0.0) for one in every),
        "pytest_trainguard": every[0]["pytest_trainguard"],
        "pytest": _join(one["pytest"] for one in every) or "",
        "python": _join(one["python"] for one in every) or "",
        "platform": _join(one["platform"] for one in every) or "",
        "cpus": max(one["cpus"] or 0 for one in every) or None,
        "torch": _join(one["torch"] for one in every),
        "gpu_budget": _join(one["gpu_budget"] for one in every),
        "isolation": _join(one.get("isolation") for one in every),
    }


def _join(values: Iterable[str | None]) -> str | None:
    return ", ".join(dict.fromkeys(value for value in values if value)) or None
