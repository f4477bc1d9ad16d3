"""What one worker of a session finds out, and the others need not find out again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def once(folder: Path | None, name: str, make: Callable[[], Any]) -> Any:
    """What `make` returns: made by the worker that asks first, while the others wait for it.

    Args:
        folder: one that all workers of the session have, and no other session; None where there are no others.
        name: of this piece, in the folder.
        make: returns what JSON can hold. What it raises, it raises in each worker anew.
    """
    if folder is None:
        return make()
    import fcntl  # not on Windows, where nothing is run

    path = folder / f"{name}.json"
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # given back as the file is closed, whatever ends this process
        if not path.exists():
            half = path.with_suffix(".half")
            half.write_text(json.dumps(make()), encoding="utf-8")
            os.replace(half, path)
        return json.loads(path.read_text(encoding="utf-8"))
