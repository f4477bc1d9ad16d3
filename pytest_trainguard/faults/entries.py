"""Entries of a checkpoint's files: the step count, a format version; read, and put in another way.

A file is JSON, or what `torch.save` wrote, which is read with `weights_only=True`: never unpickled. These functions
run in a process that has torch loaded; a case asks for them with `Subject.call`.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

STEP = ("step", "global_step", "iteration", "iter", "iter_num", "steps", "steps_done", "num_steps")
VERSION = ("format_version", "checkpoint_version", "schema_version", "version", "format", "schema")
TORCH = (".pt", ".pth", ".ckpt", ".bin")


def find(files: list[str], names: list[str]) -> dict[str, dict[str, Any]]:
    """The whole numbers that stand in files under one of some names, at the top: file to name to value."""
    found = {}
    for file in files:
        content = _read(Path(file))
        if isinstance(content, dict):
            entries = {name: content[name] for name in names if type(content.get(name)) is int}
            if entries:
                found[file] = entries
    return found


def put(file: str, name: str, value: Any) -> None:
    """Another value under a name."""
    content = _read(Path(file))
    content[name] = value
    _write(Path(file), content)


def drop(file: str, name: str) -> None:
    """Nothing under a name."""
    content = _read(Path(file))
    del content[name]
    _write(Path(file), content)


def _read(file: Path) -> Any:
    """A file's content; None where it is neither JSON nor what the restricted reader takes."""
    try:
        if file.suffix == ".json":
            return json.loads(file.read_bytes())
        if file.suffix in TORCH:
            import torch

            return torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError):
        pass
    return None


def _write(file: Path, content: Any) -> None:
    if file.suffix == ".json":
        file.write_text(json.dumps(content, indent=2))
        return
    import torch

    torch.save(content, file)
