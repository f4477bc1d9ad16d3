"""How many optimizer steps a training has, the order of its rows, and the loader that makes batches of them.

The order of an epoch follows from the seed and the epoch's number alone. So a position in the data is two
whole numbers (epoch, rows done in it), and a resumed run sees exactly the rows that the undisturbed run would
have seen.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from trainers.common.errors import InputError
from trainers.common.process import ENDING, prepare_worker

if TYPE_CHECKING:
    import torch
    from torch.utils.data import DataLoader

Window = list[list[int]]
"""The rows of one optimizer step: one list of row numbers for each forward pass."""


class Plan(NamedTuple):
    """The optimizer steps of a training.

    Attributes:
        per_epoch: in one pass over the rows; the last one may have fewer rows.
        whole: the number of the last step of all passes, those before this data included.
        last: the number of the step at which the training ends: ``whole``, or the last of ``max_steps``.
    """

    per_epoch: int
    whole: int
    last: int


def plan(
    rows: int,
    *,
    batch_size: int,
    gradient_accumulation: int,
    max_epochs: int,
    max_steps: int | None = None,
    before: int = 0,
) -> Plan:
    """The optimizer steps of a training.

    Args:
        rows: to train on.
        batch_size: rows of a forward pass (the micro-batch).
        gradient_accumulation: forward passes of an optimizer step. A window of fewer rows is a step too.
        max_epochs: passes over the rows.
        max_steps: end after so many steps on this data, whatever ``max_epochs`` says: each file of a queue has them.
        before: optimizer steps done on other data.

    Raises:
        InputError: there is no row.
        ValueError: an argument that no setting allows.
    """
    if min(batch_size, gradient_accumulation, max_epochs) < 1 or before < 0 or rows < 0:
        raise ValueError(f"{rows} rows, {batch_size} × {gradient_accumulation}, {max_epochs} epochs, {before} before")
    if rows == 0:
        raise InputError("0 rows to train on: not one optimizer step can be made of them")
    per_epoch = -(-rows // (batch_size * gradient_accumulation))
    whole = before + max_epochs * per_epoch
    return Plan(per_epoch, whole, whole if max_steps is None else before + max_steps)


def epoch_windows(
    rows: Sequence[int],
    *,
    seed: int,
    epoch: int,
    rows_done: int,
    effective: int,
    cut: Callable[[list[int]], list[list[int]]],
    together: int = 1,
    labels: Callable[[int], int] | None = None,
) -> list[Window]:
    """The optimizer steps left in an epoch; the last one may have fewer rows.

    Args:
        rows: what an epoch goes over.
        seed: of the order.
        epoch: number of the pass.
        rows_done: rows of it that are done.
        effective: rows of an optimizer step (the effective batch size).
        cut: the rows of a step in forward passes.
        together: rows are shuffled in groups of so many that follow each other.
        labels: where given, an epoch is drawn instead: as many rows, of each class an equal share.
    """
    import torch

    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    if labels is not None:
        order = _balanced(rows, labels, generator)
    else:
        groups = batched(rows, together)
        order = [row for index in torch.randperm(len(groups), generator=generator).tolist() for row in groups[index]]
    left = order[rows_done:]
    return [cut(left[start : start + effective]) for start in range(0, len(left), effective)]


def _balanced(rows: Sequence[int], labels: Callable[[int], int], generator: torch.Generator) -> list[int]:
    """As many rows as there are, drawn with replacement: first the class, each with equal chance, then its row."""
    import torch

    classes: dict[int, list[int]] = {}
    for row in rows:
        classes.setdefault(labels(row), []).append(row)
    members = [classes[label] for label in sorted(classes)]
    which = torch.randint(len(members), (len(rows),), generator=generator).tolist()
    chance = torch.rand(len(rows), generator=generator, dtype=torch.float64).tolist()
    return [members[index][int(part * len(members[index]))] for index, part in zip(which, chance, strict=True)]


def batched(rows: Sequence[int], size: int) -> list[list[int]]:
    """``rows`` in pieces of ``size``, the last one shorter where they do not divide."""
    return [list(rows[start : start + size]) for start in range(0, len(rows), size)]


def loader(
    dataset: Any, batches: Iterable[list[int]], collate: Callable[[list[Any]], Any], *, workers: int, pin: bool
) -> DataLoader[Any]:
    """A loader whose workers end with this process.

    Args:
        dataset: by a row's number, what ``collate`` wants of it.
        batches: the rows of each batch.
        collate: makes a batch.
        workers: processes that prepare batches ahead.
        pin: into page-locked memory, from which a GPU copies faster.
    """
    import torch
    from torch.utils.data import DataLoader

    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=prepare_worker,
        pin_memory=pin,
        # A generator of its own: making an iterator draws from it, and the global one must not feel a resume.
        generator=torch.Generator().manual_seed(0),
        # Fork where it is safe and cheap; Python 3.14's default would leave a server process running.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
    )


def stream(
    dataset: Any, batches: Iterable[list[int]], collate: Callable[[list[Any]], Any], *, workers: int, pin: bool
) -> Generator[Any, None, None]:
    """`loader`'s batches. Close the iterator (`contextlib.closing`) when leaving early: that ends the workers."""
    loaded = loader(dataset, batches, collate, workers=workers, pin=pin)
    # No signal between a worker's fork and the moment when it ignores them: it would act as the program does.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        iterator = iter(loaded)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield from iterator
    finally:
        del iterator  # the last reference: this is how a loader is told that its workers may go
