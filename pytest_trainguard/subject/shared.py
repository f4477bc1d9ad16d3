"""What one worker of a session finds out, and the others need not find out again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pytest_trainguard.launch.protocol import from_json, to_json

T = TypeVar("T")


def find_once(folder: Path | None, name: str, kind: type[T], find: Callable[[], T]) -> T:
    """What `find` returns: found out by the worker that asks first, while the others wait for it.

    Args:
        folder: one that all workers of the session have, and no other session; None where there are no others.
        name: of this piece, in the folder.
        kind: its type; see `protocol.to_json`.
        find: what it raises, it raises in each worker anew.
    """
    if folder is None:
        return find()
    import fcntl  # not on Windows, where nothing is run

    path = folder / f"{name}.json"
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # given back as the file is closed, whatever ends this process
        if not path.exists():
            half = path.with_suffix(".half")
            half.write_text(json.dumps(to_json(find())), encoding="utf-8")
            os.replace(half, path)
        return from_json(kind, json.loads(path.read_text(encoding="utf-8")))
