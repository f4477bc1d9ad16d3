"""What people put in, and what happens to it there: nothing is lost, nothing is trained twice."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from queue_runs import Queue, assert_sound, line, wait_for

from trainers.common import files
from trainers.queue.entries import Settling, ends_whole, open_for_writing
from trainers.queue.layout import move_new

NAMES = [
    "two  words .jsonl",
    'it\'s "quoted".jsonl',
    "two\nlines\r.jsonl",
    "-dash.jsonl",
    "--data.jsonl",
    "rocket🚀.jsonl",
    "e\u0301 and \u202eright to left.jsonl",
    "\x1b[31mred\x07.jsonl",
    "{data} {settings} %s $(true) `true` ; *.jsonl",
    os.fsdecode(b"no utf-8 \xff\xfe.jsonl"),
    "'); DROP TABLE files; --.jsonl",
    "UPPER.JSONL",
    "n" * 249 + ".jsonl",
]


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path / "queue")


def test_any_name_is_trained_and_shown(queue: Queue, capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(NAMES):
        queue.put("inbox", name, content=line(id=number, steps=1))
    assert queue("once") == 0
    assert sorted(queue.begun()) == list(range(len(NAMES)))
    assert queue.tree() == {"done": sorted(NAMES)}
    assert_sound(queue, NAMES)
    assert all(file["state"] == "done" for file in queue.told()["files"])
    capsys.readouterr()
    for words in (["status"], ["list"]):
        assert queue(*words) == 0
    out, err = capsys.readouterr()
    assert out.isascii() or "rocket🚀" in out
    assert not {character for character in out + err if not character.isprintable()} - {"\n"}
    assert "\\x1b[31mred\\x07.jsonl" in out
    assert queue("retry", "--", "-dash.jsonl") == 2
    assert "-dash.jsonl: is done, not failed" in capsys.readouterr().err


def test_what_is_no_training_file_is_rejected_by_name(queue: Queue, tmp_path: Path) -> None:
    target = tmp_path / "outside.jsonl"
    target.write_bytes(line(id="outside"))
    inbox = queue.put("inbox", "good.jsonl").parent
    (inbox / "loop.jsonl").symlink_to(inbox / "loop.jsonl")
    (inbox / "parent").symlink_to(inbox.parent)
    (inbox / "link.jsonl").symlink_to(target)
    (inbox / "folder.jsonl").mkdir()
    (inbox / "folder.jsonl" / "within.jsonl").write_bytes(line(id="within"))
    os.mkfifo(inbox / "pipe.jsonl")
    (inbox / "none").write_bytes(b"x")
    (queue.root / "high" / "picture.png").write_bytes(b"\x89PNG\0")
    assert queue("once") == 0
    reasons = {file["name"]: file["reason"] for file in queue.told()["files"] if file["state"] == "rejected"}
    assert reasons.keys() == {"loop.jsonl", "parent", "link.jsonl", "folder.jsonl", "pipe.jsonl", "none", "picture.png"}
    assert all("symbolic link" in reasons[name] for name in ("loop.jsonl", "parent", "link.jsonl"))
    assert reasons["folder.jsonl"] == "a folder, not a file"
    assert reasons["pipe.jsonl"] == "a pipe, not a file"
    assert reasons["none"] == "no suffix: a training file's name ends in .jsonl"
    assert reasons["picture.png"] == "suffix '.png': a training file's name ends in .jsonl"
    assert queue.begun() == ["good.jsonl"]
    assert target.exists()
    assert (queue.root / "failed" / "folder.jsonl" / "within.jsonl").exists()
    assert_sound(queue, ["good.jsonl", *reasons])
    assert {event["file"] for event in queue.events("rejected")} == reasons.keys()


@pytest.mark.parametrize(("content", "says"), [
    (b"", "bad.jsonl: empty, no rows"),
    (b"\n \n", "bad.jsonl: empty, no rows"),
    (line(id=1) + b'{"id": 2, \n' + line(id=3), "bad.jsonl, line 2: bad JSON at column"),
    (line(id=1) + b'{"id": "cu', "(the last line is cut short?)"),
    (line(id=1) + b"[1]\n", "bad.jsonl, line 2: a row must be an object, not [1] (array)"),
    (b'{"id": "\xff"}\n', "bad.jsonl, line 1: not UTF-8 at column 9"),
])  # fmt: skip
def test_a_bad_file_fails_before_its_trainer_is_started(queue: Queue, content: bytes, says: str) -> None:
    queue.put("inbox", "bad.jsonl", content)
    queue.put("inbox", "good.jsonl")
    assert queue("once") == 0
    assert queue.begun() == ["good.jsonl"]
    assert says in queue.file("bad.jsonl")["reason"]
    assert queue.tree() == {"done": ["good.jsonl"], "failed": ["bad.jsonl"]}
    assert queue.file("bad.jsonl")["attempts"] == 0


# ---- the same content, the same name


def test_equal_content_is_trained_once(queue: Queue) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        queue.put("inbox", name, line(id="same"))
    queue.put("low", "c.jsonl", line(id="same"))
    assert queue("once") == 0
    queue.put("inbox", "a.jsonl", line(id="same"))
    assert queue("once") == 0
    assert queue.begun() == ["same"]
    states = [(file["name"], file["state"]) for file in queue.told()["files"]]
    assert states == [(name, state) for name, state in [
        ("a.jsonl", "done"), ("b.jsonl", "duplicate"), ("c.jsonl", "duplicate"), ("a.jsonl", "duplicate"),
    ]]  # fmt: skip
    (again,) = [file for file in queue.told()["files"] if file["file"] not in ("a.jsonl", "b.jsonl", "c.jsonl")]
    assert again["file"] == f"a~{again['hash'][:8]}.jsonl"
    assert again["reason"] == "same content as a.jsonl, which was trained already"
    assert len(list((queue.root / "runs").iterdir())) == 1


def test_one_name_for_two_contents(queue: Queue) -> None:
    queue.put("inbox", "a.jsonl", line(id=1))
    assert queue("once") == 0
    queue.put("inbox", "a.jsonl", line(id=2))
    queue.put("high", "a.jsonl", line(id=3))
    assert queue("once") == 0
    assert sorted(queue.begun()) == [1, 2, 3]
    assert [file["name"] for file in queue.told()["files"]] == ["a.jsonl"] * 3
    assert len({file["run"] for file in queue.told()["files"]}) == 3
    found = {path.name: path.read_bytes() for path in (queue.root / "done").iterdir()}
    assert set(found.values()) == {line(id=1), line(id=2), line(id=3)}
    assert found["a.jsonl"] == line(id=1)


def test_content_that_failed_waits_for_retry_under_any_name(queue: Queue) -> None:
    queue.put("inbox", "a.jsonl", line(id=1, do="bad_input"))
    assert queue("once") == 0
    queue.put("inbox", "b.jsonl", line(id=1, do="bad_input"))
    assert queue("once") == 0
    assert queue.begun() == [1]
    assert queue.states() == {"a.jsonl": "failed", "b.jsonl": "duplicate"}
    assert queue.file("b.jsonl")["reason"].endswith("retry tries it again")
    assert queue.tree() == {"failed": ["a.jsonl", "b.jsonl"]}


# ---- files that come and go


def test_a_file_removed_while_it_waits_is_missing_and_may_come_back(queue: Queue) -> None:
    queue("pause")
    for name in ("a.jsonl", "b.jsonl"):
        queue.put("inbox", name)
    assert queue("pause") == 0
    assert queue("once") == 0
    content = (queue.root / "normal" / "a.jsonl").read_bytes()
    (queue.root / "normal" / "a.jsonl").unlink()
    assert queue("resume") == 0
    assert queue("once") == 0
    assert queue.states() == {"a.jsonl": "missing", "b.jsonl": "done"}
    assert queue.file("a.jsonl")["reason"] == "removed from normal/ while it waited"
    queue.put("inbox", "a.jsonl", content)
    assert queue("once") == 0
    assert queue.states() == {"a.jsonl": "done", "b.jsonl": "done"}


def test_a_place_that_was_emptied_by_hand_is_taken_by_another_file(queue: Queue, tmp_path: Path) -> None:
    queue.settings(max_attempts=1)
    queue.put("inbox", "a.jsonl", line(id=1))
    queue.put("inbox", "b.jsonl", line(id=2))
    queue.put("inbox", "f.jsonl", line(id=3, do="failed"))
    assert queue("once") == 0
    (queue.root / "done" / "a.jsonl").unlink()
    (queue.root / "failed" / "f.jsonl").unlink()
    for name in ("a.jsonl", "f.jsonl"):  # both of the content of b: duplicates, which go where those were
        (tmp_path / name).write_bytes(line(id=2))
    assert queue("add", tmp_path / "a.jsonl") == 0
    (queue.root / "failed" / "f.jsonl").write_bytes(line(id=2))
    assert queue("once") == 0
    assert queue.tree() == {"done": ["a.jsonl", "b.jsonl"], "failed": ["f.jsonl"]}
    found = [(file["name"], file["state"], file["folder"]) for file in queue.told()["files"]]
    assert ("a.jsonl", "done", None) in found
    assert ("a.jsonl", "duplicate", "done") in found
    assert queue("retry") == 0
    assert queue("once") == 0
    assert sorted(queue.begun()) == [1, 2, 3]


def test_a_file_that_cannot_be_read_now_waits(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: Path) -> str:
        raise OSError(5, "Input/output error")

    queue.put("inbox", "a.jsonl")
    with monkeypatch.context() as broken:
        broken.setattr(files, "sha256", fails)
        assert queue("once") == 0
    assert queue.tree() == {"inbox": ["a.jsonl"]}
    assert "left in inbox/: cannot be read: Input/output error" in queue.events("left")[0]["message"]
    assert queue("once") == 0
    assert queue.tree() == {"done": ["a.jsonl"]}


MOVES = {
    "away": lambda root, path: path.rename(root.parent / "away.jsonl"),
    "back": lambda root, path: path.rename(root / "inbox" / "again.jsonl"),
    "renamed": lambda root, path: path.rename(path.with_name("renamed.jsonl")),
    "removed": lambda root, path: path.unlink(),
}


@pytest.mark.parametrize("do", [None, "failed"])
@pytest.mark.parametrize("move", MOVES)
def test_a_file_moved_while_it_is_trained(queue: Queue, move: str, do: str | None) -> None:
    queue.settings(max_attempts=1)
    queue.put("inbox", "a.jsonl", steps=3, seconds=0.1, do=do, at=3, tries=1)
    queue.put("inbox", "b.jsonl")
    process = queue.start("once")
    wait_for(lambda: list(queue.root.glob("runs/*/checkpoint-1")))
    MOVES[move](queue.root, queue.root / "processing" / "a.jsonl")
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    assert queue("once") == 0
    states, there = queue.states(), move in ("back", "renamed")
    assert states.pop("b.jsonl") == "done"
    (state,) = states.values()
    assert state == ("done" if do is None or there else "missing")  # put in again, a failed file is tried again
    assert max(queue.trained().values()) == 1
    assert queue.begun().count("a.jsonl") == (2 if do and there else 1)
    assert queue.everywhere() == sorted(["b.jsonl"] + (["again.jsonl" if move == "back" else "renamed.jsonl"] * there))


def test_moved_by_hand_between_priorities_and_out_of_failed(queue: Queue) -> None:
    queue.put("inbox", "a.jsonl", do="failed", tries=1)
    queue.settings(max_attempts=1)
    assert queue("once") == 0
    assert queue.states() == {"a.jsonl": "failed"}
    queue("pause")
    (queue.root / "failed" / "a.jsonl").rename(queue.root / "low" / "a.jsonl")
    assert queue("once") == 0
    assert (queue.file("a.jsonl")["state"], queue.file("a.jsonl")["priority"]) == ("queued", "low")
    (queue.root / "low" / "a.jsonl").rename(queue.root / "high" / "a.jsonl")
    assert queue("once") == 0
    assert (queue.file("a.jsonl")["state"], queue.file("a.jsonl")["priority"]) == ("queued", "high")
    queue("resume")
    assert queue("once") == 0
    assert queue.states() == {"a.jsonl": "done"}
    (queue.root / "done" / "a.jsonl").rename(queue.root / "inbox" / "a.jsonl")
    assert queue("once") == 0
    assert queue.tree() == {"done": ["a.jsonl"]}
    assert queue.begun() == ["a.jsonl"] * 2


def test_content_that_changes_while_it_waits_is_another_file(queue: Queue) -> None:
    queue("pause")
    queue.put("inbox", "a.jsonl", line(id=1))
    queue.put("inbox", "b.jsonl", line(id=2))
    (queue.root / "paused").touch()
    assert queue("once") == 0
    (queue.root / "normal" / "a.jsonl").write_bytes(line(id=3))
    (queue.root / "normal" / "b.jsonl").write_bytes(line(id=3))
    assert queue("resume") == 0
    assert queue("once") == 0
    assert queue.begun() == [3]
    assert queue.states() == {"a.jsonl": "done", "b.jsonl": "duplicate"}
    assert queue.everywhere() == ["a.jsonl", "b.jsonl"]


# ---- files that are being written


def test_a_file_that_somebody_writes_is_left_until_it_is_closed(queue: Queue) -> None:
    with open(queue.put("inbox", "open.jsonl"), "ab") as file:
        if not supports_leases(Path(file.name)):
            pytest.skip("this file system knows no leases")
        (queue.root / "inbox" / ".hidden.jsonl").write_bytes(line(id="hidden"))
        (queue.root / "inbox" / "copy.jsonl.part").write_bytes(line(id="part"))
        assert queue("once") == 0
        assert queue.tree() == {"inbox": [".hidden.jsonl", "copy.jsonl.part", "open.jsonl"]}
        assert queue.told()["counts"]["inbox"] == 3
        (left,) = [event for event in queue.events("left") if "open.jsonl" in event["message"]]
        assert left["message"] == "open.jsonl: left in inbox/: a process has it open for writing"
    (queue.root / "inbox" / "copy.jsonl.part").rename(queue.root / "inbox" / "copy.jsonl")
    assert queue("once") == 0
    assert queue.tree() == {"inbox": [".hidden.jsonl"], "done": ["copy.jsonl", "open.jsonl"]}


def supports_leases(path: Path) -> bool:
    return sys.platform == "linux" and open_for_writing(path)


def test_open_for_writing_is_seen_from_another_process(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(line(id=1))
    code = f"file = open({str(path)!r}, 'ab'); print('open', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"open\n"
        seen = open_for_writing(path)
        process.communicate(b"\n")
    with open(path, "ab") as file:
        expected = supports_leases(path)
        assert not fcntl.flock(file, fcntl.LOCK_EX)
    assert seen is expected
    assert not open_for_writing(path)


def test_settled_by_age_or_by_being_watched(tmp_path: Path) -> None:
    path, now, ticks = tmp_path / "a.jsonl", [1000.0], [0.0]
    settling = Settling(2.0, 10.0, clock=lambda: now[0], monotonic=lambda: ticks[0])
    path.write_bytes(line(id=1))
    os.utime(path, (997, 997))
    assert settling.waits(path) is None
    os.utime(path, (999, 999))
    assert settling.waits(path) == "changed less than 2 seconds ago"
    now[0] = 1001.5
    assert settling.waits(path) is None
    os.utime(path, (5000, 5000))  # the future: of no use
    assert settling.waits(path) == "changed less than 2 seconds ago"
    ticks[0] = 1.9
    assert settling.waits(path) is not None
    ticks[0] = 2.1
    assert settling.waits(path) is None
    path.write_bytes(line(id=1) + b'{"id": ')
    os.utime(path, (996, 996))
    assert settling.waits(path) == "its last line is not finished"
    now[0] = 1006.5
    assert settling.waits(path) is None


@pytest.mark.parametrize(("content", "whole"), [
    (b"", True), (b"{}\n", True), (b"{}", True), (b'{}\n{"a": 1}', True), (b'{}\n{"a"', False), (b"\xff", False),
])  # fmt: skip
def test_ends_whole(tmp_path: Path, content: bytes, whole: bool) -> None:
    (tmp_path / "a").write_bytes(content)
    assert ends_whole(tmp_path / "a") is whole


def test_a_move_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    names = []
    for number in range(3):
        (tmp_path / "a.jsonl").write_text(str(number))
        names.append(move_new(tmp_path / "a.jsonl", tmp_path / "to", "a.jsonl", "abcdef0123"))
    assert names == ["a.jsonl", "a~abcdef01.jsonl", "a~abcdef01~2.jsonl"]
    assert [(tmp_path / "to" / name).read_text() for name in names] == ["0", "1", "2"]
    long = "é" * 124 + ".jsonl"
    (tmp_path / "to" / long).touch()
    (tmp_path / "b").write_text("b")
    assert len(os.fsencode(move_new(tmp_path / "b", tmp_path / "to", long, "abcdef0123"))) <= 255


# ---- the ledger


def scribbled(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("UPDATE files SET position = 'first', state = 7")
    connection.close()


def other_tables(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE files RENAME COLUMN reason TO because")
    connection.close()


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "lost": lambda path: path.unlink(),
    "emptied": lambda path: path.write_bytes(b""),
    "cut": cut,
    "overwritten": lambda path: path.write_bytes(b"not a ledger\n" * 500),
    "wrong types": scribbled,
    "other tables": other_tables,
    "zeros": lambda path: path.write_bytes(b"\0" * 8192),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_ledger_is_made_again_from_the_folders(queue: Queue, damage: str) -> None:
    queue.settings(max_attempts=1)
    queue.put("inbox", "done.jsonl")
    queue.put("inbox", "failed.jsonl", do="failed")
    queue.put("inbox", "foreign.txt", b"x")
    assert queue("once") == 0
    queue.put("high", "high.jsonl", steps=1)
    queue.put("inbox", "waits.jsonl", steps=1)
    (queue.root / "paused").touch()
    assert queue("once") == 0
    before = {file["name"]: file for file in queue.told()["files"]}
    DAMAGES[damage](queue.root / "ledger.sqlite")
    assert queue("status") == 0
    after = {file["name"]: file for file in queue.told()["files"]}
    assert after == before
    kept = list(queue.root.glob("ledger.sqlite.damaged-*"))
    assert len(kept) == (damage != "lost")
    assert [event["kept"] for event in queue.events() if event["event"] == "ledger_damaged"] == [k.name for k in kept]
    assert queue("resume") == 0
    assert queue("once") == 0
    assert sorted(queue.begun()) == ["done.jsonl", "failed.jsonl", "high.jsonl", "waits.jsonl"]
    assert_sound(queue, ["done.jsonl", "failed.jsonl", "foreign.txt", "high.jsonl", "waits.jsonl"])


def test_the_ledger_is_lost_while_the_queue_runs(queue: Queue) -> None:
    queue.put("inbox", "a.jsonl", steps=3, seconds=0.1)
    queue.put("inbox", "b.jsonl")
    process = queue.start("once")
    wait_for(lambda: list(queue.root.glob("runs/*/checkpoint-1")))
    for path in queue.root.glob("ledger.sqlite*"):
        path.unlink()
    assert process.communicate(timeout=60)[0] is not None
    assert process.returncode == 0
    assert queue("once") == 0
    assert queue.begun() == ["a.jsonl", "b.jsonl"]
    assert_sound(queue, ["a.jsonl", "b.jsonl"])


def test_damaged_reports_lose_nothing(queue: Queue) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        queue.put("inbox", name)
    assert queue("once") == 0
    for path, content in zip(queue.root.glob("reports/*/report.json"), [b"{", b'{"state": 3}'], strict=True):
        path.write_bytes(content)
    (queue.root / "ledger.sqlite").unlink()
    assert queue("once") == 0
    assert queue.begun() == ["a.jsonl", "b.jsonl"]
    assert queue.states() == {"a.jsonl": "done", "b.jsonl": "done"}


def test_a_trained_file_is_not_trained_again_after_ledger_and_file_were_removed(queue: Queue) -> None:
    queue.put("inbox", "a.jsonl")
    assert queue("once") == 0
    (queue.root / "done" / "a.jsonl").unlink()
    (queue.root / "ledger.sqlite").unlink()
    assert queue.states() == {"a.jsonl": "done"}
    queue.put("inbox", "a.jsonl")
    assert queue("once") == 0
    assert queue.begun() == ["a.jsonl"]
    assert queue.tree() == {"done": ["a.jsonl"]}
    assert json.loads(next(queue.root.glob("reports/*/report.json")).read_text())["state"] == "done"
