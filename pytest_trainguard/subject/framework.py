"""What a trainer trains with, as the guides of the cases call it, from the libraries that a run loaded."""

from __future__ import annotations

from collections.abc import Iterable

PLAIN = "Plain PyTorch loop"
# A framework and the module that only its own training loop loads; the first that is there counts.
KNOWN = {
    "Lightning": ("lightning.pytorch.trainer", "pytorch_lightning.trainer", "lightning.fabric.fabric"),
    "transformers.Trainer": ("transformers.trainer",),
    "Accelerate": ("accelerate.accelerator",),
    "PyTorch Geometric": ("torch_geometric",),
}


def name_framework(libraries: Iterable[str]) -> str:
    """The framework among the modules that a run loaded; a plain loop where there is none."""
    loaded = set(libraries)
    return next((name for name, modules in KNOWN.items() if loaded.intersection(modules)), PLAIN)
