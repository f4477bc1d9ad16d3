"""Reports held against each other and put together: `diff` and `merge` of `python -m pytest_trainguard.report`."""

import datetime
import json
from dataclasses import replace
from importlib.resources import files

import jsonschema
import pytest

from pytest_trainguard import catalog
from pytest_trainguard.harm import Cause
from pytest_trainguard.report import merge
from pytest_trainguard.report.__main__ import main
from pytest_trainguard.report.data import Acceptance
from tests.reports import NO_OPTIMIZER, problem, report, verdict

VALIDATOR = jsonschema.Draft202012Validator(
    json.loads(files("pytest_trainguard.report").joinpath("schema.json").read_text())
)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Write reports into a folder of their own, by their names without a suffix."""
    monkeypatch.chdir(tmp_path)

    def keep(**named):
        for name, content in named.items():
            VALIDATOR.validate(content)
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        return tmp_path

    return keep


# --- diff

FAILED = verdict("killed", "failed", problem(cause=NO_OPTIMIZER), number=41)
PASSED = verdict("killed", "passed", number=41)
ADVICE = verdict("unicode", "advice", problem("unclear", "no name", verdict="advice"))


def differ(kept, capsys, old, new):
    kept(old=old, new=new)
    code = main(["diff", "old.json", "new.json"])
    return code, capsys.readouterr().out.splitlines()


def test_something_new_that_is_no_go(kept, capsys):
    code, lines = differ(kept, capsys, report(PASSED), report(FAILED))
    assert code == 1
    assert lines == [
        "new: 1",
        "  Mine: 41 killed: failed, loses: resume:optimizer: it lost it",
        "gone: 0",
        "still there: 0",
    ]


def test_what_is_gone_and_what_is_still_there(kept, capsys):
    code, lines = differ(kept, capsys, report(FAILED, ADVICE), report(PASSED, ADVICE))
    assert code == 0
    assert lines[:2] == ["new: 0", "gone: 1"]
    assert lines[3:] == ["still there: 1", "  Mine: unicode: advice, unclear: case:unicode: no name"]


def test_new_advice_is_told_and_no_no_go(kept, capsys):
    code, lines = differ(kept, capsys, report(PASSED), report(PASSED, ADVICE))
    assert (code, lines[0]) == (0, "new: 1")


def test_what_was_advice_and_is_no_go_now_is_new(kept, capsys):
    now = verdict("unicode", "failed", problem("wastes", "it hangs"))
    code, lines = differ(kept, capsys, report(ADVICE), report(now))
    assert (code, lines[0]) == (1, "new: 1")


def test_another_cause_in_the_same_case_is_new(kept, capsys):
    other = verdict("killed", "failed", problem(cause=Cause("leaves-processes", "it leaves processes")), number=41)
    code, lines = differ(kept, capsys, report(FAILED), report(other))
    assert (code, lines[0], lines[2]) == (1, "new: 1", "gone: 1")


def test_the_same_exception_some_lines_further_down_is_the_same(kept, capsys):
    def raising(line):
        return report(
            verdict("unicode", "failed", problem(cause=Cause(f"raises:KeyError@train.py:{line}", "KeyError")))
        )

    code, lines = differ(kept, capsys, raising(12), raising(40))
    assert (code, lines[2]) == (0, "still there: 1")


def test_what_was_not_judged_again_is_not_gone(kept, capsys):
    _, lines = differ(kept, capsys, report(FAILED), report(ADVICE))
    assert "gone: 0" in lines
    assert "not judged again: 1" in lines


def test_a_case_that_can_no_longer_be_judged_is_new_and_no_go(kept, capsys):
    code, lines = differ(kept, capsys, report(PASSED), report(verdict("killed", "error", number=41, reason="no torch")))
    assert code == 1
    assert lines[1] == "  Mine: 41 killed: not judged: not judged: no torch"


def test_another_bar_is_said(kept, capsys):
    _, lines = differ(kept, capsys, report(PASSED), report(PASSED, bar="unclear"))
    assert lines[0] == "the bar was wastes, now it is unclear"


# --- merge


def put_together(kept, capsys, **named):
    kept(**named)
    code = main(["merge", *(f"{name}.json" for name in named), "-o", "all.json"])
    captured = capsys.readouterr()
    if code == 2:
        return code, {}, captured.err
    merged = json.loads(kept().joinpath("all.json").read_text())
    VALIDATOR.validate(merged)
    return code, merged, captured.out


EVERY = [
    FAILED,
    verdict("reboot", "failed", problem(cause=NO_OPTIMIZER, evidence="its last words"), number=43),
    ADVICE,
    verdict("clock-skew", "accepted", problem("wastes", verdict="accepted")),
    verdict("nan-loss", "error", reason="no torch", evidence="Traceback", framework="plain loop"),
    verdict("duplicate", "not_applicable", reason="no queue: name one"),
    verdict("killed", "passed", trainer="Other", number=41),
]


def test_parts_come_to_what_the_whole_would_be(kept, capsys):
    whole = report(*EVERY)
    code, merged, _ = put_together(kept, capsys, a=report(*EVERY[:2]), b=report(*EVERY[2:]))
    assert code == 1
    for name in ("clearance", "bar", "causes", "cases", "coverage", "trainers", "memory", "version"):
        assert merged[name] == whole[name], name
    assert merged["causes"][0]["cases"] == ["killed", "reboot"]


def test_a_verdict_survives_being_written_and_read():
    """Of every kind, with every part of it: one that was forgotten would be lost in a merged report."""
    verdicts, notes = merge._join_cases({"a": report(*EVERY)})
    assert (sorted(verdicts, key=repr), notes) == (sorted(EVERY, key=repr), [])


def test_all_of_the_catalogue_in_two_parts_is_go(kept, capsys):
    cases = [verdict(case.slug, number=case.number) for case in catalog.read_cases()]
    code, merged, out = put_together(
        kept, capsys, a=report(*cases[:30], narrowed=["--category"]), b=report(*cases[30:], narrowed=["--category"])
    )
    assert code == 0
    assert out == f"GO: {len(cases)} passed, 0 failed, 0 not applicable\n"
    assert merged["notes"] == []


def test_a_part_that_is_missing_is_said(kept, capsys):
    _, merged, out = put_together(kept, capsys, a=report(PASSED))
    (note,) = merged["notes"]
    assert note.startswith("Mine: ")
    assert " cases are in none of the reports: " in note
    assert out.splitlines() == [note, "GO: 1 passed, 0 failed, 0 not applicable (of 1 of 80 cases)"]


@pytest.mark.parametrize(
    ("one", "other", "counts"),
    [
        (PASSED, FAILED, "failed"),
        (FAILED, PASSED, "failed"),
        (PASSED, verdict("killed", "error", number=41), "error"),
        (verdict("killed", "not_applicable", number=41), PASSED, "passed"),
    ],
)
def test_the_graver_of_two_verdicts_counts_and_that_is_said(kept, capsys, one, other, counts):
    _, merged, out = put_together(kept, capsys, a=report(one), b=report(other))
    assert [case["verdict"] for case in merged["cases"]] == [counts]
    assert f"Mine: killed is {one.verdict} in a.json, {other.verdict} in b.json: {counts} counts" in out.splitlines()


def test_the_graver_of_two_findings_counts(kept, capsys):
    milder = verdict("killed", "failed", problem("wastes", "it hung"), number=41)
    _, merged, _ = put_together(kept, capsys, a=report(milder), b=report(FAILED))
    assert [case["grade"] for case in merged["cases"]] == ["loses"]


def test_a_part_in_which_nothing_applies_takes_no_go_from_the_others(kept, capsys):
    nothing = report(verdict("duplicate", "not_applicable"), exitstatus=1)
    assert nothing["clearance"] == "NO-GO"
    code, merged, _ = put_together(kept, capsys, a=nothing, b=report(PASSED))
    assert (code, merged["clearance"]) == (0, "GO")


@pytest.mark.parametrize("status", [1, 2, 3, 4])
def test_a_part_that_was_no_go_by_itself_stays_so(kept, capsys, status):
    code, merged, out = put_together(kept, capsys, a=report(PASSED), b=report(ADVICE, exitstatus=status))
    assert (code, merged["clearance"]) == (1, "NO-GO")
    assert f"b.json: the session itself was no GO, it ended with exit code {status}" in out


def test_predictions_of_gpu_memory_are_kept(kept, capsys):
    told = {
        "verdict": "UNKNOWN", "needs": 0, "least": 0, "allocated": 0, "reserved": 0, "breakdown": {}, "peak": "",
        "largest": [], "retries": 0, "reason": "no trace", "notes": [], "source": "", "measured": None,
        "alternatives": [], "budget": {"text": "8GiB", "size": 8 * 2**30, "device": {}, "context": 0, "headroom": 0.1},
    }  # fmt: skip
    largest = {"setting": "batch", "value": 3, "beyond": 4, "exact": True, "traces": 5, "unknown": ""}
    one = replace(PASSED, memory={**told, "largest_settings": {}})
    other = replace(ADVICE, memory={**told, "largest_settings": {"batch_size": largest}})
    kept(a=report(one), b=report(other))
    assert main(["merge", "a.json", "b.json", "-o", "all.json"]) == 0
    (merged,) = json.loads(kept().joinpath("all.json").read_text())["memory"]
    assert (merged["trainer"], merged["largest_settings"]) == ("Mine", {"batch_size": largest})


def test_what_the_team_has_accepted_is_kept_with_what_was_made_of_it(kept, capsys):
    day = datetime.date(2027, 3, 1)
    open_here = Acceptance("Mine", "clock-skew", "case:clock-skew", "wastes", "later", day, day, "open")
    used_there = replace(open_here, state="used")
    mark = Acceptance("Mine", "unicode", "case:unicode", "wastes", "marked", state="unneeded")
    one, other = report(PASSED, acceptances=[open_here, mark]), report(EVERY[3], acceptances=[used_there])
    _, merged, _ = put_together(kept, capsys, a=one, b=other)
    assert merged["acceptances"] == [*other["acceptances"], one["acceptances"][1]]


def test_a_report_without_what_the_schema_does_not_require_is_put_together_too(kept, capsys):
    bare = report(PASSED)
    del bare["why"], bare["notes"], bare["left_out"], bare["acceptances"]
    for case in bare["cases"]:
        del case["left_out"], case["expects"], case["evidence"], case["framework"]
    for name in ("date", "command", "seconds"):
        del bare["environment"][name]
    code, merged, _ = put_together(kept, capsys, a=bare, b=report(ADVICE))
    assert (code, merged["clearance"]) == (0, "GO WITH ADVICE")


def test_what_fast_left_out_and_another_part_ran_is_not_left_out(kept, capsys):
    left_out = [case for case in catalog.read_cases() if case.slug in ("killed", "reboot")]
    _, merged, _ = put_together(kept, capsys, a=report(ADVICE, left_out=left_out), b=report(PASSED))
    assert merged["left_out"] == ["reboot"]


def test_environments_are_put_together(kept, capsys):
    later = report(ADVICE, began=1.75e9, command="pytest -m preflight --category data")
    _, merged, _ = put_together(kept, capsys, a=later, b=report(PASSED))
    told = merged["environment"]
    assert told["date"] == report(PASSED)["environment"]["date"]
    assert told["command"] == "pytest -m preflight --category data\npytest -m preflight"


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (report(ADVICE, bar="unclear"), "b.json: its bar is unclear, that of a.json is wastes"),
        (
            {**report(ADVICE), "environment": {**report(ADVICE)["environment"], "pytest_trainguard": "9.9"}},
            "b.json: its version of pytest-trainguard is 9.9, that of a.json is ",
        ),
        (
            report(ADVICE, trainers={"Mine": "elsewhere:Mine"}),
            "b.json: its trainer Mine is elsewhere:Mine, that of a.json is preflight:Mine",
        ),
    ],
    ids=["bar", "version", "trainer"],
)
def test_what_is_not_of_one_preflight_is_not_put_together(kept, capsys, other, said):
    code, _, err = put_together(kept, capsys, a=report(PASSED), b=other)
    assert code == 2
    assert err.startswith(f"error: {said}")
    assert err.count("\n") == 1
    assert not kept().joinpath("all.json").exists()


@pytest.mark.parametrize("command", ["diff", "merge"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "b.json: No such file or directory"),
        ("{", "b.json: no JSON: "),
        ('{"clearance": "GO", "version": 1}', "b.json: its version is 1, this program reads 2"),
        ('{"clearance": "GO", "version": 2}', "as schema.json says: KeyError: "),
    ],
)
def test_what_is_no_report_is_told_in_one_line(kept, capsys, command, content, said):
    folder = kept(a=report(PASSED))
    if content is not None:
        (folder / "b.json").write_text(content)
    assert main([command, "a.json", "b.json", *(["-o", "all.json"] if command == "merge" else [])]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_its_page_is_written_too(kept, capsys):
    folder = kept(a=report(PASSED), b=report(ADVICE))
    assert main(["merge", "a.json", "b.json", "-o", "all.json", "-o", "all.html"]) == 0
    assert main(["all.json", "again.html"]) == 0
    assert (folder / "all.html").read_text() == (folder / "again.html").read_text()
    assert "are in none of the reports" in (folder / "all.html").read_text()


def test_where_it_cannot_be_written_it_is_told(kept, capsys):
    kept(a=report(PASSED))
    assert main(["merge", "a.json", "-o", "all.pdf"]) == 2
    assert capsys.readouterr().err == "error: all.pdf: the suffix says what is written: .json or .html\n"
