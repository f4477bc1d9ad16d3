"""What lies in a folder: a training file, one that is still being written, or something foreign.

A file is finished, and taken, when all of this holds:

1. its name does not begin with a dot nor end in ``.part``, ``.tmp`` and the like, as half-copied files' names do;
2. no process of this machine has it open for writing (Linux tells, on most file systems);
3. it has not changed for ``settle_seconds``; for ``unfinished_seconds``, if its last line is cut. A file whose
   time of change lies in the future, or that was changed while the clock jumped, is watched for so long instead.

A cut last line that stays cut is taken all the same: then it is rejected by name and line, and not waited for.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

UNFINISHED_NAMES = (".part", ".tmp", ".partial", ".filepart", ".crdownload", ".swp", "~")
TAIL_BYTES = 1 << 16
KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device", stat.S_IFCHR: "a device",
}  # fmt: skip


class Signature(NamedTuple):
    """Changes when somebody writes into a file, or puts another one in its place."""

    inode: int
    size: int
    mtime_ns: int


def signature(path: Path) -> Signature:
    """A file's signature.

    Raises:
        OSError: it is gone.
    """
    found = os.lstat(path)
    return Signature(found.st_ino, found.st_size, found.st_mtime_ns)


def half_named(name: str) -> bool:
    """Whether a name says that its file is not finished."""
    return name.startswith(".") or name.lower().endswith(UNFINISHED_NAMES)


def foreign(path: Path, suffixes: Sequence[str]) -> str | None:
    """Why an entry is no training file; None: it is one, by its name and its kind. Nothing is followed or opened.

    Raises:
        OSError: it is gone.
    """
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        return f"a symbolic link (to {os.readlink(path)!a}): put the file itself in"
    if not stat.S_ISREG(mode):
        return f"{KINDS.get(stat.S_IFMT(mode), 'something')}, not a file"
    if path.suffix.lower() not in suffixes:
        said = f"suffix {path.suffix!a}" if path.suffix else "no suffix"
        return f"{said}: a training file's name ends in {' or '.join(suffixes)}"
    if not os.access(path, os.R_OK):
        return "not readable: permission denied"
    return None


class Settling:
    """Tells which files are finished; remembers those that it waits for."""

    def __init__(
        self,
        settle: float,
        unfinished: float,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``settle``, ``unfinished``: seconds, see above. ``clock``: that of the files' times of change."""
        self._settle = settle
        self._unfinished = unfinished
        self._clock = clock
        self._monotonic = monotonic
        self._seen: dict[Path, tuple[Signature, float]] = {}

    def waits(self, path: Path) -> str | None:
        """Why a file is not taken yet; None: it is finished.

        Raises:
            OSError: it cannot be looked at.
        """
        if half_named(path.name):
            return "its name says that it is not finished: it is taken when it is renamed"
        if open_for_writing(path):
            return "a process has it open for writing"
        whole = ends_whole(path)
        limit = self._settle if whole else self._unfinished
        now = signature(path)
        if self._clock() - now.mtime_ns / 1e9 >= limit or self._unchanged(path, now) >= limit:
            self._seen.pop(path, None)
            return None
        return f"changed less than {limit:g} seconds ago" if whole else "its last line is not finished"

    def _unchanged(self, path: Path, now: Signature) -> float:
        before, since = self._seen.get(path, (None, 0.0))
        if before != now:
            since = self._monotonic()
            self._seen[path] = (now, since)
        return self._monotonic() - since

    def forget(self, present: set[Path]) -> None:
        """Remember only files that are still there."""
        self._seen = {path: seen for path, seen in self._seen.items() if path in present}


def ends_whole(path: Path) -> bool:
    """Whether a file's last line is finished: it ends in a line break, or is JSON as it stands."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL_BYTES))
        tail = file.read()
    if not tail or tail.endswith((b"\n", b"\r")):
        return True
    try:
        json.loads(tail.rpartition(b"\n")[2])
    except (ValueError, RecursionError):
        return False
    return True


def open_for_writing(path: Path) -> bool:
    """Whether a process has a file open for writing, as far as the system tells.

    Linux grants a lease for reading only on a file that nobody writes to. Anybody who opens it for writing in
    the moment between is made to wait, and we would be told by a signal: one that is ignored unless asked for.
    """
    import fcntl
    import signal

    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except BlockingIOError:  # somebody has a lease for writing, as a file server takes
        return True
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:  # somebody else's file, or a file system that knows no leases
        return False
    finally:
        os.close(descriptor)
    return False
