"""Trainers that spoil the process they run in, beside a sound one: each has its verdict, and nothing is left behind."""

import os
from pathlib import Path

import psutil
import pytest

from tests.projects import Project

pytestmark = pytest.mark.timeout(900)  # one session of fourteen trainers

ROOT = Path(__file__).parent.parent
CASES = "1,5,41,63,66"
# In the command line of what is left behind; another for each worker of xdist.
MARK = f"54321.{os.getpid()}"

HOSTILE = (
    f"MARK = {MARK!r}\n"
    + '''
import os
import random
import shutil
import signal
import subprocess
import sys

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from tests.saboteurs.sound import Sound

BACKWARD = torch.autograd.backward  # before the recorder's


class Careful(Sound):
    """The sound one."""


class Prints(Sound):
    """In each run as much as can be waited for; a whole gigabyte, of one run, is in `test_launch`."""

    def train(self, run):
        block = b"x" * 65535 + b"\\n"
        for _ in range(1 << 9):
            os.write(1, block)
        return super().train(run)


class Leaves(Sound):
    """A helper, and a daemon: forked twice, in a session of its own, its streams closed."""

    def train(self, run):
        code = super().train(run)
        subprocess.Popen(["sleep", MARK])
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.closerange(0, 256)
                os.execvp("sleep", ["sleep", MARK])
            os._exit(0)
        os.wait()
        return code


class Wanders(Sound):
    def train(self, run):
        os.chdir("/")
        return super().train(run)


class Closes(Sound):
    """Both the file objects and what is below them."""

    def train(self, run):
        os.closerange(0, 3)
        sys.stdout.close()
        sys.stdout = sys.stderr = open(os.devnull, "w")
        return super().train(run)


class Quits(Sound):
    def train(self, run):
        def quit(optimizer, *_):
            if int(optimizer.state[optimizer.param_groups[0]["params"][0]]["step"]) == 3:
                os._exit(0)

        register_optimizer_step_post_hook(quit)
        return super().train(run)


class QuitsAtTheEnd(Sound):
    """As where threads of a communication library would never end."""

    def train(self, run):
        code = super().train(run)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Patches(Sound):
    """Has functions of torch in other words, and takes them back to what they were before the recorder came."""

    def train(self, run):
        load, save = torch.load, torch.save
        torch.load = lambda *args, **options: load(*args, **{"weights_only": False, **options})
        torch.save = lambda state, file: save(state, file, _use_new_zipfile_serialization=True)
        torch.autograd.backward = BACKWARD
        torch.nn.Linear.forward = lambda self, x: x @ self.weight.T + self.bias
        return super().train(run)


class Handles(Sound):
    def train(self, run):
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
            signal.signal(number, lambda *_: print("not today"))
        return super().train(run)


class Defaults(Sound):
    def train(self, run):
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("cpu")
        torch.set_num_threads(2)
        torch.use_deterministic_algorithms(True)
        torch.autograd.set_detect_anomaly(True)
        random.seed(7)
        return super().train(run)


class Deletes(Sound):
    def train(self, run):
        code = super().train(run)
        shutil.rmtree(run.output_dir)
        return code


class DeletesMore(Sound):
    def train(self, run):
        code = super().train(run)
        shutil.rmtree(run.output_dir.parent)
        return code


class Deaf(Sound):
    """Never reads its data, but makes up its own."""

    def read_rows(self, path):
        return [{"x": [n / 64, 0.5, -n / 64, 0.25], "y": n % 2} for n in range(64)]
'''
)

# All of it as the module is imported, which happens in the warm server and not in a run.
WHILE_IMPORTED = (
    f"MARK = {MARK!r}\n"
    + """
import os
import signal
import subprocess
import sys

import torch

from tests.saboteurs.sound import Sound

subprocess.Popen(["sleep", MARK])
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 256)
        os.execvp("sleep", ["sleep", MARK])
    os._exit(0)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGUSR1):
    signal.signal(number, lambda *_: print("not today"))
backward = torch.autograd.backward
torch.autograd.backward = lambda *args, **options: backward(*args, **options)
torch.set_default_dtype(torch.float64)
torch.use_deterministic_algorithms(True)
sys.stdout.close()
os.closerange(0, 3)
os.chdir("/")


class AtImport(Sound):
    pass
"""
)

NAMES = (
    "Prints", "Leaves", "Wanders", "Closes", "Quits", "QuitsAtTheEnd", "Patches", "Handles", "Defaults", "Deletes",
    "DeletesMore", "Deaf",
)  # fmt: skip


def left_behind():
    return [p.pid for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", MARK]]


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    trainers = [*(f"hostile:{name}" for name in ("Careful", *NAMES)), "while_imported:AtImport", "hostile:Sound"]
    project = Project(tmp_path_factory.mktemp("project"), trainers, toml=f"pythonpath = ['{ROOT}']\n")
    project.write("hostile.py", HOSTILE)
    project.write("while_imported.py", WHILE_IMPORTED)
    result = project.pytest("-m", "preflight", f"--edge-case={CASES}", "-p", "no:cacheprovider", time_limit=900)
    assert not left_behind()
    result.report["files"] = sorted(path.name for path in project.folder.iterdir())
    result.report["runs"] = [str(path) for path in project.folder.glob("tmp/trainguard*/*")]
    return result


SOUND = {1: "passed", 5: "passed", 41: "passed", 63: "passed", 66: "passed"}


@pytest.mark.parametrize("name", ["Careful", "Sound"])
def test_the_sound_ones_pass_before_and_after(judged, name):
    assert judged.verdicts(name) == SOUND


@pytest.mark.parametrize("name", ["Prints", "Wanders", "Closes", "QuitsAtTheEnd", "Handles", "Defaults", "AtImport"])
def test_what_a_program_may_do_changes_no_verdict(judged, name):
    differing = {
        number: judged.case(name, number)["reason"]
        for number, verdict in judged.verdicts(name).items()
        if verdict != SOUND[number]
    }
    expected = {1: "its message does not name", 5: "its message does not name"} if name == "Closes" else {}
    assert {number: reason[:25] for number, reason in differing.items()} == expected


def test_processes_left_are_told_by_name(judged):
    assert judged.verdicts("Leaves") == {**SOUND, 41: "failed"}
    reason = judged.case("Leaves", 41)["reason"]
    assert reason.startswith("processes left behind: ")
    assert reason.count(f"sleep {MARK} (sleeping)") == 2


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Quits", "Quits: the undisturbed run breaks off, os._exit(0), after 3 of 8 optimizer steps"),
        ("Deletes", "Deletes: the undisturbed run removes its own output folder (run.output_dir): what it was to"),
        ("DeletesMore", "DeletesMore: the undisturbed run removes its own output folder"),
    ],
)
def test_what_leaves_nothing_to_hold_against_is_an_error(judged, name, said):
    assert set(judged.verdicts(name).values()) == {"error"}
    assert all(judged.case(name, number)["reason"].startswith(said) for number in SOUND)


def test_losses_that_cannot_be_seen_are_not_judged_by(judged):
    assert judged.verdicts("Patches") == {number: "passed" if number == 1 else "not_applicable" for number in SOUND}
    assert "leave these as they are" in judged.case("Patches", 41)["reason"]


def test_data_that_is_never_read(judged):
    assert judged.verdicts("Deaf") == {**SOUND, 1: "failed", 5: "failed", 66: "failed"}  # no pattern to be learnt
    assert (
        judged.case("Deaf", 5)["reason"] == "it trained the same without any of them: it does not learn from its data"
    )


def test_nothing_is_left_behind(judged):
    written = {"hostile.py", "while_imported.py", "pyproject.toml", "train.jsonl", "report.json", "junit.xml", "tmp"}
    assert set(judged.report["files"]) - {"__pycache__"} == written
    assert judged.report["runs"] == []
    assert judged.code == 1
    assert judged.report["clearance"] == "NO-GO"
