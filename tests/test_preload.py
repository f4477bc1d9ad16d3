"""`Trainer.preload`: modules that a program imports late, imported once for all its runs."""

from pathlib import Path

import pytest

from pytest_trainguard.launch.protocol import RunRequest
from pytest_trainguard.subject.launchpad import Launchpad
from pytest_trainguard.verdicts.errors import CannotJudge

AHEAD = """
import os
from pytest_trainguard import Trainer

class Ahead(Trainer):
    preload = ["late"]

    def train(self, run):
        import late
        print(late.PID, os.getpid(), late.FILE)

class Bare(Ahead):
    preload = "late"

class Missing(Ahead):
    preload = ("latte",)

class Late(Trainer):
    # Tells which of the harness's modules were imported in the run itself.

    def train(self, run):
        import sys
        print(sorted(name for name in set(sys.modules) - LOADED if name.startswith("pytest_trainguard")))

def note():
    import sys
    global LOADED
    LOADED = frozenset(sys.modules)

os.register_at_fork(before=note)
"""


@pytest.fixture
def ahead(tmp_path):
    (tmp_path / "late.py").write_text("import os, tempfile\nPID, FILE = os.getpid(), tempfile.mkstemp()[1]\n")
    (tmp_path / "ahead.py").write_text(AHEAD)
    pad = Launchpad(tmp_path, tmp_path / "pad", [str(tmp_path)], 30.0)
    pad.servers.folder.mkdir()
    yield pad
    pad.close()


@pytest.mark.parametrize("name", ["Ahead", "Bare"])
def test_a_late_module_that_is_named_is_imported_once_for_all_runs(ahead, name):
    subject = ahead.subject(name, f"ahead:{name}")
    runs = [subject.start(RunRequest("tried")).outcome().output.split() for _ in range(2)]
    assert {imported for imported, _, _ in runs} == {str(subject.server.pid)}
    assert str(subject.server.pid) not in {own for _, own, _ in runs}
    made = Path(runs[0][2])
    assert made.exists()
    ahead.close()
    assert not made.exists()


def test_a_run_imports_nothing_of_the_harness(ahead):
    for states in (False, True):
        outcome = ahead.subject("Late", "ahead:Late").start(RunRequest("tried", states=states)).outcome()
        assert outcome.output == "[]\n"


HELPER = """
import os, signal, time

if os.fork() == 0:
    time.sleep(1000)
    os._exit(0)
os.kill(os.getpid(), signal.SIGSEGV)
"""


def test_a_module_that_starts_a_helper_and_crashes_is_not_waited_for(ahead):
    (ahead.servers.root / "helped.py").write_text(HELPER)
    with pytest.raises(CannotJudge, match="Helped cannot be loaded: the process ended while importing it"):
        ahead.subject("Helped", "helped:Helped").server.pid  # noqa: B018


def test_a_late_module_that_does_not_exist_is_named(ahead):
    with pytest.raises(CannotJudge, match="Missing cannot be loaded: ModuleNotFoundError: No module named 'latte'"):
        ahead.subject("Missing", "ahead:Missing").server.pid  # noqa: B018
