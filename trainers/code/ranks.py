"""The processes of one run, and the rows that each takes: one, or those that ``torchrun`` has started.

Every process goes through the same steps over the same windows of rows, and takes its share of each forward
pass: so the effective batch size, and with it the losses, do not depend on how many processes there are.
Accelerate brings them together.
"""

from __future__ import annotations

import contextlib
import heapq
import os
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from trainers.code.rows import Rows
from trainers.code.settings import RunSettings
from trainers.common.batches import Window, epoch_windows, stream
from trainers.common.errors import InputError
from trainers.common.optimization import pick_device
from trainers.common.rows import Split

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

Thing = TypeVar("Thing")
Cut = Callable[[Sequence[int], int], list[list[int]]]
"""The rows of an optimizer step, and the most rows in a forward pass, to the rows of each forward pass."""


def world_size() -> int:
    """Processes of this run, as torchrun says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


class Ranks:
    """This process among those of the run.

    Attributes:
        device: where this process trains.
        rank: its number, from 0.
        world: how many there are.
    """

    def __init__(self, wanted: str, say: Callable[[str], None]) -> None:
        """Meet the others; waits for them.

        Args:
            wanted: the setting ``device``.
            say: is told the device.

        Raises:
            InputError: CUDA is demanded and there is none, or too few devices for this machine's processes.
        """
        import torch

        self.rank, self.world = int(os.environ.get("RANK", "0")), world_size()
        self.device = pick_device(wanted, say)
        self._accelerator: Accelerator | None = None
        if self.world > 1:
            from accelerate import Accelerator

            local, on_cpu = int(os.environ.get("LOCAL_RANK", "0")), self.device.type == "cpu"
            if not on_cpu and local >= torch.cuda.device_count():
                raise InputError(f"process {local} of this machine has no device: {torch.cuda.device_count()} visible")
            self._accelerator = Accelerator(cpu=on_cpu)
            self.device = self._accelerator.device
            say(f"{self.world} processes share each batch")

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model as it is called: its gradients become the means over the processes."""
        if self._accelerator is None:
            return model
        wrapped: nn.Module = self._accelerator.prepare_model(model)
        return wrapped

    def share(self, rows: Sequence[int]) -> list[int]:
        """This process's rows of a forward pass; none where there are fewer rows than processes."""
        return list(rows[self.rank :: self.world])

    def sync(self, model: nn.Module, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Gradients travel between the processes once a step: in its last forward and backward pass."""
        if self._accelerator is None or last:
            return contextlib.nullcontext()
        return self._accelerator.no_sync(model)

    def gather(self, mine: Thing) -> list[Thing]:
        """What every process brings, in their order; all of them must come."""
        if self._accelerator is None:
            return [mine]
        from accelerate.utils import gather_object

        return list(gather_object([mine]))

    def agree(self, signal: int | None) -> int | None:
        """The signal that any process was sent; all of them must ask."""
        return max(self.gather(signal or 0)) or None

    def leave(self) -> None:
        """Part in peace."""
        import torch

        if self._accelerator is not None and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


class Feed:
    """The rows of a run, in the order and the portions in which this process takes them.

    Attributes:
        micro_batch: the most rows in one forward pass, of all processes.
    """

    def __init__(
        self,
        chosen: RunSettings,
        table: Rows,
        split: Split,
        ranks: Ranks,
        *,
        dataset: Any,
        collate: Callable[[list[Any]], Any],
        cut: Cut,
    ) -> None:
        """Of these rows, as the settings say.

        Args:
            chosen: the settings.
            table: the rows.
            split: which of them are held out.
            ranks: the processes.
            dataset: for the loader: by a row's number, what ``collate`` wants of it.
            collate: makes a batch.
            cut: the rows of a step in forward passes.
        """
        self.table, self.split = table, split
        self._chosen, self._ranks = chosen, ranks
        self._dataset, self._collate, self._cut = dataset, collate, cut
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
            cut=lambda window: self._cut(window, self.micro_batch),
            together=self.table.together,
            labels=self.table.label if chosen.class_balance == "sampler" else None,
        )

    def largest(self, rows: int) -> Window:
        """The training rows that take the most memory, as one step."""
        return self._cut(sorted(heapq.nlargest(rows, self.split.train, key=self.table.size)), rows)

    def held_out(self) -> Window:
        """The batches of a validation."""
        return self._cut(self.split.validation, self.micro_batch)

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
        return contextlib.closing(stream(self._dataset, taken, self._collate, workers=workers, pin=pin))
