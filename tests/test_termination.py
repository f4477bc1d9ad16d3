"""SIGTERM, with which a CI or SLURM ends a job: a real one to a real pytest, which tells of it and leaves no run."""

import contextlib
import json
import os
import signal
import threading
import time

import psutil
import pytest

from pytest_trainguard.session.termination import interrupt_on_sigterm
from tests.projects import Project

# A case that takes long, after one that passed. What it leaves in the folder says how far it came.
CASES = """
import time
from pathlib import Path

from pytest_trainguard import edge_case

TOLD = {"verdict": "survives", "severity": "loses", "brought_about": "-", "expects": "-"}


@edge_case("quick", title="quick", **TOLD)
def test_quick(trainer):
    pass


@edge_case("slow", title="slow", **TOLD)
def test_slow(trainer):
    Path("ready").touch()
    time.sleep(100)
"""
SLOW_END = """
import time
from pathlib import Path

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish():
    Path("ending").touch()
    time.sleep(100)
"""
TRAINER = """
import time
from pathlib import Path

from pytest_trainguard import Trainer


class Mine(Trainer):
    def train(self, run):
        Path(__file__).with_name("ready").touch()
        time.sleep(100)
"""


def wait_until(holds):
    deadline = time.monotonic() + 90
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_for(path):
    wait_until(path.exists)


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path / "project", ["preflight:Mine"], warm=False, toml='trainguard_writable = ["."]\n')
    project.write("preflight.py", "")
    project.write("test_own.py", CASES)
    return project


def test_it_is_told_as_an_interruption(project):
    report = project.folder / "report.json"
    process = project.start("-m", "preflight", "--category=own", f"--preflight-report={report}")
    wait_for(project.folder / "ready")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert "KeyboardInterrupt: SIGTERM" in output
    assert "NO-GO: 1 passed, 0 failed, 0 not applicable, interrupted before the end (of 1 of 82 cases: " in output
    written = json.loads(report.read_text())
    assert written["clearance"] == "NO-GO"
    assert [case["slug"] for case in written["cases"]] == ["quick"]


def test_a_second_one_ends_at_once(project):
    project.write("conftest.py", SLOW_END)
    process = project.start("-m", "preflight", "--category=own")
    wait_for(project.folder / "ready")
    process.send_signal(signal.SIGTERM)
    wait_for(project.folder / "ending")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM


def test_plain_pytest_ends_as_ever(project):
    project.write("test_plain.py", "def test_it():\n    from pathlib import Path\n    import time\n"
                  "    Path('ready').touch()\n    time.sleep(100)\n")  # fmt: skip
    process = project.start("test_plain.py")
    wait_for(project.folder / "ready")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_with_workers_no_run_is_left(project, signum):
    project.write("preflight.py", TRAINER)
    process = project.start("-m", "preflight", "--edge-case=41", "-n1", "-p", "no:cacheprovider")
    wait_for(project.folder / "ready")
    process.send_signal(signum)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, output
    assert "interrupted before the end" in output
    assert not [*project.folder.rglob("recording-*"), *project.folder.rglob("server.log")]


@pytest.mark.parametrize(
    ("signum", "everybody", "args"),
    [(signal.SIGTERM, False, []), (signal.SIGTERM, True, ["-n1"]), (signal.SIGINT, False, ["-n1"])],
)
def test_a_plain_test_that_has_started_a_run_leaves_none(project, signum, everybody, args):
    """Sent to pytest alone, as a shell does, or to every process of the job, as SLURM does."""
    project.write("preflight.py", TRAINER)
    project.write("test_plain.py", "def test_it(guard):\n    guard.run('trained')\n")
    process = project.start("test_plain.py", "-p", "no:cacheprovider", *args)
    wait_for(project.folder / "ready")
    started = psutil.Process(process.pid)
    for each in [started, *(started.children(recursive=True) if everybody else [])]:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.send_signal(signum)
    output, _ = process.communicate(timeout=60)
    assert process.returncode in (pytest.ExitCode.INTERRUPTED, -signal.SIGTERM), output
    wait_until(lambda: not [*project.folder.rglob("recording-*"), *project.folder.rglob("server.log")])


def test_the_former_handler_is_put_back():
    def former(signum, frame):
        pass

    before = signal.signal(signal.SIGTERM, former)
    try:
        put_back = interrupt_on_sigterm()
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
            os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        put_back()
        assert signal.getsignal(signal.SIGTERM) is former
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        interrupt_on_sigterm()()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_thread_leaves_it_alone():
    found = []
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=lambda: found.append(interrupt_on_sigterm()))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before
    found[0]()


def test_what_a_test_forks_ends_as_ever():
    put_back = interrupt_on_sigterm()
    try:
        child = os.fork()
        if not child:
            try:
                time.sleep(100)
            finally:
                os._exit(1)
        time.sleep(0.2)
        os.kill(child, signal.SIGTERM)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM
    finally:
        put_back()
