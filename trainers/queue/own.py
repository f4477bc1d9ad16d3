"""What the queue knows of this repository's own trainer, and of no other: its settings, what it imports."""

from __future__ import annotations

from typing import Any

from trainers.common import settings
from trainers.common.errors import Faults
from trainers.queue.options import QueueSettings


def defaults(chosen: QueueSettings) -> dict[str, Any]:
    """The own trainer's settings where the queue's say nothing; empty for any other trainer."""
    if not chosen.own:
        return {}
    from trainers.chat.settings import Settings

    return {name: field.default for name, field in Settings.model_fields.items()}


def preload(chosen: QueueSettings) -> tuple[str, ...]:
    """The modules that trainers find imported: those that the settings name, else the own trainer's."""
    if chosen.preload is not None or not chosen.own:
        return tuple(chosen.preload or ())
    from trainers.chat.lora import PRELOAD

    return PRELOAD


def check(chosen: QueueSettings) -> None:
    """Hold ``trainer_settings`` against the own trainer's: wrong ones would fail every file of a night.

    Raises:
        InputError: one line for each fault.
    """
    if not chosen.own:
        return
    from trainers.chat import adapter
    from trainers.chat.settings import Settings

    faults = Faults()
    faults.gather(lambda: settings.check(Settings, chosen.trainer_settings), "trainer_settings: ")
    faults.gather(lambda: adapter.require_there(chosen.trainer_settings), "trainer_settings: ")
    faults.require_none()
