"""What one worker finds out, the others read."""

import json
import multiprocessing
import os
import time

import pytest

from pytest_trainguard.subject.shared import find_once
from tests.projects import ADOPTED, LOOP, Project


def _ask(folder, asked, answers):
    def make():
        with (asked).open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.2)  # the others come while this goes on
        return {"by": os.getpid()}

    (answers / f"{os.getpid()}.json").write_text(json.dumps(find_once(folder, "piece", dict, make)))


def test_of_several_processes_one_makes_it_and_all_have_it(tmp_path):
    asked, answers = tmp_path / "asked", tmp_path / "answers"
    answers.mkdir()
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_ask, args=(tmp_path, asked, answers)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    maker = int(asked.read_text())  # one line: it was made once
    assert [json.loads(path.read_text()) for path in answers.iterdir()] == [{"by": maker}] * 4


def test_what_could_not_be_made_is_tried_again(tmp_path):
    def broken():
        raise RuntimeError("no such thing")

    with pytest.raises(RuntimeError, match="no such thing"):
        find_once(tmp_path, "piece", list, broken)
    assert find_once(tmp_path, "piece", list, lambda: [1]) == [1]
    assert find_once(tmp_path, "piece", list, broken) == [1]


def test_a_process_alone_makes_it_itself():
    assert find_once(None, "piece", tuple, lambda: (1, 2)) == (1, 2)  # as it is, not as JSON has it


def test_the_workers_of_a_session_have_the_source_read_once(tmp_path):
    project = Project(tmp_path / "project", ["preflight:Classifier"], toml="pythonpath = ['.']")
    project.write("preflight.py", ADOPTED)
    project.write("program.py", LOOP + "\n\ndef never_called():\n    return totl\n")
    result = project.pytest("-m", "preflight", "-n", "2", "--edge-case", "71,72")
    assert result.verdicts("Classifier") == {71: "passed", 72: "failed"}
    assert "program.py" in result.case("Classifier", 72)["reason"]
    assert "totl" in result.case("Classifier", 72)["reason"]
    (found,) = (project.folder / "tmp").glob("static-*.json")
    assert [problem["exception"] for problem in json.loads(found.read_text())] == ["NameError"]


CRASHING = """
import os, signal
from pytest_trainguard import edge_case


@edge_case("crashes", number=1001, title="crashes", category="training", verdict="survives", severity="wastes",
           brought_about="the worker is killed", expects="nothing")
def test_crashes(guard):
    os.kill(os.getpid(), signal.SIGKILL)


@edge_case("passes", number=1002, title="passes", category="training", verdict="survives", severity="wastes",
           brought_about="nothing", expects="nothing")
def test_passes(guard):
    pass
"""


def test_a_case_whose_worker_crashed_was_not_judged(tmp_path):
    project = Project(tmp_path / "project", ["preflight:Classifier"])
    project.write("preflight.py", ADOPTED)
    project.write("test_own.py", CRASHING)
    result = project.pytest("-m", "preflight", "-n", "1", "--edge-case", "1001,1002")
    assert result.code == 1
    assert result.verdicts("Classifier") == {1001: "error", 1002: "passed"}
    told = "not judged: 1 the process that ran it (a worker of pytest-xdist) crashed, or was killed (case 1001)"
    assert told in " ".join(result.output.split()), result.output
    assert "NO-GO: 1 passed, 0 failed, 0 not applicable, 1 not judged" in result.output
