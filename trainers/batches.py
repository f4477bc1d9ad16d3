"""The order of rows, and the loader that turns them into batches.

The order of an epoch follows from the seed and the epoch's number alone. So a position in the data is two
whole numbers (epoch, rows done in it), and a resumed run sees exactly the rows that the undisturbed run would
have seen.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

from trainers.process import prepare_worker

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

Window = list[list[int]]
"""The rows of one optimizer step: one list of row numbers for each forward pass."""


def epoch_windows(
    rows: Sequence[int],
    *,
    seed: int,
    epoch: int,
    rows_done: int,
    batch_size: int,
    accumulation: int,
    together: int = 1,
) -> list[Window]:
    """The optimizer steps left in an epoch; the last window, and its last batch, may be short.

    The rows are shuffled in groups of ``together`` that follow each other.
    """
    import torch

    groups = batched(rows, together)
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch)).tolist()
    left = [row for index in order for row in groups[index]][rows_done:]
    size = batch_size * accumulation
    return [batched(left[start : start + size], batch_size) for start in range(0, len(left), size)]


def batched(rows: Sequence[int], size: int) -> list[list[int]]:
    """``rows`` in pieces of ``size``, the last one shorter where they do not divide."""
    return [list(rows[start : start + size]) for start in range(0, len(rows), size)]


def steps_per_epoch(rows: int, batch_size: int, accumulation: int) -> int:
    """Optimizer steps in one pass over so many rows."""
    return -(-rows // (batch_size * accumulation))


def stream(
    dataset: Any,
    batches: Sequence[list[int]],
    collate: Callable[[list[Any]], Any],
    *,
    workers: int,
    pin: bool,
) -> Generator[Any, None, None]:
    """``collate``'s result for each batch, prepared ahead by ``workers`` processes.

    Close the iterator (`contextlib.closing`) when leaving early: that ends the workers.
    """
    import torch
    from torch.utils.data import DataLoader

    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=prepare_worker,
        pin_memory=pin,
        # A generator of its own: making an iterator draws from it, and the global one must not feel a resume.
        generator=torch.Generator().manual_seed(0),
        multiprocessing_context=_context() if workers else None,
    )
    iterator = iter(loader)
    try:
        yield from iterator
    finally:
        del iterator  # the last reference: this is how a loader is told that its workers may go


def _context() -> str | None:
    """Fork where it is safe and cheap; Python 3.14's default would leave a server process running."""
    return "fork" if sys.platform == "linux" else None
