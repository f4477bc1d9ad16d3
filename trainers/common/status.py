"""What a run tells whoever started it: that it is alive, and how it ended.

Two small JSON files in a folder that the starter names. It is not the output folder, which a rejected run
leaves as it was.

================== ========================================================================================
``heartbeat.json`` ``pid``, ``step``, ``stage``, and ``beat``, a number that grows; at each change of stage
``outcome.json``   ``exit``, ``kind`` (see `KINDS`), ``message`` (one line), ``step``; at the run's end
================== ========================================================================================

A process that was killed leaves no outcome: its heartbeat then says where it was.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from trainers.common import files
from trainers.common.errors import InputError, TrainingFailed, reason, show

HEARTBEAT, OUTCOME = "heartbeat.json", "outcome.json"
RESERVE = files.TEMPORARY + "reserve"
RESERVED_BYTES = 16_384
"""Room on the disk that is given back just before the outcome is written: also a full disk is told of."""
KINDS = (
    "success", "bad_input", "out_of_memory", "nan", "collapse", "disk_full", "hang", "interrupted", "failed",
)  # fmt: skip
"""``nan``: a loss, gradient or weight is not finite. ``collapse``: the loss runs away, or gradients vanish or explode.
``failed``: anything else."""


class Heartbeat(NamedTuple):
    """Where a run is.

    Attributes:
        pid: the process.
        step: optimizer steps done.
        stage: what it is doing, for people.
        beat: grows with every heartbeat.
    """

    pid: int
    step: int
    stage: str
    beat: int


class Outcome(NamedTuple):
    """How a run ended.

    Attributes:
        exit: the exit code.
        kind: one of `KINDS`.
        message: one line.
        step: optimizer steps done.
    """

    exit: int
    kind: str
    message: str
    step: int


class Status:
    """One run's two files. Without a folder nothing is written."""

    def __init__(self, folder: Path | None = None) -> None:
        """Begin; files of an earlier run go.

        Raises:
            InputError: ``folder`` cannot be made or written to.
        """
        self.step = 0
        """Optimizer steps done: whoever trains keeps it up to date."""
        self._folder = folder
        self._beat = 0
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            clear(folder)
            (folder / RESERVE).write_bytes(bytes(RESERVED_BYTES))
        except (OSError, ValueError) as error:
            why = reason(error) if isinstance(error, OSError) else str(error)
            raise InputError(f"status folder {show(folder)}: {why}") from None

    def beat(self, stage: str) -> None:
        """A new `HEARTBEAT`. One that cannot be written is left out: it is no reason to end a training."""
        if self._folder is None:
            return
        self._beat += 1
        temporary = self._folder / (files.TEMPORARY + HEARTBEAT)
        with contextlib.suppress(OSError):  # not waiting for the disk: it is read by processes that live now
            temporary.write_text(json.dumps(Heartbeat(os.getpid(), self.step, stage, self._beat)._asdict()))
            os.replace(temporary, self._folder / HEARTBEAT)

    def end(self, exit: int, kind: str, message: str) -> None:
        """Write `OUTCOME`; where even that fails, the exit code tells."""
        if self._folder is None:
            return
        files.remove(self._folder / RESERVE)
        with contextlib.suppress(TrainingFailed):
            files.write_json(self._folder / OUTCOME, Outcome(exit, kind, message, self.step)._asdict())


def clear(folder: Path) -> None:
    """Remove what an earlier run left in ``folder``."""
    for name in (HEARTBEAT, OUTCOME, RESERVE):
        files.remove(folder / name)


def read_heartbeat(folder: Path) -> Heartbeat | None:
    """The last heartbeat in ``folder``; None where there is none, or what is there is none."""
    return _read(folder / HEARTBEAT, Heartbeat)


def read_outcome(folder: Path) -> Outcome | None:
    """The outcome in ``folder``; None where the run was killed or goes on, or what is there is none."""
    return _read(folder / OUTCOME, Outcome)


Kind = TypeVar("Kind", Heartbeat, Outcome)


def _read(path: Path, kind: type[Kind]) -> Kind | None:
    try:
        value: Any = json.loads(path.read_bytes())
        return kind(**{name: value[name] for name in kind._fields})
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
