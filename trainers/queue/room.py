"""Waiting for room on the disk, with a bound."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable

from trainers.queue.stock import Queue


def free_mib(queue: Queue) -> float:
    """MiB that are free where the queue is."""
    return shutil.disk_usage(queue.layout.root).free / 2**20


def wait(queue: Queue, stopped: Callable[[], bool], pause: Callable[[float], None] = time.sleep) -> bool:
    """Wait until ``min_free_mib`` are free; False: they were not in ``disk_wait_seconds``, or ``stopped``."""
    chosen = queue.chosen
    deadline = time.monotonic() + chosen.disk_wait_seconds
    told = False
    while (free := free_mib(queue)) < chosen.min_free_mib:
        if not told:
            told = True
            line = f"waiting for room: {free:.0f} MiB are free, {chosen.min_free_mib:g} are wanted (min_free_mib)"
            queue.journal.alert(chosen, "disk_full", f"{line}, for {chosen.disk_wait_seconds:g} seconds at most")
        if stopped() or time.monotonic() >= deadline:
            return False
        pause(min(chosen.poll_seconds, max(0.0, deadline - time.monotonic())))
    if told:
        queue.journal.add("room", f"there is room again: {free:.0f} MiB are free")
    return True
