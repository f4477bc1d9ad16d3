"""Folders that programs left, whatever is in them: walked, read, copied and removed without a hang or a crash.

There may be pipes, sockets and devices, which are never opened here; files that may not be read; sparse files that say
they are larger than the disk; and folders in folders without end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

LEVELS = 100  # of folders in folders; what is nested deeper is passed over
BLOCK = 1 << 20  # bytes that are read at once
_ZEROS = bytes(BLOCK)


def walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Everything below a folder, a folder before what is in it; what may not be looked into is passed over."""
    waiting = [(str(folder), 1)]
    while waiting:
        path, level = waiting.pop()
        for entry in _entries(path):
            yield entry
            if level < LEVELS and entry.is_dir(follow_symlinks=False):
                waiting.append((entry.path, level + 1))


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:  # gone, not to be read, or its path too long
        return []


def open_file(path: str) -> int:
    """A descriptor for reading a regular file.

    Raises:
        OSError: it may not be read, is gone, or is none any more.
    """
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "no regular file", path)
    return file


def read_blocks(file: int) -> Iterator[tuple[int, bytes]]:
    """Where in a file something other than zeros stands, and what: its holes are not read (lseek(2), SEEK_DATA).

    The same content gives the same blocks, however much of it is holes.

    Raises:
        OSError: it cannot be read.
    """
    place = _find_data(file, 0)
    while place is not None:
        first = place - place % BLOCK
        block = os.pread(file, BLOCK, first)
        if not block:
            return
        if block != _ZEROS[: len(block)]:
            yield first, block
        place = _find_data(file, first + BLOCK)


def _find_data(file: int, place: int) -> int | None:
    """Where the next data begin, from a place in a file on; None where there are none any more."""
    try:
        return os.lseek(file, place, os.SEEK_DATA)
    except OSError as error:
        return None if error.errno == errno.ENXIO else place  # a file system that knows no holes


def copy(source: Path, to: Path) -> Path:
    """Copy a folder with its files, links, pipes, times and permissions; `to` may be there already.

    A sparse file stays sparse, and one that may not be read is empty in the copy, with the same permissions. Sockets
    and devices are left out.

    Returns:
        `to`.

    Raises:
        OSError: something cannot be written, as where no space is left.
    """
    to.mkdir(parents=True, exist_ok=True)
    copied = [(str(source), str(to))]
    for entry in walk(source):
        place = os.path.join(to, os.path.relpath(entry.path, source))
        with contextlib.suppress(FileNotFoundError):  # gone meanwhile, or in a folder that was
            if entry.is_dir(follow_symlinks=False):
                os.makedirs(place, exist_ok=True)
                copied.append((entry.path, place))
            else:
                _copy_entry(entry, place)
    for old, new in reversed(copied):  # a folder's time, and that it may not be written to, after what is in it
        shutil.copystat(old, new)
    return to


def _copy_entry(entry: os.DirEntry[str], place: str) -> None:
    mode = entry.stat(follow_symlinks=False).st_mode
    if stat.S_ISLNK(mode):
        os.symlink(os.readlink(entry.path), place)
    elif stat.S_ISFIFO(mode):
        os.mkfifo(place)
    elif stat.S_ISREG(mode):
        _copy_file(entry.path, place)
    else:
        return
    shutil.copystat(entry.path, place, follow_symlinks=False)


def _copy_file(path: str, place: str) -> None:
    try:
        file = open_file(path)
    except PermissionError:
        os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC))
        return
    with os.fdopen(file, "rb") as old, open(place, "wb") as new:
        status = os.fstat(file)
        if status.st_blocks * 512 >= status.st_size:
            shutil.copyfileobj(old, new, BLOCK)
            return
        for first, block in read_blocks(file):
            new.seek(first)
            new.write(block)
        new.truncate(status.st_size)


def remove(folder: Path) -> None:
    """Remove a folder and all that is in it, as far as that can be done."""
    with contextlib.suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
    if os.path.lexists(folder):
        _remove_stubborn(folder)


def _remove_stubborn(folder: Path) -> None:
    """What a first try left: folders that may not be written to are opened, and too deep ones taken apart."""
    waiting, aside = [str(folder)], 0
    while waiting:
        top = waiting.pop()
        with contextlib.suppress(OSError):
            os.chmod(top, 0o700)
        for entry in walk(Path(top)):
            if not entry.is_dir(follow_symlinks=False):
                continue
            with contextlib.suppress(OSError):
                os.chmod(entry.path, 0o700)
                if os.path.relpath(entry.path, top).count(os.sep) == LEVELS - 1:
                    aside += 1
                    apart = f"{folder}.apart-{aside}"
                    os.rename(entry.path, apart)
                    waiting.append(apart)
        shutil.rmtree(top, ignore_errors=True)
