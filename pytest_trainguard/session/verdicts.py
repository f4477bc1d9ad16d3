"""From how a test ended to a verdict on its report, and the verdicts of a session put together."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_trainguard.catalog import EdgeCase, case_of
from pytest_trainguard.harm import Problem
from pytest_trainguard.printing import printable
from pytest_trainguard.report.block import represent_block
from pytest_trainguard.report.data import CaseVerdict, Prediction, Word
from pytest_trainguard.session.bar import BAR, sum_up
from pytest_trainguard.session.short_names import name_option
from pytest_trainguard.session.trainers import find_parametrized
from pytest_trainguard.subject import room
from pytest_trainguard.verdicts.errors import CannotJudge, Finding, NotApplicable, VerdictError
from pytest_trainguard.verdicts.gathering import gathering

if TYPE_CHECKING:
    Report = pytest.TestReport | pytest.CollectReport

MEMORY = pytest.StashKey[Prediction]()  # a test's prediction of GPU memory, as plain values
NOTED = pytest.StashKey[list[Problem]]()  # what a test found without ending for it
FRAMEWORK = pytest.StashKey[Callable[[], str]]()  # what a test's trainer trains with, once it has run
XPASSED = "[XPASS(strict)]"  # how pytest begins what it says of a test that should have failed
ATTRIBUTE = "trainguard"  # of pytest's report: what xdist carries from a worker
BEGUN = "trainguard_begun"  # of the report of a setup: the verdict, should the worker crash in what follows
CRASHED = "the process that ran it (a worker of pytest-xdist) crashed, or was killed"


# The category of a verdict that pytest knows none for, and its letter.
STATUS = {"not_applicable": ("not applicable", "n"), "advice": ("advice", "a"), "accepted": ("accepted", "A")}
BRIEF = {"failed": ("NO-GO", "F"), "error": ("not judged", "E")}  # told at the end, each cause once


@contextmanager
def gather(item: pytest.Item) -> Iterator[None]:
    """While an edge case runs: what it notes goes to its stash."""
    if case_of(item.iter_markers()) is None:
        yield
        return
    with gathering() as noted:
        item.stash[NOTED] = noted
        yield
        if noted and item.get_closest_marker("xfail"):
            raise Finding.joined(noted)  # pytest holds its mark against what a test raises


def find_status(report: Report, verbose: bool) -> tuple[str, str, str] | None:
    """Category, letter and word of an edge case's report; None where pytest's own will do."""
    verdict = read_verdict(report)
    known = STATUS if verbose else {**STATUS, **BRIEF}
    if verdict is None or verdict.verdict not in known:
        return None
    category, letter = known[verdict.verdict]
    return category, letter, category.upper()


class VerdictStore:
    """One verdict for each trainer and case, in the order of their ends; pytest calls its hook."""

    def __init__(self) -> None:
        self._by_test: dict[str, CaseVerdict] = {}
        self._begun: dict[str, CaseVerdict] = {}
        self._kills = room.count_oom_kills()

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport) -> None:
        """A worker of pytest-xdist is gone in the middle of a test: its case was not judged."""
        verdict = self._begun.get(crashitem)
        if verdict is not None:
            if room.count_oom_kills() > self._kills:
                verdict = replace(verdict, reason=room.tell_out_of_memory())
            setattr(report, ATTRIBUTE, verdict.as_values())
            report.longrepr = represent_block(verdict, crashitem.partition("::")[0])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Gather the verdicts; under xdist they come from the workers, on their reports."""
        begun = getattr(report, BEGUN, None)
        if begun:
            self._begun[report.nodeid] = CaseVerdict.from_values(begun)
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


def clean_message(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Before pytest shows what a test other than a case raised: have what it quotes of a trainer be printable."""
    problem = call.excinfo.value if call.excinfo else None
    if isinstance(problem, VerdictError) and case_of(item.iter_markers()) is None:
        problem.args = tuple(printable(arg) if isinstance(arg, str) else arg for arg in problem.args)


def attach_verdict(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> pytest.TestReport:
    """Put the verdict of an edge case on its report, as plain values: under xdist it crosses to another process."""
    case = case_of(item.iter_markers())
    problem = call.excinfo.value if call.excinfo else None
    noted = item.stash.get(NOTED, [])
    if isinstance(problem, NotApplicable) and not noted:
        report.outcome = "skipped"
        report.longrepr = (str(item.path), 0, printable(f"Skipped: not applicable: {problem}"))
    if case is not None and report.when == "setup" and problem is None and hasattr(item.config, "workerinput"):
        crashed = _judge(case, item, CannotJudge(CRASHED), report, call.duration, None)
        setattr(report, BEGUN, crashed.as_values())
    if case is None or (report.when != "call" and problem is None):
        return report
    xfail = _take_xfail(report)
    verdict = _judge(case, item, problem, report, call.duration, xfail)
    setattr(report, ATTRIBUTE, verdict.as_values())
    # On the item: JUnit's properties are those of the report of its teardown.
    others = [kept for kept in item.user_properties if kept[0] not in ("verdict", "grade")]
    grade = [("grade", verdict.grade)] if verdict.grade else []
    item.user_properties[:] = [*others, ("verdict", verdict.verdict), *grade]
    report.user_properties = list(item.user_properties)
    if verdict.verdict in ("advice", "accepted") or (verdict.verdict == "passed" and xfail is not None):
        report.outcome, report.longrepr = "passed", None
    elif verdict.verdict == "not_applicable":
        report.outcome, report.longrepr = "skipped", (str(item.path), 0, printable(f"Skipped: {verdict.reason}"))
    elif verdict.verdict in ("failed", "error"):
        report.outcome = "failed"
        if noted or isinstance(problem, Finding | CannotJudge):
            report.longrepr = represent_block(verdict, str(item.path))
    return report


def _take_xfail(report: pytest.TestReport) -> str | None:
    """Take off what pytest made of an xfail mark: the mark accepts what was found, and hides nothing.

    Returns:
        The mark's reason; None where there is no mark, or it expected another exception.
    """
    reason: str | None = getattr(report, "wasxfail", None)
    if reason is not None:
        del report.wasxfail
    elif isinstance(report.longrepr, str) and report.longrepr.startswith(XPASSED):
        reason = report.longrepr.removeprefix(XPASSED)
    return reason if reason is None else reason.strip() or "no reason given"


def _judge(
    case: EdgeCase,
    item: pytest.Item,
    problem: BaseException | None,
    report: pytest.TestReport,
    seconds: float,
    xfail: str | None,
) -> CaseVerdict:
    trainer = _name_trainer(item)
    problems = item.config.stash[BAR].weigh(_list_problems(item, problem, report), trainer, case)
    if xfail is not None:
        problems = tuple(replace(each, verdict="accepted") if each.verdict == "failed" else each for each in problems)
    left_out = not problems and _is_left_out(item, problem, report)
    word, reason = _explain(problem, problems)
    if word == "error" and room.NO_SPACE.search(reason):  # met by the harness itself: pytest's folders, a copy
        reason = room.tell_full(item.config._tmp_path_factory.getbasetemp())  # type: ignore[attr-defined]
    return CaseVerdict(
        slug=case.slug,
        number=case.number,
        title=case.title,
        category=case.category,
        severity=case.severity,
        expects=case.expects,
        trainer=trainer,
        verdict=word,
        reason=f"left out by a mark of pytest's: {reason}" if left_out else reason,
        problems=problems,
        evidence=problem.evidence if isinstance(problem, CannotJudge) else "",
        alone=_format_command(item, case),
        framework=item.stash.get(FRAMEWORK, str)(),
        seconds=round(seconds, 3),
        memory=item.stash.get(MEMORY, None),
        xfail="" if left_out else xfail or "",
        left_out=left_out,
        mend=problem.mend if isinstance(problem, NotApplicable) else "",
    )


def _format_command(item: pytest.Item, case: EdgeCase) -> str:
    """The command that shows a case alone, for a shell."""
    chosen, trainer = [item.nodeid], find_parametrized(item)
    if trainer:
        flags = name_option(item.config, "--trainer"), name_option(item.config, "--edge-case")
        chosen = [flags[0], trainer, flags[1], case.key]
    return shlex.join(["pytest", "-m", "preflight", *chosen])


def _is_left_out(item: pytest.Item, problem: BaseException | None, report: pytest.TestReport) -> bool:
    """Whether a mark kept the case from running: skip, skipif, or xfail with run=False."""
    if report.when != "setup":
        return False
    marked = item.get_closest_marker("skip") or item.get_closest_marker("skipif")
    skipped = marked is not None and isinstance(problem, pytest.skip.Exception)
    return skipped or isinstance(problem, pytest.xfail.Exception)


def _list_problems(item: pytest.Item, problem: BaseException | None, report: pytest.TestReport) -> list[Problem]:
    """What the case found; an assertion of a team's own case is a finding of unknown harm."""
    noted: list[Problem] = item.stash.get(NOTED, [])
    found = list(noted)
    if isinstance(problem, Finding):
        found += [each for each in problem.problems if each not in found]
    elif isinstance(problem, AssertionError) and report.when == "call":
        found.append(Problem("misleads", _first_line(problem)))
    return found


def _name_trainer(item: pytest.Item) -> str:
    """The trainer's name: of the session's own, or of what the team says that its test is about."""
    callspec, given = getattr(item, "callspec", None), getattr(item, "funcargs", {})
    chosen = given.get("trainer", callspec.params.get("trainer", "") if callspec else "")
    return chosen if isinstance(chosen, str) else getattr(chosen, "__name__", str(chosen))


def _explain(problem: BaseException | None, problems: Sequence[Problem]) -> tuple[Word, str]:
    if isinstance(problem, CannotJudge):
        return "error", str(problem)
    expected = Finding | NotApplicable | AssertionError | pytest.skip.Exception | pytest.xfail.Exception
    if problem is not None and not isinstance(problem, expected):
        return "error", _first_line(problem)
    if problems:
        return sum_up(problems), "\n".join(each.said for each in problems)
    if isinstance(problem, NotApplicable | pytest.skip.Exception | pytest.xfail.Exception):
        return "not_applicable", str(problem)
    if problem is not None:  # an assertion outside of the call
        return "error", _first_line(problem)
    return "passed", ""


def _first_line(problem: BaseException) -> str:
    return f"{type(problem).__name__}: {problem}".strip().splitlines()[0]
