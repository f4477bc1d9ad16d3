"""Inside a run: a batch with more columns of padding, as beside a longer row; with fewer, where it has many.

What is padding is learnt from what the batches have, and never from names: a mask whose zeros are the ends of rows, or
a value that fills the ends of rows and stands nowhere else, in batches that are as wide as their longest row. What goes
into the new columns is, for each tensor, what it has at every padded position already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pytest_trainguard.faults.turned_rows import parts_of

__all__ = ["COLUMNS", "Padded", "Padder"]

COLUMNS = 4  # that are added, or taken away, at a time
ENOUGH = 2  # batches in which a value was seen to be padding, and widths that batches have

NO_PADDING = (
    "no padding is recognised in its batches: no mask whose zeros are the ends of rows, and no value that fills the "
    "ends of rows alone, in batches that are as wide as their longest row"
)
NOT_ALIKE = "a batch holds something that is not the same at each padded position: what to pad it with is not known"


@dataclass(frozen=True)
class Padded:
    """What was done to a batch.

    Attributes:
        columns: that were added; fewer than 0 were taken away; 0 where the batch was left as it is.
        masked: a mask says which positions count.
        why: it was left as it is.
    """

    columns: int = 0
    masked: bool = False
    why: str = ""


class Padder:
    """Pads the batches of one run; every batch is shown to it first."""

    def __init__(self) -> None:
        self._widths: dict[int, set[int]] = {}  # of a batch's tensors, by their place in it
        self._batches: list[set[int]] = []  # of each, the values that may be padding

    def see(self, batch: object) -> None:
        """Learn from a batch as the loader gives it."""
        values: set[int] = set()
        for place, tensor in enumerate(_tensors_of(batch)):
            self._widths.setdefault(place, set()).add(tensor.shape[1])
            if _holds_ids(tensor):
                values.update(value for value, _ in _tails_of(tensor))
        self._batches.append(values)

    def pad(self, batch: object, times: int) -> Padded:
        """Add so many times `COLUMNS` of padding to a batch that was seen, in place; or take them away."""
        tensors = _tensors_of(batch)
        masked, shortest = False, 0
        fills: list[tuple[torch.Tensor, torch.Tensor | None]] = []
        for width in sorted({tensor.shape[1] for tensor in tensors if tensor.dim() == 2}):
            same = [(place, tensor) for place, tensor in enumerate(tensors) if tensor.shape[1] == width]
            masks = _masks_among([tensor for _, tensor in same])
            paddings = [*masks, *self._ends_among(same)]
            if not paddings:
                continue
            if any(width in tensor.shape[2:] for tensor in tensors):
                return Padded(why="a batch holds something of positions by positions, as a mask of pairs")
            for _, tensor in same:
                fill = None if _counts_up(tensor) else _fill_of(tensor, paddings)
                if fill is None and not _counts_up(tensor):
                    return Padded(why=NOT_ALIKE)
                fills.append((tensor, fill))
            least = min(int(padding.sum(1).min()) for padding in paddings)
            shortest = min(shortest, least) if len(fills) > len(same) else least
            masked = masked or bool(masks)
        if not fills:
            return Padded(why=NO_PADDING)
        if any(part is None for part in parts_of(batch)):
            return Padded(why="a batch holds something beside tensors, lists and numbers")
        # What is always padded to the full length has no room for more.
        columns = COLUMNS * times * (-1 if shortest > 3 * COLUMNS else 1)
        for tensor, fill in fills:
            tensor.data = tensor[:, :columns].clone() if columns < 0 else _widened(tensor, fill, columns)
        return Padded(columns, masked)

    def _ends_among(self, same: Sequence[tuple[int, torch.Tensor]]) -> list[torch.Tensor]:
        """Where a value that was seen before fills the ends of rows, in what is as wide as the longest of them."""
        found = []
        for place, tensor in same:
            if len(self._widths[place]) < ENOUGH or not _holds_ids(tensor):
                continue
            known = [ends for value, ends in _tails_of(tensor) if sum(value in b for b in self._batches) >= ENOUGH]
            found += known if len(known) == 1 and not bool(known[0].any(1).all()) else []
        return found


def _masks_among(same: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Which positions are padding, as masks say that are as wide as something else that is the same at each of them."""
    content = [t for t in same if t.dim() > 2 or (not t.is_floating_point() and not _is_binary(t))]
    masks = [mask for mask in map(_padding_by_mask, same) if mask is not None]
    return [mask for mask in masks if any(_fill_of(tensor, [mask]) is not None for tensor in content)]


def _tensors_of(batch: object) -> list[torch.Tensor]:
    """What has a row for each row, and columns; each once."""
    found = [part for part in parts_of(batch) if isinstance(part, torch.Tensor) and part.dim() > 1 and part.numel()]
    rows = len(found[0]) if found else 0
    apart = {id(tensor): tensor for tensor in found if len(tensor) == rows and not tensor.is_sparse}
    return list(apart.values())


def _holds_ids(tensor: torch.Tensor) -> bool:
    """Whole numbers, of more than two kinds."""
    whole = tensor.dim() == 2 and not tensor.is_floating_point() and tensor.dtype != torch.bool
    return whole and not _is_binary(tensor)


def _is_binary(tensor: torch.Tensor) -> bool:
    return tensor.dtype == torch.bool or bool(((tensor == 0) | (tensor == 1)).all())


def _are_ends(marked: torch.Tensor) -> bool:
    """What is marked are the ends of rows, [rows, columns]: of some, and of none as a whole."""
    flags = marked.int()
    return bool(marked.any()) and not bool(marked[:, 0].any()) and bool((flags[:, 1:] >= flags[:, :-1]).all())


def _padding_by_mask(tensor: torch.Tensor) -> torch.Tensor | None:
    """The positions that a mask says do not count; None of what is no mask. Of truth values either may mean it."""
    if tensor.dim() != 2 or not _is_binary(tensor):
        return None
    if _are_ends(tensor == 0):
        return tensor == 0
    return tensor if tensor.dtype == torch.bool and _are_ends(tensor) else None


def _tails_of(tensor: torch.Tensor) -> list[tuple[int, torch.Tensor]]:
    """The values that fill the ends of rows and stand nowhere else, not in a single place only, and where they do."""
    found = []
    for value in tensor[:, -1].unique().tolist():
        marked = tensor == value
        if _are_ends(marked) and int(marked.sum()) > 1 and len(marked.sum(1).unique()) > 1:
            found.append((int(value), marked))
    return found


def _counts_up(tensor: torch.Tensor) -> bool:
    """Positions: 0, 1, 2, ... in each row."""
    return tensor.dim() == 2 and bool((tensor == torch.arange(tensor.shape[1], device=tensor.device)).all())


def _fill_of(tensor: torch.Tensor, paddings: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """What a tensor has at every padded position, by the first of some paddings by which that is one value."""
    for padding in paddings:
        values = tensor[padding]
        if bool((values == values.flatten()[0]).all()):
            return values.flatten()[0]
    return None


def _widened(tensor: torch.Tensor, fill: torch.Tensor | None, columns: int) -> torch.Tensor:
    """With so many columns more of a value, or of positions that go on."""
    shape = (len(tensor), columns, *tensor.shape[2:])
    if fill is not None:
        return torch.cat([tensor, fill.expand(shape)], 1)
    more = torch.arange(tensor.shape[1], tensor.shape[1] + columns, dtype=tensor.dtype, device=tensor.device)
    return torch.cat([tensor, more.expand(shape)], 1)
