"""Trained exactly once, wherever the queue is killed, and however its trainers are started."""

from __future__ import annotations

import random
import signal
from collections import Counter
from pathlib import Path

import psutil
import pytest
from queue_runs import Queue, assert_sound, wait_for

from trainers.queue.steps import Step

KILL = """
import glob, os, signal, time
from trainers.queue import steps
def observer(step):
    if step.name == {step!r}:
        pattern = {until!r}
        while pattern and not glob.glob(pattern):
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGKILL)
steps.observer = observer
"""


def killed_at(queue: Queue, step: Step, until: str = "") -> None:
    """Run the queue until this step is reached (and a file is there), where it is killed."""
    before = KILL.format(step=step.name, until=until and str(queue.root / "reports/*/attempt-*" / until))
    process = queue.start("once", before=before)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == -signal.SIGKILL, output


@pytest.fixture(params=["started anew", "forked"])
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Queue:
    return Queue(tmp_path / "queue", preload=["sched"] if request.param == "forked" else None)


@pytest.mark.parametrize("step", Step, ids=lambda step: step.name)
def test_killed_at_each_step_of_a_file_that_trains(queue: Queue, step: Step) -> None:
    queue.put("inbox", "first.jsonl", seconds=0.02)
    queue.put("low", "second.jsonl")
    killed_at(queue, step)
    assert queue.everywhere() == ["first.jsonl", "second.jsonl"]
    assert queue("once") == 0
    assert_sound(queue, ["first.jsonl", "second.jsonl"])
    assert queue.tree() == {"done": ["first.jsonl", "second.jsonl"]}
    assert set(queue.trained().values()) == {1}
    assert len(queue.trained()) == 2


@pytest.mark.parametrize("quiet", [False, True], ids=["outcome", "exit code alone"])
@pytest.mark.parametrize("step", [Step.STARTED, Step.ENDED, Step.REPORTED, Step.MOVED], ids=lambda step: step.name)
def test_a_trainer_that_ended_unseen_is_not_started_again(queue: Queue, step: Step, quiet: bool) -> None:
    queue.put("inbox", "a.jsonl", quiet=quiet)
    killed_at(queue, step, until="ended.json")
    assert len(queue.diary("success")) == 1
    assert queue("once") == 0
    assert queue.states() == {"a.jsonl": "done"}
    assert queue.begun() == ["a.jsonl"]
    assert_sound(queue, ["a.jsonl"])


def test_a_trainer_that_still_runs_is_ended_and_goes_on_from_its_checkpoint(queue: Queue) -> None:
    queue.put("inbox", "a.jsonl", steps=4, seconds=0.1, child=True)
    before = KILL.format(step="STARTED", until=str(queue.root / "runs/*/checkpoint-1"))
    process = queue.start("once", before=before)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    (begun,) = queue.diary("begin")
    (left,) = (int(path.read_text()) for path in queue.root.glob("runs/*/child"))
    wait_for(lambda: not psutil.pid_exists(begun["pid"]) and not psutil.pid_exists(left))
    assert queue("once") == 0
    assert queue.states() == {"a.jsonl": "done"}
    first, second = queue.diary("begin")
    assert second["resumed"] == first["run"]
    report = queue.report("a.jsonl")
    assert [attempt["kind"] for attempt in report["attempts"]] == ["lost", "success"]
    assert report["attempts"][1]["step"] == 4  # none of the steps was done twice
    assert_sound(queue, ["a.jsonl"])


@pytest.mark.parametrize("step", [Step.ENDED, Step.REPORTED, Step.MOVED, Step.SETTLED], ids=lambda step: step.name)
@pytest.mark.parametrize(("do", "kinds", "state"), [
    ("bad_input", ["bad_input"], "failed"),
    ("failed", ["failed", "failed"], "failed"),
])  # fmt: skip
def test_killed_while_a_failure_is_settled(queue: Queue, step: Step, do: str, kinds: list[str], state: str) -> None:
    queue.settings(max_attempts=2)
    queue.put("inbox", "a.jsonl", do=do)
    killed_at(queue, step)
    assert queue("once") == 0
    assert queue.states() == {"a.jsonl": state}
    assert [attempt["kind"] for attempt in queue.report("a.jsonl")["attempts"]] == kinds
    assert len(queue.begun()) == len(kinds)
    assert_sound(queue, ["a.jsonl"])


@pytest.mark.parametrize("step", [Step.CLAIMED, Step.STARTED, Step.MOVED], ids=lambda step: step.name)
def test_killed_and_the_ledger_lost_too(queue: Queue, step: Step) -> None:
    for name in ("a.jsonl", "b.jsonl", "c.jsonl"):
        queue.put("high" if name == "a.jsonl" else "inbox", name)
    killed_at(queue, step)
    for path in queue.root.glob("ledger.sqlite*"):
        path.unlink()
    assert queue("once") == 0
    assert_sound(queue, ["a.jsonl", "b.jsonl", "c.jsonl"])
    assert queue.tree() == {"done": ["a.jsonl", "b.jsonl", "c.jsonl"]}
    assert queue.file("a.jsonl")["priority"] in ("high", "normal")


def test_killed_at_random_instants(queue: Queue) -> None:
    random.seed(17)
    names = [f"{number}.jsonl" for number in range(6)]
    for number, name in enumerate(names):
        queue.put("inbox", name, seconds=0.02, quiet=number % 2 == 1, do="failed" if number == 5 else None)
    for _ in range(8):
        process = queue.start("once")
        try:
            process.communicate(timeout=random.uniform(0.2, 0.9))
        except Exception:
            process.kill()
            process.communicate()
        assert queue.everywhere() == names
    assert queue("once") == 0
    assert_sound(queue, names)
    assert queue.tree() == {"done": names[:5], "failed": names[5:]}
    assert Counter(queue.trained().values()) == {1: 5}
