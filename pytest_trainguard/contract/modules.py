"""Whether a module can be found, without importing anything: what a trainer's `module:Class` is checked with."""

from __future__ import annotations

import importlib.machinery
import sys


def module_exists(module: str, paths: list[str]) -> bool:
    """Whether a module can be found, without importing anything.

    Args:
        module: its whole name, `package.module`.
        paths: the folders to look in first, as on `sys.path`.
    """
    name, where = "", None
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        # By its last part: a namespace package in another, asked for by its whole name, wants that one imported.
        found = importlib.machinery.PathFinder.find_spec(part, paths if where is None else where)
        # Any finder, not only that of paths: an editable install may bring its own.
        finders = (finder for finder in sys.meta_path if hasattr(finder, "find_spec"))
        spec = found or next(filter(None, (finder.find_spec(name, where) for finder in finders)), None)
        if spec is None:
            return False
        where = list(spec.submodule_search_locations or [])
    return True
