"""What others wrote is data: no terminal, no runner of GitHub and no shell obeys it; no link leads a file away."""

import os
import re
import shlex

import pytest

from pytest_trainguard.printing import printable
from pytest_trainguard.report import __main__ as commands
from pytest_trainguard.report import block, files, terminal
from pytest_trainguard.session import acceptances
from tests.projects import Project
from tests.reports import problem, report, result, verdict

ACTIONS = {"GITHUB_ACTIONS": "true"}
# It clears the screen, names the window, writes over the line, and would have GitHub's runner do three things.
NASTY = (
    "words\x1b[2J\x1b]0;title\x07\rwritten over\n   ::error file=x::a\n\u00a0::set-output name=a::b\n then ##[error]c"
)
OURS = r"stop-commands::|[0-9a-f]{32}::|error file=test_"
OBEYED = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f]|^\s*::(?!{OURS})|##\[", re.M)
COMMAND = "command = 'python x.py {output_dir} {max_steps}'\n"


@pytest.fixture(autouse=True)
def _in_actions(monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")


def assert_harmless(text, *kept):
    assert not OBEYED.search(text), text
    for words in kept:
        assert words in text


def test_it_is_what_would_have_been_obeyed():
    assert OBEYED.search(NASTY)
    assert printable(NASTY, ACTIONS) == (
        "words\nwritten over\n   : :error file=x::a\n\u00a0: :set-output name=a::b\n then ## [error]c"
    )
    assert printable("  ::error::a\n##[b]", {}) == "  ::error::a\n##[b]"  # elsewhere these are words like any other


def nasty_verdicts():
    found = problem("loses", NASTY, did=NASTY, evidence=NASTY)
    return [
        verdict("killed", "failed", found, title=NASTY, trainer=NASTY, alone=NASTY),
        verdict("unicode", "error", reason=NASTY, evidence=NASTY, trainer=NASTY),
        verdict("no-data", "not_applicable", reason=NASTY, trainer=NASTY),
    ]


def test_a_failures_text_and_message():
    for told in nasty_verdicts():
        shown = block.represent_block(told, "test_x.py")
        assert_harmless(block.format_block(told), "written over")
        assert_harmless(str(shown), "written over")
        assert_harmless(shown.reprcrash.message)


@pytest.mark.parametrize("verbosity", [0, 1])
def test_the_summary(verbosity):
    lines = []

    class Reporter:
        def __init__(self):
            self.verbosity = verbosity

        def section(self, title, sep):
            pass

        def write_line(self, line, **markup):
            lines.append(line)

    terminal.write_summary(result(*nasty_verdicts(), problems=[NASTY], narrowed=[NASTY]), Reporter())
    assert_harmless("\n".join(lines), "written over")


def test_reports_that_were_kept(tmp_path, capsys):
    paths = [tmp_path / name for name in ("old.json", "new.json", "all.json")]
    files.write(paths[0], report(verdict("killed", trainer=NASTY)))
    files.write(paths[1], report(*nasty_verdicts()))
    assert commands.main(["diff", str(paths[0]), str(paths[1])]) == 1
    assert commands.main(["merge", str(paths[0]), str(paths[1]), "-o", str(paths[2])]) in (1, 2)
    assert commands.main(["diff", f"{tmp_path}/\n::error::x.json", str(paths[1])]) == 2
    told = capsys.readouterr()
    assert_harmless(told.out, "written over")
    assert_harmless(told.err, ": :error::x.json")


RAISES = f"""
import pytest
from pytest_trainguard import CannotJudge, Finding, NotApplicable, edge_case

NASTY = {NASTY!r}
TOLD = {{"verdict": "survives", "severity": "loses", "brought_about": "-", "expects": "-"}}


@edge_case("finds", title="finds", **TOLD)
def test_finds(trainer):
    raise Finding(NASTY, NASTY, NASTY)


@edge_case("needs", title="needs", **TOLD)
def test_needs(trainer):
    raise NotApplicable(NASTY)


@edge_case("cannot", title="cannot", **TOLD)
def test_cannot(trainer):
    raise CannotJudge(NASTY, NASTY)


@pytest.mark.parametrize("error", [Finding(NASTY, NASTY, NASTY), NotApplicable(NASTY), CannotJudge(NASTY, NASTY)])
def test_plain(error):
    raise error
"""


def test_a_whole_session(pytester):
    """All that pytest itself makes of a verdict, too: its traceback, its summary, JUnit; and names for the shell."""
    project = Project(pytester.path, toml=f'[tool.trainguard.trainers."a b\\n::error::c; \\u001b[2J"]\n{COMMAND}')
    project.write("test_own.py", RAISES)
    args = ["-v", "-ra", "--junitxml=junit.xml", "-p", "no:cacheprovider"]
    preflight = pytester.runpytest_inprocess("-m", "preflight", "--category=own", *args)
    junit = (project.folder / "junit.xml").read_text()
    plain = pytester.runpytest_inprocess(*args)
    for shown in (preflight.stdout.str(), plain.stdout.str(), junit, (project.folder / "junit.xml").read_text()):
        assert_harmless(shown, "written over")
    plain.assert_outcomes(failed=2, skipped=1)
    told = pytester.runpytest_inprocess("-m", "preflight", "--trainer=nobody").stderr.str()
    assert_harmless(told, "no such trainer; there are a b")


def test_the_command_that_shows_a_failure_alone(pytester):
    project = Project(pytester.path, toml=f"""[tool.trainguard.trainers."it's $(date) `x`; y"]\n{COMMAND}""")
    project.write("test_own.py", RAISES)
    told = json_report_of(pytester, "-m", "preflight", "--edge-case=finds")
    (case,) = told["cases"]
    assert case["problems"][0]["evidence"] == NASTY  # the data is as it was found
    name = "it's $(date) `x`; y"
    assert shlex.split(case["alone"]) == ["pytest", "-m", "preflight", "--trainer", name, "--edge-case", "finds"]
    assert json_report_of(pytester, *shlex.split(case["alone"])[1:])["cases"][0]["alone"] == case["alone"]


def json_report_of(pytester, *args):
    path = pytester.path / "report.json"
    pytester.runpytest_inprocess(*args, f"--preflight-report={path}")
    return commands._read(path)


# --- files


def write_report(path):
    files.write(path, report(verdict("killed")))


def write_acceptances(path):
    acceptances.write(path, [])


@pytest.fixture(params=[(write_report, "report.json"), (write_report, "report.html"), (write_acceptances, "a.toml")])
def written(request, tmp_path):
    write, name = request.param
    return write, tmp_path / name


def test_a_file_is_not_written_through_a_link(written, tmp_path, monkeypatch):
    """Somebody who could tell the name beforehand gets an error, and not what the link leads to written over."""
    write, path = written
    victim = tmp_path / "victim"
    victim.write_text("dear")
    names = []
    monkeypatch.setattr(files.secrets, "token_hex", lambda size: names.append(size) or "known")
    path.with_name(f".{path.name}.known").symlink_to(victim)
    with pytest.raises(FileExistsError):
        write(path)
    assert names[0] >= 8  # bytes that are not to be guessed
    assert victim.read_text() == "dear"
    assert not path.exists()


def test_a_file_is_whole_or_not_there(written, monkeypatch):
    write, path = written
    write(path)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask()
    before = path.read_bytes()

    def fails(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(KeyboardInterrupt):
        write(path)
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == before


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
