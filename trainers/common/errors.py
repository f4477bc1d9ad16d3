"""The three ways in which a run ends early, each with its exit code.

::

    Exception
    ├── InputError       2           settings or data are not as they must be; nothing was trained
    ├── TrainingFailed   1           training had to stop; the checkpoints saved before are whole
    └── Interrupted      128 + n     signal n asked the run to end (143: SIGTERM, 130: SIGINT)

Every other exception is a defect of the program and ends the run with its traceback and exit code 1.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any


class InputError(Exception):
    """Settings, data or a checkpoint are not as they must be."""

    def __init__(self, *lines: str) -> None:
        """``lines``: one fault a line, each naming the thing at fault (field, file, line, value)."""
        super().__init__(*lines)
        self.lines = lines


class Faults:
    """What several checks find, told all at once."""

    def __init__(self) -> None:
        """None yet."""
        self.lines: list[str] = []

    def gather(self, check: Callable[[], Any], prefix: str = "") -> Any:
        """What ``check`` returns; None where it raises an `InputError`, whose lines are kept, each after ``prefix``."""
        try:
            return check()
        except InputError as error:
            self.lines += [prefix + line for line in error.lines]
            return None

    def require_none(self) -> None:
        """Go on only where nothing was found.

        Raises:
            InputError: one line for each fault.
        """
        if self.lines:
            raise InputError(*self.lines)


class TrainingFailed(Exception):
    """Training had to stop; the message is the one line that says why."""

    def __init__(self, message: str, kind: str = "failed") -> None:
        """``message``: one line. ``kind``: one of `trainers.common.status.KINDS`, for whoever started the run."""
        super().__init__(message)
        self.kind = kind


class Interrupted(Exception):
    """A signal asked the run to end."""

    def __init__(self, number: int) -> None:
        """``number``: the signal's."""
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


def reason(error: OSError) -> str:
    """What the operating system says was wrong, without the errno and path that ``str(error)`` adds."""
    return error.strerror or str(error) or type(error).__name__


def show(path: str | os.PathLike[str]) -> str:
    """A path as it may stand in one line of text: quoted and escaped where it holds control characters."""
    text = os.fspath(path)
    return text if text.isprintable() and text else repr(text)
