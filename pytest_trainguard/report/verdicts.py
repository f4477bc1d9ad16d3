"""From how a test ended to a verdict on its report, and the text that a person reads."""

from __future__ import annotations

import shlex
import textwrap
from typing import Any

import pytest

from pytest_trainguard import catalog
from pytest_trainguard.verdicts.errors import CannotJudge, Finding, NotApplicable

MEMORY = pytest.StashKey[dict[str, Any]]()  # a test's prediction of GPU memory, as plain values


def attach(item: pytest.Item, call: pytest.CallInfo[Any], report: pytest.TestReport) -> pytest.TestReport:
    """Put the verdict of an edge case on its report, as plain values."""
    case = catalog.case_of(item.iter_markers())
    problem = call.excinfo.value if call.excinfo else None
    if isinstance(problem, NotApplicable):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), 0, f"Skipped: not applicable: {problem}")
    if case is None or (report.when != "call" and problem is None):
        return report
    verdict, reason = _verdict(problem, report)
    name, parametrized = _trainer_name(item)
    chosen = f"--trainer {name} --edge-case {case.number}" if parametrized else shlex.quote(item.nodeid)
    told: dict[str, Any] = {
        "number": case.number,
        "title": case.title,
        "category": case.category,
        "severity": case.severity,
        "expects": case.expects,
        "trainer": name,
        "verdict": verdict,
        "reason": reason,
        "did": problem.did if isinstance(problem, Finding) else "",
        "evidence": getattr(problem, "evidence", ""),
        "alone": f"pytest -m preflight {chosen}",
        "seconds": round(call.duration, 3),
        "memory": item.stash.get(MEMORY, None),
    }
    report.trainguard = told  # type: ignore[attr-defined]
    # On the item: JUnit's properties are those of the report of its teardown.
    item.user_properties[:] = [kept for kept in item.user_properties if kept[0] != "verdict"] + [("verdict", verdict)]
    report.user_properties = list(item.user_properties)
    if verdict in ("failed", "error") and (isinstance(problem, Finding | CannotJudge)):
        report.outcome = "failed"
        report.longrepr = block(told)
    return report


def _trainer_name(item: pytest.Item) -> tuple[str, bool]:
    """The trainer's name, and whether it is one of the session's (and not of a fixture of the team's own)."""
    callspec = getattr(item, "callspec", None)
    if callspec and "trainer" in callspec.params:
        return str(callspec.params["trainer"]), True
    chosen = getattr(item, "funcargs", {}).get("trainer", "")
    return chosen if isinstance(chosen, str) else getattr(chosen, "__name__", str(chosen)), False


def _verdict(problem: BaseException | None, report: pytest.TestReport) -> tuple[str, str]:
    if problem is None:
        return "passed", ""
    if isinstance(problem, Finding):
        return "failed", problem.happened
    if isinstance(problem, NotApplicable | pytest.skip.Exception):
        return "not_applicable", str(problem)
    if isinstance(problem, CannotJudge):
        return "error", str(problem)
    verdict = "failed" if isinstance(problem, AssertionError) and report.when == "call" else "error"
    return verdict, f"{type(problem).__name__}: {problem}".strip().splitlines()[0]


def block(told: dict[str, Any]) -> str:
    """A verdict as a person reads it: what was done, what a good trainer does, what this one did, how to see it."""
    head = f"{told['number']} {told['title']} ({told['category']}, {told['severity']}): {told['trainer']}"
    parts = [("not judged", told["reason"]), ("output", told["evidence"])]
    if told["verdict"] == "failed":
        parts = [("done", told["did"]), ("expected", told["expects"]), ("happened", told["reason"])]
        parts.append(("output", told["evidence"]))
    parts.append(("reproduce", told["alone"]))
    lines = [head]
    for label, text in parts:
        if text:
            lines.append(textwrap.indent(text, " " * 14).replace(" " * 14, f"  {label:<12}", 1))
    return "\n".join(lines)
