"""Whether a trainer hands all its settings on to the program, or picks out those that it knows."""

from __future__ import annotations

import ast
import inspect
import textwrap

from pytest_trainguard.adapters.command import CommandTrainer
from pytest_trainguard.contract.trainer import Trainer

__all__ = ["hands_on_all"]

_COPIES = (  # calls that hand nothing on
    "dict", "list", "set", "tuple", "sorted", "len", "iter", "enumerate", "copy", "deepcopy", "print", "str", "repr",
)  # fmt: skip


def hands_on_all(trainer: Trainer) -> bool:
    """Whether a setting of any name comes to the program: in its file, as an option, or with all the others in a call.

    `main(run.settings["lr"])` picks one out, and what else stands there is the trainer's alone.
    """
    if isinstance(trainer, CommandTrainer):
        return trainer.command is not None and any(place in trainer.command for place in ("{settings}", "{config}"))
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(type(trainer).train)))
    except (OSError, TypeError, SyntaxError):
        return False
    function = tree.body[0]
    if not isinstance(function, ast.FunctionDef) or len(function.args.args) < 2:
        return False
    run = function.args.args[1].arg
    if isinstance(trainer.config, type) and any(_is_of(node, run, "config") for node in ast.walk(function)):
        return True  # its own settings type is made of them
    return any(_hands_on(call, run) for call in ast.walk(function) if isinstance(call, ast.Call))


def _hands_on(call: ast.Call, run: str) -> bool:
    """Whether a call is given all of a run's settings as one of its arguments, `settings` or `**settings`."""
    name = getattr(call.func, "id", None) or getattr(call.func, "attr", None)
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    return name not in _COPIES and any(_is_of(node, run, "settings", "config") for node in given)


def _is_of(node: ast.AST, run: str, *names: str) -> bool:
    """Whether this is an attribute of the run that bears one of these names."""
    of_it = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == run
    return of_it and getattr(node, "attr", None) in names
