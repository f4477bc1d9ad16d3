"""The first screen: each cause once, the gravest first, and never more lines than a person reads."""

import dataclasses

import pytest

from pytest_trainguard import catalog
from pytest_trainguard.harm import GRADES, Cause, Problem
from pytest_trainguard.report.data import CaseVerdict, SessionResult
from pytest_trainguard.report.terminal import MOST_LINES, PYTESTS_OWN, format_summary

RESUME = Cause("resume:optimizer-state", "optimizer state is not restored on a resume", "killed")


def verdict(case, trainer="Mine", problems=(), word="passed", reason=""):
    return CaseVerdict(
        slug=case.slug, number=case.number, title=case.title, category=case.category, severity=case.severity,
        expects=case.expects, trainer=trainer, verdict=word, reason=reason, problems=tuple(problems), evidence="",
        alone=f"pytest -m preflight --trainer {trainer} --edge-case {case.key}", framework="Lightning", seconds=1.0,
        memory=None,
    )  # fmt: skip


def result(verdicts, **changes):
    names = dict.fromkeys(one.trainer for one in verdicts)
    whole = SessionResult(
        verdicts=list(verdicts), trainers=dict.fromkeys(names, "preflight:Mine"), bar="wastes", left_out=[],
        narrowed="", began=0.0, command="pytest -m preflight", gpu_budget=None, exitstatus=0, problems=[],
    )  # fmt: skip
    return dataclasses.replace(whole, **changes)


def lines_of(verdicts, verbose=False, **changes):
    return [line for line, _ in format_summary(result(verdicts, **changes), verbose)]


def every_case(make):
    return [make(place, case) for place, case in enumerate(catalog.read_cases())]


def test_a_cause_is_told_once_with_its_cases():
    problem = Problem("misleads", "it parts from the undisturbed run at step 5", "sent SIGKILL in step 5", "", RESUME)
    found = [
        verdict(case, problems=[problem], word="failed")
        for case in catalog.read_cases()
        if case.number and 70 < case.number <= 80
    ]
    lines = lines_of(found)
    (title,) = [place for place, line in enumerate(lines) if RESUME.title in line]
    assert lines[title - 1] == "NO-GO for 1 cause:"
    assert lines[title].startswith("misleads  optimizer state is not restored on a resume (10 cases: 71, 72, ")
    shown = "\n".join(lines)
    assert shown.count("it parts from the undisturbed run at step 5") == 1
    assert shown.count("pytest -m preflight --trainer Mine --edge-case 71\n") == 1
    assert "pytest --explain killed" in shown
    assert "fix: Save everything the next step depends on" in shown


def test_what_is_graver_comes_first_and_advice_last():
    cases = catalog.read_cases()
    found = [
        verdict(case, problems=[Problem(grade, f"it {grade}", "did", verdict=word)], word=word)
        for case, grade, word in zip(
            cases, ("unclear", "wastes", "loses", "misleads"), ("advice", "failed", "failed", "failed"), strict=False
        )
    ]
    lines = lines_of(found)
    order = [line.split()[0] for line in lines if line.split() and line.split()[0] in GRADES]
    assert order == ["loses", "misleads", "wastes", "unclear"]
    assert "advice: 1 cause:" in lines
    assert lines[-1].startswith("NO-GO: 0 passed, 3 failed, 1 advice, 0 not applicable")


@pytest.mark.parametrize("trainers", [1, 3])
@pytest.mark.parametrize("kind", ["failed", "error", "not_applicable", "mixed"])
def test_a_whole_run_has_at_most_60_lines_of_80_columns(trainers, kind):
    long = "a reason of many words that goes on and on, and names /a/rather/long/path/to/some/file.jsonl: line 12 " * 3
    words = ("failed", "error", "not_applicable", "advice")

    def make(place, case):
        word = words[place % 4] if kind == "mixed" else kind
        problems = [Problem(GRADES[place % 3], f"{place} {long}", f"did {long}", verdict=word)]
        return verdict(case, word=word, reason=f"{place} {long}", problems=problems * (word in ("failed", "advice")))

    found = [dataclasses.replace(one, trainer=f"Mine{n}") for n in range(trainers) for one in every_case(make)]
    lines = lines_of(found)
    progress = 8 * -(-10 * trainers // 40)
    assert len(lines) + PYTESTS_OWN + progress <= MOST_LINES
    assert [line for line in lines if len(line) > 80 and not line.lstrip().startswith("pytest -m preflight")] == []
    assert lines[-1].startswith("NO-GO: ")
    assert len(lines_of(found, verbose=True)) > len(lines)


def test_a_run_without_findings_is_short():
    lines = lines_of(every_case(lambda _, case: verdict(case)))
    assert len(lines) <= 6
    assert lines[-1] == f"GO: {len(catalog.read_cases())} passed, 0 failed, 0 not applicable"


def test_advice_alone_is_a_go():
    case = catalog.read_cases()[0]
    problem = Problem("unclear", "its message does not name 'rows.jsonl'", "emptied it", verdict="advice")
    last = lines_of([verdict(case, problems=[problem], word="advice")])[-1]
    assert last.startswith("GO WITH ADVICE: 0 passed, 0 failed, 1 advice, 0 not applicable")


def test_what_a_finding_announces_is_told_with_it():
    case = catalog.read_cases()[70]
    problem = Problem("wastes", "1 place(s) that can end in NameError:\ntrain.py:7: Name `x` is not defined", "read it")
    shown = " ".join("\n".join(lines_of([verdict(case, problems=[problem], word="failed")])).split())
    assert "read it: 1 place(s) that can end in NameError: train.py:7: Name `x` is not defined" in shown


def test_where_no_case_was_left_one_line_says_so():
    (line,) = lines_of([])
    assert line.startswith("NO-GO: 0 passed, 0 failed, 0 not applicable, nothing was judged")
