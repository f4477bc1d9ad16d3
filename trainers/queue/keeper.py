"""Stands between the queue and one trainer, so that the trainer's end is noted even while the queue is killed.

It is a process of its own, first of a process group: started as a program (standard library only), or forked from the
warm server. It

- holds the lock that it was handed until it ends: who gets that lock knows that nothing of this attempt runs;
- ends the trainer when the queue is gone (its end of our stdin closes, however it ended);
- writes ``ended.json`` as soon as the trainer has ended: a success is a success, whoever is there to see it;
- ends whatever the trainer left running, and with it itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

ENDED, UNFINISHED = "ended.json", ".tmp-ended.json"
ROOM_BYTES = 4096
PASSED_BY = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGABRT)
"""Signals to the whole group: they are the trainer's to answer. (Ignoring them would be inherited.)"""


class Child(Protocol):
    """A trainer that was started, as `subprocess.Popen` has it."""

    def wait(self) -> int:
        """Its exit code, once it has ended; of signal n -n."""

    def kill(self) -> None:
        """End it now."""


def start_program(command: Sequence[str]) -> Child:
    """Start the trainer as a program of its own.

    Raises:
        OSError: there is no such program, or no room for a process.
    """
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=end_with_parent())


def keep(folder: str, start: Callable[[], Child]) -> None:
    """Start a trainer, wait for its end, and note in ``folder`` how it ended."""
    for number in PASSED_BY:
        signal.signal(number, lambda number, frame: None)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a hang is ended by SIGABRT: no core file of a GPU job
    orphaned = threading.Event()
    reserve(folder)
    try:
        child = start()
    except OSError as error:
        note(folder, {"exit": None, "orphaned": False, "message": f"cannot be started: {error.strerror}"})
        return
    threading.Thread(target=_watch, args=(child, orphaned), daemon=True).start()
    code = child.wait()
    note(folder, {"exit": code, "orphaned": orphaned.is_set()})


def _watch(child: Child, orphaned: threading.Event) -> None:
    """The queue never writes: reading ends when it is gone."""
    while os.read(0, 1):
        pass
    orphaned.set()
    child.kill()


def reserve(folder: str) -> None:
    """Room for `note` on the disk, so that a full one does not make a success unseen."""
    with open(os.path.join(folder, UNFINISHED), "wb") as file:
        file.write(b" " * ROOM_BYTES)
        file.flush()
        os.fsync(file.fileno())


def note(folder: str, content: dict[str, object]) -> None:
    """Write ``ended.json`` in one step and onto the disk, into the room that was reserved."""
    path = os.path.join(folder, UNFINISHED)
    with open(path, "r+b") as file:
        file.write(json.dumps(content).encode("ascii").ljust(ROOM_BYTES))
        file.flush()
        os.fsync(file.fileno())
    os.replace(path, os.path.join(folder, ENDED))
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def end_with_parent() -> Callable[[], None] | None:
    """For the trainer: on Linux the kernel kills it when its keeper is gone."""
    if sys.platform != "linux":
        return None
    library, pr_set_pdeathsig, parent = ctypes.CDLL(None), 1, os.getpid()

    def prepare() -> None:
        library.prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:  # gone before the call
            os._exit(1)

    return prepare


if __name__ == "__main__":
    try:
        keep(sys.argv[1], lambda: start_program(sys.argv[2:]))
    finally:
        os.killpg(0, signal.SIGKILL)
