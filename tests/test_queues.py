"""What a team may say of its queue, and what the harness sees of one."""

import os
import subprocess
import sys

import pytest

from pytest_trainguard import Guard, NotApplicable, Queue, TrainingQueue, faults
from pytest_trainguard.adapters.tables import faults_in
from pytest_trainguard.contract.queues import filled
from pytest_trainguard.launch.watch import Leases, Watch
from pytest_trainguard.subject.launchpad import Launchpad
from tests.projects import Project

ONCE = "queue once --root {root}"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "has no command"),
        ({"once": "  "}, "once is '  ', not a command"),
        ({"once": ["queue", "once"]}, r"once is \['queue', 'once'\], not a command"),
        ({"once": "queue once"}, r"once lacks \{root\}"),
        ({"once": "queue {root} {where}"}, r"once has an unknown placeholder \{where\}; known are root, file"),
        ({"once": "queue '{root}"}, "once cannot be split: No closing quotation"),
        ({"once": ONCE, "add": "queue add {root}"}, r"add lacks \{file\}"),
        ({"once": ONCE, "done": "/done"}, "done is '/done', not a folder below the root"),
        ({"once": ONCE, "inbox": "../inbox"}, "inbox is '../inbox', not a folder"),
        ({"once": ONCE, "priorities": "high"}, "priorities is 'high', not a list of names"),
        ({"once": ONCE, "priorities": ["high"]}, "two names at least, from the most urgent"),
        ({"once": ONCE, "attempts": 0}, "attempts is 0, not a whole number from 1 on"),
        ({"once": ONCE, "starvation_bound": True}, "starvation_bound is True, not a whole number"),
        ({"once": ONCE, "files": ["queue.toml"]}, "files is not a table of names and contents"),
        ({"once": ONCE, "inbocks": "new"}, "unknown key 'inbocks'; known are once, inbox"),
        ("queue once", "is not a table"),
    ],
)
def test_a_bad_queue_is_told_in_one_line(given, told):
    table = {"command": "python train.py {output_dir} {max_steps}", "queue": given}
    with pytest.raises(AssertionError, match=f"^queue: .*{told}"):
        raise AssertionError(faults_in(table))


def test_a_bad_queue_of_a_class_is_told_too():
    with pytest.raises(ValueError, match=r"^queue: once lacks \{root\}$"):
        Queue(once="queue once")


def test_words_and_folders():
    queue = Queue(once="queue --root={root} once --settings {config}", priorities=["high", "low"], processing="now")
    values = {"root": "/a b", "config": "c.json"}
    assert queue.argv("once", values) == ["queue", "--root=/a b", "once", "--settings", "c.json"]
    assert queue.folders == ["inbox", "now", "done", "failed", "high", "low"]
    assert Queue(once=ONCE, add="a {root} {file} {priority}", priorities=("high", "low")).folders == [
        "inbox", "done", "failed",
    ]  # fmt: skip
    assert filled('{"root": "{root}", "x": {y}}', values) == '{"root": "/a b", "x": {y}}'


READS = "import sys; [open(name).read() for name in sys.argv[1:]]"


def test_a_lease_keeps_others_waiting_and_a_watch_sees_them(tmp_path):
    """A program opens two files; in the middle of the first it is held, and the file is renamed."""
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    leases, watch = Leases(), Watch([tmp_path])
    assert watch.unseen(lambda: leases.take(tmp_path / "a"))
    assert not leases.take(tmp_path / "not there")
    assert leases.wanted() is None
    process = subprocess.Popen([sys.executable, "-c", READS, tmp_path / "a", tmp_path / "b"])
    while (held := leases.wanted()) is None:
        assert process.poll() is None
    assert (held.path, held.content) == (tmp_path / "a", b"a")
    held.path.rename(tmp_path / "c")
    assert leases.wanted().path == tmp_path / "c"
    assert leases.others(held) == []
    leases.give_back(held)
    assert process.wait(30) == 0
    seen = [(event.kind, event.name) for event in watch.read() if event.kind != "closed"]
    assert seen == [("left", "a"), ("arrived", "c"), ("opened", "c"), ("opened", "b")]
    assert watch.read() == []
    watch.close()


def test_a_folder_that_is_not_there_cannot_be_watched(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="nowhere"):
        Watch([tmp_path, tmp_path / "nowhere"])
    assert len(os.listdir("/proc/self/fd")) == before


# A queue in a shell script: for each file, `done` or `failed` by whether it has an "x" in every row.
SHELL = """
cd "$1"
for file in inbox/*.jsonl; do
    [ -f "$file" ] || continue
    if [ "$(grep -c '^{"x"' "$file")" = "$(grep -c . "$file")" ]; then mv -n -- "$file" done/
    else mv -n -- "$file" failed/; echo "$file: a malformed line"; fi
done
"""

TABLE = """
[tool.trainguard.trainers.shell]
command = "python -c pass {output_dir} {max_steps}"
sample = "train.jsonl"

[tool.trainguard.trainers.shell.queue]
once = "sh queue.sh {root}"
"""


def test_any_queue_that_works_by_folders(tmp_path):
    """Five words of a table, no Python in the queue: what it cannot do is found, what it has not is said."""
    project = Project(tmp_path, toml=TABLE)
    project.write("queue.sh", SHELL)
    result = project.pytest("-m", "preflight", "--category=queue", "-p", "no:cacheprovider")
    assert result.code == 1, result.output
    assert result.verdicts("shell") == {
        51: "passed", 52: "passed", 53: "failed", 54: "failed", 55: "passed", 56: "failed", 57: "not_applicable",
        58: "not_applicable", 59: "not_applicable", 60: "passed",
    }  # fmt: skip
    assert "file-1.jsonl is at inbox/same.jsonl" in result.case("shell", 53)["reason"]
    assert "nothing was reported about foreign" in result.case("shell", 56)["reason"]
    assert result.case("shell", 57)["reason"].startswith("the queue names no retry: add it, Queue(..., retry=")


def test_a_queue_that_does_not_work_at_all_is_not_judged(tmp_path):
    project = Project(tmp_path, toml=TABLE)
    project.write("queue.sh", "echo no such thing as a queue; exit 3\n")
    result = project.pytest("-m", "preflight", "--edge-case=51", "-p", "no:cacheprovider")
    assert result.verdicts("shell") == {51: "error"}
    assert "the undisturbed queue fails: exit 3" in result.case("shell", 51)["reason"]
    assert "no such thing as a queue" in result.output


IN_A_FOLDER = """
from pytest_trainguard import Queue, Trainer

class Bare(Trainer):
    def make_data(self, folder, rows, seed):
        (folder / "shards").mkdir()
        return folder / "shards"

    def train(self, run):
        pass

class Queued(Bare):
    queue = Queue(once="queue {root}")
"""


@pytest.mark.parametrize(("name", "told"), [("Bare", "no queue"), ("Queued", "its data is a folder")])
def test_data_in_a_folder_is_no_error_however_often_it_is_asked_for(tmp_path, name, told):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "shards.py").write_text(IN_A_FOLDER)
    (tmp_path / "pad").mkdir()
    pad = Launchpad(tmp_path / "root", tmp_path / "pad", [str(tmp_path / "root")], 30.0)
    queue = TrainingQueue(Guard(pad.subject(name, f"shards:{name}"), tmp_path))
    try:
        for _ in range(2):
            with pytest.raises(NotApplicable, match=told):
                queue.files(2)
    finally:
        pad.close()


FORKING = """
import json, os, sys
from pathlib import Path
from pytest_trainguard import Queue, Trainer

class Forking(Trainer):
    queue = Queue(once="python -m queue_here {root}")

    def make_data(self, folder, rows, seed):
        (folder / "rows.jsonl").write_text(json.dumps({"x": seed}) + "\\n")
        return folder / "rows.jsonl"

    def train(self, run):
        pass
"""
QUEUE_HERE = """
import os, sys
from pathlib import Path

def train():
    import torch
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()

for path in sorted(Path(sys.argv[1], "inbox").iterdir()):
    if not os.fork():
        train()
        os._exit(0)
    os.wait()
    path.rename(Path(sys.argv[1], "done", path.name))
(Path(sys.argv[1]) / "pid").write_text(f"{os.getpid()} {'torch' in sys.modules}")
"""


def test_trainings_that_a_queue_forks_are_seen_each_by_itself(tmp_path):
    """The queue goes on in the warm process, which has torch; its two trainings are two recordings of three steps."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "forking.py").write_text(FORKING)
    (root / "queue_here.py").write_text(QUEUE_HERE)
    (tmp_path / "pad" / "case").mkdir(parents=True)  # what is written elsewhere is undone
    pad = Launchpad(root, tmp_path / "pad", [str(root)], 30.0)
    queue = TrainingQueue(Guard(pad.subject("Forking", "forking:Forking"), tmp_path / "pad" / "case"))
    try:
        fresh = queue.fresh()
        for file in queue.files(2):
            fresh.files.drop(file)
        turn = fresh.turn("dropped in two files", files=2)
        assert turn.outcome.exit == 0, turn.outcome.output
        assert [len(training.steps) for training in turn.trainings] == [3, 3]
        pid, has_torch = (fresh.root / "pid").read_text().split()
        assert pid not in {str(training.pid) for training in turn.trainings}
        assert has_torch == "True"
        for file in queue.files(2):
            fresh.files.drop(file)
        fault = faults.raises(RuntimeError, "forward", 2, "on purpose")
        failing = fresh.turn("had each training fail in its second step", files=2, fault=fault)
        assert [(len(training.steps), training.fault_fired) for training in failing.trainings] == [(1, True)] * 2
    finally:
        pad.close()
