"""Which of the loaded modules are the program's own: those in the project, the folder that it is started in."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from types import ModuleType

__all__ = ["is_own", "own_modules"]


def own_modules() -> Iterator[ModuleType]:
    """The program's own modules, as far as they are loaded."""
    for module in list(sys.modules.values()):
        if type(module) is ModuleType and is_own(module):
            yield module


def is_own(module: ModuleType | None, project: str | None = None) -> bool:
    """Whether a module's file stands in a folder, the project if none is given, and in no environment inside it."""
    file = getattr(module, "__file__", None) or ""
    return file.startswith((project or os.getcwd()) + os.sep) and "site-packages" not in file
