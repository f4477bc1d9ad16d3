"""Whether the harness itself has room: in its folder, and in the memory that the container may take.

What runs out there is no fault of a trainer's: each reason given here is of the harness, with what to set.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

LEAST_FREE = 16 << 20  # bytes in the session's folder with which a run is not even started
NOTHING = 1 << 20  # bytes: with so few left, what a run wrote last may be lost
# For one pytest process. A whole preflight of a small trainer took 128 MiB in its folder; in memory 0.4 GiB, servers
# included, and the 256 MiB of the small disk that case 25 fills, which is one of memory.
WANTED = 512 << 20  # bytes
WANTED_MEMORY = 1 << 30  # bytes
NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded|\bENOSPC\b|\bEDQUOT\b")
KILLED = re.compile(r"signal: Killed|\bSIGKILL\b|exit code:? -9\b")  # what a program says of a process of its own
ROOT = Path("/")
SHARED_MEMORY = Path("/dev/shm")


def find_free(folder: Path) -> int:
    """Bytes that can still be written in a folder, or in the one above it that exists; of inodes at least one."""
    while not folder.exists():
        folder = folder.parent
    told = os.statvfs(folder)
    return 0 if told.f_files and not told.f_favail else told.f_bavail * told.f_frsize


def tell_full(folder: Path) -> str:
    """That there is no space left for the harness, and what to set: the same for all folders on one disk."""
    disk = folder.absolute()
    while not disk.is_mount() and disk != disk.parent:
        disk = disk.parent
    said = f"the harness has no room on {disk} ({_size(shutil.disk_usage(disk).total)} in all)"
    if disk == SHARED_MEMORY:
        return f"{said}: give the container more of it (--shm-size)"
    return f"{said}: set --basetemp or TMPDIR to a disk with {_size(WANTED)} for each worker"


def find_shortage(
    folder: Path, exit: int, output: str, kills: int, *, small_disk: bool = False, killed: bool = False
) -> str | None:
    """What the harness lacked while a process ran, in one line; None where it lacked nothing.

    Args:
        folder: the session's.
        exit: the exit code; negative, the signal that ended the process.
        output: what it printed.
        kills: what `count_oom_kills` said before it was started.
        small_disk: it was given a disk to be filled.
        killed: the case itself may have killed it.
    """
    failed_writing = exit != 0 and NO_SPACE.search(output)
    if not small_disk and (failed_writing or find_free(folder) < NOTHING):
        return tell_full(_find_fullest(folder))
    ended = exit == -signal.SIGKILL or (exit != 0 and KILLED.search(output))
    if ended and not killed and count_oom_kills() > kills:
        return tell_out_of_memory()
    return None


def _find_fullest(folder: Path) -> Path:
    """Of the session's folder and shared memory, in which a data loader's workers put batches, the one that is full."""
    full = SHARED_MEMORY.exists() and find_free(SHARED_MEMORY) < LEAST_FREE <= find_free(folder)
    return SHARED_MEMORY if full else folder


def tell_out_of_memory(root: Path = ROOT) -> str:
    """That the kernel ended a process for want of memory, and what to set."""
    limit, where = _find_memory_limit(root)
    said = f"the harness has no memory left, of {_size(limit)} ({where}), and was killed"
    return f"{said}: give the container {_size(WANTED_MEMORY)} for each worker (-n)"


def count_oom_kills(root: Path = ROOT) -> int:
    """How many processes the kernel has ended so far for want of memory: of this container, else of the machine."""
    for place in _list_cgroups(root):
        for name in ("memory.events", "memory.oom_control"):
            found = _read_number(place / name, "oom_kill")
            if found is not None:
                return found
    return _read_number(root / "proc/vmstat", "oom_kill") or 0


def _find_memory_limit(root: Path) -> tuple[int, str]:
    """The lowest limit on memory, in bytes, and where it stands."""
    found = [((_read_number(root / "proc/meminfo", "MemTotal:") or 0) << 10, "/proc/meminfo")]
    for place in _list_cgroups(root):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _read_text(place / name).strip()
            if limit.isdigit():  # else "max"
                found.append((int(limit), name))
    return min((limit for limit in found if limit[0]), default=(0, "unknown"))


def _list_cgroups(root: Path) -> Iterator[Path]:
    """Folders of this process's control group for memory, of version 2 and of version 1.

    In a container the whole of what is mounted is its own group, and the path that the kernel tells is of outside.
    """
    mounted = root / "sys/fs/cgroup"
    for line in _read_text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" or "memory" in controllers.split(","):
            base = mounted if number == "0" else mounted / "memory"
            yield base / path.lstrip("/")
            yield base


def _read_number(file: Path, name: str) -> int | None:
    """The number behind a name in a file of lines `name number`."""
    for line in _read_text(file).splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == name:
            return int(words[1])
    return None


def _read_text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:  # another system, or another version of control groups
        return ""


def _size(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size >> 20} MiB"
