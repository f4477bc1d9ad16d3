"""A trainer that is forked from a process which has its libraries loaded: it begins to train at once.

The server is forked from the queue before that opens anything. It imports the modules that it is told to, never
initialises CUDA and trains nothing; so what is forked from it is like a program that has just done its imports. For
each trainer it forks a keeper, first of a session of its own, and that forks the trainer: both are as those that
`trainers.queue.starting` starts, and a trainer's end gives back its GPU memory all the same.

All that goes between is one line of JSON each: the request over the server's socket, with three descriptors; the answer
over the first of these, the lease, which from then on says only who is still there. The queue's end of it closes: the
keeper ends its trainer. The keeper's end closes: it has ended. The server has no part in that, and may be killed.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import gc
import importlib
import io
import json
import os
import random
import runpy
import select
import shutil
import signal
import socket
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from trainers.common.errors import show
from trainers.queue import keeper
from trainers.queue.starting import ENVIRONMENT, Keeper, Start, start_program

LARGEST_REQUEST = 1 << 22
CUDA_IN_USE = "/dev/nvidia-uvm"
"""The device that CUDA's driver opens as it is initialised; forked processes cannot use it then."""


class NotWarm(Exception):
    """A trainer cannot be forked from the server; the message says why."""


# ---- the queue's side


@contextlib.contextmanager
def starter(preload: Sequence[str], say: Callable[[str], None], *, at_once: bool) -> Iterator[Start]:
    """How trainers are started: forked where that can be, else as programs.

    Args:
        preload: the modules that trainers find imported; empty: nothing is forked.
        say: is told, once, why trainers are not forked after all.
        at_once: import them now, and not for the first trainer: there will be one.
    """
    if not preload or _has_threads():  # of several threads a fork takes along one, and the locks of all
        yield start_program
        return
    server = WarmServer(preload, say, at_once=at_once)
    try:
        yield server.start
    finally:
        server.close()


def _has_threads() -> bool:
    try:
        return len(os.listdir("/proc/self/task")) > 1
    except OSError:
        return threading.active_count() > 1


def is_this_python(words: Sequence[str]) -> bool:
    """Whether a command is one that this interpreter can go on as: its own path, then ``-m MODULE`` or a script."""
    program = shutil.which(words[0])
    if program is None or os.path.abspath(program) != os.path.abspath(sys.executable):
        return False
    return len(words) > 1 and (not words[1].startswith("-") or (words[1] == "-m" and len(words) > 2))


class WarmServer:
    """The queue's side of the server."""

    def __init__(self, preload: Sequence[str], say: Callable[[str], None], *, at_once: bool) -> None:
        """Fork it. Arguments as of `starter`."""
        self._say = say
        self._told: set[str] = set()
        self._socket, theirs = socket.socketpair()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, OSError, ValueError):  # else both would write what is in them
                stream.flush()
        end_with_queue = keeper.end_with_parent()
        self.pid = os.fork()
        if not self.pid:
            self._socket.close()
            _Server(theirs, preload).serve(end_with_queue, at_once=at_once)
        theirs.close()

    def start(self, folder: Path, words: list[str], lock: int, output: int) -> Keeper:
        """Start a trainer, as `starting.Start` says.

        Raises:
            OSError: there are no resources for a new process.
        """
        if is_this_python(words):
            try:
                return self._fork(folder, words, lock, output)
            except NotWarm as reason:
                if str(reason) not in self._told:
                    self._told.add(str(reason))
                    self._say(f"the trainer is started anew, and imports its libraries itself: {reason}")
        return start_program(folder, words, lock, output)

    def _fork(self, folder: Path, words: list[str], lock: int, output: int) -> Keeper:
        lease, theirs = socket.socketpair()
        try:
            with theirs:
                request = json.dumps([os.fspath(folder), words]).encode("ascii") + b"\n"
                sent = socket.send_fds(self._socket, [request], [theirs.fileno(), lock, output])
                self._socket.sendall(request[sent:])
            answer = _read_line(lease)
        except OSError as error:
            lease.close()
            raise NotWarm(f"the process that has them is gone: {error.strerror}") from None
        if not answer or "pid" not in answer:
            lease.close()
            raise NotWarm(answer["error"] if answer else "the process that has them is gone")
        return ForkedKeeper(answer["pid"], lease)

    def close(self) -> None:
        """End the server; it may be in the middle of its imports."""
        self._socket.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class ForkedKeeper:
    """A keeper that was forked, with its trainer. It is no child of ours: its end is that of its lease."""

    def __init__(self, pid: int, lease: socket.socket) -> None:
        """``lease``: the keeper has the other end, and nobody else."""
        self.pid = pid
        self._lease = lease
        self._ended = False

    def wait(self, seconds: float | None) -> bool:
        """Whether it ends in so many seconds."""
        if not self._ended and select.select([self._lease], [], [], seconds)[0]:
            self._ended = True  # it never writes: reading would be at its end
        return self._ended

    def close(self) -> None:
        """Close our end."""
        self._lease.close()


def _read_line(lease: socket.socket) -> dict[str, Any] | None:
    """The server's or the keeper's answer; None where it ended before that."""
    line = b""
    while not line.endswith(b"\n"):
        part = lease.recv(1)  # no byte more than the line: what follows is the end
        if not part:
            return None
        line += part
    answer: dict[str, Any] = json.loads(line)
    return answer


# ---- the server


class _Server:
    """In the server's own process."""

    def __init__(self, control: socket.socket, preload: Sequence[str]) -> None:
        self._control = control
        self._preload = preload
        self._failure: str | None = None
        self._sources: dict[str, tuple[int, int]] | None = None  # of the team's own modules, once they are imported

    def serve(self, end_with_queue: Callable[[], None] | None, *, at_once: bool) -> NoReturn:
        """Until the queue's end of the socket is closed, or the queue is gone."""
        try:
            os.setsid()  # Ctrl-C is the queue's to answer
            if end_with_queue is not None:
                end_with_queue()
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the keepers
            null = os.open(os.devnull, os.O_RDWR)
            for stream in range(3):
                os.dup2(null, stream)
            os.close(null)
            if at_once:
                self._load()
            while self._answer():
                pass
        finally:
            os._exit(0)

    def _load(self) -> None:
        """Import the modules, once."""
        if self._sources is not None:
            return
        gc.disable()  # all that is imported stays: to look for garbage meanwhile takes a tenth of the time
        checked_by_driver = os.environ.get("PYTORCH_NVML_BASED_CUDA_CHECK")
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # a look at whether there is a GPU must not initialise CUDA
        try:
            for name in self._preload:
                importlib.import_module(name)
        except BaseException as error:  # a module may end the process that imports it
            self._failure = f"importing {name} (preload): {type(error).__name__}: {error}"
        finally:
            if checked_by_driver is None:
                del os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"]
            else:
                os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = checked_by_driver
        gc.enable()
        gc.freeze()  # a trainer's garbage collector leaves the pages that it shares with this process alone
        _leave_operators()
        if self._failure is None and _uses_cuda():
            self._failure = "a module of preload initialises CUDA, which no forked process can use then"
        if self._failure is None and threading.active_count() > 1:
            self._failure = f"a module of preload starts a thread ({threading.enumerate()[-1].name})"
        self._sources = _own_sources()

    def _answer(self) -> bool:
        """Do what the next request asks for; False where none will come."""
        request, descriptors = b"", []
        while not request.endswith(b"\n"):
            part, received, _, _ = socket.recv_fds(self._control, LARGEST_REQUEST, 3)
            if not part:
                return False
            request, descriptors = request + part, descriptors + received
        lease, lock, output = descriptors
        self._load()
        failure = self._failure or _find_changed(self._sources or {})
        if failure is not None:
            with contextlib.suppress(OSError):
                os.write(lease, json.dumps({"error": failure}).encode("ascii") + b"\n")
        else:
            self._fork(*json.loads(request), lease, lock, output)
        for descriptor in descriptors:
            os.close(descriptor)
        return True

    def _fork(self, folder: str, words: list[str], lease: int, lock: int, output: int) -> None:
        try:
            pid = os.fork()
        except OSError:  # the queue meets the same as it starts a program
            return
        if not pid:
            self._control.close()
            _keep(folder, words, lease, lock, output)


def _leave_operators() -> None:
    """Have no trainer take torch's operators out of its registry as it ends, one by one: half a second's work.

    Each library of operators registers a finalizer for that; of a process that is about to end, nobody asks for them.
    """
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        alive = finalizer.peek()
        if alive is not None and getattr(alive[1], "__module__", None) == "torch.library":
            finalizer.atexit = False


def _uses_cuda() -> bool:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return True
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}") == CUDA_IN_USE:
                return True
    return False


def _own_sources() -> dict[str, tuple[int, int]]:
    """The files of all modules that no installer put there, each with its size and time of change."""
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    installed = tuple(prefix + os.sep for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix})
    own = {file for file in files if file and not file.startswith(installed) and "site-packages" not in file}
    return {file: signature for file in own if (signature := _signature(file)) is not None}


def _signature(file: str) -> tuple[int, int] | None:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _find_changed(sources: dict[str, tuple[int, int]]) -> str | None:
    """Code that is no longer what was imported: who mends a trainer wants the next file trained by the mended one."""
    for file, signature in sources.items():
        if _signature(file) != signature:
            return f"{show(file)} has changed since it was imported; the next start of the queue is warm again"
    return None


# ---- keeper and trainer, each in its own process


def _keep(folder: str, words: list[str], lease: int, lock: int, output: int) -> NoReturn:
    """Go on as a keeper, as `trainers.queue.keeper` does as a program."""
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor, number in ((lease, 0), (output, 1), (output, 2)):
            os.dup2(descriptor, number)
        os.close(lease)
        os.close(output)
        _reopen_streams()
        os.write(0, json.dumps({"pid": os.getpid()}).encode("ascii") + b"\n")
        keeper.keep(folder, partial(_fork_trainer, words, lock))
    finally:
        os.killpg(0, signal.SIGKILL)
        os._exit(1)


def _reopen_streams() -> None:
    """`sys.stdout` and `sys.stderr` as they are in a program that begins, with PYTHONUNBUFFERED."""
    for number, name, errors in ((1, "stdout", "strict"), (2, "stderr", "backslashreplace")):
        raw = io.FileIO(number, "w", closefd=False)
        stream = io.TextIOWrapper(raw, errors=errors, write_through=True)  # type: ignore[type-var]
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


class _ForkedTrainer:
    """The keeper's child."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def wait(self) -> int:
        """Its exit code, once it has ended; of signal n -n."""
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def kill(self) -> None:
        """End it now."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)


def _fork_trainer(words: list[str], lock: int) -> _ForkedTrainer:
    """Fork the trainer.

    Raises:
        OSError: there is no room for a process.
    """
    end_with_keeper = keeper.end_with_parent()
    pid = os.fork()
    if pid:
        return _ForkedTrainer(pid)
    try:
        if end_with_keeper is not None:
            end_with_keeper()
        os.close(lock)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        for number in keeper.PASSED_BY:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        os.environ.update(ENVIRONMENT)
        faulthandler.enable(2)
        _begin_generators_anew()
        code = _exit_code(lambda: _run(words[1:]))
        _end_program()
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        code = 1
    finally:
        os._exit(code & 0xFF)


def _begin_generators_anew() -> None:
    """A program that seeds none of its generators is not to draw what the trainer before it drew."""
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.seed()


def _run(arguments: list[str]) -> None:
    """Go on as ``python ARGUMENTS`` would: the same `sys.argv` and `sys.path`, run as `__main__`."""
    if arguments[0] == "-m":
        sys.argv = ["-m", *arguments[2:]]  # `runpy` puts the module's file first
        sys.path.insert(0, os.getcwd())
        sys.modules.pop(arguments[1], None)  # imported already, of which `runpy` would warn
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(arguments)
        sys.path.insert(0, os.path.dirname(os.path.realpath(arguments[0])))
        runpy.run_path(arguments[0], run_name="__main__")


def _exit_code(program: Callable[[], None]) -> int:
    """Run a program; the code with which the interpreter would end."""
    try:
        program()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        return 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _end_program() -> None:
    """Wait for its threads, do what it left for its end, write out what it printed."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
