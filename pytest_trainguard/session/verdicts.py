"""From how a test ended to a verdict on its report, and the verdicts of a session put together."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

from pytest_trainguard.catalog import EdgeCase, case_of
from pytest_trainguard.report.block import format_block
from pytest_trainguard.report.data import CaseVerdict, Prediction, Word
from pytest_trainguard.verdicts.errors import CannotJudge, Finding, NotApplicable

if TYPE_CHECKING:
    Report = pytest.TestReport | pytest.CollectReport

MEMORY = pytest.StashKey[Prediction]()  # a test's prediction of GPU memory, as plain values
ATTRIBUTE = "trainguard"  # of pytest's report: what xdist carries from a worker


class VerdictStore:
    """One verdict for each trainer and case, in the order of their ends; pytest calls its hook."""

    def __init__(self) -> None:
        self._by_test: dict[str, CaseVerdict] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Gather the verdicts; under xdist they come from the workers, on their reports."""
        verdict = read_verdict(report)
        earlier = self._by_test.get(report.nodeid)
        # A second one is of the same test's teardown: what failed stays failed, what passed is left open.
        if verdict and (earlier is None or earlier.verdict != "failed"):
            self._by_test[report.nodeid] = verdict

    def list_verdicts(self) -> list[CaseVerdict]:
        """One for each trainer and case, in the order of their ends."""
        return list(self._by_test.values())


def read_verdict(report: Report) -> CaseVerdict | None:
    """The verdict on pytest's report, if it is that of an edge case."""
    values = getattr(report, ATTRIBUTE, None)
    return CaseVerdict.from_values(values) if values else None


def attach_verdict(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> pytest.TestReport:
    """Put the verdict of an edge case on its report, as plain values: under xdist it crosses to another process."""
    case = case_of(item.iter_markers())
    problem = call.excinfo.value if call.excinfo else None
    if isinstance(problem, NotApplicable):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), 0, f"Skipped: not applicable: {problem}")
    if case is None or (report.when != "call" and problem is None):
        return report
    verdict = _judge(case, item, problem, report, call.duration)
    setattr(report, ATTRIBUTE, verdict.as_values())
    # On the item: JUnit's properties are those of the report of its teardown.
    others = [kept for kept in item.user_properties if kept[0] != "verdict"]
    item.user_properties[:] = [*others, ("verdict", verdict.verdict)]
    report.user_properties = list(item.user_properties)
    if verdict.verdict in ("failed", "error") and isinstance(problem, Finding | CannotJudge):
        report.outcome = "failed"
        report.longrepr = format_block(verdict)
    return report


def _judge(
    case: EdgeCase, item: pytest.Item, problem: BaseException | None, report: pytest.TestReport, seconds: float
) -> CaseVerdict:
    word, reason = _explain(problem, report)
    trainer, parametrized = _name_trainer(item)
    chosen = f"--trainer {trainer} --edge-case {case.key}" if parametrized else shlex.quote(item.nodeid)
    return CaseVerdict(
        slug=case.slug,
        number=case.number,
        title=case.title,
        category=case.category,
        severity=case.severity,
        expects=case.expects,
        trainer=trainer,
        verdict=word,
        reason=reason,
        did=problem.did if isinstance(problem, Finding) else "",
        evidence=getattr(problem, "evidence", ""),
        alone=f"pytest -m preflight {chosen}",
        seconds=round(seconds, 3),
        memory=item.stash.get(MEMORY, None),
    )


def _name_trainer(item: pytest.Item) -> tuple[str, bool]:
    """The trainer's name, and whether it is one of the session's (and not of a fixture of the team's own)."""
    callspec = getattr(item, "callspec", None)
    if callspec and "trainer" in callspec.params:
        return str(callspec.params["trainer"]), True
    chosen = getattr(item, "funcargs", {}).get("trainer", "")
    return chosen if isinstance(chosen, str) else getattr(chosen, "__name__", str(chosen)), False


def _explain(problem: BaseException | None, report: pytest.TestReport) -> tuple[Word, str]:
    if problem is None:
        return "passed", ""
    if isinstance(problem, Finding):
        return "failed", problem.happened
    if isinstance(problem, NotApplicable | pytest.skip.Exception):
        return "not_applicable", str(problem)
    if isinstance(problem, CannotJudge):
        return "error", str(problem)
    asserted = isinstance(problem, AssertionError) and report.when == "call"
    return "failed" if asserted else "error", f"{type(problem).__name__}: {problem}".strip().splitlines()[0]
