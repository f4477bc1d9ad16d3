"""What the queue knows of this repository's own trainer, and of no other: the defaults of its settings."""

from __future__ import annotations

from typing import Any

from trainers.queue.options import QueueSettings


def defaults(chosen: QueueSettings) -> dict[str, Any]:
    """The own trainer's settings where the queue's say nothing; empty for any other trainer."""
    return {}
