"""The processes of one run: one, or those that ``torchrun`` has started, brought together by Accelerate.

Every process goes through the same steps over the same windows of rows, and takes its share of each forward
pass: so the effective batch size, and with it the losses, do not depend on how many processes there are.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from trainers.common.errors import InputError
from trainers.common.optimization import pick_device

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

Thing = TypeVar("Thing")


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
