"""What a team has accepted: its file, what is still NO-GO, marks of pytest's, and of how many cases a GO is."""

import datetime
import json
from importlib.resources import files

import jsonschema
import pytest

from pytest_trainguard.harm import Cause, Problem
from pytest_trainguard.report.data import Acceptance
from pytest_trainguard.session import acceptances
from pytest_trainguard.session.acceptances import FILE, Acceptances
from tests.projects import Project

# Cases that start no run: what they find stands in a file beside them.
CASES = """
import json
from pathlib import Path

import pytest
from pytest_trainguard import CannotJudge, Finding, NotApplicable, edge_case
from pytest_trainguard.harm import Cause
from pytest_trainguard.verdicts.gathering import note


def case(slug):
    told = {{"title": slug, "verdict": "survives", "severity": "loses", "brought_about": "-", "expects": "-"}}
    return edge_case(slug, **told)


def look(slug, trainer):
    found = json.loads((Path(__file__).parent / "found.json").read_text()).get(slug, [])
    if found == "n/a":
        raise NotApplicable("no spoon: give it one")
    if found == "?":
        raise CannotJudge("the lamp is broken")
    problems = []
    for grade, key in found:
        cause = Cause(key, key) if key else None
        problems += Finding("did it", f"it {{grade}} by {{key}}", grade=grade, cause=cause).problems
    if problems:
        raise Finding.joined(problems)


{marks}
@case("one")
def test_one(trainer):
    look("one", trainer)


@case("two")
def test_two(trainer):
    look("two", trainer)
"""
NOTES = """
@case("three")
def test_three(trainer):
    note(Finding("did it", "it is noted", grade="loses"))
"""


class Small(Project):
    """A project whose cases find what a test says, in this process: neither torch nor a trainer is loaded."""

    def __init__(self, pytester, marks="", more=""):
        super().__init__(pytester.path, ["preflight:Mine"])
        self.write("preflight.py", "")
        self.write("test_own.py", CASES.format(marks=marks) + more)
        self.pytester = pytester
        self.find(one=[])

    def find(self, **found):
        self.write("found.json", json.dumps(found))

    def preflight(self, *args):
        """Run the cases; the exit code, each verdict, the report and what was printed."""
        report = self.folder / "report.json"
        report.unlink(missing_ok=True)
        told = self.pytester.runpytest_inprocess(
            "-m", "preflight", "--category=own", f"--preflight-report={report}", *args
        )
        told.stdout.no_fnmatch_line("*INTERNALERROR*")
        self.report = json.loads(report.read_text()) if report.exists() else {}
        self.output = told.stdout.str()
        return told.ret, {case["slug"]: case["verdict"] for case in self.report.get("cases", [])}

    @property
    def file(self):
        return self.folder / FILE

    def states(self):
        return {(entry["case"], entry["cause"]): entry["state"] for entry in self.report["acceptances"]}


@pytest.fixture
def small(pytester):
    return Small(pytester)


def test_a_project_with_findings_starts_today(small):
    small.find(
        one=[("loses", "resume:optimizer-state"), ("wastes", "")], two=[("misleads", "raises:KeyError@train.py:7")]
    )
    assert small.preflight() == (1, {"one": "failed", "two": "failed"})
    assert small.preflight("--accept", "older than the preflight") == (0, {"one": "accepted", "two": "accepted"})
    assert small.report["clearance"] == "GO"
    schema = json.loads(files("pytest_trainguard.report").joinpath("schema.json").read_text())
    jsonschema.validate(small.report, schema)
    written = small.file.read_text()
    assert written.startswith("# What this project's preflight found and the team lives with for now")
    today = datetime.date.today()
    assert acceptances.read(small.file) == (
        Acceptance("Mine", "one", "case:one", "wastes", "older than the preflight", today),
        Acceptance("Mine", "one", "resume:optimizer-state", "loses", "older than the preflight", today),
        Acceptance("Mine", "two", "raises:KeyError@train.py", "misleads", "older than the preflight", today),
    )
    assert small.preflight() == (0, {"one": "accepted", "two": "accepted"})
    assert "GO: 0 passed, 0 failed, 2 accepted, 0 not applicable" in small.output
    assert set(small.states().values()) == {"used"}
    assert small.file.read_text() == written


def test_only_what_is_new_is_no_go(small):
    small.find(one=[("wastes", "")])
    small.preflight("--accept", "for now")
    small.find(one=[("wastes", ""), ("wastes", "exit-0")])
    assert small.preflight() == (1, {"one": "failed", "two": "passed"})
    assert [problem["verdict"] for problem in small.report["cases"][0]["problems"]] == ["accepted", "failed"]
    small.find(one=[("wastes", "")], two=[("wastes", "")])
    assert small.preflight() == (1, {"one": "accepted", "two": "failed"})


def test_what_got_graver_is_new(small):
    small.find(one=[("wastes", "")])
    small.preflight("--accept", "it only hangs")
    small.find(one=[("loses", "")])
    assert small.preflight() == (1, {"one": "failed", "two": "passed"})
    assert small.states() == {("one", "case:one"): "outgrown"}
    assert "graver than it was accepted: Mine: one (case:one)" in small.output
    assert small.preflight("--accept", "we keep copies") == (0, {"one": "accepted", "two": "passed"})
    (entry,) = acceptances.read(small.file)
    assert (entry.grade, entry.reason) == ("loses", "we keep copies")
    small.find(one=[("misleads", "")])
    assert small.preflight() == (0, {"one": "accepted", "two": "passed"})


def test_a_line_above_it_and_half_a_repair_are_not_new(small):
    small.find(one=[("loses", "resume:optimizer-state+scheduler-state")], two=[("loses", "raises:KeyError@train.py:7")])
    small.preflight("--accept", "for now")
    small.find(one=[("loses", "resume:scheduler-state")], two=[("loses", "raises:KeyError@train.py:9")])
    assert small.preflight() == (0, {"one": "accepted", "two": "accepted"})
    small.find(one=[("loses", "resume:random-state")], two=[("loses", "raises:KeyError@data.py:7")])
    assert small.preflight() == (1, {"one": "failed", "two": "failed"})


def test_what_is_no_longer_needed_is_told(small):
    small.find(one=[("loses", ""), ("loses", "exit-0")], two=[("wastes", "")])
    small.preflight("--accept", "for now")
    small.find(one=[("loses", "exit-0")], two="n/a")
    assert small.preflight() == (0, {"one": "accepted", "two": "not_applicable"})
    assert small.states() == {("one", "case:one"): "unneeded", ("one", "exit-0"): "used", ("two", "case:two"): "open"}
    assert "accepted and no longer needed: Mine: one (case:one)" in small.output
    small.find(one=[("loses", "half-written")])  # it ended there: of the rest nothing is known
    assert small.preflight()[0] == 1
    assert small.states()[("one", "case:one")] == "open"
    small.preflight("--edge-case", "two")
    assert small.states() == {("one", "case:one"): "open", ("one", "exit-0"): "open", ("two", "case:two"): "unneeded"}


def test_an_expiry_ends_it(small):
    small.find(one=[("loses", "")])
    small.preflight("--accept", "until spring")
    for day, code, state in ((datetime.date.today(), 0, "used"), (datetime.date(2026, 1, 31), 1, "expired")):
        entries = "".join(line for line in small.file.read_text().splitlines(True) if not line.startswith("expires"))
        small.file.write_text(f"{entries}expires = {day}\n")
        assert small.preflight()[0] == code
        assert small.states() == {("one", "case:one"): state}
    assert "accepted until a day that is over: Mine: one (case:one on 2026-01-31)" in small.output
    before = acceptances.read(small.file)
    assert small.preflight("--accept", "until summer")[0] == 1  # a day that a person set, a person moves
    assert acceptances.read(small.file) == before


def test_what_is_there_keeps_reason_date_and_expiry(small):
    old = Acceptance("Mine", "one", "case:one", "loses", 'a "reason"\nof two lines, ä', datetime.date(2026, 1, 2))
    other = Acceptance("Other", "gone", "exit-0", "wastes", "-", datetime.date(2026, 1, 2), datetime.date(2999, 1, 1))
    acceptances.write(small.file, [other, old])
    small.find(one=[("misleads", "")], two=[("wastes", "")])
    assert small.preflight("--accept", "new")[0] == 0
    new = Acceptance("Mine", "two", "case:two", "wastes", "new", datetime.date.today())
    assert acceptances.read(small.file) == (old, new, other)


def test_advice_and_what_cannot_be_judged_are_not_accepted(small):
    small.find(one=[("unclear", "")], two="?")
    assert small.preflight("--accept", "all") == (1, {"one": "advice", "two": "error"})
    assert not small.file.exists()


def test_workers_weigh_and_the_controller_writes(small):
    small.find(one=[("loses", "")], two=[("wastes", "")])
    done = small.pytest("-m", "preflight", "--category=own", "-n2", "--accept", "for now", "-p", "no:cacheprovider")
    assert done.code == 0, done.output
    assert [entry.case for entry in acceptances.read(small.file)] == ["one", "two"]
    assert {entry["state"] for entry in done.report["acceptances"]} == {"used"}
    small.file.write_text("[[accepted]]\n")
    broken = small.pytest("-m", "preflight", "-n2", "-p", "no:cacheprovider")
    assert broken.code == 4
    assert broken.output.count("trainguard-accepted.toml: entry 1: trainer is missing") == 1


GOOD = """
[[accepted]]
trainer = "Mine"
case = "one"
cause = "case:one"
grade = "loses"
reason = "for now"
date = 2026-01-02
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[accepted]\n", "Expected"),
        ("accepted = 3\n", "holds something else than entries, [[accepted]]"),
        ("accept = []\n", "holds something else than entries, [[accepted]]"),
        (GOOD.replace("date", "data"), "entry 1 (Mine one): unknown key 'data'"),
        (
            GOOD + GOOD.replace("date = 2026-01-02\n", "").replace('"one"', '"two"'),
            "entry 2 (Mine two): date is missing",
        ),
        (GOOD + GOOD, "entry 2 (Mine one): the cause case:one is in another entry too"),
        (GOOD.replace('"loses"', '"critical"'), "entry 1 (Mine one): grade is 'critical'; there are loses, misleads,"),
        (GOOD.replace('"for now"', '" "'), "entry 1 (Mine one): reason is ' ', and no text"),
        (GOOD.replace('"for now"', "1"), "entry 1 (Mine one): reason is 1, and no text"),
        (GOOD + 'expires = "2027-03-01"\n', "entry 1 (Mine one): expires is '2027-03-01', and no day"),
        (GOOD + "expires = 2027-03-01T00:00:00\n", "and no day: write it without quotes, 2027-03-01"),
    ],
)
def test_a_malformed_file_is_told_in_a_line(small, text, said):
    small.file.write_text(text)
    told = small.pytester.runpytest_inprocess("-m", "preflight")
    assert told.ret == 4
    (line,) = [line for line in told.stderr.str().splitlines() if line.strip()]
    assert line.startswith(f"ERROR: {FILE}: ")
    assert said in line
    small.pytester.runpytest_inprocess("--collect-only", "-q").stderr.no_fnmatch_line("*ERROR*")


def test_a_file_that_cannot_be_read(small):
    small.file.write_bytes(b"# \xff\n")
    assert small.preflight()[0] == 4
    small.file.unlink()
    small.file.mkdir()
    assert small.preflight()[0] == 4


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["-m", "preflight", "--accept", " "], "--accept: say why"),
        (["--accept", "x"], "--accept is for what a preflight finds: run it with -m preflight"),
        (["--trainguard-accept=x"], "--accept is for what a preflight finds"),
    ],
)
def test_accept_wants_a_preflight_and_a_reason(small, args, said):
    told = small.pytester.runpytest_inprocess(*args)
    assert told.ret == 4
    told.stderr.fnmatch_lines([f"ERROR: {said}*"])


def test_collecting_accepts_nothing(small):
    small.find(one=[("loses", "")])
    small.pytester.runpytest_inprocess("-m", "preflight", "--collect-only", "--accept", "x")
    assert not small.file.exists()


def test_the_gravest_of_several_entries_counts():
    entries = tuple(Acceptance("T", "c", cause, grade, "-") for cause, grade in (("a:x", "wastes"), ("a:x+y", "loses")))
    problem = Problem("misleads", "-", cause=Cause("a:x", "-"))
    assert Acceptances(entries).accept(problem, "T", "c")
    assert not Acceptances(entries).accept(problem, "T", "d")
    assert not Acceptances(entries[:1]).accept(problem, "T", "c")


# --- marks of pytest's


@pytest.mark.parametrize("strict", ["False", "True"])
def test_an_xfail_mark_accepts_and_hides_nothing(pytester, strict):
    small = Small(pytester, f'@pytest.mark.xfail(reason="issue 12", strict={strict})')
    small.find(one=[("loses", "exit-0")])
    assert small.preflight() == (0, {"one": "accepted", "two": "passed"})
    assert "1 accepted" in small.output
    (entry,) = small.report["acceptances"]
    assert (entry["case"], entry["cause"], entry["reason"], entry["state"]) == ("one", "exit-0", "issue 12", "used")
    assert entry["date"] is None
    assert small.preflight("--accept", "x")[0] == 0
    assert not small.file.exists()
    assert small.preflight("--runxfail") == (1, {"one": "failed", "two": "passed"})
    small.find(one="?")
    assert small.preflight() == (1, {"one": "error", "two": "passed"})
    small.find(one="n/a")
    assert small.preflight(f"--junitxml={small.folder}/junit.xml") == (0, {"one": "not_applicable", "two": "passed"})


@pytest.mark.parametrize("strict", ["False", "True"])
def test_an_xfail_mark_that_is_no_longer_needed(pytester, strict):
    small = Small(pytester, f"@pytest.mark.xfail(strict={strict})")
    assert small.preflight() == (0, {"one": "passed", "two": "passed"})
    assert "accepted and no longer needed: Mine: one (case:one)" in small.output
    assert small.report["clearance"] == "GO"


def test_an_xfail_mark_for_something_else_accepts_nothing(pytester):
    small = Small(pytester, "@pytest.mark.xfail(raises=ZeroDivisionError)")
    small.find(one=[("loses", "")])
    assert small.preflight() == (1, {"one": "failed", "two": "passed"})


def test_an_xfail_mark_sees_what_was_only_noted(pytester):
    small = Small(pytester, more='\n\n@pytest.mark.xfail(reason="old")' + NOTES)
    assert small.preflight()[1]["three"] == "accepted"
    assert small.report["acceptances"][0]["reason"] == "old"


@pytest.mark.parametrize(
    "mark", ['skip(reason="flaky")', 'skipif(True, reason="flaky")', 'xfail(run=False, reason="flaky")']
)
def test_a_mark_that_leaves_a_case_out_qualifies_a_go(pytester, mark):
    small = Small(pytester, f"@pytest.mark.{mark}")
    junit = f"--junitxml={small.folder}/junit.xml"
    assert small.preflight(junit) == (0, {"one": "not_applicable", "two": "passed"})
    (case,) = [case for case in small.report["cases"] if case["slug"] == "one"]
    assert case["left_out"]
    assert "flaky" in case["reason"]
    assert "GO: 1 passed, 0 failed, 1 not applicable (of 1 of 82 cases: --category and skip marks left" in small.output


def test_a_case_that_skips_itself_does_not_apply(pytester):
    small = Small(pytester, more='\n\n@case("three")\ndef test_three(trainer):\n    pytest.skip("no spoon")\n')
    assert small.preflight()[1]["three"] == "not_applicable"
    assert "(of 3 of 83 cases: --category left the others out)" in small.output


@pytest.mark.parametrize(
    ("args", "scope"),
    [
        (["-k", "one"], "(of 1 of 82 cases: --category and -k left the others out)"),
        (["--deselect=test_own.py::test_two"], "(of 1 of 82 cases: --category and --deselect left the others out)"),
        (["--lf"], "(of 2 of 82 cases: --category and --lf left the others out)"),
        (["--sw"], "(of 2 of 82 cases: --category and --sw left the others out)"),
        (["--maxfail=1"], "(of 2 of 82 cases: --category left the others out)"),
    ],
)
def test_a_go_says_of_how_many_cases(small, args, scope):
    assert small.preflight(*args)[0] == 0
    assert scope in small.output
    assert small.report["why"].endswith(scope)


def test_another_mark_qualifies_a_go(small):
    told = small.pytester.runpytest_inprocess("-m", "preflight and own")
    told.stdout.fnmatch_lines(["GO: 2 passed*(of 2 of 82 cases: -m left the others out)"])


def test_workers_tell_of_the_cases_that_there_are(small):
    done = small.pytest("-m", "preflight", "--category=own", "-k", "one", "-n2", "-p", "no:cacheprovider")
    assert "GO: 1 passed, 0 failed, 0 not applicable (of 1 of 82 cases: --category and -k left" in done.output


def test_all_of_the_catalogue_is_no_part(small):
    from pytest_trainguard import catalog
    from pytest_trainguard.report.data import SessionResult
    from pytest_trainguard.report.scope import explain_scope

    def scope(judged, trainers=("Mine",), left_out=0, marked=(), own=()):
        verdicts = [_verdict(slug, trainer, slug in marked) for trainer in trainers for slug in judged(trainer)]
        named = dict.fromkeys(trainers, "x:Y")
        return explain_scope(
            SessionResult(verdicts, named, "wastes", [], ["-k"], 0.0, "", None, 0, [], left_out, own_cases=own)
        )

    read = catalog.read_cases()
    silent = [case.slug for case in read if case.family is catalog.SILENT]
    every = [case.slug for case in read if case.family is not catalog.SILENT]
    assert scope(lambda _: every + silent) == ""
    assert scope(lambda _: every) == f" (of 0 of {len(silent)} silent errors: -k left the others out)"
    only = f" (of 0 of 80 cases and {len(silent)} of {len(silent)} silent errors: -k left the others out)"
    assert scope(lambda _: silent) == only
    assert scope(lambda _: [*every[:5], silent[0]]).startswith(f" (of 5 of 80 cases and 1 of {len(silent)} silent")
    assert scope(lambda _: every[:5]) == " (of 5 of 80 cases: -k left the others out)"
    assert scope(lambda _: [*every, *silent, "own"]) == ""
    assert scope(lambda _: every, own=[("Mine", "own")]) == " (of 80 of 81 cases: -k left the others out)"
    assert scope(lambda _: every + silent, left_out=2) == " (of 1 of 3 trainers: -k left the others out)"
    assert scope(lambda _: every, marked=every[:2]) == " (of 78 of 80 cases: -k and skip marks left the others out)"
    differing = scope(lambda trainer: every if trainer == "A" else every[:5], ("A", "B"))
    assert differing == " (of 5 to 80 of 80 cases: -k left the others out)"


def _verdict(slug, trainer, left_out):
    from pytest_trainguard.report.data import CaseVerdict

    told = dict.fromkeys(("title", "category", "severity", "expects", "reason", "evidence", "alone", "framework"), "")
    return CaseVerdict(
        slug=slug, number=None, trainer=trainer, verdict="passed", problems=(), seconds=0.0, memory=None,
        left_out=left_out, **told,
    )  # fmt: skip
