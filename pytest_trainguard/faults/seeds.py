"""Inside a run: other seeds than those that the program sets, to see whether its random numbers matter at all."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any

from pytest_trainguard.recorder.writer import Recorder

__all__ = ["shift"]

SHIFT = 1_000_003  # added to a seed
_LARGEST = 2**32  # as few as NumPy takes


def shift(recorder: Recorder) -> None:
    """From now on each generator of the process is seeded with another number than the program says."""
    recorder.write("fault", step=recorder.steps, kind="seeds", where="start")
    import torch

    holders: list[tuple[Any, str]] = [(random, "seed"), (torch, "manual_seed"), (torch.random, "manual_seed")]
    if "numpy" in sys.modules:
        holders.append((sys.modules["numpy"].random, "seed"))
    shifted = [(plain, _shifted(plain)) for plain in (getattr(holder, name) for holder, name in holders)]
    for module in list(sys.modules.values()):  # also where they were imported by name
        for name, value in list(getattr(module, "__dict__", {}).items()):
            for plain, other in shifted:
                if value is plain:
                    setattr(module, name, other)


def _shifted(seed: Callable[..., object]) -> Callable[..., object]:
    def set_seed(value: object = None, *rest: Any, **options: Any) -> object:
        other = (value + SHIFT) % _LARGEST if isinstance(value, int) else value
        return seed(other, *rest, **options)

    return set_seed
