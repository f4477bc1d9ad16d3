"""What is done about a failure: decided by a pure function, and seen to happen."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from queue_runs import Queue, line, wait_for

from trainers.queue import memory, room
from trainers.queue.attempt import Child, judge
from trainers.queue.options import QueueSettings
from trainers.queue.recovery import Decision, Ended, Tried, backoff, decide, halve

VALUES = {"batch_size": 8, "gradient_accumulation": 2, "learning_rate": 1e-4}


def decided(
    kind: str, *tried: Tried, values: dict[str, Any] | None = None, stopping: bool = False, **chosen: Any
) -> Decision:
    settings = QueueSettings(**chosen)
    return decide(settings, Ended(kind, "why"), tried, VALUES if values is None else values, stopping=stopping)


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path / "queue")


# ---- the decision


def test_halving_keeps_the_effective_batch_exactly() -> None:
    for batch in range(1, 129):
        for accumulation in (1, 2, 3, 7):
            found = halve(batch, accumulation, floor=1, limit=10_000)
            if batch == 1:
                assert found is None
                continue
            assert found is not None
            smaller, steps = found
            assert smaller * steps == batch * accumulation
            assert 1 <= smaller <= batch // 2
            assert not any(batch * accumulation % between == 0 for between in range(smaller + 1, batch // 2 + 1))


@pytest.mark.parametrize(("batch", "accumulation", "floor", "limit", "found"), [
    (32, 1, 1, 128, (16, 2)), (7, 1, 1, 128, (1, 7)), (6, 1, 2, 128, (3, 2)), (5, 2, 1, 128, (2, 5)),
    (7, 1, 2, 128, None), (4, 1, 4, 128, None), (2, 128, 1, 128, None), (1, 1, 1, 128, None),
])  # fmt: skip
def test_halve(batch: int, accumulation: int, floor: int, limit: int, found: tuple[int, int] | None) -> None:
    assert halve(batch, accumulation, floor=floor, limit=limit) == found


def test_out_of_memory() -> None:
    assert decided("out_of_memory") == Decision(
        "queued", "out_of_memory: why", {"batch_size": 4, "gradient_accumulation": 4},
        "out of memory: batch_size 8 → 4, gradient_accumulation 2 → 4", alert=True,
    )  # fmt: skip
    floor = decided("out_of_memory", min_batch_size=8)
    assert (floor.state, floor.alert) == ("failed", True)
    assert "no smaller batch makes the same effective batch of 8 × 2 = 16 rows; min_batch_size = 8" in floor.reason
    assert "trainer_settings has no batch_size" in decided("out_of_memory", values={}).reason
    assert "recovery is switched off" in decided("out_of_memory", recover_out_of_memory=False).reason
    renamed = decided("out_of_memory", values={"bs": 4, "acc": 1}, batch_size_field="bs", accumulation_field="acc")
    assert renamed.changes == {"bs": 2, "acc": 2}


def test_nan() -> None:
    first = decided("nan")
    assert first.changes == {"learning_rate": 5e-5}
    assert first.recovery == "NaN: from the last checkpoint, learning_rate 0.0001 → 5e-05"
    assert (first.state, first.alert, first.counts) == ("queued", True, False)
    second = decided("nan", Tried("nan", False))
    assert (second.state, second.alert) == ("failed", True)
    assert "again, after a smaller learning rate" in second.reason
    assert decided("nan", recover_nan=False).state == "failed"
    assert "cannot be lowered" in decided("nan", min_learning_rate=1e-4).reason
    assert "has no learning_rate" in decided("nan", values={"learning_rate": True}).reason


@pytest.mark.parametrize("kind", ["failed", "hang", "disk_full", "interrupted"])
def test_others_are_tried_again_so_many_times(kind: str) -> None:
    counted = Tried(kind, True)
    first, second, third = (decided(kind, *[counted] * number) for number in range(3))
    assert [first.state, second.state, third.state] == ["queued", "queued", "failed"]
    assert [first.delay, second.delay] == [1.0, 2.0]
    assert "tried 3 times (max_attempts)" in third.reason
    assert decided(kind, *[Tried("lost", False)] * 9, *[Tried("out_of_memory", False)] * 9).state == "queued"


def test_hopeless_and_harmless_ends() -> None:
    assert decided("success") == Decision("done", "trained")
    assert decided("bad_input").state == "failed"
    assert decided("collapse") == Decision("failed", "collapse: why", alert=True)
    assert decided("lost", *[Tried("lost", False)] * 99).state == "queued"
    assert decided("interrupted", *[Tried("failed", True)] * 9, stopping=True).state == "queued"
    assert decided("hang", recover_hang=False).state == decided("disk_full", recover_disk_full=False).state == "failed"


def test_backoff_has_a_bound() -> None:
    chosen = QueueSettings(backoff_seconds=3.0, backoff_max=20.0)
    assert [backoff(chosen, failures) for failures in (1, 2, 3, 4, 10_000)] == [3.0, 6.0, 12.0, 20.0, 20.0]


# ---- the judgement


@pytest.mark.parametrize(("ended", "output", "kind", "message"), [
    ({"exit": 0, "orphaned": False}, "", "success", "exit code 0"),
    ({"exit": 0, "orphaned": True}, "", "success", "exit code 0"),
    ({"exit": -9, "orphaned": True}, "", "lost", "the queue was killed, and its trainer with it"),
    (None, "", "lost", "the queue was killed, and its trainer with it"),
    ({"exit": 2, "orphaned": False}, "x\nbatch_size = 0\n", "bad_input", "exit code 2: batch_size = 0"),
    ({"exit": 1, "orphaned": False}, "CUDA out of memory.", "out_of_memory", "exit code 1: CUDA out of memory."),
    ({"exit": 1, "orphaned": False}, "OSError: [Errno 28] No space left on device", "disk_full", None),
    ({"exit": 1, "orphaned": False}, "step 3: the loss is nan", "nan", None),
    ({"exit": 1, "orphaned": False}, "nanny not found", "failed", None),
    ({"exit": 1, "orphaned": False}, "\x1b[31mred\x1b[0m\r\n\r\n", "failed", "exit code 1: red"),
    ({"exit": 1, "orphaned": False}, "", "failed", "exit code 1: it said nothing"),
    ({"exit": 143, "orphaned": False}, "", "interrupted", None),
    ({"exit": -15, "orphaned": False}, "", "interrupted", "killed by SIGTERM"),
    ({"exit": -9, "orphaned": False}, "", "failed", "killed by SIGKILL (out of host memory?)"),
    ({"exit": -11, "orphaned": False}, "", "failed", "killed by SIGSEGV"),
    ({"exit": None, "orphaned": False, "message": "cannot be started: gone"}, "", "failed", "cannot be started: gone"),
    ({"exit": "0", "orphaned": False}, "", "lost", None),
    ([], "", "lost", None),
])  # fmt: skip
def test_judged_by_exit_code(tmp_path: Path, ended: Any, output: str, kind: str, message: str | None) -> None:
    if ended is not None:
        (tmp_path / "ended.json").write_text(json.dumps(ended))
    (tmp_path / "output.log").write_text(output)
    found = judge(tmp_path)
    assert found.kind == kind
    assert message in (None, found.message)


def test_the_trainers_own_word_counts_more(tmp_path: Path) -> None:
    (tmp_path / "ended.json").write_text(json.dumps({"exit": -11, "orphaned": False}))
    (tmp_path / "outcome.json").write_text(json.dumps({"exit": 0, "kind": "success", "message": "ok", "step": 7}))
    assert judge(tmp_path) == Ended("success", "ok", 7, -11)
    assert judge(tmp_path, hung="silent").kind == "success"
    (tmp_path / "outcome.json").write_text(json.dumps({"exit": 1, "kind": "nonsense", "message": "ok", "step": 7}))
    assert judge(tmp_path).message == "killed by SIGSEGV"
    assert judge(tmp_path, hung="silent") == Ended("hang", "silent", 7, -11)


# ---- seen to happen


def test_out_of_memory_halves_until_it_fits(queue: Queue) -> None:
    queue.settings(trainer_settings={"batch_size": 12, "gradient_accumulation": 1, "other": "kept"}, max_attempts=1)
    queue.put("inbox", "a.jsonl", largest_batch=3)
    queue.put("inbox", "b.jsonl")
    assert queue("once") == 0
    sizes = [
        (entry["settings"]["batch_size"], entry["settings"]["gradient_accumulation"]) for entry in queue.diary("begin")
    ]
    assert sizes == [(12, 1), (6, 2), (3, 4), (12, 1)]
    assert all(entry["settings"]["other"] == "kept" for entry in queue.diary())
    assert queue.states() == {"a.jsonl": "done", "b.jsonl": "done"}
    recoveries = [attempt["recovery"] for attempt in queue.report("a.jsonl")["attempts"]]
    assert recoveries == [
        "out of memory: batch_size 12 → 6, gradient_accumulation 1 → 2",
        "out of memory: batch_size 6 → 3, gradient_accumulation 2 → 4",
        None,
    ]
    assert queue.file("a.jsonl")["recoveries"] == recoveries[:2]  # in the ledger
    assert [event["kind"] for event in queue.events("alert")] == ["out_of_memory"] * 2
    assert [event["message"] for event in queue.events("recovery")] == [f"a.jsonl: {text}" for text in recoveries[:2]]


def test_the_floor_of_the_batch_fails_the_file(queue: Queue) -> None:
    queue.settings(trainer_settings={"batch_size": 4}, min_batch_size=2)
    queue.put("inbox", "a.jsonl", largest_batch=1)
    assert queue("once") == 0
    assert queue.file("a.jsonl")["state"] == "failed"
    assert "min_batch_size = 2" in queue.file("a.jsonl")["reason"]
    assert len(queue.begun()) == 2


def test_nan_goes_on_from_the_last_checkpoint_with_a_smaller_rate(queue: Queue) -> None:
    queue.settings(trainer_settings={"learning_rate": 0.01})
    queue.put("inbox", "a.jsonl", largest_rate=0.006, at=3)
    queue.put("inbox", "b.jsonl", largest_rate=0.001, at=3)
    assert queue("once") == 0
    assert queue.states() == {"a.jsonl": "done", "b.jsonl": "failed"}
    begun = queue.diary("begin")
    assert [entry["settings"]["learning_rate"] for entry in begun] == [0.01, 0.005, 0.01, 0.005]
    assert [entry["resumed"] for entry in begun] == [None, begun[0]["run"], begun[0]["run"], begun[2]["run"]]
    assert queue.report("a.jsonl")["attempts"][0]["recovery"].startswith("NaN: from the last checkpoint")
    assert queue.report("a.jsonl")["attempts"][1]["step"] == 3


def test_a_failed_file_does_not_poison_the_chain(queue: Queue) -> None:
    """The optimizer step goes on from trained file to trained file."""
    queue.settings(max_attempts=1)
    for name, do in (("1.jsonl", None), ("2.jsonl", "failed"), ("3.jsonl", None)):
        queue.put("inbox", name, do=do, at=3)
    assert queue("once") == 0
    first, second, third = queue.diary("begin")
    assert [first["resumed"], second["resumed"], third["resumed"]] == [None, first["run"], first["run"]]
    assert queue.report("3.jsonl")["attempts"][0]["step"] == 6


def test_the_chain_goes_on_from_the_last_run_that_is_there(queue: Queue) -> None:
    for name in ("1.jsonl", "2.jsonl"):
        queue.put("inbox", name)
    assert queue("once") == 0
    shutil.rmtree(queue.root / queue.file("2.jsonl")["run"])
    queue.put("inbox", "3.jsonl")
    assert queue("once") == 0
    assert queue.diary("begin")[2]["resumed"] == queue.diary("begin")[0]["run"]
    assert "3.jsonl does not go on from 2.jsonl" in queue.events("chain_broken")[0]["message"]


def test_an_endless_failure_ends(queue: Queue) -> None:
    queue.settings(max_attempts=3, backoff_seconds=0.05)
    queue.put("high", "always.jsonl", do="crash")
    queue.put("inbox", "good.jsonl")
    assert queue("once") == 0
    assert queue.begun().count("always.jsonl") == 3
    found = queue.file("always.jsonl")
    assert (found["state"], found["attempts"]) == ("failed", 3)
    assert "exit code 1: RuntimeError: the trainer has a defect; tried 3 times (max_attempts)" in found["reason"]
    assert queue.states()["good.jsonl"] == "done"
    assert queue.begun()[1] == "good.jsonl"  # during the pause
    assert queue("once") == 0
    assert queue.begun().count("always.jsonl") == 3
    assert queue("retry", "always.jsonl") == 0
    assert queue("once") == 0
    assert queue.begun().count("always.jsonl") == 6
    assert len(queue.report("always.jsonl")["attempts"]) == 6


@pytest.fixture
def hangs_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and not before: a trainer may take its time to start on a busy machine."""
    monkeypatch.setattr(Child, "silent_for", lambda self: 1e9 * (self._folder / "stuck").exists())


@pytest.mark.usefixtures("hangs_are_seen")
def test_a_hang_keeps_its_stack_and_is_tried_again(queue: Queue) -> None:
    queue.put("inbox", "a.jsonl", do="hang", at=2, tries=1, child=True)
    assert queue("once") == 0
    assert queue.states() == {"a.jsonl": "done"}
    first, second = queue.report("a.jsonl")["attempts"]
    assert (first["kind"], first["recovery"]) == ("hang", "ended with its stack kept; tried again")
    assert (second["kind"], second["step"]) == ("success", 3)
    (stack,) = queue.root.glob("reports/*/attempt-1/stack.txt")
    assert "stuck_here" in stack.read_text()
    assert [event["kind"] for event in queue.events("alert")] == ["hang"]
    for path in queue.root.glob("runs/*/child"):
        wait_for(lambda path=path: not alive(int(path.read_text())))


def test_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat that changes; of a trainer that has none, new output."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    child = Child.__new__(Child)
    child._folder, child._last, child._changed = tmp_path, None, 0.0
    silent = []
    for second, beat, output in ((0, None, ""), (1, None, ""), (2, None, "x"), (3, 1, "x"), (4, 1, "xx"), (5, 2, "xx")):
        now[0] = second
        (tmp_path / "output.log").write_text(output)
        if beat is not None:
            told = {"pid": 1, "step": 1, "stage": "s", "beat": beat}
            (tmp_path / "heartbeat.json").write_text(json.dumps(told))
        silent.append(child.silent_for())
    assert silent == [0, 1, 0, 0, 1, 0]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_disk_full_waits_for_room_and_no_longer_than_its_bound(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    free = iter([5.0, 5.0, 5.0, 500.0])
    monkeypatch.setattr(room, "free_mib", lambda queue: next(free, 500.0))
    queue.settings(min_free_mib=100.0, disk_wait_seconds=60.0)
    queue.put("inbox", "a.jsonl", do="disk_full", tries=1)
    assert queue("once") == 0
    assert queue.states() == {"a.jsonl": "done"}
    assert [attempt["recovery"] for attempt in queue.report("a.jsonl")["attempts"]] == [
        "waits for room on the disk",
        None,
    ]
    assert [event["kind"] for event in queue.events("alert")] == ["disk_full", "disk_full"]
    assert len(queue.events("room")) == 1
    monkeypatch.setattr(room, "free_mib", lambda queue: 5.0)
    queue.settings(min_free_mib=100.0, disk_wait_seconds=0.1)
    queue.put("inbox", "b.jsonl")
    assert queue("once") == 0
    assert queue.file("b.jsonl")["state"] == "failed"
    assert queue.file("b.jsonl")["reason"] == "disk_full: 5 MiB are free (min_free_mib = 100, disk_wait_seconds = 0.1)"
    queue.settings(min_free_mib=100.0, recover_disk_full=False)
    assert queue("retry") == 0
    assert queue("once") == 0
    assert queue.states()["b.jsonl"] == "done"


@pytest.mark.usefixtures("hangs_are_seen")
def test_switched_off_recoveries_fail_at_once(queue: Queue) -> None:
    off = {f"recover_{name}": False for name in ("out_of_memory", "nan", "disk_full", "hang")}
    queue.settings(**off, trainer_settings={"batch_size": 8, "learning_rate": 0.1})
    for kind in ("out_of_memory", "nan", "disk_full", "hang"):
        queue.put("inbox", f"{kind}.jsonl", do=kind)
    assert queue("once") == 0
    assert len(queue.begun()) == 4
    assert all("(recovery is switched off)" in file["reason"] for file in queue.told()["files"])


def test_alerts_go_to_file_and_command(queue: Queue, tmp_path: Path) -> None:
    got = tmp_path / "got"
    copy = f"import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, open({str(got)!r}, 'ab'))"
    queue.settings(alert_file="alerts.jsonl", alert_command=[sys.executable, "-c", copy])
    queue.put("inbox", "a.jsonl", do="collapse")
    assert queue("once") == 0
    (alert,) = map(json.loads, (queue.root / "alerts.jsonl").read_text().splitlines())
    assert (alert["kind"], alert["file"]) == ("collapse", "a.jsonl")
    assert json.loads(got.read_text()) == alert
    assert queue.file("a.jsonl")["state"] == "failed"
    queue.settings(alert_command=[sys.executable, "-c", "raise SystemExit('no network')"])
    queue.put("inbox", "b.jsonl", do="collapse")
    assert queue("once") == 0
    (failed,) = queue.events("alert_failed")
    assert failed["message"].endswith("exit code 1: 'no network'")


@pytest.mark.parametrize(("row", "exit", "says"), [
    ({"do": "silent_failure"}, 3, "failed: exit code 3: it said nothing"),
    ({"do": "killed"}, -signal.SIGKILL, "failed: killed by SIGKILL (out of host memory?)"),
    ({"do": "failed", "quiet": True}, 1, "failed: exit code 1: failed: failed on purpose"),
])  # fmt: skip
def test_a_trainer_that_says_nothing_is_judged_by_its_exit(queue: Queue, row: Any, exit: int, says: str) -> None:
    queue.settings(max_attempts=1)
    queue.put("inbox", "a.jsonl", **row)
    assert queue("once") == 0
    assert queue.file("a.jsonl")["reason"].startswith(says)
    assert queue.report("a.jsonl")["attempts"][0]["exit"] == exit


def test_a_keeper_that_is_killed_takes_its_trainer_along_and_counts(queue: Queue) -> None:
    queue.settings(max_attempts=2)
    queue.put("inbox", "a.jsonl", steps=1000, seconds=0.05)
    process = queue.start("once")
    for number in (1, 2):
        wait_for(lambda number=number: len(queue.diary("begin")) == number)
        trainer = queue.diary("begin")[-1]["pid"]
        os.kill(psutil.Process(trainer).ppid(), signal.SIGKILL)
        wait_for(lambda trainer=trainer: not alive(trainer))
    assert process.communicate(timeout=60)[0] is not None
    assert process.returncode == 0
    assert queue.file("a.jsonl")["state"] == "failed"
    assert "its keeper was killed" in queue.file("a.jsonl")["reason"]


def test_a_trainer_that_cannot_be_started(queue: Queue, tmp_path: Path) -> None:
    program = tmp_path / "no program"
    program.write_text("neither a script nor a binary")
    program.chmod(0o755)
    queue.settings(trainer=[str(program), "{data}"], max_attempts=1)
    queue.put("inbox", "a.jsonl")
    assert queue("once") == 0
    assert queue.file("a.jsonl")["reason"].startswith("failed: cannot be started: Exec format error")


def test_a_success_without_words_leaves_nothing_running(queue: Queue) -> None:
    queue.put("inbox", "a.jsonl", quiet=True, child=True)
    assert queue("once") == 0
    assert queue.states() == {"a.jsonl": "done"}
    (left,) = queue.root.glob("runs/*/child")
    wait_for(lambda: not alive(int(left.read_text())))


def test_memory_is_looked_at_before_and_after(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([[memory.Use("GPU 0", 10, 100)], [memory.Use("GPU 0", 60, 100)]])
    monkeypatch.setattr(memory, "look", lambda: next(looks))
    queue.put("inbox", "a.jsonl")
    assert queue("once") == 0
    noted = queue.report("a.jsonl")["attempts"][0]["memory"]
    assert noted == {
        "before": [{"device": "GPU 0", "used": 10, "total": 100}],
        "after": [{"device": "GPU 0", "used": 60, "total": 100}],
    }
    (warning,) = queue.events("memory")
    assert (
        "GPU 0: 0.00 of 0.00 GiB in use, 60%, after the file's trainer has ended (before it: 10%)" in warning["message"]
    )


def test_memory_of_this_machine() -> None:
    for use in memory.look():
        assert 0 < use.used <= use.total
        assert 0 < use.share <= 1


def test_settings_with_no_utf8_name(queue: Queue) -> None:
    name = os.fsdecode(b"\xff.jsonl")
    queue.settings(max_attempts=1)
    queue.put("inbox", name, line(id=1, do="failed"))
    assert queue("once") == 0
    assert queue.report(name)["name"] == name
