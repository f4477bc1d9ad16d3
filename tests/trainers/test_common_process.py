from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from trainer_runs import left_behind

from trainers.code import learner
from trainers.common import checkpoint, process
from trainers.common.errors import InputError, TrainingFailed
from trainers.common.lock import LOCK_NAME, RunLock

Program = Callable[..., "subprocess.Popen[str]"]


def wait_for(what: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ended(run: subprocess.Popen[str], seconds: float = 60) -> tuple[int, str]:
    text = run.communicate(timeout=seconds)[1]
    return run.returncode, text


def all_gone(children: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(children, timeout=8)[1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_run_after_a_checkpoint(
    program: Program, start: Callable[..., int], out: Path, number: int, code: int
) -> None:
    run = program(max_steps=100_000, save_every=100_000, num_workers=2 if code == 143 else 0, log_every=1000)
    wait_for(lambda: (out / "training_metadata.json").exists())
    time.sleep(0.5)
    children = psutil.Process(run.pid).children(recursive=True)
    os.killpg(run.pid, number)  # to the workers too, as Ctrl-C does
    returned, text = ended(run)
    assert returned == code, text
    assert "Traceback" not in text
    ((_, saved),) = checkpoint.numbered(out)
    checkpoint.verify(saved)
    assert all_gone(children)
    assert not left_behind(out)


def test_killed_and_started_again(program: Program, start: Callable[..., int], out: Path) -> None:
    run = program(max_steps=100_000, num_workers=2)
    wait_for(lambda: checkpoint.numbered(out))
    children = psutil.Process(run.pid).children(recursive=True)
    run.kill()
    returned, _ = ended(run)
    assert returned == -signal.SIGKILL
    assert (out / LOCK_NAME).exists()
    assert all_gone(children)
    done = checkpoint.numbered(out)[0][0]
    assert start(resume_from=out, max_steps=done + 2) == 0
    assert checkpoint.numbered(out)[0][0] == done + 2
    assert not left_behind(out)


def test_a_hang_is_ended_with_its_stack(program: Program, out: Path) -> None:
    before = (
        "import time\nfrom trainers.code import learner\ntaken = learner.Learner.step\n"
        "def stuck_here(self, run, number, *rest):\n"
        "    return taken(self, run, number, *rest) if number < 4 else time.sleep(600)\n"
        "learner.Learner.step = stuck_here"
    )
    begun = time.monotonic()
    returned, text = ended(program(before, hang_timeout=1.0, max_steps=6, num_workers=1))
    assert returned == 1
    assert time.monotonic() - begun < 30
    assert "took longer than hang_timeout = 1 seconds" in text
    assert "stuck_here" in text
    checkpoint.verify(checkpoint.numbered(out)[0][1])
    assert not left_behind(out)


def test_a_hang_that_holds_the_interpreter_is_ended_too(program: Program) -> None:
    before = (
        "import ctypes\nfrom trainers.code import learner\nfrom trainers.common import process\n"
        "process.BACKSTOP_SECONDS = 0.5\n"
        "def stuck_here(self, run, number, *rest):\n    ctypes.PyDLL(None).sleep(600)\n"
        "learner.Learner.step = stuck_here"
    )
    returned, text = ended(program(before, hang_timeout=1.0, max_steps=6))
    assert returned == 1
    assert "stuck_here" in text


ERRORS = [UnboundLocalError, NameError, AttributeError, KeyError, IndexError, TypeError, ValueError]
ERRORS += [ZeroDivisionError, RecursionError, MemoryError]


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("place", ["loader", "forward", "optimizer", "save"])
def test_any_exception_ends_the_run_in_order(
    start: Callable[..., int],
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: type[Exception],
    place: str,
) -> None:
    import torch

    from trainers.code import roberta

    calls = []

    def third(original: Callable) -> Callable:
        def failing(*arguments: object, **named: object) -> object:
            calls.append(1)
            if len(calls) == 3:
                raise kind("made on purpose")
            return original(*arguments, **named)

        return failing

    targets = {
        "loader": (roberta.Collate, "__call__"),
        "forward": (learner.Learner, "losses"),
        "optimizer": (torch.optim.AdamW, "step"),
        "save": (checkpoint, "_write_training"),
    }
    owner, name = targets[place]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, third(getattr(owner, name)))
        assert start() == 1
    text = capsys.readouterr().err
    assert "Traceback" in text
    assert kind.__name__ in text
    assert "made on purpose" in text
    newest = 4 if place == "save" else 2
    assert checkpoint.verify(checkpoint.numbered(out)[0][1]).step == newest
    assert not left_behind(out)
    assert start(resume_from=out) == 0


@pytest.mark.parametrize("stage", ["forward", "backward", "optimizer", "batch", "model"])
def test_out_of_gpu_memory_is_one_line(
    start: Callable[..., int],
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stage: str,
) -> None:
    import torch
    from transformers import RobertaForSequenceClassification

    from trainers.code import roberta

    def full(*arguments: object, **named: object) -> None:
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 4.00 GiB "
            "of which 1.25 GiB is free."
        )

    owner, name, words = {
        "forward": (learner.Learner, "losses", "step 1, forward"),
        "backward": (torch.Tensor, "backward", "step 1, backward"),
        "optimizer": (torch.optim.AdamW, "step", "step 1, optimizer"),
        "batch": (roberta.Collate, "__call__", "step 1, preparing the batch"),
        "model": (RobertaForSequenceClassification, "to", "moving the model to cpu"),
    }[stage]
    monkeypatch.setattr(owner, name, full)
    assert start() == 1
    text = capsys.readouterr().err
    assert text.splitlines()[-1].endswith(f"out of GPU memory in {words}: needed 2.00 GiB, available 1.25 GiB")
    assert "Traceback" not in text
    assert not left_behind(out)
    assert out.exists() == (stage != "model")


def test_a_second_start_is_rejected_naming_the_first(
    start: Callable[..., int], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunLock(out):
        (out / "mine").write_text("x")
        assert (out / LOCK_NAME).read_text() == f"{os.getpid()}\n"
        assert start() == 2
        assert f"output folder {out}: the process with PID {os.getpid()} is running in it" in capsys.readouterr().err
        assert sorted(path.name for path in out.iterdir()) == ["mine", LOCK_NAME]
    assert not left_behind(out)


@pytest.mark.parametrize("text", ["1\n", "999999999\n", "", "no pid"])
def test_a_stale_lock_is_taken_over(start: Callable[..., int], out: Path, text: str) -> None:
    out.mkdir()
    (out / LOCK_NAME).write_text(text)  # PID 1 lives, but it does not hold the lock
    assert start(max_steps=1) == 0
    assert not left_behind(out)


def test_an_output_folder_that_cannot_be(
    start: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("x" * 300), tmp_path / "a\0b"):
        assert start(output_dir=folder) == 2
        assert "output folder " in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_every_ending_has_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    def raising(error: BaseException) -> int:
        def body(run: process.Run) -> None:
            raise error

        return process.supervise("p", body)

    assert process.supervise("p", lambda run: None) == 0
    assert raising(InputError("one", "two")) == 2
    assert raising(TrainingFailed("why")) == 1
    assert raising(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err.splitlines() == ["p: one", "p: two", "p: why", "p: ended by SIGINT"]
    assert raising(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes")) == 1
    assert capsys.readouterr().err == "p: out of host memory in start: needed 64 bytes\n"
    with pytest.raises(SystemExit):
        raising(SystemExit(3))
