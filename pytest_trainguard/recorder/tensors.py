"""Finding tensors in whatever programs nest them in."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping

import torch

__all__ = ["bytes_of", "tensors_in"]


def bytes_of(tensor: torch.Tensor) -> bytes:
    """The values of a tensor as they stand in memory, row after row; without NumPy, which torch does not need.

    Raises:
        ValueError: it has no memory of its own, as a fake tensor.
    """
    values = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    if not values.numel():
        return b""
    if not values.data_ptr():
        raise ValueError(f"a {type(tensor).__name__} without memory")
    return ctypes.string_at(values.data_ptr(), values.numel() * values.element_size())


def tensors_in(value: object) -> Iterator[torch.Tensor]:
    """The tensors in a batch, an output, a list of losses or an operation's arguments, however they are nested."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from tensors_in(inner)
    elif isinstance(value, Mapping):  # transformers' BatchEncoding and ModelOutput among them
        for inner in value.values():
            yield from tensors_in(inner)
    elif hasattr(value, "to_dict"):  # PyTorch Geometric's Data
        yield from tensors_in(value.to_dict())
    elif hasattr(value, "data") and isinstance(value.data, dict):
        yield from tensors_in(value.data)
