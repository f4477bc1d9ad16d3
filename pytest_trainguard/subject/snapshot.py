"""What a folder holds: the files, folders and links below it, by path, with what tells whether they are the same."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from pytest_trainguard import folders


def snapshot(folder: Path) -> dict[str, tuple[int, str]]:
    """Everything below a folder: a file's path from there to its size and content hash, a link's to where it leads.

    A folder's path ends in a slash. Pipes, sockets and devices are none of a program's results, and passed over; so is
    what goes away meanwhile. A file that may not be read is told by its time.
    """
    found = {}
    for entry in folders.walk(folder):
        name = os.path.relpath(entry.path, folder)
        try:
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                ends = "/" if os.path.isdir(entry.path) else ""  # False of a link that leads to itself
                found[name + ends] = (0, f"-> {os.readlink(entry.path)}")
            elif stat.S_ISDIR(mode):
                found[f"{name}/"] = (0, "")
            elif stat.S_ISREG(mode):
                found[name] = _digest(entry)
        except FileNotFoundError:
            continue
    return found


def _digest(entry: os.DirEntry[str]) -> tuple[int, str]:
    """A file's size and the hash of its content, read in pieces and without its holes."""
    try:
        file = folders.open_file(entry.path)
    except PermissionError:
        status = entry.stat(follow_symlinks=False)
        return status.st_size, f"not to be read, of {status.st_mtime_ns} ns"
    try:
        digest = hashlib.blake2b(digest_size=16)
        for place, block in folders.read_blocks(file):
            digest.update(b"%d:" % place)
            digest.update(block)
        return os.fstat(file).st_size, digest.hexdigest()
    finally:
        os.close(file)
