"""Brings the recorder into a Python process that a run starts: once torch is imported, and not before.

Where no namespaces can be had, what the run is kept from is refused in that process too, from its start on.

Python imports a module of this name at its start when its folder is on PYTHONPATH. One that was there already is run
as well. Where this interpreter does not have the plugin, nothing happens.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

_HERE = str(Path(__file__).parent)


class _AfterTorch(importlib.abc.MetaPathFinder):
    """Finds torch as usual, and has the recorder installed once it is imported."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return None
        loader: Any = spec.loader
        load = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            from pytest_trainguard.launch.jobs import observe_as_noted

            observe_as_noted(_note)

        loader.exec_module = exec_module
        return spec


_others = [entry for entry in sys.path if entry and os.path.abspath(entry) != _HERE]
_earlier = importlib.machinery.PathFinder.find_spec("sitecustomize", _others)
if _earlier is not None and _earlier.loader is not None:
    _earlier.loader.exec_module(importlib.util.module_from_spec(_earlier))

_has_plugin = importlib.util.find_spec("pytest_trainguard") is not None
if _has_plugin and (os.environ.get("TRAINGUARD_NETWORK") == "refused" or os.environ.get("TRAINGUARD_KEPT")):
    from pytest_trainguard.isolation import environment, refusals

    refusals.install()
    if os.environ.get("TRAINGUARD_NETWORK") == "refused" and not os.environ.get("TRAINGUARD_HOSTS"):
        environment.refuse_programs()

# Not imported from `launch.protocol`, whose imports each of these processes would have to wait for.
_note = Path(os.environ.get("TRAINGUARD_RUN", ""))
if _note.is_file() and _has_plugin:
    from pytest_trainguard.launch.stacks import write_stack_on_signal

    write_stack_on_signal(_note.parent)
    sys.meta_path.insert(0, _AfterTorch())
