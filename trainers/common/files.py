"""Small files that are whole or not there at all, also after a power loss."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from trainers.common.errors import TrainingFailed, reason, show

TEMPORARY = ".tmp-"
"""What the name of everything half-written begins with; `remove_leftovers` knows it by that."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace ``path`` in one step: a reader, or a start after a crash, sees the old text or the new one.

    Raises:
        TrainingFailed: the file cannot be written; the old one is unharmed and no temporary file is left.
    """
    temporary = path.with_name(TEMPORARY + path.name)
    with saving(path, temporary):
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` for text, in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """`write_text` for one JSON value. NaN and infinity are a ValueError: they are no JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_json_lines(path: Path, values: Iterable[Any]) -> None:
    """`write_text` for one JSON value a line."""
    write_text(path, "".join(json.dumps(value, allow_nan=False, ensure_ascii=False) + "\n" for value in values))


@contextlib.contextmanager
def saving(path: Path, temporary: Path) -> Iterator[None]:
    """Whatever goes wrong inside, ``temporary`` (a file or a folder) is gone afterwards.

    Raises:
        TrainingFailed: in place of an OSError, naming ``path`` and what the operating system said.
    """
    try:
        yield
    except OSError as error:
        remove(temporary)
        kind = "disk_full" if error.errno in NO_ROOM else "failed"
        raise TrainingFailed(f"cannot save {show(path)}: {reason(error)}", kind) from error
    except BaseException:
        remove(temporary)
        raise


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there and can be removed; the next start tries again."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed run left half-written in ``folder``; only for the run that holds its lock."""
    for path in folder.glob(TEMPORARY + "*"):
        remove(path)


def sync_file(path: Path) -> None:
    """Wait until a file's bytes are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Wait until a folder's entries (creations, renames) are on the disk, where a system can do that."""
    if os.name == "posix":
        sync_file(path)


def sha256(path: Path) -> str:
    """The hexadecimal SHA-256 of a file, read in pieces of a MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
