"""A process beside a run: its locks, and a PID that is another's."""

import fcntl
import os

import pytest

from pytest_trainguard.casework.bystander import reassign_pid, start_bystander


def test_a_bystander_lives_and_holds_its_locks(tmp_path):
    file = tmp_path / "held"
    file.write_text("x")
    with start_bystander(file) as pid, file.open("r+b") as ours:
        os.kill(pid, 0)
        for lock in (fcntl.flock, fcntl.lockf):
            with pytest.raises(BlockingIOError):
                lock(ours, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with file.open("r+b") as ours:
        fcntl.flock(ours, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_pid_is_given_away_in_notes_alone(tmp_path):
    notes = {"lock": b"41\n", "run.json": b'{"pid": 41, "launcher": 40, "step": 410}', "state.pt": b"41\0"}
    for name, content in notes.items():
        (tmp_path / name).write_bytes(content)
    reassign_pid(tmp_path, (41, 40), 7)
    assert {name: (tmp_path / name).read_bytes() for name in notes} == {
        "lock": b"7\n",
        "run.json": b'{"pid": 7, "launcher": 7, "step": 410}',
        "state.pt": b"41\0",
    }
