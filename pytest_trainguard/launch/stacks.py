"""Where every thread of a process stands, written down on a signal: what a hang leaves to look at."""

from __future__ import annotations

import faulthandler
import signal
from pathlib import Path

STACK_FILE = "stack.txt"
# Far from the signals that schedulers and trainers use.
STACK_SIGNAL = signal.SIGRTMIN + 5 if hasattr(signal, "SIGRTMIN") else signal.SIGUSR2


def write_stack_on_signal(folder: Path) -> None:
    """On STACK_SIGNAL, write the stacks of all threads to a file in `folder`."""
    stack = open(folder / STACK_FILE, "a")  # noqa: SIM115 (open for the life of the process)
    faulthandler.enable(stack)
    faulthandler.register(STACK_SIGNAL, stack, all_threads=True)
