"""How far a preflight has come: shown behind pytest's dots on a terminal, now and then in a log, and nowhere else."""

import io
import os
import pty
import re
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from pytest_trainguard.report import progress
from tests.projects import Project

OWN = """
import time
import pytest
from pytest_trainguard import Finding, NotApplicable, edge_case


def own(slug):
    return edge_case(slug, title=slug, verdict="survives", severity="loses", brought_about="-", expects="-")


@own("spoons")
def test_spoons(trainer):
    pass


@own("forks")
def test_forks(trainer):
    raise NotApplicable("no fork: give it one")


@own("knives")
def test_knives(trainer):
    raise Finding("gave it a knife", "it cut itself")
"""
NAMED = "--edge-case=spoons,forks,knives"
DONE = re.compile(r"\d of 6 done")


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path / "project", ["loud:Loud", "loud:Quiet"])
    classes = "class Loud(Trainer):\n    pass\n\nclass Quiet(Trainer):\n    pass\n"
    project.write("loud.py", f"from pytest_trainguard import Trainer\n\n{classes}")
    project.write("test_own.py", OWN)
    project.write("conftest.py", "from pytest_trainguard.report import progress\n\nprogress.INTERVAL = 0\n")
    return project


class Screen:
    """What a terminal shows of what is written to it: just what pytest and the progress ask of one."""

    CONTROL = re.compile(r"\x1b\[(\d*)([A-Za-z])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\r|\n")

    def __init__(self, written):
        self.lines, self.column = [[]], 0
        place = 0
        for found in self.CONTROL.finditer(written):
            self.put(written[place : found.start()])
            self.obey(found)
            place = found.end()
        self.put(written[place:])

    def put(self, text):
        line = self.lines[-1]
        line += " " * (self.column - len(line))
        line[self.column : self.column + len(text)] = text
        self.column += len(text)

    def obey(self, found):
        if found[0] == "\n":
            self.lines.append([])
        elif found[0] == "\r":
            self.column = 0
        elif found[2] == "D":
            self.column -= int(found[1])
        elif found[2] == "K":
            del self.lines[-1][self.column :]

    @property
    def text(self):
        return "\n".join("".join(line).rstrip() for line in self.lines)


def run_on_a_terminal(folder, *options):
    """Everything that pytest writes to a terminal of 100 columns."""
    own, other = pty.openpty()
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_CORE"))}
    env |= {"COLUMNS": "100", "TERM": "xterm"}
    command = [sys.executable, "-m", "pytest", "-m", "preflight", NAMED, "-p", "no:cacheprovider", *options]
    written = []

    def read():
        try:
            while chunk := os.read(own, 4096):
                written.append(chunk)
        except OSError:  # the other end is closed
            pass

    with subprocess.Popen(command, cwd=folder, env=env, stdin=other, stdout=other, stderr=other) as process:
        os.close(other)
        reader = threading.Thread(target=read)
        reader.start()
        code = process.wait(timeout=120)
    reader.join(timeout=30)
    os.close(own)
    return code, b"".join(written).decode()


def without_times(text):
    return re.sub(r"\d+\.\d+ ?s.*|^slowest: .*\n(  .*\n)*", "", text, flags=re.M)


def test_on_a_terminal_it_stands_behind_the_dots_and_is_gone_afterwards(project):
    code, written = run_on_a_terminal(project.folder)
    assert code == 1
    assert "1 of 6 done, about " in written
    assert ": spoons, Quiet" in written
    shown = Screen(written).text
    assert not DONE.search(shown)
    _, quiet = run_on_a_terminal(project.folder, "-p", "no:trainguard-progress")
    assert not DONE.search(quiet)
    assert without_times(shown) == without_times(Screen(quiet).text)
    assert re.search(r"^test_own\.py \.nF\.nF +\[100%\]$", shown, re.M)


def test_on_a_terminal_with_workers_too(project):
    _, written = run_on_a_terminal(project.folder, "-n2")
    assert DONE.search(written)
    assert not DONE.search(Screen(written).text)


def test_in_a_log_it_is_a_line_now_and_then(project):
    done = project.pytest("-m", "preflight", NAMED, "-p", "no:cacheprovider")
    lines = [line for line in done.output.splitlines() if DONE.search(line)]
    assert lines[0] == "0 of 6 done: spoons, Loud"
    assert re.fullmatch(r"5 of 6 done, about \d+ s left: knives, Quiet", lines[-1])
    dots = re.findall(r"^(?:test_own\.py )?([.nF]*) *(?:\[ *\d+%\])?$", done.output, re.M)
    assert "".join(dots) == ".nF.nF"


def test_where_workers_run_it_says_how_many(project):
    done = project.pytest("-m", "preflight", NAMED, "-p", "no:cacheprovider", "-n2")
    lines = [line for line in done.output.splitlines() if DONE.search(line)]
    assert all(re.fullmatch(r"\d of 6 done.*: \w+, \w+( and 1 more)?", line) for line in lines), lines
    assert done.code == 1


@pytest.mark.parametrize("option", ["-v", "-q", "--collect-only"])
def test_where_it_says_nothing(project, option):
    project.write("conftest.py", "") if option == "-q" else None  # not before a quarter of a minute is over
    done = project.pytest("-m", "preflight", NAMED, "-p", "no:cacheprovider", option)
    assert not DONE.search(done.output)


def test_nothing_of_it_in_an_ordinary_session(project):
    project.write("test_plain.py", "def test_plain():\n    pass\n")
    done = project.pytest("test_plain.py", "-p", "no:cacheprovider")
    assert "1 of 1" not in done.output


# --- by itself


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def make(tty, monkeypatch, total=4):
    """A progress of four tests, the clock that it goes by, and what it writes."""
    written = io.StringIO()
    tw = SimpleNamespace(
        fullwidth=80, width_of_current_line=10, _file=written,
        line=lambda text="", flush=False: written.write(f"{text}\n"),
    )  # fmt: skip
    reporter = SimpleNamespace(isatty=tty, _tw=tw)
    clock = Clock()
    made = progress.Progress(SimpleNamespace(pluginmanager=None), clock)
    monkeypatch.setattr(progress.Progress, "reporter", reporter)
    made.pytest_collection_finish(SimpleNamespace(items=[None] * total))
    return made, clock, written


def call(hook, *arguments):
    for _ in hook(*arguments):
        pass


def follow(made, nodeid):
    call(made.pytest_runtest_logstart, nodeid)
    for when in ("setup", "call", "teardown"):
        call(made.pytest_runtest_logreport, SimpleNamespace(when=when, nodeid=nodeid))
    call(made.pytest_runtest_logfinish)


def test_a_line_in_a_log_each_quarter_of_a_minute(monkeypatch):
    made, clock, written = make(False, monkeypatch)
    for seconds in (6, 6, 6):
        follow(made, "edge_cases/test_process.py::test_two_instances[Mine]")
        clock.now += seconds
    call(made.pytest_runtest_logstart, "edge_cases/test_process.py::test_killed[Mine]")
    assert written.getvalue() == "\n3 of 4 done, about 6 s left: killed, Mine\n"


def test_the_time_that_is_left_is_worked_out_from_what_was_needed(monkeypatch):
    made, clock, _ = make(True, monkeypatch, total=100)
    call(made.pytest_runtest_logstart, "test_a.py::test_b")
    assert made.format() == "0 of 100 done: b"
    for _ in range(10):
        follow(made, "test_a.py::test_b")
    clock.now += 60
    assert made.format() == "10 of 100 done, about 9 min left"


def test_it_never_is_wider_than_the_line(monkeypatch):
    made, _, written = make(True, monkeypatch)
    call(made.pytest_runtest_logstart, f"test_a.py::test_{'x' * 200}")
    (text,) = re.findall(r"\x1b\[K(.*)\x1b\[(?:\d+)D", written.getvalue())
    assert len(text) == 80 - 10 - 1
    made.reporter._tw.width_of_current_line = 70
    follow(made, "test_a.py::test_b")
    assert written.getvalue().endswith("\x1b[K"), "no room: what was there is gone, and nothing new"


def test_another_plugins_terminal_is_left_alone():
    class Other(pytest.TerminalReporter):
        def __init__(self):
            pass

    for other in (Other(), None):
        config = SimpleNamespace(pluginmanager=SimpleNamespace(get_plugin=lambda name, other=other: other))
        assert progress.Progress(config).reporter is None


@pytest.mark.parametrize(
    ("nodeid", "name"),
    [
        ("edge_cases/test_process.py::test_two_instances[Mine]", "two instances, Mine"),
        ("test_own.py::TestMine::test_it", "it"),
        ("test_own.py::test_it[Mine-fast[1]]", "it, Mine-fast[1]"),
    ],
)
def test_a_test_is_named_as_a_person_would(nodeid, name):
    assert progress.name_test(nodeid) == name
