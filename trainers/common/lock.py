"""One run for each output folder, one daemon for each queue.

The operating system's lock (through `filelock`) decides, so that it ends with its process however that ends.
The PID in the file is for people: a PID left by a killed run, or reused by another process since, locks
nobody out.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from trainers.common.errors import InputError, reason, show

LOCK_NAME = "run.lock"
DYING_HOLDER_SECONDS = 5.0
"""How long to wait for a lock whose PID is dead: a worker may outlive its killed parent a moment."""


class RunLock:
    """Hold ``folder`` (made where it is missing) for this process.

    On leaving, the lock file goes, and so do the folders that entering made if nothing was put into them: a
    start that is rejected leaves the disk as it found it.

    Raises:
        InputError: on entering: another run holds the folder (naming its PID), or the folder cannot be
            written.
    """

    def __init__(self, folder: Path, what: str = "output folder") -> None:
        """Take nothing yet: entering does. ``what``: what messages call the folder."""
        self.folder = folder
        self.what = what
        self.path = folder / LOCK_NAME
        self.taken_over: int | None = None
        """The PID of a run that ended without giving its lock back, if there was one."""
        self._made: list[Path] = []
        self._lock: FileLock | None = None

    def __enter__(self) -> RunLock:
        """Make the folder and take the lock."""
        try:
            self._make_folder()
            self._acquire()
        except (OSError, ValueError) as error:
            self._remove_made()
            why = reason(error) if isinstance(error, OSError) else str(error)
            raise InputError(f"{self.what} {show(self.folder)}: {why}") from None
        except BaseException:
            self._remove_made()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Give the lock back; its file goes."""
        # The name goes while the lock is held: whoever opened the file before sees that it has no name any
        # more.
        self.forget()
        if self._lock is not None:
            self._lock.release()
        self._remove_made()

    def forget(self) -> None:
        """Remove the lock file's name, for a process about to end without unwinding."""
        with contextlib.suppress(OSError):
            self.path.unlink()

    def _make_folder(self) -> None:
        missing = []
        folder = self.folder.absolute()
        while not folder.exists():
            missing.append(folder)
            folder = folder.parent
        for path in reversed(missing):
            path.mkdir()
            self._made.append(path)
        if not self.folder.is_dir():
            raise NotADirectoryError(None, "is no folder")

    def _remove_made(self) -> None:
        for path in reversed(self._made):
            with contextlib.suppress(OSError):  # not empty: it holds results
                path.rmdir()

    def _acquire(self) -> None:
        before = _read_pid(self.path)
        lock = FileLock(self.path)
        deadline = time.monotonic() + DYING_HOLDER_SECONDS
        while True:
            try:
                lock.acquire(timeout=0)
                break
            except Timeout:
                pid = _read_pid(self.path)
                if time.monotonic() > deadline or (pid is not None and _is_alive(pid)):
                    holder = "another process" if pid is None else f"the process with PID {pid}"
                    message = f"{self.what} {show(self.folder)}: {holder} is running in it ({self.path.name})"
                    raise InputError(message) from None
                time.sleep(0.05)
        self._lock = lock
        self.path.write_text(f"{os.getpid()}\n", encoding="ascii")
        self.taken_over = before if before != os.getpid() else None


def holder(folder: Path) -> int | None:
    """The PID of the process that holds ``folder``; None where none does (0: it has not said its PID yet)."""
    try:
        with open(folder / LOCK_NAME, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # given back by closing, a moment later
    except BlockingIOError:
        return _read_pid(folder / LOCK_NAME) or 0
    except OSError:
        return None
    return None


def _read_pid(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's process
        return True
    return True
