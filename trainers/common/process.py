"""How a run behaves as a process: exit codes, signals, a limit on each step, no process left behind."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import NamedTuple

from trainers.common.errors import InputError, Interrupted, TrainingFailed
from trainers.common.files import NO_ROOM
from trainers.common.status import Status

EXIT_OK, EXIT_FAILED, EXIT_BAD_INPUT = 0, 1, 2
BACKSTOP_SECONDS = 5.0
"""How long after the limit C code ends a process whose watchdog cannot run (a hang that holds the GIL)."""


ENDING = (signal.SIGINT, signal.SIGTERM)
"""Signals that ask a run to end."""


class Run:
    """One supervised run: where it is, what it says, which signal came.

    Attributes:
        rank: this process's number among those of torchrun, 0 where there is one.
        status: tells whoever started the run; it may be replaced by one with a folder.
        received: the number of the signal that asked for the end of the training loop, or None.
        deferring: whether such a signal waits for the loop to look at ``received``; else it ends the run at
            once.
        last_act: called by the watchdog before it ends the process, which then unwinds nothing.
    """

    def __init__(self, program: str) -> None:
        """``program``: its name, for messages."""
        self.program = program
        self.rank = int(os.environ.get("RANK", "0"))  # torchrun's number of this process
        self.status = Status()
        self.stage = "start"
        self.received: int | None = None
        self.deferring = False
        self.last_act: Callable[[], None] = lambda: None
        self._handlers: dict[int, object] = {}

    @property
    def stage(self) -> str:
        """What is being done, for messages: ``step 7, backward``."""
        return self._stage

    @stage.setter
    def stage(self, stage: str) -> None:
        self._stage = stage
        self.status.beat(stage)

    def say(self, line: str) -> None:
        """One line on stderr, after the program's name; of the processes of torchrun, the first one speaks."""
        if self.rank == 0:
            self.report(line)

    def report(self, line: str) -> None:
        """`say` for what went wrong: any process speaks."""
        bars = sys.modules.get("tqdm")
        write = bars.tqdm.write if bars else print  # tqdm's leaves a progress bar on the screen in one piece
        who = f"{self.program} (process {self.rank})" if self.rank else self.program
        write(f"{who}: {line}", file=sys.stderr)
        sys.stderr.flush()

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Listen to SIGTERM and SIGINT (in the main thread only: elsewhere Python allows no handlers)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        again = self.received is not None
        if not self.deferring or (again and number == signal.SIGINT):  # a second Ctrl-C means: now
            raise Interrupted(number)
        if not again:
            self.received = number
            self.say(f"{signal.Signals(number).name}: ending after this step")

    @contextlib.contextmanager
    def deferred_signals(self) -> Iterator[None]:
        """Inside, a signal is noted in ``received`` and the step in progress ends in peace."""
        self.deferring = True
        try:
            yield
        finally:
            self.deferring = False


class _Ending(NamedTuple):
    """How a run ended: the exit code, one of `trainers.common.status.KINDS`, one line."""

    code: int
    kind: str
    message: str


def supervise(program: str, body: Callable[[Run], None]) -> int:
    """Run ``body`` and turn however it ends into an exit code, with one clear line on stderr.

    Returns:
        0 after success, 1 when training failed, 2 for bad settings or data, 128 + n after signal n.
    """
    run = Run(program)
    children = set(multiprocessing.active_children())
    try:
        with run.signals():
            body(run)
        ending = _Ending(EXIT_OK, "success", "finished")
    except (SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        ending = _report(run, error)
        # The frames hold the model and the loader's workers; a caller in the same process gets their memory
        # back now.
        traceback.clear_frames(error.__traceback__)
    _end_children(children)
    if "torch" in sys.modules and (cuda := sys.modules["torch"].cuda).is_initialized():
        with contextlib.suppress(RuntimeError):  # a device that has failed cannot even give memory back
            cuda.empty_cache()
    run.status.end(*ending)
    return ending.code


def _report(run: Run, error: BaseException) -> _Ending:
    if isinstance(error, InputError):
        for line in error.lines:
            run.report(line)
        return _Ending(EXIT_BAD_INPUT, "bad_input", "; ".join(error.lines))
    if isinstance(error, (Interrupted, KeyboardInterrupt)):
        number = error.number if isinstance(error, Interrupted) else signal.SIGINT
        ending = _Ending(128 + number, "interrupted", f"ended by {signal.Signals(number).name}")
    elif isinstance(error, TrainingFailed):
        lines = str(error).strip().splitlines()  # from a loader worker: its traceback, then the line
        ending = _Ending(EXIT_FAILED, error.kind, lines[-1] if lines else "training failed")
    else:
        ending = _unforeseen(run, error)
    run.report(ending.message)
    return ending


def _unforeseen(run: Run, error: BaseException) -> _Ending:
    out = out_of_memory(error, run.stage)
    if out is None or isinstance(error, MemoryError):
        traceback.print_exception(type(error), error, error.__traceback__)
    if out is not None:
        return _Ending(EXIT_FAILED, "out_of_memory", out)
    no_room = isinstance(error, OSError) and error.errno in NO_ROOM
    words = f"failed in {run.stage}: {type(error).__name__}: {error}".rstrip(": ")
    return _Ending(EXIT_FAILED, "disk_full" if no_room else "failed", " ".join(words.split()))


def out_of_memory(error: BaseException, stage: str) -> str | None:
    """One line on an exhausted memory, with needed and available if the error says so; else None."""
    torch = sys.modules.get("torch")
    text = str(error)
    on_device = torch is not None and isinstance(error, torch.OutOfMemoryError)
    on_host = isinstance(error, MemoryError) or "can't allocate memory" in text or "Cannot allocate memory" in text
    if not (on_device or on_host):
        return None
    needed = re.search(r"[Tt]ried to allocate ([\d.]+ ?\w+)", text)
    free = re.search(r"of which ([\d.]+ ?\w+) is free|([\d.]+ ?\w+) free", text)
    parts = [f"needed {needed[1]}"] if needed else []
    parts += [f"available {free[1] or free[2]}"] if free else []
    first = text.strip().splitlines()[0] if text.strip() else type(error).__name__
    kind = "GPU" if on_device else "host"
    return f"out of {kind} memory in {stage}: {', '.join(parts) or first}"


def _end_children(before: set[multiprocessing.process.BaseProcess]) -> None:
    """End loader workers that outlived their loader. An orderly end has none."""
    left = set(multiprocessing.active_children()) - before
    if left:
        gc.collect()  # a loader caught in a reference cycle ends its workers itself
    for child in left:
        # torch raises from its SIGCHLD handler when a worker it still counts on is killed; that is what is
        # wanted here.
        with contextlib.suppress(RuntimeError):
            child.kill()
            child.join()


class Watchdog:
    """Ends the process, with the stack of where it hangs, when a step takes longer than ``limit`` seconds.

    Use as a context manager and `step` at the start of every step. A thread does it in an orderly way; a hang
    that never lets the thread run (it holds the GIL) is ended a little later by `faulthandler`, from C.
    """

    def __init__(self, run: Run, limit: float) -> None:
        """``run``: gives the stage and the last act. ``limit``: seconds."""
        self._run = run
        self._limit = limit
        self._deadline = time.monotonic() + limit
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        """Begin to watch."""
        self.step()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Watch no more."""
        self._ended.set()
        faulthandler.cancel_dump_traceback_later()
        self._thread.join()

    def step(self) -> None:
        """The limit counts from here again, and a heartbeat. `time.monotonic`: a clock that jumps ends nothing."""
        self._run.status.beat(self._run.stage)
        self._deadline = time.monotonic() + self._limit
        faulthandler.dump_traceback_later(self._limit + BACKSTOP_SECONDS, exit=True, file=_stderr())

    def _watch(self) -> None:
        while not self._ended.wait(max(0.0, self._deadline - time.monotonic())):
            if time.monotonic() >= self._deadline:
                self._expire()

    def _expire(self) -> None:
        limit = f"hang_timeout = {self._limit:g} seconds"
        self._run.report(f"{self._run.stage} took longer than {limit}; this is where it hangs:")
        faulthandler.dump_traceback(file=_stderr())
        for child in multiprocessing.active_children():
            child.kill()
        self._run.last_act()
        message = f"{self._run.stage} took longer than {limit}"
        self._run.report(f"ended: {message}")
        self._run.status.end(EXIT_FAILED, "hang", message)
        os._exit(EXIT_FAILED)


def _stderr() -> int:
    """The file descriptor of stderr, also where `sys.stderr` has been replaced by something without one."""
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        return 2


def prepare_worker(worker: int) -> None:
    """Called in each new loader worker: it lives exactly as long as its parent wants, or as its parent lives.

    Signals to the whole process group (Ctrl-C) are the parent's to answer; the workers it still needs for the
    step in progress ignore them. On Linux the kernel kills a worker whose parent is gone, even by SIGKILL.
    """
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != multiprocessing.parent_process().pid:  # type: ignore[union-attr]  # died before the call
            os._exit(EXIT_FAILED)
