"""What any program does with some files, in any language: seen through inotify(7), held by leases (fcntl(2)).

A queue is not to be changed to be tested, and need not be written in Python. The kernel tells, in order, which files
were opened, moved, made and removed in a folder; and it keeps a program that opens a leased file waiting until the
lease is given back.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import struct
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

_HEAD = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows
_IS_FOLDER, _OVERFLOW = 0x40000000, 0x4000
# Closing is asked for too: the kernel makes one event of several alike that follow each other.
KINDS = {
    0x08: "closed",
    0x10: "closed",
    0x20: "opened",
    0x40: "left",
    0x80: "arrived",
    0x100: "arrived",
    0x200: "removed",
}


@dataclass(frozen=True)
class Event:
    """One thing that happened to a file: `opened`, `closed`, `arrived` (made, or moved in), `left`, `removed`."""

    kind: str
    folder: Path
    name: str


class Watch:
    """Notes what happens to the files of some folders from now on; folders inside them are not watched.

    Raises:
        OSError: this system has no inotify, or a folder is not there.
    """

    def __init__(self, folders: Iterable[Path]):
        if sys.platform != "linux":
            raise OSError(errno.ENOSYS, "folders are watched through inotify, which only Linux has")
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._folders: dict[int, Path] = {}
        self._seen: list[Event] = []
        for folder in folders:
            number = libc.inotify_add_watch(self._fd, os.fsencode(folder), sum(KINDS))
            if number < 0:
                code = ctypes.get_errno()
                self.close()
                raise OSError(code, os.strerror(code), str(folder))
            self._folders[number] = folder

    def read(self) -> list[Event]:
        """What happened since the last call, in order.

        Raises:
            OSError: so much happened that the kernel dropped some of it.
        """
        self._take()
        events, self._seen = self._seen, []
        return events

    def unseen(self, action: Callable[[], bool]) -> bool:
        """Do something that opens files here, and leave out that it did."""
        self._take()
        before = len(self._seen)
        done = action()
        self._take()
        self._seen[before:] = [e for e in self._seen[before:] if e.kind not in ("opened", "closed")]
        return done

    def _take(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._fd, 1 << 16):
                place = 0
                while place < len(data):
                    number, mask, _, length = _HEAD.unpack_from(data, place)
                    place += _HEAD.size + length
                    if mask & _OVERFLOW:
                        raise OSError(errno.EOVERFLOW, "too much happened in the queue's folders to follow")
                    name = os.fsdecode(data[place - length : place].rstrip(b"\0"))
                    kind = next((KINDS[bit] for bit in KINDS if mask & bit), None)
                    if kind and not mask & _IS_FOLDER:
                        self._seen.append(Event(kind, self._folders[number], name))

    def close(self) -> None:
        """Watch no longer."""
        os.close(self._fd)


@dataclass(frozen=True)
class Held:
    """A file under a lease: where it is by now, and what is in it."""

    path: Path
    content: bytes
    descriptor: int


class Leases:
    """Files that nobody else can open until they are given back: whoever tries waits, up to 45 seconds.

    Whoever holds a lease must not open the file either, but has its content and its place here.
    """

    def __init__(self) -> None:
        self._held: dict[int, bytes] = {}

    def take(self, path: Path) -> bool:
        """Take the lease of a file; False where somebody has it open, or this file system has no leases."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)  # ignored by default; SIGIO would end the process
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError:
            os.close(descriptor)
            return False
        self._held[descriptor] = os.read(descriptor, os.fstat(descriptor).st_size)
        return True

    def wanted(self) -> Held | None:
        """A file that somebody waits to open."""
        asked = (fd for fd in self._held if fcntl.fcntl(fd, fcntl.F_GETLEASE) != fcntl.F_WRLCK)
        return next(map(self._as_held, asked), None)

    def others(self, than: Held) -> list[Held]:
        """The files that nobody has tried to open yet."""
        return [self._as_held(descriptor) for descriptor in self._held if descriptor != than.descriptor]

    def _as_held(self, descriptor: int) -> Held:
        # The lease is the file's and not its path's: whoever moved it meanwhile has not changed that.
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        return Held(Path(path), self._held[descriptor], descriptor)

    def give_back(self, file: Held) -> None:
        """Whoever waits to open this one may go on."""
        del self._held[file.descriptor]
        os.close(file.descriptor)

    def close(self) -> None:
        """Give all of them back."""
        while self._held:
            os.close(self._held.popitem()[0])
