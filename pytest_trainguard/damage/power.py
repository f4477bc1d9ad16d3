"""Loss of power, modelled honestly: what was written and renamed but never fsynced may be lost.

POSIX promises of a file only what was fsynced, and of a name only what was there when its folder was fsynced. The
kernel writes the rest back within half a minute or so; real saves are further apart than that. So what the last save
did is at risk, and what came before it is taken as written back.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pytest_trainguard.recorder.timeline import Recording

__all__ = ["DISK_STATES", "lose_unsynced"]

# In what form a file system may come back: each is one that ext4 and XFS allow.
DISK_STATES = {
    "empty": "power lost: names kept, but files that were never fsynced are empty",
    "cut": "power lost: names kept, but files that were never fsynced are cut in half",
    "unnamed": "power lost: new names whose folder was never fsynced are gone",
}


def lose_unsynced(folder: Path, original: Path, recording: Recording, state: str) -> list[str]:
    """Bring a copy of an output folder into the state that a loss of power may leave.

    Args:
        folder: the copy, which is changed.
        original: the folder as the run left it, whose inodes tell what was fsynced.
        recording: the run's writes and fsyncs.
        state: one of `DISK_STATES`.

    Returns:
        the names of what was lost.
    """
    writes = recording.of("write")
    if not writes:
        return []
    last = writes[-1]["step"]
    at_risk = {event["path"] for event in writes if event["step"] == last}
    before = {event["path"] for event in writes if event["step"] != last}
    lost = []
    for path in sorted(original.rglob("*")):
        if not path.exists() or not _touched(path, at_risk):
            continue
        copy = folder / path.relative_to(original)
        if state == "unnamed":
            if str(path) in at_risk - before and not _name_durable(path, recording) and os.path.lexists(copy):
                shutil.rmtree(copy) if copy.is_dir() else copy.unlink()
                lost.append(path.name)
        elif path.is_file() and not _content_durable(path, recording):
            os.truncate(copy, 0 if state == "empty" else path.stat().st_size // 2)
            lost.append(str(path.relative_to(original)))
    return lost


def _touched(path: Path, at_risk: set[str]) -> bool:
    """Written itself, or in a folder that was (a save writes a folder and renames it)."""
    return any(str(one) in at_risk for one in (path, *path.parents))


def _content_durable(path: Path, recording: Recording) -> bool:
    status = path.stat()
    return any(
        event["inode"] == status.st_ino and event["modified"] == status.st_mtime_ns for event in recording.of("fsync")
    )


def _name_durable(path: Path, recording: Recording) -> bool:
    inode = path.stat().st_ino
    return any(
        event["path"] == str(path.parent) and event["entries"].get(path.name) == inode
        for event in recording.of("fsync")
    )
