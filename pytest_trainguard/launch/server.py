"""The warm server: a process that has torch and a trainer's modules loaded, and forks one supervisor for each run.

Run as `python -m pytest_trainguard.launch.server FD`. Servers form a tree: the base server has torch loaded and
is forked once for each trainer, so that one trainer's modules cannot spoil another's. A server never runs
tensor code itself, never starts threads and never initialises CUDA, so forking it is safe.

It ends when its connection ends, whether pytest finished, was interrupted or was killed, and with it all processes that
a trainer's module started as it was imported.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import socket
import sys
import traceback
import weakref
from collections.abc import Callable, Sequence

from pytest_trainguard import linux
from pytest_trainguard.contract.trainer import TrainerSpec
from pytest_trainguard.isolation.confinement import Confinement
from pytest_trainguard.isolation.policy import Policy
from pytest_trainguard.launch import protocol, supervisor, wire
from pytest_trainguard.launch.protocol import Fork, Forked, Launch, Load, Loaded

Job = Callable[[], int]
LAST_GRACE = 2.0  # seconds in which servers and supervisors end by themselves; then what trainers' modules started, too


def load(modules: Sequence[str], trainer: TrainerSpec | None) -> str | None:
    """Import what the runs will need; None, or the traceback of what the trainer's own modules raised.

    `modules` are a hint (what an earlier run imported): one that cannot be imported is left to the run itself.
    """
    collecting = gc.isenabled()
    gc.disable()  # all that is imported stays: to look for garbage again and again takes a tenth of the time
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception:  # only a hint: the run meets the same error and reports it
            continue
    if collecting:
        gc.enable()
    if trainer is not None:
        from pytest_trainguard.adapters import load_trainer

        try:
            ahead = load_trainer(trainer).preload
            for name in [ahead] if isinstance(ahead, str) else ahead:
                importlib.import_module(name)
        except BaseException:  # SystemExit too: a module may call sys.exit() when imported
            return traceback.format_exc()
        finally:
            _mend()
    _leave_operators()
    doors = sys.modules.get("pytest_trainguard.recorder.doors")
    if doors is not None:  # else there is no torch, as the run will say
        doors.note_imported()
    return None


def _leave_operators() -> None:
    """Have no run take torch's operators out of its registry as it ends, one by one: half of an idle run's time.

    Each library of operators registers a finalizer for that. What a trainer registers itself is left alone.
    """
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        alive = finalizer.peek()
        if alive is not None and getattr(alive[1], "__module__", None) == "torch.library":
            finalizer.atexit = False


def _mend() -> None:
    """Put right what a trainer's module did to this process as it was imported, and a server cannot do with.

    Standard streams that it closed would be the numbers of the next sockets and pipes.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one


def serve(control: socket.socket) -> Job:
    """Answer requests until the connection ends.

    Returns:
        what the process goes on to do: nothing for the server itself, the trainer's program in a forked run.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps supervisors and forked servers
    confinement: Confinement | None = None
    base = os.getpid()
    # Until torch is imported nobody looks at the connection: a pytest that is killed takes this process with it. Not
    # for longer: it is to end what modules started.
    linux.die_with_parent(signal.SIGKILL)
    while (received := wire.receive(control)) is not None:
        message, fds = protocol.decode(received[0]), received[1]
        if isinstance(message, Policy):
            confinement = Confinement(message)
            wire.send(control, protocol.encode(confinement.confined))
            continue
        if isinstance(message, Load):
            os.environ.update(message.env)
            wire.send(control, protocol.encode(Loaded(load(message.modules, message.trainer))))
            gc.freeze()  # a run's garbage collector then leaves the pages shared with this process alone
            if message.modules:  # libraries: what there is to share
                linux.join_pages()
            if os.getpid() == base:
                linux.die_with_parent(0)
            continue
        link = socket.socket(fileno=fds[0])
        try:
            forked = os.fork()
        except OSError as error:
            with contextlib.suppress(OSError), link:
                wire.send(link, protocol.encode(protocol.failed(error)))
            continue
        if forked:
            link.close()
            continue
        control.close()
        if isinstance(message, Launch):
            return supervisor.supervise(link, message, confinement)
        assert isinstance(message, Fork)
        linux.die_with_parent(signal.SIGKILL)  # also in the middle of importing a trainer that never ends
        control = link
        if confinement is not None:
            confinement.enter_trainer()
        wire.send(control, protocol.encode(Forked(os.getpid())))
    if confinement is not None and os.getpid() == base:
        return confinement.end
    return lambda: 0


def main() -> int:
    """Serve on the socket whose file descriptor is the first argument."""
    base = os.getpid()
    # Whatever started pytest, a run begins with the usual handlers, or with those of its trainer's module.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    linux.become_subreaper()
    job = serve(socket.socket(fileno=int(sys.argv[1])))
    if os.getpid() == base:
        supervisor.end_descendants(LAST_GRACE)
    return job()


if __name__ == "__main__":
    # Under its package name, so that a forked run finds one copy of this module.
    from pytest_trainguard.launch import server

    sys.exit(server.main())
