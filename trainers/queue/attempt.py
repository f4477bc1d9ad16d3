"""One attempt: a trainer is started under a keeper, watched, and judged by what it left."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trainers.common import files, status
from trainers.common.errors import TrainingFailed, show
from trainers.common.process import EXIT_BAD_INPUT, EXIT_OK
from trainers.queue import keeper, reports
from trainers.queue.recovery import Ended
from trainers.queue.starting import Start

STACK_SECONDS = 3.0
"""How long a hanging trainer gets for writing its stack."""
ORPHAN_SECONDS = 60.0
"""How long the trainer of a killed queue gets for being gone: its keeper kills it at once."""
TAIL_BYTES = 8192
WORDS = {
    "out_of_memory": r"out of memory|OutOfMemoryError|\bMemoryError\b|Cannot allocate memory",
    "disk_full": r"No space left on device|Disk quota exceeded",
    "nan": r"\bnan\b.*\b(loss|gradient|weight)|\b(loss|gradient|weight)\w*\b.*\b(is|are|=)\s*(nan|not finite)",
}
"""What the last line of a trainer that leaves no outcome says of the kind of its end."""


class Child:
    """A trainer that runs, seen through its keeper."""

    def __init__(self, folder: Path, command: list[str], start: Start) -> None:
        """Start ``command`` in one of the ways that there are; ``folder``: the attempt's.

        Raises:
            OSError: there are no resources for a new process.
        """
        self._folder = folder
        self._last: object = None
        self._changed = time.monotonic()
        with open(folder / reports.LOCK, "wb") as lock, open(folder / reports.OUTPUT, "ab") as output:
            fcntl.flock(lock, fcntl.LOCK_EX)  # goes over to the keeper, and is free when that has ended
            self._keeper = start(folder, command, lock.fileno(), output.fileno())

    def ended(self) -> bool:
        """Whether the trainer has ended, and everything that it left running."""
        return self._keeper.wait(0)

    def signal(self, number: int) -> None:
        """Send a signal to the trainer and its children."""
        if not self.ended():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._keeper.pid, number)

    def silent_for(self) -> float:
        """Seconds since the last sign of life: a new heartbeat; from a trainer that has none, new output."""
        sign = status.read_heartbeat(self._folder) or _size(self._folder / reports.OUTPUT)
        if sign != self._last:
            self._last, self._changed = sign, time.monotonic()
        return time.monotonic() - self._changed

    def end_hanging(self) -> None:
        """Keep the stacks of all its threads in `reports.STACK`, then end it."""
        output = self._folder / reports.OUTPUT
        before = _size(output)
        self.signal(signal.SIGABRT)  # Python's fault handler, which is switched on, writes them
        self.wait(STACK_SECONDS)
        self.kill()
        with open(output, "rb") as file:
            file.seek(before)
            (self._folder / reports.STACK).write_bytes(file.read(1 << 20))

    def kill(self) -> None:
        """End it now."""
        self.signal(signal.SIGKILL)
        self._keeper.wait(None)

    def wait(self, seconds: float) -> bool:
        """Whether it ends in time."""
        return self._keeper.wait(seconds)

    def close(self) -> None:
        """Whatever happened: nothing of it is left running."""
        self.kill()
        self._keeper.close()


@contextlib.contextmanager
def running(folder: Path, command: list[str], start: Start) -> Iterator[Child]:
    """A trainer that does not outlive the block."""
    child = Child(folder, command, start)
    try:
        yield child
    finally:
        child.close()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def await_orphan(folder: Path, pause: Callable[[float], None] = time.sleep) -> bool:
    """Wait until nothing of a killed queue's attempt runs any more; False: it does not end."""
    with contextlib.suppress(FileNotFoundError), open(folder / reports.LOCK, "rb") as lock:
        deadline = time.monotonic() + ORPHAN_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() > deadline:
                    return False
            pause(0.02)
    return True


def require_ended(folder: Path) -> None:
    """Wait until nothing of a killed queue's attempt runs any more.

    Raises:
        TrainingFailed: it does not end (a process that waits for a device cannot be killed).
    """
    if not await_orphan(folder):
        message = f"the trainer of {show(folder)} was killed and does not end: nothing is started beside it"
        raise TrainingFailed(message)


# ---- judging


def judge(folder: Path, *, hung: str | None = None) -> Ended:
    """How an attempt ended.

    The trainer's own word counts; where it left none, its exit code; where nobody saw that, it is lost.

    Args:
        folder: the attempt's.
        hung: set where the queue itself ended it: why.
    """
    told, code, orphaned, message = status.read_outcome(folder), *_exit(folder)
    step = told.step if told else getattr(status.read_heartbeat(folder), "step", None)
    step = step if type(step) is int else None
    if told is not None and told.kind in status.KINDS and (hung is None or told.kind == "success"):
        return Ended(told.kind, one_line(str(told.message)), step, code if code is not None else told.exit)
    if hung is not None:
        return Ended("hang", hung, step, code)
    if code == EXIT_OK:
        return Ended("success", "exit code 0", step, code)
    if (code is None and message is None) or orphaned:
        return Ended("lost", "the queue was killed, and its trainer with it", step)
    kind, said = _from_exit(code, message or last_line(folder / reports.OUTPUT))
    return Ended(kind, said, step, code)


def _exit(folder: Path) -> tuple[int | None, bool, str | None]:
    """Exit code, whether the queue was gone, and why it could not be started; None where it is not known."""
    try:
        content = json.loads((folder / keeper.ENDED).read_bytes())
        code, orphaned, message = content["exit"], content["orphaned"], content.get("message")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None, False, None
    return code if type(code) is int else None, orphaned is True, None if message is None else str(message)


def _from_exit(code: int | None, said: str) -> tuple[str, str]:
    if code is None:
        return "failed", said
    if code < 0:
        name = next((known.name for known in signal.Signals if known == -code), f"signal {-code}")
        kind = "interrupted" if -code in (signal.SIGTERM, signal.SIGINT) else "failed"
        return kind, f"killed by {name}" + (" (out of host memory?)" if -code == signal.SIGKILL else "")
    if code in (128 + signal.SIGTERM, 128 + signal.SIGINT):
        return "interrupted", f"exit code {code}: {said}"
    if code == EXIT_BAD_INPUT:
        return "bad_input", f"exit code {code}: {said}"
    kind = next((kind for kind, words in WORDS.items() if re.search(words, said, re.IGNORECASE)), "failed")
    return kind, f"exit code {code}: {said}"


def last_line(path: Path) -> str:
    """The last line with text in it that a program printed, without colours and cursor movements."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, _size(path) - TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        text = ""
    lines = [line.strip() for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text))]
    return one_line(next((line for line in reversed(lines) if line), "it said nothing"))


def one_line(text: str) -> str:
    """Text as it may stand in the ledger and on a terminal."""
    return show(" ".join(text.split()))[:500] or "it said nothing"


def prepare(folder: Path, settings: dict[str, Any], start: dict[str, Any]) -> None:
    """Make an attempt's folder, with the trainer's settings in it.

    Raises:
        TrainingFailed: the disk is full or gone.
    """
    folder.mkdir(parents=True)
    files.write_text(folder / reports.SETTINGS, reports.dumped(settings))
    files.write_text(folder / reports.START, reports.dumped(start))
    files.sync_folder(folder.parent)
