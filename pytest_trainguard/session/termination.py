"""SIGTERM, with which a CI or SLURM ends a job: as Ctrl-C it leaves time for a report, and to remove what runs left."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType


def interrupt_on_sigterm() -> Callable[[], None]:
    """Have the first SIGTERM raise KeyboardInterrupt, and a second one end this process at once.

    Only in the main thread, the one that may; and not where SIGTERM is ignored on purpose.

    Returns:
        What puts the former handler back.
    """
    former = signal.getsignal(signal.SIGTERM)
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or former in (signal.SIG_IGN, None):  # None: not installed from Python, and never back again
        return lambda: None
    owner = os.getpid()

    def interrupt(signum: int, frame: FrameType | None) -> None:
        signal.signal(signum, signal.SIG_DFL)
        if os.getpid() != owner:  # forked by a test: it ends as it would have without us
            os.kill(os.getpid(), signum)
            return
        raise KeyboardInterrupt("SIGTERM")

    signal.signal(signal.SIGTERM, interrupt)

    def put_back() -> None:
        signal.signal(signal.SIGTERM, former)

    return put_back
