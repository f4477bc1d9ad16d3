"""What a team wrote into its `Trainer` and the harness would pass over: a misspelt attribute, an unknown setting."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from types import CodeType

from pytest_trainguard.adapters.command import CommandTrainer, known_fields
from pytest_trainguard.adapters.known import unknown_roles, unknown_settings
from pytest_trainguard.contract.nearest import nearest
from pytest_trainguard.contract.trainer import Trainer

ALIKE = 0.82  # `sampel` and `sample` are, `configure` and `config` are not


def find_mistake(trainer: Trainer) -> str | None:
    """The first thing in a trainer that would be passed over, in one line; None where there is none."""
    if isinstance(trainer, CommandTrainer):
        return None  # its table was looked at already
    return (
        _misspelt(type(trainer))
        or _not_to_be_called(trainer)
        or unknown_roles(trainer.fields)
        or unknown_settings(trainer.fields, [field.path for field in known_fields(trainer)])
    )


def _not_to_be_called(trainer: Trainer) -> str | None:
    """That `train` is missing, or does not take the run that it is given."""
    method = trainer.train
    if getattr(method, "__func__", None) is Trainer.train:
        return "has no train(self, run): write the one method that runs the program"
    try:
        inspect.signature(method).bind(None)
    except TypeError:
        return f"train{inspect.signature(method)} is called with one argument, the run: def train(self, run)"
    except ValueError:
        return None  # of a kind that states no signature
    return None


def _misspelt(trainer: type[Trainer]) -> str | None:
    """An attribute that is nearly one of `Trainer`'s, and that nothing of the team's own makes use of."""
    own = [cls for cls in trainer.__mro__ if issubclass(cls, Trainer) and cls is not Trainer]
    known = [name for name in dir(Trainer) if not name.startswith("_")]
    written = {name for cls in own for name in vars(cls) if not name.startswith("_")}
    for name in sorted(written.difference(known)):
        meant = nearest(name, known, ALIKE)
        if meant and meant not in written and name not in _names_used(own):
            return f"{name} is no attribute of a Trainer, and nothing reads it; did you mean {meant!r}?"
    return None


def _names_used(classes: list[type[Trainer]]) -> set[str]:
    """The names that code in the modules of these classes makes use of."""
    modules = [vars(sys.modules[cls.__module__]) for cls in classes if cls.__module__ in sys.modules]
    values = [value for names in modules for value in names.values()]
    inside = [value for cls in [*classes, *values] if isinstance(cls, type) for value in vars(cls).values()]
    found: set[str] = set()
    for value in [*values, *inside]:
        function = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
        for code in _codes(getattr(function, "__code__", None)):
            found.update(code.co_names)
    return found


def _codes(code: CodeType | None) -> Iterator[CodeType]:
    """A function's code, and that of the functions in it."""
    if isinstance(code, CodeType):
        yield code
        for constant in code.co_consts:
            yield from _codes(constant if isinstance(constant, CodeType) else None)
