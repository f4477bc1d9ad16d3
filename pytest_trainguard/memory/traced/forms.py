"""What comes of an operation, by the form of its arguments: asked of torch once, and known from then on.

A model of many layers, or a step of many forward passes, asks the same thousands of times. torch answers each time
anew, or from a cache whose questions take almost as long; together that would be most of a trace's time.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal

import torch

from pytest_trainguard.memory.traced.fakecuda import Arguments, FakeMode, FakeTensor, Keywords, Operation, make_fake
from pytest_trainguard.recorder.tensors import tensors_in

aten = torch.ops.aten
Key = tuple[object, ...]

MOST_KNOWN = 20_000  # forms that are kept; a generation makes new ones with every token
_LOOKS_AT_VALUES = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
_BY_MASKS_ONLY = frozenset({aten.index.Tensor, aten._unsafe_index.Tensor})
_RESHAPE = frozenset({"aten::resize_", "aten::resize_as_", "aten::set_"})
_SHARES = frozenset({aten._unsafe_view.default})  # memory with its argument, and does not say so
_PLAIN = (bool, int, float, str, torch.dtype, torch.device, torch.layout, torch.memory_format)


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor of its own memory, without gaps in it."""

    shape: torch.Size
    strides: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


@dataclass(frozen=True, slots=True)
class _Form:
    """What comes of an operation.

    Attributes:
        parts: its tensors; what is none, as it is.
        within: the type of what holds them; None where there is one part alone.
        in_place: it is the first argument instead.
    """

    parts: tuple[object, ...] = ()
    within: type[Any] | None = None
    in_place: bool = False

    def make(self, mode: FakeMode, args: Arguments) -> object:
        """The same again, its tensors new ones."""
        if self.in_place:
            return args[0]
        made = [
            make_fake(mode, part.shape, part.strides, part.dtype, part.device) if isinstance(part, _Tensor) else part
            for part in self.parts
        ]
        return made[0] if self.within is None else self.within(made)


class Forms:
    """Runs operations with fake tensors."""

    def __init__(self, mode: FakeMode):
        """`mode` is asked what is not known."""
        self._mode = mode
        self._known: dict[Key, _Form | None] = {}  # None: it cannot be made without asking

    def run(self, func: Operation, args: Arguments, kwargs: Keywords) -> object:
        """What an operation gives. Raises whatever torch raises."""
        result = self._mode.run_directly(func, args, kwargs)
        if result is not None:
            return result
        key = _describe_call(func, args, kwargs)
        form = self._known.get(key) if key is not None else None
        if form is not None:
            return form.make(self._mode, args)
        with self._mode:
            result = func(*args, **kwargs)
        if key is not None and key not in self._known:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[key] = self._find_form(func, args, kwargs, result)
        return result

    def _find_form(self, func: Operation, args: Arguments, kwargs: Keywords, result: object) -> _Form | None:
        """The form of what came of an operation; None where it is not certain to be the same again."""
        if _kind(func) == "in place":
            if result is None:
                return _Form((None,))
            return _Form(in_place=True) if args and result is args[0] else None
        parts = tuple(result) if isinstance(result, tuple | list) else (result,)
        described: list[object] = []
        for part in parts:
            if isinstance(part, torch.Tensor):
                tensor = _describe(part)
                if tensor is None:
                    return None
                described.append(_Tensor(*tensor))
            else:
                described.append(part)
        given = {_memory(tensor) for tensor in (*tensors_in(args), *tensors_in(kwargs))}
        memories = [_memory(part) for part in parts if isinstance(part, torch.Tensor)]
        if len(set(memories)) < len(memories) or given.intersection(memories):
            return None
        form = _Form(tuple(described), type(result) if isinstance(result, tuple | list) else None)
        again = form.make(self._mode, args)
        same = all(one.untyped_storage().nbytes() == other.untyped_storage().nbytes()
                   for one, other in zip(tensors_in(result), tensors_in(again), strict=True))  # fmt: skip
        return form if same else None


def _memory(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


@functools.cache
def _kind(func: Operation) -> Literal["new", "in place", "other"]:
    """Whether an operation makes new tensors, of a form that its arguments' forms decide, or gives back its first."""
    schema = func._schema
    looks = any(tag in func.tags for tag in _LOOKS_AT_VALUES) and func not in _BY_MASKS_ONLY
    if looks or func in _SHARES or schema.name in _RESHAPE or torch.Tag.inplace_view in func.tags:
        return "other"
    if schema.is_mutable:
        written_last = any(one.kwarg_only and one.alias_info is not None for one in schema.arguments)  # `out=`
        return "in place" if schema.name.endswith("_") and not written_last else "other"
    views = any(one.alias_info is not None for one in (*schema.arguments, *schema.returns))
    return "other" if views else "new"


def _describe_call(func: Operation, args: Arguments, kwargs: Keywords) -> Key | None:
    """All that the form of an operation's result depends on; None where there may be more to it than is seen here."""
    if not isinstance(func, Operation) or _kind(func) == "other":
        return None
    described = _describe(args), _describe(tuple(kwargs.values()))
    if None in described or (func in _BY_MASKS_ONLY and any(map(_is_mask, args[1]))):
        return None
    state = torch.get_default_dtype(), torch.is_inference_mode_enabled(), torch.are_deterministic_algorithms_enabled()
    return func, *described, *kwargs, *state


def _is_mask(index: object) -> bool:
    return isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)


def _describe(value: object) -> tuple[Any, ...] | None:
    if isinstance(value, FakeTensor):
        plain = value.layout is torch.strided and value.constant is None
        if not plain or value.is_conj() or value.is_neg() or value.is_quantized:
            return None
        return value.shape, value.stride(), value.dtype, value.fake_device
    if value is None or isinstance(value, _PLAIN):
        return type(value), value  # with the type: 1, 1.0 and True are equal
    if isinstance(value, list | tuple):
        inside = tuple(map(_describe, value))
        return None if None in inside else (type(value), *inside)
    return None  # a generator; a tensor in memory, of which torch keeps the value
