"""How a training program becomes a `Trainer`: from a class by its name, or from a command line."""

from __future__ import annotations

import functools
import importlib
import json

from pytest_trainguard.contract.trainer import Trainer, TrainerSpec


def load_trainer(spec: TrainerSpec) -> Trainer:
    """The trainer that a spec (`module:Class`, or the table of a command line) names. Made once a process.

    Raises:
        ImportError: the module cannot be imported.
        AttributeError: the module has no such name.
        TypeError: the name is not a `Trainer` subclass.
    """
    return _load(spec if isinstance(spec, str) else json.dumps(spec, sort_keys=True))


@functools.cache
def _load(spec: str) -> Trainer:
    if spec.startswith("{"):
        from pytest_trainguard.adapters.command import CommandTrainer

        return CommandTrainer(json.loads(spec))
    module_name, _, name = spec.partition(":")
    found: object = importlib.import_module(module_name)
    for part in name.split("."):
        found = getattr(found, part)
    if isinstance(found, Trainer):
        return found
    if not (isinstance(found, type) and issubclass(found, Trainer)):
        raise TypeError(f"{spec} is {found!r}, not a subclass of pytest_trainguard.Trainer")
    return found()
