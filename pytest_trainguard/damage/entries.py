"""Entries of a checkpoint's files: the step count, a format version; read, and put in another way.

A file is JSON, or what `torch.save` wrote, which is read with `weights_only=True`: never unpickled. These functions
run in a process that has torch loaded; a case asks for them with `TrainerServer.call`.
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


def flip_bits(file: str, many: int = 16) -> str:
    """Flip the highest bit of the exponent of some weights, on the disk: a 0.02 becomes 7e36.

    They are spread over the largest tensor of the file.

    Returns:
        the tensor's name; empty where no tensor of floating-point numbers stands in the file as it is in memory.
    """
    import torch

    path = Path(file)
    tensors = _tensors(path)
    names = [name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel()]
    if not names:
        return ""
    name = max(names, key=lambda one: tensors[one].numel())
    tensor = tensors[name].contiguous()
    raw = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
    content = bytearray(path.read_bytes())
    start, size = content.find(raw), tensor.element_size()
    if start < 0:
        return ""
    for nth in range(min(many, tensor.numel())):
        element = nth * tensor.numel() // many if tensor.numel() >= many else nth
        content[start + element * size + size - 1] ^= 0x40  # the last byte holds sign and exponent: little-endian
    path.write_bytes(content)
    return name


def _tensors(path: Path) -> dict[str, Any]:
    """A weights file's tensors by name; of nested ones the names are joined by dots."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return dict(load_file(path))
    found: dict[str, Any] = {}
    _gather(_read(path), "", found)
    return found


def _gather(value: Any, name: str, found: dict[str, Any]) -> None:
    import torch

    if isinstance(value, torch.Tensor):
        found[name] = value
    elif isinstance(value, dict):
        for key, inner in value.items():
            _gather(inner, f"{name}.{key}" if name else str(key), found)
