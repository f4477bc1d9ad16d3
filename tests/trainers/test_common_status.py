"""What a run tells whoever started it."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from trainers.common import files, status
from trainers.common.errors import InputError, Interrupted, TrainingFailed
from trainers.common.process import Run, Watchdog, supervise


def test_heartbeats_grow_with_each_stage(tmp_path: Path) -> None:
    told = status.Status(tmp_path / "new")
    run = Run("p")
    run.status = told
    run.stage = "reading"
    first = status.read_heartbeat(tmp_path / "new")
    told.step = 7
    run.stage = "step 8, forward"
    second = status.read_heartbeat(tmp_path / "new")
    assert first is not None
    assert second == status.Heartbeat(os.getpid(), 7, "step 8, forward", first.beat + 1)


def full(path: Path) -> TrainingFailed:
    with pytest.raises(TrainingFailed) as caught, files.saving(path, path):
        raise OSError(errno.ENOSPC, "No space left on device")
    return caught.value


@pytest.mark.parametrize(
    ("error", "exit", "kind", "says"),
    [
        (None, 0, "success", "finished"),
        (InputError("batch_size = 0", "no data"), 2, "bad_input", "batch_size = 0; no data"),
        (TrainingFailed("step 3: the loss is nan", "nan"), 1, "nan", "step 3: the loss is nan"),
        (full(Path("x")), 1, "disk_full", "cannot save x: No space left on device"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "disk_full", "No space"),
        (MemoryError(), 1, "out_of_memory", "out of host memory in here"),
        (Interrupted(15), 143, "interrupted", "SIGTERM"),
        (KeyError("x\ny"), 1, "failed", "failed in here: KeyError: 'x\\ny'"),
    ],
)
def test_the_outcome_says_how_a_run_ended(
    tmp_path: Path, error: Exception | None, exit: int, kind: str, says: str
) -> None:
    def body(run: Run) -> None:
        run.status = status.Status(tmp_path)
        run.status.step, run.stage = 3, "here"
        if error is not None:
            raise error

    assert supervise("p", body) == exit
    outcome = status.read_outcome(tmp_path)
    assert outcome is not None
    assert outcome[:2] + outcome[3:] == (exit, kind, 3)
    assert says in outcome.message
    assert "\n" not in outcome.message
    assert kind in status.KINDS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["heartbeat.json", "outcome.json"]


def test_a_hang_is_told_before_the_process_ends(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        run = Run("p")
        run.status = status.Status(tmp_path)
        run.stage = "step 4"
        with Watchdog(run, 0.05):
            os.read(os.pipe()[0], 1)  # nobody writes
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    outcome = status.read_outcome(tmp_path)
    assert outcome is not None
    assert (outcome.kind, outcome.message) == ("hang", "step 4 took longer than hang_timeout = 0.05 seconds")


def test_a_new_run_forgets_the_one_before(tmp_path: Path) -> None:
    status.Status(tmp_path).end(0, "success", "finished")
    status.Status(tmp_path)
    assert status.read_outcome(tmp_path) is None
    assert status.read_heartbeat(tmp_path) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"exit": 0}', "null", "[" * 100_000])
def test_what_is_no_outcome_reads_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / status.OUTCOME).write_text(content)
    assert status.read_outcome(tmp_path) is None


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"status folder .*file/below: "):
        status.Status(tmp_path / "file" / "below")


def test_a_heartbeat_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    told = status.Status(tmp_path / "gone")
    for path in (tmp_path / "gone").iterdir():
        path.unlink()
    (tmp_path / "gone").rmdir()
    told.beat("on")
    told.end(0, "success", "finished")
    assert not (tmp_path / "gone").exists()


def test_the_files_are_the_plain_json_that_is_promised(tmp_path: Path) -> None:
    told = status.Status(tmp_path)
    told.beat("start")
    told.end(0, "success", "finished")
    assert json.loads((tmp_path / "heartbeat.json").read_text()).keys() == {"pid", "step", "stage", "beat"}
    assert json.loads((tmp_path / "outcome.json").read_text()).keys() == {"exit", "kind", "message", "step"}
