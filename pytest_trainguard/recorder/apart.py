"""Inside a run: something is tried in a copy of the process, and the run itself goes on as if it had not been."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch

SECONDS = 20.0  # that a copy may take: a lock that another thread held is held in it for ever


def try_apart(work: Callable[[], object]) -> Any:
    """What `work` returns (as JSON holds it) in a forked copy of this process; None where it raises or takes too long.

    What it reads, draws and changes in memory is gone with the copy. It has one thread, as a worker of torch's data
    loader has, and what it prints is lost.
    """
    reading, writing = os.pipe()
    try:
        pid = _fork_quietly()
    except OSError:  # there is a limit on processes
        os.close(reading)
        os.close(writing)
        return None
    if not pid:
        _answer(work, writing)
    os.close(writing)
    answer = b""
    try:
        answer = _read_all(reading)
    finally:
        os.close(reading)
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # a program may wait for any child
            os.waitpid(pid, 0)
    with contextlib.suppress(ValueError):
        return json.loads(answer)
    return None


def _fork_quietly() -> int:
    """Fork, without the warning that there are threads.

    `catch_warnings` would have each warning that the program was given come once more.
    """
    quiet = ("ignore", None, Warning, None, 0)
    warnings.filters.insert(0, quiet)  # type: ignore[attr-defined]
    try:
        return os.fork()
    finally:
        warnings.filters.remove(quiet)  # type: ignore[attr-defined]


def _answer(work: Callable[[], object], pipe: int) -> None:
    """The copy's whole life: whatever happens, it ends here, and none of the program's own endings are gone through."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        sys.stdout = sys.stderr = open(nowhere, "w")  # noqa: SIM115 (a program may have put files of its own there)
        torch.set_num_threads(1)
        left = json.dumps(work()).encode()
        while left:
            left = left[os.write(pipe, left) :]
    finally:
        os._exit(0)


def _read_all(pipe: int) -> bytes:
    until, read = time.monotonic() + SECONDS, b""
    while select.select([pipe], [], [], max(until - time.monotonic(), 0))[0]:
        part = os.read(pipe, 1 << 16)
        if not part:
            return read
        read += part
    return b""
