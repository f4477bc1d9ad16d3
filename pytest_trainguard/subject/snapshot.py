"""What a folder holds: the files, folders and links below it, by path, with what tells whether they are the same."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def snapshot(folder: Path) -> dict[str, tuple[int, str]]:
    """Everything below a folder: a file's path from there to its size and content hash, a link's to where it leads.

    A folder's path ends in a slash.
    """
    found = {}
    for root, folders, names in os.walk(folder):
        for name in folders:
            path = Path(root, name)
            found[f"{path.relative_to(folder)}/"] = (0, _leads_to(path))
        for name in names:
            path = Path(root, name)
            if path.is_symlink():
                found[str(path.relative_to(folder))] = (0, _leads_to(path))
            elif path.is_file():
                content = path.read_bytes()
                digest = hashlib.blake2b(content, digest_size=16).hexdigest()
                found[str(path.relative_to(folder))] = (len(content), digest)
    return found


def _leads_to(path: Path) -> str:
    return f"-> {os.readlink(path)}" if path.is_symlink() else ""
