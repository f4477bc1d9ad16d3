"""What a trainer hands on to the program: all its settings, or those that it picks out; the seed."""

from __future__ import annotations

import ast
import inspect
import textwrap

from pytest_trainguard.adapters.command import CommandTrainer
from pytest_trainguard.contract.trainer import Trainer

__all__ = ["hands_on_all", "takes_seed"]

_COPIES = (  # calls that hand nothing on
    "dict", "list", "set", "tuple", "sorted", "len", "iter", "enumerate", "copy", "deepcopy", "print", "str", "repr",
)  # fmt: skip


def hands_on_all(trainer: Trainer) -> bool:
    """Whether a setting of any name comes to the program: in its file, as an option, or with all the others in a call.

    `main(run.settings["lr"])` picks one out, and what else stands there is the trainer's alone.
    """
    if isinstance(trainer, CommandTrainer):
        return trainer.command is not None and any(place in trainer.command for place in ("{settings}", "{config}"))
    read = _read_train(trainer)
    if read is None:
        return False
    function, run = read
    if isinstance(trainer.config, type) and any(_is_of(node, run, "config") for node in ast.walk(function)):
        return True  # its own settings type is made of them
    return any(_hands_on(call, run) for call in ast.walk(function) if isinstance(call, ast.Call))


def takes_seed(trainer: Trainer) -> bool:
    """Whether the seed of a run comes to the program: as a word of its command, or its `train` reads `run.seed`."""
    if isinstance(trainer, CommandTrainer):
        return trainer.command is not None and "{seed}" in trainer.command
    read = _read_train(trainer)
    return read is not None and any(_is_of(node, read[1], "seed") for node in ast.walk(read[0]))


def _read_train(trainer: Trainer) -> tuple[ast.FunctionDef, str] | None:
    """The source of a trainer's `train`, and what it calls its run; None where that cannot be read."""
    try:
        function = ast.parse(textwrap.dedent(inspect.getsource(type(trainer).train))).body[0]
    except (OSError, TypeError, SyntaxError):
        return None
    if not isinstance(function, ast.FunctionDef) or len(function.args.args) < 2:
        return None
    return function, function.args.args[1].arg


def _hands_on(call: ast.Call, run: str) -> bool:
    """Whether a call is given all of a run's settings as one of its arguments, `settings` or `**settings`."""
    name = getattr(call.func, "id", None) or getattr(call.func, "attr", None)
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    return name not in _COPIES and any(_is_of(node, run, "settings", "config") for node in given)


def _is_of(node: ast.AST, run: str, *names: str) -> bool:
    """Whether this is an attribute of the run that bears one of these names."""
    of_it = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == run
    return of_it and getattr(node, "attr", None) in names
