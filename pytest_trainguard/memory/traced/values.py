"""Values that fake tensors carry: integers, booleans and small floats are computed for real on the CPU, beside.

A graph network asks how many nodes there are, an attention mask whether it masks anything: what comes from the data
is known, and with it every shape that depends on it. What comes from the weights is not. A number that only goes
into a log or a metric is made up; one that decides a shape on the device is `Unknown`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from pytest_trainguard.memory.traced.fakecuda import Arguments, FakeTensor, Keywords, Operation
from pytest_trainguard.recorder.tensors import tensors_in

aten = torch.ops.aten

LARGEST_VALUE = 32 << 20  # bytes of a value that is kept
LARGEST_FLOAT_VALUE = 64 << 10  # of one of floats: weights and activations are larger, and nobody asks for them
# Of floats with one dimension: a random number for each edge of a graph decides a shape.
LARGEST_FLOAT_VECTOR = 16 << 20


def map_tensors(value: object, function: Callable[[torch.Tensor], object]) -> object:
    """The same arguments with `function` applied to each tensor, and the CPU in place of each device."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, list | tuple):
        return type(value)([map_tensors(inner, function) for inner in value])
    return torch.device("cpu") if isinstance(value, torch.device) else value


def find_value(tensor: torch.Tensor) -> torch.Tensor | None:
    """A tensor's value on the CPU: its own memory if it is real, else what was computed beside; None if unknown."""
    if not isinstance(tensor, FakeTensor):
        return tensor
    value: torch.Tensor | None = getattr(tensor, "_value", None)
    if value is not None and getattr(value.untyped_storage(), "_overwritten", False):
        return None
    return value


def forget_value(tensor: torch.Tensor) -> None:
    """Something unknown was written into a tensor: its value is void, and with it that of every view of it."""
    value = getattr(tensor, "_value", None)
    if value is not None:
        value.untyped_storage()._overwritten = True
        del tensor._value


def is_worth_keeping(tensor: object) -> bool:
    """Whether a result's value may be asked for later, and is small enough to keep."""
    if not isinstance(tensor, torch.Tensor):
        return False
    size = tensor.numel() * tensor.element_size()
    if tensor.is_floating_point():
        return bool(size <= LARGEST_FLOAT_VALUE or (tensor.dim() == 1 and size <= LARGEST_FLOAT_VECTOR))
    return bool(not tensor.is_complex() and size <= LARGEST_VALUE)


def compute_values(func: Operation, args: Arguments, kwargs: Keywords) -> object:
    """What an operation gives on the values of its arguments; None where one is unknown, or it fails on the CPU."""
    tensors = [*tensors_in(args), *tensors_in(kwargs)]
    if any(find_value(tensor) is None for tensor in tensors):
        return None
    options = {name: map_tensors(value, find_value) for name, value in kwargs.items() if name != "pin_memory"}
    try:
        return func(*(map_tensors(value, find_value) for value in args), **options)
    except (RuntimeError, NotImplementedError, ValueError, TypeError, IndexError):
        return None  # no such kernel on the CPU: the value is then unknown


def remember_values(results: object, values: object) -> None:
    """Attach values to the fake results that they belong to."""
    for result, value in zip(tensors_in(results), tensors_in(values), strict=False):
        if isinstance(result, FakeTensor) and is_worth_keeping(value) and not isinstance(value, FakeTensor):
            result._value = value


def forget_written_values(func: Operation, args: Arguments, kwargs: Keywords) -> None:
    """Void the values of the arguments that an operation wrote into."""
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            written = args[place] if place < len(args) else kwargs.get(argument.name)
            for tensor in tensors_in(written):
                forget_value(tensor)


def assume_finite(func: Operation, args: Arguments, result: torch.Tensor) -> torch.Tensor | None:
    """What is known without values: numbers are taken to be finite, as in a training that goes well.

    `isnan` compares a tensor with itself, `isfinite` and `isinf` its magnitude with infinity. Which makes a loss
    finite, a gradient clean and a scaled step one that is taken: without it there would be no optimizer's state.
    """
    if func in (aten.eq.Tensor, aten.ne.Tensor):
        same = args[0] is args[1]
        answer = same and func is aten.eq.Tensor
        if not same:
            return None
    elif func in (aten.eq.Scalar, aten.ne.Scalar):
        if not isinstance(args[1], float) or math.isfinite(args[1]):
            return None
        answer = func is aten.ne.Scalar
    elif func in (aten.isnan.default, aten.isinf.default):
        answer = False
    else:
        return None
    return torch.tensor(answer).expand(result.shape)


_EITHER = (aten.bitwise_or.Tensor, aten.logical_or.default)
_BOTH = (aten.bitwise_and.Tensor, aten.logical_and.default)


def infer_value(func: Operation, args: Arguments, result: torch.Tensor) -> torch.Tensor | None:
    """What one known argument decides alone: `true or anything` is true, `0 and anything` is 0.

    So a generation ends at its greatest length, though nobody knows whether its last token would have ended it.
    """
    if func not in (*_EITHER, *_BOTH):
        return None
    for known in (find_value(one) for one in args if isinstance(one, torch.Tensor)):
        if known is None or known.numel() == 0:
            continue
        if func in _EITHER and known.dtype is torch.bool and bool(known.all()):
            return torch.ones((), dtype=result.dtype).expand(result.shape)
        if func in _BOTH and not bool(known.any()):
            return torch.zeros((), dtype=result.dtype).expand(result.shape)
    return None


MOST_EXPERTS = 1024  # choices among more are of words or classes
ROUTING = (
    "which of a few experts takes which row depends on the weights: each is taken to be chosen equally often "
    "(balanced routing); what is kept for one that is chosen more often may be more"
)


def balance_choices(among: int, shape: torch.Size) -> torch.Tensor:
    """Choices, made up: one after the other, so that each is made equally often."""
    return (torch.arange(shape.numel()) % among).reshape(shape)


def make_up_value(tensor: torch.Tensor) -> torch.Tensor:
    """A real tensor in place of an unknown one: ones for floats (a loss, a norm), zeros for classes and flags."""
    fill = torch.ones if tensor.is_floating_point() else torch.zeros
    return fill(tensor.shape, dtype=tensor.dtype)
