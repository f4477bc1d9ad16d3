"""The commands, as people and other programs use them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from queue_runs import PROJECT, QUICK, Queue, assert_sound, line, wait_for

from trainers.common import lock
from trainers.queue import cli, memory
from trainers.queue.journal import Journal, last_lines
from trainers.queue.layout import Layout
from trainers.queue.options import QueueSettings, command


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path / "queue")


@pytest.fixture
def given(tmp_path: Path) -> Path:
    path = tmp_path / "given.jsonl"
    path.write_bytes(line(id="given"))
    return path


def test_as_people_start_it(tmp_path: Path, given: Path) -> None:
    """The whole way, through the real command line, with nothing imported that is slow."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        module = [sys.executable, "-X", "importtime", "-m", "trainers.queue", "--root", str(tmp_path / "queue")]
        return subprocess.run([*module, *words], cwd=PROJECT, capture_output=True, text=True, check=False)

    Queue(tmp_path / "queue")
    added = run("add", str(given), "--priority", "low")
    assert added.returncode == 0
    assert "trainers.queue: given.jsonl: waits in low/" in added.stderr
    once = run("once")
    assert once.returncode == 0, once.stderr
    status = run("status")
    assert "done 1" in status.stdout
    for library in ("torch", "numpy", "transformers"):
        assert f" {library}\n" not in once.stderr
    assert run("dance").returncode == 2


def test_add_copies_and_names_what_it_does_not_take(
    queue: Queue, given: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = given.with_name("other.txt")
    other.touch()
    link = given.with_name("link.jsonl")
    link.symlink_to(given)
    assert queue("add", given, other, link, "no\nwhere.jsonl") == 2
    err = capsys.readouterr().err
    assert f"{other}: suffix '.txt'" in err
    assert f"{link}: a symbolic link" in err
    assert "no\\nwhere.jsonl': No such file or directory" in err
    assert not (queue.root / "normal").exists()
    assert queue("add", given) == queue("add", given, "--priority", "high") == 0
    assert given.exists()
    assert [(file["name"], file["state"]) for file in queue.told()["files"]] == [
        ("given.jsonl", "queued"),
        ("given.jsonl", "duplicate"),
    ]
    assert queue("once") == 0
    assert queue.begun() == ["given"]
    assert not [name for name in queue.everywhere() if name.startswith(".")]


def test_status_json(queue: Queue) -> None:
    queue.settings(max_attempts=1)
    queue.put("inbox", "a.jsonl")
    queue.put("inbox", "b.jsonl", do="failed")
    assert queue("once") == 0
    queue.put("inbox", "c.jsonl")
    queue.put("low", "d.jsonl")
    told = queue.told()
    assert told["counts"] == {"inbox": 1, "high": 0, "normal": 0, "low": 1, "processing": 0, "done": 1, "failed": 1}
    assert told["daemon"] == {"running": False, "pid": None, "paused": False, "current": None}
    files = {file["name"]: file for file in told["files"]}
    assert files["a.jsonl"] == {
        "name": "a.jsonl", "state": "done", "folder": "done", "file": "a.jsonl", "priority": "normal", "attempts": 1,
        "reason": "trained", "hash": files["a.jsonl"]["hash"], "run": f"runs/{files['a.jsonl']['hash'][:32]}",
        "recoveries": [],
    }  # fmt: skip
    assert (files["b.jsonl"]["state"], files["b.jsonl"]["reason"][:6]) == ("failed", "failed")
    assert (files["c.jsonl"]["state"], files["c.jsonl"]["hash"]) == ("inbox", None)
    assert (files["d.jsonl"]["state"], files["d.jsonl"]["priority"]) == ("inbox", "low")


def test_status_of_a_running_queue_and_stop(queue: Queue, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        queue.put("inbox", name, steps=1000, seconds=0.05)
    process = queue.start("run")
    wait_for(lambda: list(queue.root.glob("runs/*/checkpoint-2")))
    told = queue.told()["daemon"]
    assert (told["running"], told["pid"]) == (True, process.pid)
    assert (told["current"]["name"], told["current"]["attempt"]) == ("a.jsonl", 1)
    assert told["current"]["step"] >= 1
    capsys.readouterr()
    assert queue("status") == 0
    assert f"PID {process.pid} trains a.jsonl, attempt 1, step" in capsys.readouterr().out
    assert queue("once") == 2
    assert f"the process with PID {process.pid} is running in it" in capsys.readouterr().err
    assert queue("stop") == 0
    assert f"PID {process.pid} ends after its step" in capsys.readouterr().out
    output = process.communicate(timeout=30)[0]
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "Traceback" not in output
    assert queue.tree() == {"normal": ["a.jsonl", "b.jsonl"]}
    (attempt,) = queue.report("a.jsonl")["attempts"]
    assert (attempt["kind"], attempt["counts"]) == ("interrupted", False)
    assert queue("stop") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing runs"
    capsys.readouterr()
    assert queue("list") == 0
    assert [row.split()[2] for row in capsys.readouterr().out.splitlines()] == ["a.jsonl", "b.jsonl"]  # in its place


def test_a_trainer_that_does_not_end_is_ended(queue: Queue) -> None:
    queue.settings(end_timeout=0.3)
    queue.put("inbox", "a.jsonl", do="hang", at=2)
    process = queue.start("run")
    wait_for(lambda: list(queue.root.glob("runs/*/checkpoint-1")))
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=30)[0]
    assert process.returncode == 128 + signal.SIGINT, output
    assert queue.tree() == {"normal": ["a.jsonl"]}
    assert "did not end in 0.3 seconds: killed" in queue.file("a.jsonl")["reason"]


def test_pause_and_resume_of_a_running_queue(queue: Queue, capsys: pytest.CaptureFixture[str]) -> None:
    queue.put("inbox", "a.jsonl", steps=5, seconds=0.1)
    queue.put("inbox", "b.jsonl")
    process = queue.start("run")
    wait_for(lambda: list(queue.root.glob("runs/*/checkpoint-1")))
    assert queue("pause") == 0
    wait_for(lambda: queue.events("paused"))
    assert queue.states() == {"a.jsonl": "done", "b.jsonl": "queued"}
    assert queue.told()["daemon"]["paused"]
    queue.put("inbox", "c.jsonl")  # it is taken in, and waits
    wait_for(lambda: queue.states().get("c.jsonl") == "queued")
    assert queue("resume") == 0
    wait_for(lambda: set(queue.states().values()) == {"done"})
    process.terminate()
    assert process.wait(30) == 143
    process.communicate()
    assert queue("resume") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "was not paused"


def test_retry(queue: Queue, capsys: pytest.CaptureFixture[str]) -> None:
    queue.settings(max_attempts=1)
    queue.put("inbox", "ok.jsonl")
    assert queue("once") == 0
    assert queue("retry") == 0
    assert capsys.readouterr().out == "nothing has failed: nothing to retry\n"
    for name in ("a.jsonl", "b.jsonl", "c.jsonl"):
        queue.put("high", name, do="failed", tries=1)
    assert queue("once") == 0
    assert queue("retry", "a.jsonl", "nobody.jsonl") == 2
    assert "nobody.jsonl: no such file in the queue" in capsys.readouterr().err
    assert queue.states()["a.jsonl"] == "failed"
    assert queue("retry", queue.file("a.jsonl")["hash"][:8]) == 0
    assert capsys.readouterr().out == "a.jsonl: waits again, in high/\n"
    (queue.root / "failed" / "b.jsonl").unlink()
    assert queue("retry") == 0
    assert capsys.readouterr().out == "b.jsonl: is no longer there\nc.jsonl: waits again, in high/\n"
    assert queue("once") == 0
    assert queue.states() == {"ok.jsonl": "done", "a.jsonl": "done", "b.jsonl": "missing", "c.jsonl": "done"}


def test_reprioritise(queue: Queue, capsys: pytest.CaptureFixture[str]) -> None:
    (queue.root / "paused").touch()
    for name in ("a.jsonl", "b.jsonl", "c.jsonl"):
        queue.put("inbox", name)
    assert queue("once") == 0
    assert queue("reprioritise", "low", "a.jsonl") == queue("reprioritise", "high", "c.jsonl") == 0
    assert queue.tree() == {"high": ["c.jsonl"], "normal": ["b.jsonl"], "low": ["a.jsonl"]}
    assert queue("reprioritise", "high", "x.jsonl") == 2
    assert queue("resume") == 0
    assert queue("once") == 0
    assert queue.begun() == ["c.jsonl", "b.jsonl", "a.jsonl"]
    assert queue("reprioritise", "high", "a.jsonl") == 2
    assert "a.jsonl: is done, not queued" in capsys.readouterr().err
    assert_sound(queue, ["a.jsonl", "b.jsonl", "c.jsonl"])


def test_commands_beside_a_running_queue_lose_nothing(queue: Queue, tmp_path: Path) -> None:
    process = queue.start("run")
    names = [f"{number}.jsonl" for number in range(12)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(line(id=name, steps=1))
        assert queue("add", tmp_path / name) == 0
        queue("reprioritise", ("high", "low")[number % 2], name)
    wait_for(lambda: list(queue.states().values()).count("done") == len(names))
    process.terminate()
    process.communicate(timeout=30)
    assert sorted(queue.begun()) == sorted(names)
    assert_sound(queue, names)


def test_first_commands_at_the_same_moment(queue: Queue, tmp_path: Path) -> None:
    names = [f"{number}.jsonl" for number in range(4)]
    for name in names:
        (tmp_path / name).write_bytes(line(id=name))
    started = [queue.start("add", str(tmp_path / name)) for name in names]
    ended = [process.communicate(timeout=60)[0] for process in started]
    assert [process.returncode for process in started] == [0] * 4, ended
    assert queue.states() == dict.fromkeys(names, "queued")
    assert queue.tree() == {"normal": names}
    assert not list(queue.root.glob("*.damaged-*"))


# ---- bad input


@pytest.mark.parametrize(("name", "content", "says"), [
    ("queue.toml", "max_attempts = 0", "queue.toml: max_attempts = 0 is not a whole number from 1 to 1000"),
    ("queue.toml", "max_atempts = 1", "queue.toml: unknown setting max_atempts; did you mean max_attempts?"),
    ("queue.toml", 'trainer = ["no such program", "{data}"]', "trainer: there is no program no such program"),
    ("queue.toml", 'trainer = ["python3"]', "trainer: {data} is nowhere in it"),
    ("queue.toml", 'suffixes = ["jsonl"]', "suffixes"),
    ("queue.toml", "starvation_bound = 1", "starvation_bound = 1 is not a whole number from 2 to"),
    ("queue.toml", "x = ", "queue.toml, line 1, column"),
    ("queue.json", '{"heartbeat_timeout": "ten"}', 'queue.json: heartbeat_timeout = "ten" is not a number over 0'),
    ("queue.toml", "backoff_seconds = 400.0", "backoff_max = 300.0 is smaller than backoff_seconds = 400.0"),
])  # fmt: skip
@pytest.mark.parametrize("word", ["once", "run"])
def test_bad_settings_are_said_before_anything_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str, says: str, word: str
) -> None:
    (tmp_path / name).write_text(content)
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "a.jsonl").write_bytes(line(id=1))
    assert cli.main(["--root", str(tmp_path), word]) == 2
    assert says in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == sorted(["inbox", name])


def test_two_settings_files(queue: Queue, capsys: pytest.CaptureFixture[str]) -> None:
    (queue.root / "queue.toml").touch()
    assert queue("once") == 2
    assert "both queue.toml and queue.json are there" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["status", "list", "retry", "pause", "resume", "stop"])
def test_no_queue_there(tmp_path: Path, capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert cli.main(["--root", str(tmp_path / "none"), word]) == 2
    assert "there is no queue in it" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("word", ["status", "list", "retry", "pause", "stop", "once"])
def test_folders_that_are_missing_are_made(tmp_path: Path, word: str) -> None:
    (tmp_path / "inbox").mkdir()
    (tmp_path / "queue.json").write_text(json.dumps(QUICK))
    assert cli.main(["--root", str(tmp_path), word]) == 0


def test_a_root_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "a.jsonl").write_bytes(line(id=1))
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        assert cli.main(["--root", str(root), "add", str(tmp_path / "a.jsonl")]) == 2
        assert "queue folder " in capsys.readouterr().err


def test_who_holds_a_queue(tmp_path: Path) -> None:
    assert lock.holder(tmp_path) is None
    with lock.RunLock(tmp_path, "queue folder"):
        assert lock.holder(tmp_path) == os.getpid()
    assert lock.holder(tmp_path) is None
    (tmp_path / lock.LOCK_NAME).write_text("1\n")  # left behind: nobody holds it, though PID 1 lives
    assert lock.holder(tmp_path) is None


# ---- parts


def test_help_tells_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--root", "x", "run", "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"  {name}: " in shown for name in QueueSettings.model_fields)
    assert '"{data}"' not in shown
    assert 'suffixes: what the names of training files end in; default [".jsonl"]' in shown


def test_placeholders_without_a_value_go_with_their_option() -> None:
    words = ["t", "--data", "{data}", "--resume-from", "{resume_from}", "--status={status_dir}", "{resume_from}", "{x}"]
    values: dict[str, Any] = dict.fromkeys(("{settings}", "{output_dir}"), "x")
    values |= {"{data}": "{status_dir}", "{resume_from}": None, "{status_dir}": "/s"}
    chosen = QueueSettings(trainer=words)
    assert command(chosen, values) == ["t", "--data", "{status_dir}", "--status=/s", "{x}"]
    assert command(chosen, {**values, "{resume_from}": "/r"})[3:5] == ["--resume-from", "/r"]
    assert QueueSettings().own
    assert not chosen.own


def test_a_line_that_a_crash_cut_off_stands_alone(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "log.jsonl")
    journal.add("first", "one")
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"event": "cut')
    journal.add("second", "two", file="\udcff")
    assert [event["event"] for event in last_lines(tmp_path / "log.jsonl", 9)] == ["first", "second"]
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[2])["file"] == "\udcff"
    Journal(tmp_path / "none" / "log.jsonl").add("lost", "no matter")


def test_a_full_disk_under_the_queue_itself_is_waited_for(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainers.common import files
    from trainers.common.errors import TrainingFailed

    written, faults = files.write_text, iter([True])

    def write(path: Path, text: str) -> None:
        if path.name == "report.json" and next(faults, False):
            raise TrainingFailed(f"cannot save {path}: No space left on device", "disk_full")
        written(path, text)

    monkeypatch.setattr(files, "write_text", write)
    queue.put("inbox", "a.jsonl")
    assert queue("once") == 0
    assert queue.states() == {"a.jsonl": "done"}
    assert queue.begun() == ["a.jsonl"]


def test_a_gpu_is_looked_at_through_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nvml:
        NVMLError = RuntimeError
        nvmlInit = nvmlShutdown = staticmethod(lambda: None)
        nvmlDeviceGetCount = staticmethod(lambda: 1)
        nvmlDeviceGetHandleByIndex = staticmethod(lambda number: number)

        @staticmethod
        def nvmlDeviceGetMemoryInfo(handle: int) -> Any:
            return type("Memory", (), {"used": 2 << 30, "total": 8 << 30})

    monkeypatch.setitem(sys.modules, "pynvml", Nvml)
    assert memory.look() == [memory.Use("GPU 0", 2 << 30, 8 << 30)]
    assert str(memory.look()[0]) == "GPU 0: 2.00 of 8.00 GiB in use"

    def none() -> None:
        raise RuntimeError("driver not loaded")

    monkeypatch.setattr(Nvml, "nvmlInit", none)
    assert [use.device for use in memory.look()] == ["host"]


def test_watch_goes_on_until_ctrl_c(queue: Queue) -> None:
    Layout(queue.root).make()
    process = queue.start("status", "--watch")
    time.sleep(0)
    first = process.stdout.readline()
    assert first.startswith("queue ")
    while not process.stdout.readline().startswith("queue "):
        pass
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    process.stdout.close()
