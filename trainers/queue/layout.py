"""The queue's folders, and moving a file between them: in one step, over nothing, and onto the disk."""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from trainers.common import files
from trainers.common.errors import InputError, reason, show

INBOX, PROCESSING, DONE, FAILED = "inbox", "processing", "done", "failed"
PRIORITIES = ("high", "normal", "low")
"""From the most urgent on."""
FOLDERS = (INBOX, *PRIORITIES, PROCESSING, DONE, FAILED)
LONGEST_NAME = 255
"""Bytes of a file's name, on every common file system."""
AT_FDCWD, RENAME_NOREPLACE = -100, 1


class Layout:
    """Where everything of one queue is."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """``root``: the queue's folder."""
        self.root = Path(os.path.abspath(root))
        self.ledger = self.root / "ledger.sqlite"
        self.log = self.root / "log.jsonl"
        self.paused = self.root / "paused"
        self.runs = self.root / "runs"
        self.reports = self.root / "reports"

    def make(self) -> None:
        """Make every folder that is not there yet.

        Raises:
            InputError: the root is no folder or cannot be written.
        """
        try:
            for folder in (*map(self.folder, FOLDERS), self.runs, self.reports):
                if not folder.is_dir():
                    folder.mkdir(parents=True, exist_ok=True)
                    files.sync_folder(self.root)
        except (OSError, ValueError) as error:
            why = reason(error) if isinstance(error, OSError) else str(error)
            raise InputError(f"queue folder {show(self.root)}: {why}") from None

    def require(self) -> None:
        """A command that only looks makes nothing.

        Raises:
            InputError: there is no queue.
        """
        if not self.folder(INBOX).is_dir():
            raise InputError(f"queue folder {show(self.root)}: there is no queue in it (add or run makes one)")

    def folder(self, name: str) -> Path:
        """One of `FOLDERS`."""
        return self.root / name

    def path(self, folder: str, file: str) -> Path:
        """A file in one of `FOLDERS`."""
        return self.root / folder / file

    def run(self, digest: str) -> Path:
        """The trainer's output folder for content of this SHA-256."""
        return self.runs / identity(digest)

    def move(self, source: str, file: str, target: str, name: str, digest: str | None, *, sync: bool = True) -> str:
        """Move a file to another folder in one step.

        Args:
            source: the folder where it is.
            file: its name there.
            target: where it goes.
            name: the name that it shall have there. Is that taken, it gets a few digits of
            digest: its SHA-256, if it has one.
            sync: wait until the disk has it.

        Returns:
            its name there.

        Raises:
            FileNotFoundError: it is gone.
        """
        found = move_new(self.path(source, file), self.folder(target), name, digest)
        if sync:
            self.sync(source, target)
        return found

    def sync(self, *folders: str) -> None:
        """Wait until the disk has the moves into and out of these folders."""
        for folder in dict.fromkeys(folders):
            files.sync_folder(self.folder(folder))


def identity(digest: str) -> str:
    """What a run and a report are called: enough of the SHA-256 that no two files share it, even on purpose."""
    return digest[:32]


def move_new(path: Path, folder: Path, name: str, digest: str | None) -> str:
    """Rename ``path`` into ``folder``, to a name that nobody has there; returns the name."""
    for candidate in _candidates(name, digest):
        if path == folder / candidate:
            return candidate
        try:
            rename_new(path, folder / candidate)
        except FileExistsError:
            continue
        return candidate
    raise AssertionError("unreachable: the candidates never end")


def _candidates(name: str, digest: str | None) -> Iterator[str]:
    yield name
    raw = os.fsencode(name)
    stem, dot, suffix = raw.rpartition(b".")
    if not stem:
        stem, dot, suffix = raw, b"", b""
    tag = f"~{digest[:8]}" if digest else ""
    for number in itertools.count(1):
        mark = f"{tag}~{number}" if number > 1 or not tag else tag
        end = os.fsencode(mark) + dot + suffix
        yield os.fsdecode(stem[: LONGEST_NAME - len(end)] + end)


def rename_new(source: Path, target: Path) -> None:
    """`os.rename` that overwrites nothing, also where somebody else makes the target at the same moment.

    Raises:
        FileExistsError: the target is there.
        FileNotFoundError: the source is not.
    """
    if sys.platform == "linux":
        number = _renameat2(os.fsencode(source), os.fsencode(target))
        if number == 0:
            return
        if number not in (errno.ENOSYS, errno.EINVAL):  # those: a system or a file system that knows it not
            raise OSError(number, os.strerror(number), os.fspath(source), None, os.fspath(target))
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(target))
    os.rename(source, target)


def _renameat2(source: bytes, target: bytes) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "renameat2"):
        return errno.ENOSYS
    done = library.renameat2(AT_FDCWD, source, AT_FDCWD, target, RENAME_NOREPLACE)
    return 0 if done == 0 else ctypes.get_errno()
