"""A supervisor stands over one run at a time: limits, signals, output, what is left over, and the final clean-up.

It is forked from the warm server, forks the run, outlives it whatever the run does, and is there for the next one: to
fork a process of this size and to end it takes as long as an optimizer step. Its connection to pytest is the run's
lease: when the connection ends, the run and all its descendants are killed.
"""

from __future__ import annotations

import contextlib
import os
import resource
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil

from pytest_trainguard import folders, linux
from pytest_trainguard.contract.outcome import Leftover
from pytest_trainguard.faults import FILLER
from pytest_trainguard.isolation.confinement import Confinement, RunCover
from pytest_trainguard.launch import child, protocol, wire
from pytest_trainguard.launch.protocol import Ended, Launch, Message, Signal, Started
from pytest_trainguard.launch.stacks import STACK_FILE, STACK_SIGNAL

HEAD, TAIL = 1 << 16, 1 << 18  # bytes of a run's output that are kept: its beginning and its end
STACK_WAIT = 1.0  # seconds that a hanging run gets to write down where it stands


class Output:
    """The beginning and the end of what a run printed, and how much that was."""

    def __init__(self) -> None:
        self.head, self.total = b"", 0
        self._pieces: deque[bytes] = deque()  # the end, and at most one piece more
        self._kept = 0

    def add(self, data: bytes) -> None:
        """Take in the next piece, in memory that does not grow with what is printed."""
        self.total += len(data)
        room = HEAD - len(self.head)
        self.head += data[:room]
        if len(data) > room:
            self._pieces.append(data[room:])
            self._kept += len(data) - room
            while self._kept - len(self._pieces[0]) >= TAIL:
                self._kept -= len(self._pieces.popleft())

    @property
    def tail(self) -> bytes:
        """The end of it, as far as it is not in the head."""
        return b"".join(self._pieces)[-TAIL:]

    def text(self) -> str:
        """What was kept, with a line in the middle that says how much was not."""
        tail = self.tail
        left_out = self.total - len(self.head) - len(tail)
        gap = f"\n[... {left_out} bytes left out ...]\n".encode() if left_out > 0 else b""
        return (self.head + gap + tail).decode(errors="replace")


class Forked(NamedTuple):
    """What a run's own process has of its supervisor: where it prints to, where a disk is mounted, what covers it."""

    output: int
    disk: Path | None
    cover: RunCover | None


def supervise(link: socket.socket, launch: Launch, confinement: Confinement | None = None) -> Callable[[], int]:
    """Fork the run and stand over it, then over the next one that is asked for, one at a time.

    Only a run's own process returns from here, with what it is to do.
    """
    supervisor, forked = os.getpid(), None
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        linux.become_subreaper()
        if confinement is not None:
            confinement.enter_supervisor()
        while not (forked := _fork_and_watch(link, launch, confinement)):
            _kill_descendants()
            folders.remove(launch.tmp)
            following = _next_launch(link)
            if following is None:
                break
            launch = following
    except BaseException as error:  # nothing else would say it: this process has no terminal
        _tell(link, protocol.failed(error))
    finally:
        if os.getpid() == supervisor:
            _kill_descendants()
            folders.remove(launch.tmp)
            os._exit(0)
    link.close()
    assert forked is not None
    confine = None
    if confinement is not None and forked.cover is not None:
        confine = partial(confinement.set_up_run, forked.cover, launch.tmp)
    return child.prepare(launch, forked.output, forked.disk, confine)


def _tell(link: socket.socket, message: Message) -> None:
    """Send a message to pytest, which may be gone."""
    with contextlib.suppress(OSError):
        wire.send(link, protocol.encode(message))


def _next_launch(link: socket.socket) -> Launch | None:
    """The next one; None where there is none any more. A signal that came too late for a run is passed over."""
    while (received := wire.receive(link)) is not None:
        message = protocol.decode(received[0])
        if isinstance(message, Launch):
            return message
    return None


def _fork_and_watch(link: socket.socket, launch: Launch, confinement: Confinement | None) -> Forked | None:
    """One run, from its start to its end, which is told over the link; in the run's own process a `Forked`."""
    cover = None if confinement is None else confinement.begin_run()
    if launch.job.request.ordinary_user and not linux.obey_permissions():
        raise PermissionError("root cannot be made to obey file permissions here")
    beneath = _small_disk(launch)
    reader, writer = os.pipe()
    started = time.monotonic()
    pid = os.fork()
    if not pid:
        os.close(reader)
        return Forked(writer, None if beneath is None else launch.disk, cover)
    os.close(writer)
    with contextlib.suppress(OSError):  # the run does the same: whichever comes first
        os.setpgid(pid, pid)
    _tell(link, Started(pid))
    ended = _watch(link, reader, pid, started, launch, small_disk=beneath is not None)
    os.close(reader)
    if beneath is not None and launch.disk is not None:
        _copy_out(beneath, launch.disk)
    if cover is not None:
        ended = replace(ended, elsewhere=tuple(cover.end()))
    _tell(link, ended)
    return None


def _small_disk(launch: Launch) -> int | None:
    """Mount the small disk that was asked for; a descriptor of the folder beneath it, or None."""
    folder, size = launch.disk, launch.job.request.small_disk
    if folder is None or not size:
        return None
    beneath = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    if not linux.mount_small_disk(folder, size):
        os.close(beneath)
        return None
    folders.copy(Path(f"/proc/self/fd/{beneath}"), folder)
    return beneath


def _copy_out(beneath: int, folder: Path) -> None:
    """Bring what is on the small disk back to the folder beneath it, which outlives the mount."""
    real = Path(f"/proc/self/fd/{beneath}")
    for entry in real.iterdir():
        folders.remove(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    (folder / FILLER).unlink(missing_ok=True)  # as large as the disk, and none of the program's
    folders.copy(folder, real)


def _watch(link: socket.socket, reader: int, pid: int, started: float, launch: Launch, *, small_disk: bool) -> Ended:
    """Until the run ends: take in its output, pass on signals, keep the time limit. Then what it left."""
    output, ended, timed_out, leased = Output(), None, False, True
    deadline = started + launch.time_limit
    with selectors.DefaultSelector() as selector:
        selector.register(reader, selectors.EVENT_READ)
        selector.register(link, selectors.EVENT_READ)
        exit_fd = linux.open_process(pid)  # where there is none: poll
        if exit_fd is not None:
            selector.register(exit_fd, selectors.EVENT_READ)
        while ended is None:
            wait = max(0.0, deadline - time.monotonic())
            for key, _ in selector.select(wait if exit_fd is not None else min(wait, 0.01)):
                if key.fileobj == reader:
                    data = os.read(reader, 1 << 16)
                    output.add(data) if data else selector.unregister(reader)
                elif key.fileobj is link:
                    received = wire.receive(link)
                    if received is None:
                        leased = False
                        selector.unregister(link)
                        _kill_descendants()
                    else:
                        _pass_on(protocol.decode(received[0]), pid)
            if time.monotonic() >= deadline and leased and not timed_out:
                timed_out = True
                _write_stacks(launch.folder)
                _kill_descendants()
            ended = _reap(pid)
        if exit_fd is not None:
            os.close(exit_fd)
    seconds = time.monotonic() - started
    status, usage = ended
    leftovers = _leftovers(launch.job.request.grace if leased and not timed_out else 0.0)
    _kill_descendants()
    _reap_orphans()  # a container may have no init that would do it
    os.set_blocking(reader, False)
    with contextlib.suppress(BlockingIOError):
        while data := os.read(reader, 1 << 16):
            output.add(data)
    return Ended(
        pid=pid,
        exit=os.waitstatus_to_exitcode(status),
        seconds=seconds,
        peak_rss=usage.ru_maxrss * 1024,  # Linux counts KiB
        output=output.text(),
        output_bytes=output.total,
        timed_out=timed_out,
        leftovers=leftovers,
        small_disk=small_disk,
    )


def _reap(pid: int) -> tuple[int, resource.struct_rusage] | None:
    ended, status, usage = os.wait4(pid, os.WNOHANG)
    return (status, usage) if ended else None


def _pass_on(message: Message, pid: int) -> None:
    """Send the run the signal that pytest asks for."""
    if isinstance(message, Signal):
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if message.group else os.kill)(pid, message.signum)


def _descendants() -> list[psutil.Process]:
    """Every process below this one; a look at all of the machine's only where there is one, as after few runs."""
    return [] if linux.is_childless() else psutil.Process().children(recursive=True)


def _write_stacks(folder: Path) -> None:
    """Have every Python process of the run write its threads' stacks, and wait until that stands still."""
    path, before = folder / STACK_FILE, -1
    for process in _descendants():
        with contextlib.suppress(psutil.Error):
            process.send_signal(STACK_SIGNAL)
    until = time.monotonic() + STACK_WAIT
    while time.monotonic() < until:
        time.sleep(0.05)
        size = path.stat().st_size if path.exists() else 0
        if size and size == before:
            break
        before = size


def _leftovers(grace: float) -> tuple[Leftover, ...]:
    """Processes that the run left, alive or defunct, after the grace period that a tidy end may need."""
    until = time.monotonic() + grace
    while True:
        _reap_orphans()
        left = [p for p in _descendants() if p.is_running()]
        if not left or time.monotonic() >= until:
            break
        time.sleep(0.02)
    if not left:
        return ()
    found = []
    ours = psutil.Process().cmdline()
    for process in left:
        with contextlib.suppress(psutil.Error), process.oneshot():
            command = " ".join(process.cmdline())[:200] or process.name()
            if process.cmdline() == ours:  # the warm server's, which all that is forked from a run inherits
                command = f"{process.name()}, forked from the run itself"
            found.append(Leftover(process.pid, command, process.status()))
    return tuple(found)


def end_descendants(grace: float) -> None:
    """Wait until this process has no living descendant, for `grace` seconds at most; then kill what is left."""
    until = time.monotonic() + grace
    while _living() and time.monotonic() < until:
        time.sleep(0.02)
    _kill_descendants()


def _living() -> bool:
    for process in _descendants():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def _reap_orphans() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _kill_descendants() -> None:
    """Kill until none is left: a process may fork while it is being killed."""
    while descendants := _descendants():
        alive = False
        for process in descendants:
            with contextlib.suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE:
                    alive = True
                    process.kill()
        if not alive:
            return  # only the dead, waiting for _reap
        time.sleep(0.005)
