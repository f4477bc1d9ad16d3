"""What GitHub Actions is given: the job's summary, annotations at lines, and no command of a trainer's."""

import re
import subprocess
import sys

import pytest

from pytest_trainguard.harm import Cause
from pytest_trainguard.report import github
from tests.projects import Project
from tests.reports import NO_OPTIMIZER, problem, report, verdict

NASTY = "50% of\r\n::error file=x::<b>it</b> | `lost`\n  ::set-output name=a::b ##[error]c"
ACTIONS = {"GITHUB_ACTIONS": "true"}


def traceback_of(path, line):
    return f'Traceback (most recent call last):\n  File "{path}", line {line}, in train\n    rows["y"]\nKeyError: \'y\''


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "training" / "train.py"
    path.parent.mkdir()
    path.write_text("pass\n" * 50)
    return tmp_path


# --- annotations


def annotate(folder, *problems, word="failed", environment=ACTIONS):
    return github.format_annotations(report(verdict("malformed-row", word, *problems)), folder, environment)


def raised(folder, **more):
    cause = Cause("raises:KeyError@train.py:12", "KeyError at train.py:12")
    return problem("wastes", "it crashed", cause=cause, evidence=traceback_of(folder / "training/train.py", 12), **more)


def test_what_is_raised_is_shown_at_its_line(folder):
    assert annotate(folder, raised(folder)) == [
        "::error file=training/train.py,line=12,title=Mine%3A KeyError at train.py%3A12::sent SIGKILL: it crashed%0A"
        "pytest -m preflight --trainer Mine --edge-case malformed-row"
    ]


def test_what_the_checker_found_is_shown_at_its_lines(folder):
    said = "2 place(s) that can end in NameError:\ntraining/train.py:3: Name `x`\ntraining/train.py:40: Name `y`"
    lines = annotate(folder, problem("wastes", said, did="read it"))
    assert [line.partition(",title")[0] for line in lines] == [
        "::error file=training/train.py,line=3", "::error file=training/train.py,line=40",
    ]  # fmt: skip


def test_advice_is_a_warning_and_what_is_accepted_is_silent(folder):
    (line,) = annotate(folder, raised(folder, verdict="advice"), word="advice")
    assert line.startswith("::warning file=training/train.py,line=12,")
    assert annotate(folder, raised(folder, verdict="accepted"), word="accepted") == []


def test_several_cases_of_one_cause_are_one_annotation(folder):
    cases = [verdict(slug, "failed", raised(folder)) for slug in ("malformed-row", "unicode", "no-extension")]
    assert len(github.format_annotations(report(*cases), folder, ACTIONS)) == 1


def test_paths_are_those_of_the_repository_and_not_of_pytests_folder(folder):
    environment = {**ACTIONS, "GITHUB_WORKSPACE": str(folder)}
    (line,) = github.format_annotations(
        report(verdict("unicode", "failed", raised(folder))), folder / "training", environment
    )
    assert line.startswith("::error file=training/train.py,")


@pytest.mark.parametrize("place", ["gone.py:3: x", "/etc/elsewhere.py:3: x", "nothing"])
def test_what_names_no_file_of_the_repository_is_not_annotated(folder, place):
    assert annotate(folder, problem("wastes", place)) == []


def test_outside_of_actions_there_is_none(folder):
    assert annotate(folder, raised(folder), environment={}) == []
    assert not github.is_wanted({"GITHUB_ACTIONS": "false"})


def test_no_more_than_are_shown(folder):
    said = "\n".join(f"training/train.py:{line}: Name `x`" for line in range(1, 40))
    assert len(annotate(folder, problem("wastes", said))) == github.MOST_ANNOTATIONS


def test_a_message_is_one_line_and_begins_no_command():
    told = github.format_command(github.Annotation("error", "a,b:c.py", 3, NASTY, NASTY))
    assert "\n" not in told
    assert "\r" not in told
    assert told.startswith("::error file=a%2Cb%3Ac.py,line=3,title=50%25 of%0A")
    message = told.rpartition("::50%25 of")[2]
    assert message == "%0A: :error file=x::<b>it</b> | `lost`%0A  : :set-output name=a::b ## [error]c"


# --- the summary


def test_the_first_screen_is_the_summary(tmp_path):
    cases = [
        verdict("killed", "failed", problem(cause=NO_OPTIMIZER), number=41),
        verdict("unicode", "advice", problem("unclear", "no name", verdict="advice"), category="data"),
        verdict("duplicate", "not_applicable", reason="no queue: name one", category="queue"),
        verdict("nan-loss", "error", reason="no torch", category="training"),
        verdict("killed", "passed", trainer="Other", number=41),
    ]
    path = tmp_path / "summary.md"
    path.write_text("what another step wrote\n")
    assert github.write_summary(report(*cases), {"GITHUB_STEP_SUMMARY": str(path)}) == ""
    text = path.read_text()
    assert text.startswith("what another step wrote\n## Preflight: NO-GO\n\n1 passed, 1 failed")
    assert "### NO-GO for 1 cause\n\n- **loses** Mine: the optimizer is not restored on a resume (case 41)" in text
    assert "sent SIGKILL: it lost it" in text
    assert "`pytest -m preflight --trainer Mine --edge-case killed`" in text
    assert "How to fix it: Save everything the next step depends on" in text
    assert "<details><summary>Advice: 1 cause</summary>" in text
    assert "- Mine: no queue: name one (duplicate)" in text
    assert "- Mine: no torch (nan-loss)" in text
    assert "| Mine | 1/1 | 0/1 | - | - | 1 | 1 |" in text
    assert text.count("<details>") == text.count("</details>") == 3


def test_nothing_of_a_trainer_is_markdown_or_html():
    text = r"50% of ::error file=x::\<b\>it\</b\> \| \`lost\` ::set-output name=a::b \#\#\[error\]c"
    assert github.escape_markdown(NASTY) == text
    whole = github.format_summary(report(verdict("killed", "failed", problem("loses", NASTY, did=NASTY), title=NASTY)))
    assert whole.count(text) == 2
    assert "<b>" not in whole


def test_a_command_is_code_whatever_is_in_it():
    assert github._code("a ` b `` c") == "``` a ` b `` c ```"


def test_a_summary_is_never_more_than_github_takes():
    cases = [verdict(f"case-{place}", "failed", problem("loses", "x" * 5000), title="y" * 5000) for place in range(200)]
    text = github.format_summary(report(*cases))
    assert len(text.encode()) < 2**20
    assert re.search(r"^\d+ more: see the report$", text, re.M)


def test_where_it_cannot_be_written_that_is_told(tmp_path):
    said = github.write_summary(report(), {"GITHUB_STEP_SUMMARY": str(tmp_path / "none" / "summary.md")})
    assert said == f"GITHUB_STEP_SUMMARY: {tmp_path}/none/summary.md: No such file or directory"
    assert github.write_summary(report(), {}) == ""


# --- in a session

OWN = """
from pytest_trainguard import Finding, edge_case
from pytest_trainguard.harm import Cause


@edge_case("spoons", title="spoons", verdict="survives", severity="loses", brought_about="-", expects="bends none")
def test_spoons(trainer):
    cause = Cause("raises:KeyError@loud.py:1", "KeyError at loud.py:1")
    raise Finding("gave it a spoon", "::error::it bent it", "::set-output name=a::b", cause=cause)


@edge_case("forks", title="forks", verdict="survives", severity="loses", brought_about="-", expects="bends none")
def test_forks(trainer):
    pass
"""
COMMAND = re.compile(r"^\s*::")


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path / "project", ["loud:Loud"])
    project.write("loud.py", "import pytest_trainguard\n\nclass Loud(pytest_trainguard.Trainer):\n    pass\n")
    project.write("test_own.py", OWN)
    return project


@pytest.mark.parametrize("options", [[], ["-v"], ["-n2"]], ids=["brief", "verbose", "xdist"])
def test_a_session_publishes_once_and_takes_no_command_of_a_trainers(project, options):
    summary = project.folder / "summary.md"
    env = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    done = project.pytest("-m", "preflight", "--edge-case=spoons,forks", "-p", "no:cacheprovider", *options, env=env)
    assert done.code == 1
    assert summary.read_text().count("## Preflight: NO-GO") == 1
    lines = done.output.splitlines()
    places = [place for place, line in enumerate(lines) if COMMAND.match(line)]
    stop, *held, resume, error = [lines[place] for place in places]
    token = re.fullmatch(r"::stop-commands::(\w{32})", stop)[1]
    assert resume == f"::{token}::"
    assert error.startswith("::error file=loud.py,line=1,")
    assert not [line for line in held if token in line]
    summed = next(place for place, line in enumerate(lines) if "= preflight =" in line)
    assert places[0] < summed < places[-2]


def test_elsewhere_nothing_of_it_happens(project):
    done = project.pytest("-m", "preflight", "--edge-case=forks", "-p", "no:cacheprovider")
    assert done.code == 0
    assert not [line for line in done.output.splitlines() if COMMAND.match(line)]


# --- what other reports show of a finding


def test_junit_has_the_finding_and_no_frame_of_the_harness(project):
    project.pytest("-m", "preflight", "--edge-case=spoons", "-p", "no:cacheprovider")
    text = (project.folder / "junit.xml").read_text()
    assert '<failure message="spoons: Loud: ::error::it bent it">spoons (own, misleads): Loud' in text
    for part in ("done        gave it a spoon", "happened    ::error::it bent it", "reproduce   pytest -m preflight"):
        assert part in text
    assert "raise Finding" not in text
    assert "test_own.py:" not in text
    assert "pytest_trainguard/" not in text


def test_ctrf_has_the_finding_and_no_frame_of_the_harness(project):
    found = subprocess.run([sys.executable, "-c", "import ctrf.main"], capture_output=True, check=False)
    if found.returncode:
        pytest.skip("pytest-json-ctrf is not installed; the project does not need it")
    project.pytest("-m", "preflight", "--edge-case=spoons,forks", "-p", "no:cacheprovider", "--ctrf=ctrf.json")
    text = (project.folder / "ctrf.json").read_text()
    assert '"message": "spoons: Loud: ::error::it bent it"' in text
    assert "happened    ::error::it bent it" in text
    assert "raise Finding" not in text
    assert "pytest_trainguard/" not in text
