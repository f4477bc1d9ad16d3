"""The order of rows, and the loader that turns them into batches.

The order of an epoch follows from the seed and the epoch's number alone. So a position in the data is two
whole numbers (epoch, rows done in it), and a resumed run sees exactly the rows that the undisturbed run would
have seen.
"""

from __future__ import annotations

import contextlib
import heapq
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from trainers.common.process import ENDING, prepare_worker

if TYPE_CHECKING:
    import torch
    from torch.utils.data import DataLoader

    from trainers.code.loop import Task
    from trainers.code.ranks import Ranks
    from trainers.code.rows import Rows, Split
    from trainers.common.settings import RunSettings

Window = list[list[int]]
"""The rows of one optimizer step: one list of row numbers for each forward pass."""


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


def within_budget(rows: Sequence[int], size: int, weight: Callable[[int], int], budget: int) -> list[list[int]]:
    """``rows`` in pieces of at most ``size`` rows whose weights add up to at most ``budget``.

    A row that is over the budget alone has a piece of its own.
    """
    pieces: list[list[int]] = []
    total = 0
    for row in rows:
        weighs = weight(row)
        if not pieces or len(pieces[-1]) == size or total + weighs > budget:
            pieces.append([])
            total = 0
        pieces[-1].append(row)
        total += weighs
    return pieces


def steps_per_epoch(rows: int, effective: int) -> int:
    """Optimizer steps in one pass over so many rows."""
    return -(-rows // effective)


class Order:
    """For a loader: the rows of each forward pass of an epoch; they follow from seed and epoch alone.

    Rows of an optimizer step stay together, so that the micro-batch may change and the steps stay what they are.
    """

    def __init__(self, rows: Sequence[int], seed: int, batch_size: int, gradient_accumulation: int) -> None:
        """Of what an epoch goes over, in forward passes of ``batch_size`` rows, so many of them a step."""
        self._rows, self._seed = rows, seed
        self._batch_size, self._effective = batch_size, batch_size * gradient_accumulation
        self.epoch = 0

    def __iter__(self) -> Iterator[list[int]]:
        """The rows of each forward pass."""
        windows = epoch_windows(
            self._rows,
            seed=self._seed,
            epoch=self.epoch,
            rows_done=0,
            effective=self._effective,
            cut=lambda window: batched(window, self._batch_size),
        )
        return (rows for window in windows for rows in window)

    def __len__(self) -> int:
        """Forward passes in an epoch."""
        return steps_per_epoch(len(self._rows), self._batch_size)


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
        multiprocessing_context=fork_context() if workers else None,
    )
    # No signal between a worker's fork and the moment when it ignores them: it would act as the program does.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        iterator = iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield from iterator
    finally:
        del iterator  # the last reference: this is how a loader is told that its workers may go


class Feed:
    """The rows of a run, in the order and the portions in which this process takes them.

    Attributes:
        micro_batch: the most rows in one forward pass, of all processes.
    """

    def __init__(self, chosen: RunSettings, table: Rows, split: Split, task: Task, ranks: Ranks) -> None:
        """Of these rows, as the settings say."""
        self.table, self.split = table, split
        self._chosen, self._task, self._ranks = chosen, task, ranks
        self.micro_batch = chosen.batch_size

    def windows(self, epoch: int, rows_done: int) -> list[Window]:
        """The optimizer steps left in an epoch."""
        chosen = self._chosen
        return epoch_windows(
            self.split.train,
            seed=chosen.seed,
            epoch=epoch,
            rows_done=rows_done,
            effective=chosen.batch_size * chosen.gradient_accumulation,
            cut=lambda window: self._task.cut(window, self.micro_batch),
            together=self.table.together,
            labels=self.table.label if chosen.class_balance == "sampler" else None,
        )

    def largest(self, rows: int) -> Window:
        """The training rows that take the most memory, as one step."""
        return self._task.cut(sorted(heapq.nlargest(rows, self.split.train, key=self.table.size)), rows)

    def held_out(self) -> Window:
        """The batches of a validation."""
        return self._task.cut(self.split.validation, self.micro_batch)

    def stream(
        self, lists: Sequence[Sequence[int]], *, workers: int | None = None, empty: bool = True
    ) -> contextlib.closing[Generator[Any, None, None]]:
        """This process's part of each batch, as a context that ends the loader's workers.

        Args:
            lists: the rows of each batch.
            workers: processes that prepare them, instead of the setting ``num_workers``.
            empty: where a batch has no row for this process, a row comes that will not be counted; else
                nothing comes.
        """
        shares = [(self._ranks.share(rows), rows) for rows in lists]
        taken = [mine or list(rows[:1]) for mine, rows in shares if mine or empty]
        workers = self._chosen.num_workers if workers is None else workers
        pin = self._ranks.device.type == "cuda"
        return contextlib.closing(stream(self._task.dataset, taken, self._task.collate, workers=workers, pin=pin))


def fork_context() -> str | None:
    """Fork where it is safe and cheap; Python 3.14's default would leave a server process running."""
    return "fork" if sys.platform == "linux" else None
