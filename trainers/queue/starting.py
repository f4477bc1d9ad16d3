"""How a trainer is started under its keeper: here as a program of its own; `trainers.queue.warm` has the other way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from trainers.queue import keeper

ENVIRONMENT = {"PYTHONFAULTHANDLER": "1", "PYTHONUNBUFFERED": "1"}
"""What every trainer has in its environment: a hanging one writes its stack, and what it prints is there at once."""


class Keeper(Protocol):
    """A keeper that runs, first of a process group, with its trainer in it.

    Attributes:
        pid: its own, and the group's.
    """

    pid: int

    def wait(self, seconds: float | None) -> bool:
        """Whether it ends in so many seconds; None: however long that takes."""

    def close(self) -> None:
        """Give back what it holds here; it has ended."""


Start = Callable[[Path, list[str], int, int], Keeper]
"""Start a trainer: the attempt's folder, its words, and the descriptors of its lock and of its output."""


class ProgramKeeper:
    """A keeper that is a program, started anew with its trainer."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        """``process``: reads from a pipe of which nobody but us has the other end."""
        self.pid = process.pid
        self._process = process

    def wait(self, seconds: float | None) -> bool:
        """Whether it ends in so many seconds."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def close(self) -> None:
        """Close the pipe."""
        if self._process.stdin is not None:
            self._process.stdin.close()


def start_program(folder: Path, words: list[str], lock: int, output: int) -> Keeper:
    """Start a trainer and its keeper as programs.

    Raises:
        OSError: there are no resources for a new process.
    """
    process = subprocess.Popen(
        [sys.executable, "-I", keeper.__file__, os.fspath(folder), *words],
        stdin=subprocess.PIPE, stdout=output, stderr=output, pass_fds=[lock],
        start_new_session=True, env={**os.environ, **ENVIRONMENT},
    )  # fmt: skip
    return ProgramKeeper(process)
