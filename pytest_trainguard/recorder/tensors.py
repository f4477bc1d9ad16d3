"""Finding tensors in whatever programs nest them in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch


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
