"""Inside a run: which of the loaded modules another trainer of the same `preflight.py` alone makes use of.

One `preflight.py` may present several programs and imports them all; what is wrong in one of them is no fault of the
others. Only what is certain is left out: a module that another trainer leads to and this one does not.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType, ModuleType

from pytest_trainguard.contract.trainer import Trainer
from pytest_trainguard.recorder.project import is_own

__all__ = ["modules_of_others"]


def modules_of_others(trainer: type[Trainer], home: str, project: str) -> set[str]:
    """The names of modules, in the folder `project`, that only other trainers in the module `home` lead to."""
    others = [
        value
        for value in vars(sys.modules[home]).values()
        if inspect.isclass(value) and issubclass(value, Trainer) and value is not Trainer
        and not issubclass(trainer, value)
    ]  # fmt: skip
    if not others:
        return set()
    return _reached(others, home, project) - _reached([trainer], home, project) - {home}


def _reached(values: list[type[Trainer]], home: str, project: str) -> set[str]:
    """The names of the project's modules that some values lead to; of `home`, only what they name themselves."""
    found: set[str] = set()
    seen: set[int] = set()
    waiting: list[object] = list(values)
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, ModuleType):
            if value.__name__ != home and is_own(value, project):
                found.add(value.__name__)
                waiting += [*vars(value).values(), sys.modules.get(value.__name__.rpartition(".")[0])]
        else:
            waiting += _next(value, project)
    return found


def _next(value: object, project: str) -> Iterator[object]:
    """What a value that is no module leads to."""
    if isinstance(value, dict):
        yield from list(value.values())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from list(value)
    elif isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, staticmethod | classmethod | MethodType):
        yield value.__func__
    elif isinstance(value, property):
        yield from (value.fget, value.fset)
    elif isinstance(value, type | FunctionType):
        module = sys.modules.get(value.__module__)
        if is_own(module, project):
            yield module
            yield from _inside(value)
    elif value is not None and not isinstance(value, str | int | float | bytes):
        yield type(value)


def _inside(value: type | FunctionType) -> Iterator[object]:
    """What the body of a class or a function names."""
    if isinstance(value, type):
        yield from (*value.__bases__, *list(vars(value).values()))
        return
    for cell in value.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet
            continue
    yield from (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())
    package = value.__globals__.get("__package__") or ""
    for name in _names(value.__code__):
        yield value.__globals__.get(name)
        yield from (sys.modules.get(name), sys.modules.get(f"{package}.{name}"))  # imported in the function itself


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
        elif isinstance(constant, str):  # importlib.import_module("...")
            yield constant
