"""Whether files of weights can be loaded, and every value in them is finite; done where torch is loaded.

Files are read as safetensors or with `torch.load(weights_only=True)`: never unpickled.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path

from pytest_trainguard.rows.suffixes import SAFETENSORS

NOT_FINITE = "is not finite"


def find_bad_weights(files: list[Path]) -> dict[Path, str]:
    """The files that cannot be loaded, or hold a value that is not finite; path to what is wrong.

    A file of another kind that the restricted reader refuses (a pickled Python object) is not judged.
    """
    found: dict[Path, str] = {}
    for file in files:
        try:
            bad = _name_not_finite(_load(file), "")
        except pickle.UnpicklingError as error:
            if os.path.getsize(file) == 0 or "Unsupported" not in str(error):
                found[file] = f"cannot be loaded ({_first_line(error)})"
            continue
        except Exception as error:
            found[file] = f"cannot be loaded ({_first_line(error)})"
            continue
        if bad:
            found[file] = f"{bad} {NOT_FINITE}"
    return found


def _load(file: Path) -> object:
    import torch

    if file.suffix == SAFETENSORS:
        from safetensors.torch import load_file

        loaded: object = load_file(file)
        return loaded
    return torch.load(file, map_location="cpu", weights_only=True)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _name_not_finite(value: object, name: str) -> str | None:
    """The name of the first tensor with a value that is not finite; of nested ones the names are joined by dots."""
    import torch

    if isinstance(value, torch.Tensor):
        return (name or "the tensor") if value.is_floating_point() and not value.isfinite().all() else None
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, inner in items:
        bad = _name_not_finite(inner, f"{name}.{key}" if name else str(key))
        if bad:
            return bad
    return None
