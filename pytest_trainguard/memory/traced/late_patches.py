"""Libraries that take fake tensors for something else, or look for their numbers, are patched once they are imported.

transformers takes them for tracing by torch.compile, and then avoids every look at a value. safetensors finds shared
memory by its address, and writes bytes: here by the storage, and a file with a hole in the place of bytes.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

from pytest_trainguard.memory.traced.fake_checkpoints import install_in_safetensors


def _take_for_real(module: ModuleType) -> None:
    vars(module)["is_fake_tensor"] = lambda x: False


def _take_values_for_right(module: ModuleType) -> None:
    """A distribution looks whether its values are among those that it can have: what is not known would not be."""
    module.Distribution.set_default_validate_args(False)


_PATCHES: dict[str, Callable[[ModuleType], None]] = {
    "transformers.utils.import_utils": _take_for_real,
    "torch.distributions.distribution": _take_values_for_right,
    "safetensors.torch": install_in_safetensors,
}


def patch_libraries() -> None:
    """Patch what is imported already, and the rest as it comes."""
    for name, patch in _PATCHES.items():
        if name in sys.modules:
            patch(sys.modules[name])
    sys.meta_path.insert(0, _PatchingFinder())


class _PatchingFinder(importlib.abc.MetaPathFinder):
    """Finds a module as usual, and has it patched once it is imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in _PATCHES or name in sys.modules:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _PATCHES[name](module)

        vars(spec.loader)["exec_module"] = exec_module
        return spec
