"""The steps of a file's way through the queue, in order: between any two of them everything may be killed.

Each change is one rename or one atomic write, and comes before the ledger is told. What a start finds then:

======================= =====================================================================================
killed after             the next start
======================= =====================================================================================
``HASHED``               finds the file in the inbox, as new
``TAKEN``                finds a file in a priority folder that the ledger does not know, and takes it in there
``NOTED``                has it queued
``CLAIMED``              finds it in ``processing/`` without an attempt: back to its place
``CLAIM_NOTED``          the same
``CHECKED``              the same
``PREPARED``             finds an attempt that never began: noted as lost, back to its place
``STARTED``              waits for the attempt's keeper, which ends the trainer if that still runs (lost, back to
                         its place), or has noted its success (then it is done)
``ENDED``                judges the attempt by what the trainer and its keeper left
``REPORTED``             does what the report says: done, failed, or back to its place
``MOVED``                finds the file where it belongs, and tells the ledger
``SETTLED``              has nothing to do
======================= =====================================================================================
"""

from __future__ import annotations

import enum
from collections.abc import Callable


class Step(enum.Enum):
    """A point at which something has just become durable (or is about to)."""

    HASHED = "the file in the inbox is read, nothing is changed"
    TAKEN = "it is in its priority folder, the ledger does not know"
    NOTED = "the ledger has it queued"
    CLAIMED = "it is in processing/, the ledger does not know"
    CLAIM_NOTED = "the ledger has it processing"
    CHECKED = "its rows are sound"
    PREPARED = "the attempt's folder is written"
    STARTED = "the trainer runs, or has ended unseen"
    ENDED = "the attempt's end is seen, not judged"
    REPORTED = "the report says what becomes of the file"
    MOVED = "the file is there, the ledger does not know"
    SETTLED = "the ledger knows"


def _nobody(step: Step) -> None:
    """Nobody is told."""


observer: Callable[[Step], None] = _nobody
"""Is told each step that is reached. The tests kill the process here."""


def reached(step: Step) -> None:
    """Called where a step has just been done."""
    observer(step)
