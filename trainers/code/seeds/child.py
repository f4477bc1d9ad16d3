"""One seed's process: started, listened to, ended with all that it started."""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import math
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from trainers.common.errors import TrainingFailed, reason, show
from trainers.common.process import Run


class Ended(NamedTuple):
    """How a process ended: its exit code (128 + n where signal n killed it), and the last it said."""

    code: int
    last_line: str


def run_child(run: Run, command: Sequence[str], end_timeout: float) -> Ended:
    """Run a process to its end, its stderr passed through. Whatever happens, nothing of it is left running.

    Args:
        run: a signal that it receives (see `Run.deferred_signals`) is passed on to the process and its children,
            once; after a second Ctrl-C they are killed.
        command: program and arguments.
        end_timeout: seconds after the signal after which they are killed.

    Raises:
        TrainingFailed: it cannot be started.
    """
    deadline: float | None = None
    with _started(command) as (child, stderr):
        echo = _Echo(stderr)
        while child.poll() is None:
            echo.wait(0.1)
            if run.received is not None and deadline is None:
                deadline = time.monotonic() + end_timeout
                _signal_group(child, run.received)
            if deadline is not None and time.monotonic() > deadline:
                run.report(f"{run.stage} did not end in {end_timeout:g} seconds (end_timeout): killed")
                _signal_group(child, signal.SIGKILL)
                deadline = math.inf
        _signal_group(child, signal.SIGKILL)  # what it left running might go on talking
        while echo.wait(0):
            pass
    number = -child.returncode
    if number > 0:
        return Ended(128 + number, f"killed by signal {number} ({signal.strsignal(number)})")
    return Ended(child.returncode, echo.last_line())


class _Echo:
    """Passes on what a process says on stderr, and remembers the end of it."""

    def __init__(self, descriptor: int) -> None:
        self._open = [descriptor]
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._tail = b""

    def wait(self, seconds: float) -> bool:
        """Pass on one piece, if one comes in time; says whether one came."""
        for descriptor in select.select(self._open, [], [], seconds)[0]:
            try:
                piece = os.read(descriptor, 65_536)
            except OSError:  # so a terminal says that nobody holds its other end
                piece = b""
            if piece:
                self._tail = (self._tail + piece)[-8192:]
                sys.stderr.write(self._decoder.decode(piece))
                sys.stderr.flush()
                return True
            self._open = []
        return False

    def last_line(self) -> str:
        """The last line with text in it, without colours and cursor movements."""
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._tail.decode("utf-8", "replace"))
        lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
        return show(lines[-1])[:500] if lines else "it said nothing"


@contextlib.contextmanager
def _started(command: Sequence[str]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The process, in a session of its own so that Ctrl-C reaches it through the series; and its stderr."""
    stderr, inner = _channel()
    try:
        try:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stderr=inner, start_new_session=True, preexec_fn=_end_with_parent()
            )
        except OSError as error:
            raise TrainingFailed(f"cannot start {show(command[0])}: {reason(error)}") from None
        finally:
            os.close(inner)
        try:
            yield child, stderr
        finally:
            _signal_group(child, signal.SIGKILL)
            child.wait()
    finally:
        os.close(stderr)


def _channel() -> tuple[int, int]:
    """A pipe; on a terminal a second terminal of its size, so that progress bars are still drawn."""
    if not sys.stderr.isatty():
        return os.pipe()
    import fcntl
    import pty
    import termios

    outer, inner = pty.openpty()
    size = fcntl.ioctl(sys.stderr.fileno(), termios.TIOCGWINSZ, bytes(8))
    fcntl.ioctl(inner, termios.TIOCSWINSZ, size)
    modes = termios.tcgetattr(inner)
    modes[1] &= ~termios.OPOST  # the real terminal turns \n into \r\n
    termios.tcsetattr(inner, termios.TCSANOW, modes)
    return outer, inner


def _end_with_parent() -> Callable[[], None] | None:
    """For the new process: on Linux it gets SIGTERM when the series is gone, even by SIGKILL; so it saves."""
    if sys.platform != "linux":
        return None
    library, pr_set_pdeathsig, parent = ctypes.CDLL(None), 1, os.getpid()

    def prepare() -> None:
        library.prctl(pr_set_pdeathsig, signal.SIGTERM)
        if os.getppid() != parent:  # died before the call
            os._exit(1)

    return prepare


def _signal_group(child: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # none of them is left
        os.killpg(child.pid, number)
