"""A run in progress, and what comes of it."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.faults import Fault
from pytest_trainguard.launch.client import LaunchError, Running
from pytest_trainguard.launch.stacks import STACK_FILE
from pytest_trainguard.recorder.timeline import Recording
from pytest_trainguard.subject import room
from pytest_trainguard.subject.snapshot import snapshot
from pytest_trainguard.verdicts.errors import CannotJudge


class StartedRun:
    """A run in progress: `pid`, `signal`, and its `outcome` at the end.

    Attributes:
        did: what is done to it, in words.
        folder: where its recording goes.
        output_dir: the folder that it writes to.
        pid: its main process.
    """

    def __init__(
        self,
        running: Running,
        did: str,
        folder: Path,
        output_dir: Path,
        before: dict[str, tuple[int, str]] | None = None,
        logs: tuple[str, ...] = (),
        small_disk: bool = False,
        fault: Fault | None = None,
    ):
        """`before`: what `output_dir` held ahead of the start; None where the caller looks at it by itself.

        `logs`: see `Outcome`. `small_disk`: it was given a disk to be filled. `fault`: what goes wrong in it.
        """
        self._deadly = fault is not None and fault.kind == "signal"
        self._small_disk, self._kills, self._killed = small_disk, room.count_oom_kills(), False
        self._logs = logs
        self._running, self.did, self.folder = running, did, folder
        self.output_dir, self._before = output_dir, before
        self.pid = running.pid

    def signal(self, signum: int, *, group: bool = False) -> None:
        """Send the run a real signal; with `group`, its whole process group."""
        self._killed = True
        self._running.signal(signum, group=group)

    def kill(self) -> None:
        """End the run and all that it started, where its outcome is of no interest."""
        self._running.kill()

    @property
    def recording(self) -> Recording:
        """What it recorded so far."""
        return Recording.read(self.folder)

    @property
    def pids(self) -> tuple[int, ...]:
        """As `Outcome.pids`, so far."""
        return tuple(dict.fromkeys(pid for pid in (self.recording.pid, self.pid) if pid is not None))

    def outcome(self) -> Outcome:
        """Wait for the end.

        Raises:
            CannotJudge: the run could not be followed to its end, or the harness ran out of space or memory.
        """
        try:
            ended = self._running.wait()
        except LaunchError as error:
            short = self._find_shortage(-signal.SIGKILL, str(error))
            raise CannotJudge(short or str(error), str(error) if short else "") from error
        ended_at, recording = time.time(), self.recording
        self._killed |= ended.timed_out or (self._deadly and recording.fault_fired)
        short = self._find_shortage(ended.exit, ended.output)
        if short:
            raise CannotJudge(short)
        return Outcome(
            did=self.did,
            exit=ended.exit,
            output=ended.output,
            output_bytes=ended.output_bytes,
            recording=recording,
            output_dir=self.output_dir,
            before=self._before or {},
            after={} if self._before is None else snapshot(self.output_dir),
            seconds=ended.seconds,
            peak_rss=ended.peak_rss,
            leftovers=ended.leftovers,
            timed_out=ended.timed_out,
            stack=_read_stack(self.folder / STACK_FILE),
            pid=ended.pid,
            small_disk=ended.small_disk,
            logs=self._logs,
            elsewhere=ended.elsewhere,
            idle=max(0.0, ended_at - recording.steps[-1].time) if recording.steps else 0.0,
        )

    def _find_shortage(self, exit: int, output: str) -> str | None:
        return room.find_shortage(
            self.folder, exit, output, self._kills, small_disk=self._small_disk, killed=self._killed
        )


def _read_stack(file: Path) -> str:
    """The stacks in a file without the harness's own frames; nothing where there is no file."""
    lines = file.read_text(errors="replace").splitlines() if file.exists() else []
    return "\n".join(line for line in lines if "/pytest_trainguard/" not in line and "<frozen" not in line)
