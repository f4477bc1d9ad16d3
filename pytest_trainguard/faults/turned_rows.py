"""Inside a run: the rows of a batch in another order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

__all__ = ["parts_of", "reorder"]


def reorder(batch: object, sizes: set[int], usual: int = 0, *, stacked: bool = False) -> int:
    """Put the rows of a batch into another order, where each thing in it has one part for each row.

    Args:
        batch: what a loader gives.
        sizes: batch sizes of loaders; where none is known, as beside batch samplers, it has to be the usual one, or
            something in it one number for each row.
        usual: the batch size that is set; 0 where nobody knows.
        stacked: the batch is known to be of one part for each row.

    Returns:
        the number of rows; 0 where it was left as it is, because it holds something else, or more than one dimension is
        as long as there are rows, so that nobody knows which one they are.
    """
    parts = list(parts_of(batch))
    tensors = [part for part in parts if isinstance(part, torch.Tensor)]
    if not tensors or any(part is None for part in parts) or any(tensor.is_sparse for tensor in tensors):
        return 0
    rows = len(tensors[0])
    places = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    lengths = {len(part) for part in parts if part is not None}
    square = any(tensor.shape[1:].count(rows) for tensor in tensors)
    if lengths != {rows} or rows < 3 or square or len(places) < len(tensors):
        return 0
    plain = any(isinstance(part, list) or (isinstance(part, torch.Tensor) and part.dim() == 1) for part in parts)
    if rows not in sizes if sizes else not (plain or stacked or rows == usual):
        return 0
    step = next(k for k in range(rows * 5 // 8, rows) if all(rows % d or k % d for d in range(2, k + 1)))
    order = [(1 + place * step) % rows for place in range(rows)]
    with torch.no_grad():
        for part in parts:
            if isinstance(part, torch.Tensor):
                part.copy_(part[order])
            elif part is not None:
                part[:] = [part[row] for row in order]
    return rows


def parts_of(batch: object) -> Iterator[torch.Tensor | list[object] | None]:
    """What has one part for each row: tensors, and lists of texts or numbers; None for what nobody knows."""
    if isinstance(batch, torch.Tensor):
        if batch.dim():
            yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from parts_of(value)
    elif isinstance(batch, list) and batch and all(isinstance(value, str | int | float) for value in batch):
        yield batch
    elif isinstance(batch, list | tuple):
        for value in batch:
            yield from parts_of(value)
    elif batch is not None and not isinstance(batch, bool | int | float | str):
        yield None
