"""Calls by function: what is asked for on pytest's side by a function of some module is done in a process of its own.

Such a function stands at the top of a module that pytest can import without torch. Its arguments and what it returns
are those that `protocol.to_json` knows, by its own type hints.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import TypeVar

from pytest_trainguard.adapters import load_trainer
from pytest_trainguard.contract.trainer import TrainerSpec
from pytest_trainguard.launch import protocol
from pytest_trainguard.launch.protocol import Call, ProcessRequest

R = TypeVar("R")


def call_of(
    request: ProcessRequest,
    function: Callable[..., object],
    trainer: TrainerSpec | None,
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
) -> Call:
    """The job of calling a function.

    Args:
        request: the limits.
        function: at the top of a module.
        trainer: where it is given, the first of `args` stands for it: there the function gets the trainer, loaded.
        args: the function's own.
        kwargs: likewise.

    Raises:
        TypeError: the function takes no such arguments.
    """
    arguments = list(inspect.signature(function).bind(*args, **kwargs).arguments.items())
    given = dict(arguments if trainer is None else arguments[1:])
    return Call(request, f"{function.__module__}:{function.__qualname__}", trainer, given)


def answer(call: Call) -> object:
    """Call the function, in the process that has the trainer loaded."""
    module, _, name = call.function.partition(":")
    function = getattr(importlib.import_module(module), name)
    hints = protocol.hints_of(function)
    arguments = {name: protocol.from_json(hints[name], value) for name, value in call.arguments.items()}
    loaded = () if call.trainer is None else (load_trainer(call.trainer),)
    return function(*loaded, **arguments)


def result_of(function: Callable[..., R], written: object) -> R:
    """What the function returned, from its form in JSON."""
    result: R = protocol.from_json(protocol.hints_of(function)["return"], written)
    return result
