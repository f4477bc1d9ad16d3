"""A trainer that is forked from the warm server is like one that was started: its process, its end, what it finds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from queue_runs import Queue, wait_for

from trainers.queue import warm

FACTS = """
import atexit, json, os, random, signal, sys
facts = {"loaded": "early" in sys.modules, "argv": sys.argv, "name": __name__, "path": sys.path[0], "pid": os.getpid(),
    "group": os.getpgid(0), "session": os.getsid(0), "stdin": os.readlink("/proc/self/fd/0"),
    "open": sorted(map(int, os.listdir("/proc/self/fd"))), "drawn": random.random(),
    "interrupts": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    "answers": [n for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGABRT, signal.SIGCHLD) if signal.getsignal(n)],
    "environment": os.environ.get("PYTHONFAULTHANDLER"), "encoding": sys.stdout.encoding}
with open(sys.argv[1], "a") as file:
    file.write(json.dumps(facts) + "\\n")
atexit.register(lambda: print("registered for the end"))
print("not yet written out", end="")
if "{data}" in open(sys.argv[2]).read():
    sys.exit("as it asks for")
"""


class Forked:
    """A queue whose trainer is a script that notes what it finds."""

    def __init__(self, tmp_path: Path, early: str = "") -> None:
        self.facts, self.script = tmp_path / "facts.jsonl", tmp_path / "train.py"
        (tmp_path / "early.py").write_text(early)
        self.script.write_text(FACTS)
        self.early = tmp_path / "early.py"
        words = [sys.executable, str(self.script), str(self.facts), "{data}"]
        self.queue = Queue(tmp_path / "queue", trainer=words, preload=["early"], max_attempts=1)

    def once(self) -> str:
        """One turn; what the queue prints."""
        process = self.queue.start("once", before=f"sys.path.insert(0, {str(self.early.parent)!r})")
        output = process.communicate(timeout=120)[0]
        assert process.returncode == 0, output
        return output

    def found(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.facts.read_text().splitlines()]


@pytest.fixture
def forked(tmp_path: Path) -> Forked:
    return Forked(tmp_path)


def test_what_a_forked_trainer_finds(forked: Forked, tmp_path: Path) -> None:
    forked.queue.put("high", "a.jsonl")
    forked.queue.put("low", "b.jsonl", b'{"data": "{data}"}\n')
    output = forked.once()
    assert "started anew" not in output
    first, second = forked.found()
    assert first["loaded"]
    assert first["argv"][:2] == [str(forked.script), str(forked.facts)]
    assert (first["name"], first["path"]) == ("__main__", str(tmp_path))
    assert first["group"] == first["session"] != first["pid"]  # the keeper's
    assert first["session"] != second["session"]
    assert first["stdin"] == os.devnull
    assert first["open"] == [0, 1, 2, 3]  # the last one lists them
    assert first["environment"] == "1"
    assert first["interrupts"]
    assert first["answers"] == []
    assert first["drawn"] != second["drawn"]
    assert forked.queue.states() == {"a.jsonl": "done", "b.jsonl": "failed"}
    told = [path.read_text() for path in forked.queue.root.glob("reports/*/attempt-1/output.log")]
    assert sorted(told) == [
        "not yet written outas it asks for\nregistered for the end\n", "not yet written outregistered for the end\n",
    ]  # fmt: skip
    assert not any(psutil.pid_exists(facts["session"]) for facts in (first, second))


@pytest.mark.parametrize(("early", "told"), [
    ("raise RuntimeError('no such device')", "importing early (preload): RuntimeError: no such device"),
    ("import sys; sys.exit(3)", "importing early (preload): SystemExit: 3"),
    ("import threading, time; threading.Thread(target=time.sleep, args=(60,), name='tick', daemon=True).start()",
     "a module of preload starts a thread (tick)"),
    ("import sys, types; sys.modules['torch'] = types.SimpleNamespace("
     "cuda=types.SimpleNamespace(is_initialized=lambda: True))", "a module of preload initialises CUDA"),
])  # fmt: skip
def test_what_cannot_be_forked_is_started_and_said_once(tmp_path: Path, early: str, told: str) -> None:
    forked = Forked(tmp_path, early)
    for name in ("a.jsonl", "b.jsonl"):
        forked.queue.put("inbox", name)
    output = forked.once()
    assert output.count(f"started anew, and imports its libraries itself: {told}") == 1
    assert [facts["loaded"] for facts in forked.found()] == [False, False]
    assert set(forked.queue.states().values()) == {"done"}


def test_a_trainer_that_was_mended_meanwhile_is_the_mended_one(forked: Forked) -> None:
    forked.queue.put("high", "a.jsonl")
    forked.queue.put("low", "b.jsonl")
    forked.script.write_text(FACTS + f"open({str(forked.early)!r}, 'a').write('# mended\\n')\n")
    output = forked.once()
    assert [facts["loaded"] for facts in forked.found()] == [True, False]
    assert "early.py has changed since it was imported" in output


def test_a_server_that_is_killed_takes_no_trainer_along(forked: Forked) -> None:
    """The trainer kills it, and goes on; the next one is started anew."""
    forked.queue.put("high", "a.jsonl")
    forked.queue.put("low", "b.jsonl")
    server = "int(open(f'/proc/{os.getppid()}/stat').read().split()[3])"
    kill = f"import os, signal\nif 'early' in sys.modules: os.kill({server}, signal.SIGKILL)\n"
    forked.script.write_text(FACTS + kill)
    output = forked.once()
    assert [facts["loaded"] for facts in forked.found()] == [True, False]
    assert set(forked.queue.states().values()) == {"done"}
    assert "the process that has them is gone" in output


def test_the_server_ends_with_a_queue_that_is_killed_in_its_imports(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    forked = Forked(tmp_path, f"import os, time\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)\n")
    process = forked.queue.start("run", before=f"sys.path.insert(0, {str(tmp_path)!r})")
    wait_for(lambda: pid.exists() and pid.read_text())
    process.kill()
    process.communicate()
    wait_for(lambda: not psutil.pid_exists(int(pid.read_text())))


def test_a_forked_trainer_that_hangs_leaves_its_stack(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "queue", preload=["sched"], heartbeat_timeout=0.5, recover_hang=False)
    queue.put("inbox", "a.jsonl", do="hang")
    process = queue.start("once")
    process.communicate(timeout=120)
    assert queue.file("a.jsonl")["reason"].startswith("hang: no sign of life for 0.5 seconds")
    (stack,) = queue.root.glob("reports/*/attempt-1/stack.txt")
    assert "stuck_here" in stack.read_text()
    assert not psutil.pid_exists(queue.diary("begin")[0]["pid"])


def test_sigterm_ends_a_forked_trainer_in_peace(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "queue", preload=["sched"])
    queue.put("inbox", "a.jsonl", steps=1000, seconds=0.02)
    process = queue.start("once")
    wait_for(lambda: list(queue.root.glob("runs/*/checkpoint-1")))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert queue.diary("interrupted")
    assert queue.states() == {"a.jsonl": "queued"}


@pytest.mark.parametrize(("words", "fits"), [
    ([sys.executable, "-m", "trainers.chat.lora"], True),
    ([sys.executable, "train.py"], True),
    ([sys.executable, "-m"], False),
    ([sys.executable, "-c", "pass"], False),
    ([sys.executable, "-u", "train.py"], False),
    ([sys.executable], False),
    (["/bin/sh", "train.sh"], False),
    (["/usr/bin/python3.99", "train.py"], False),
])  # fmt: skip
def test_which_programs_are_forked(words: list[str], fits: bool) -> None:
    assert warm.is_this_python(words) is fits


def test_another_interpreter_is_not_this_one(tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.symlink_to(sys.executable)
    assert not warm.is_this_python([str(other), "train.py"])


def test_a_process_with_threads_is_not_forked() -> None:
    """Of several threads a fork takes along one, and the locks of all."""
    code = "import threading, time\nfrom trainers.queue import starting, warm\n"
    code += "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    code += "with warm.starter(['sched'], print, at_once=False) as start: assert start is starting.start_program\n"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2], timeout=60)
