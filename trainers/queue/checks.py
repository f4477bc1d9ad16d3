"""A whole file is read before its trainer is started: a bad row costs no minute of a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainers.chat.rows import validate
from trainers.common.errors import InputError, show
from trainers.common.rows import LineFile
from trainers.queue.options import QueueSettings


class AnyRows(LineFile):
    """Rows of any trainer: all that is known of them is that each is a JSON object."""

    def note(self, value: dict[str, Any], number: int) -> None:
        """Every object will do."""


def faults(path: Path, name: str, chosen: QueueSettings) -> list[str]:
    """What is wrong with a training file, one line a fault; nothing is: it may be trained.

    Args:
        path: where it is now.
        name: what it is called in the faults.
        chosen: of the queue: the rows of its own trainer are known.
    """
    try:
        (validate if chosen.own else AnyRows)(path)
    except InputError as error:
        return [line.replace(show(path), show(name), 1) for line in error.lines]
    return []
