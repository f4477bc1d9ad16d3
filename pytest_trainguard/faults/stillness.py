"""Inside a run: no dropout, so that two runs whose rows are dealt out otherwise have the same losses."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch

from pytest_trainguard.recorder.project import own_modules

__all__ = ["turn_dropout_off"]

FUNCTIONS = (
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout",
)  # fmt: skip


def turn_dropout_off() -> None:
    """Have torch's dropout, that of its attention and that between the layers of its recurrent modules do nothing.

    Modules stay in the mode that they are in, and keep their p: nothing of this is saved.
    """
    functional: Any = torch.nn.functional
    still = {getattr(functional, name): _without(getattr(functional, name)) for name in FUNCTIONS}
    attention = functional.scaled_dot_product_attention
    still[attention] = _attending(attention)
    for module in [functional, *own_modules()]:  # the program's own may have taken one by name
        for name, value in list(vars(module).items()):
            if isinstance(value, FunctionType | BuiltinFunctionType) and value in still:
                setattr(module, name, still[value])
    torch.nn.modules.module.register_module_forward_pre_hook(_quieten)


def _without(original: Callable[..., object]) -> Callable[..., object]:
    """Plain enough for torch.compile to read."""

    @functools.wraps(original)
    def still(input: object, p: float = 0.0, training: bool = True, inplace: bool = False) -> object:
        return original(input, 0.0, training, inplace)

    return still


def _attending(original: Callable[..., object]) -> Callable[..., object]:
    """It is of C++, and has no signature: `dropout_p` is its fifth argument."""

    @functools.wraps(original)
    def still(*args: object, **kwargs: object) -> object:
        if len(args) > 4:
            args = (*args[:4], 0.0, *args[5:])
        return original(*args, **{**kwargs, **({"dropout_p": 0.0} if "dropout_p" in kwargs else {})})

    return still


def _quieten(module: torch.nn.Module, inputs: object) -> None:
    if isinstance(module, torch.nn.RNNBase):
        module.dropout = 0.0
