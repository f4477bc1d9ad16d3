"""Covers: folders whose files a process sees as they are, and changes in a copy only (overlayfs)."""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from pytest_trainguard import linux
from pytest_trainguard.isolation.policy import Elsewhere

# What libraries keep there and find anew: no work of the program's.
CACHES = re.compile(
    r"(^|/)(__pycache__|\.cache|\.triton|\.nv|\.config/matplotlib|\.keras|\.ipython|\.hypothesis|torchinductor_[^/]*|nvidia-mps)(/|$)"
)


def choose(*folders: Path) -> list[Path]:
    """Those to cover: without the whole file system, and without what is inside of others."""
    return _outermost([path.resolve() for path in folders if path != path.parent and path.is_dir()])


def put_on(folder: Path, place: Path, beneath: Sequence[Path], through: Sequence[Path]) -> None:
    """Cover a folder: what is written below it goes to `place`.

    Args:
        folder: it stays as it is.
        place: an empty folder on a file system that is not below `folder`.
        beneath: folders whose files are seen as if they were in `folder`, over its own.
        through: folders inside of it that are not covered.

    Raises:
        OSError: it cannot be covered; it is as it was.
    """
    upper, work = place / "upper", place / "work"
    upper.mkdir(parents=True)
    work.mkdir()
    inside = [path for path in through if folder in path.parents and path.is_dir()]
    # What is mounted there would not be seen either.
    open_ones = _outermost([*inside, *_mounted_below(folder)])
    held = [(path, os.open(path, os.O_PATH | os.O_CLOEXEC)) for path in open_ones]
    try:
        linux.mount_overlay(folder, [*beneath, folder], upper, work)
        try:
            for path, descriptor in held:
                linux.bind(Path(f"/proc/self/fd/{descriptor}"), path)
        except OSError:
            take_off(folder)
            raise
    finally:
        for _, descriptor in held:
            os.close(descriptor)


def take_off(folder: Path) -> None:
    """Take a cover off again; there must be one, else what is mounted there comes off."""
    linux.unmount(folder)


def _outermost(paths: Sequence[Path]) -> list[Path]:
    return sorted({path for path in paths if not any(other in path.parents for other in paths)})


def _mounted_below(folder: Path) -> list[Path]:
    """Where something is mounted below a folder (proc(5), mountinfo)."""
    above = os.path.join(folder, "")
    found = []
    for line in os.fsdecode(Path("/proc/self/mountinfo").read_bytes()).splitlines():
        path = line.split(" ")[4]
        if "\\" in path:
            path = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), path)
        if path.startswith(above):
            found.append(Path(path))
    return found


def list_changes(folder: Path, place: Path) -> list[Elsewhere]:
    """What was written below a covered folder, by what its `place` holds; caches are left out."""
    return sorted(_changes(folder, place / "upper"), key=lambda one: one.path)


def _changes(folder: Path, upper: Path) -> Iterator[Elsewhere]:
    for parent, _, names in os.walk(upper):
        for name in names:
            written = Path(parent, name)
            path = folder / written.relative_to(upper)
            if CACHES.search(str(path)):
                continue
            status = written.lstat()
            before = os.path.lexists(path)  # the cover is off by now
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:  # how overlayfs says that it is gone
                if before:
                    yield Elsewhere(path, "removed", 0.0)
            elif not before:
                yield Elsewhere(path, "made", status.st_mtime)
            elif not _same(path, written):
                yield Elsewhere(path, "changed", status.st_mtime)


def _same(path: Path, written: Path) -> bool:
    """Whether a file that was opened to be written is as it was."""
    if path.is_symlink() or written.is_symlink() or not path.is_file():
        return path.is_symlink() and written.is_symlink() and os.readlink(path) == os.readlink(written)
    return filecmp.cmp(path, written, shallow=False)


def clear(place: Path) -> None:
    """Remove what was written there."""
    shutil.rmtree(place, ignore_errors=True)
