"""GPU memory: does a step fit, before the first one is taken (`process.supervise` gives it back at the end)."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from trainers.common.errors import TrainingFailed
from trainers.common.process import out_of_memory

if TYPE_CHECKING:
    import torch

NEARLY_FULL = 0.9
"""Share of the device's memory over which a step is said to fit barely: longer rows, or fragments, and it does not."""


class Peak(NamedTuple):
    """Bytes: the most that tensors took, the most that the allocator held, and what the device has."""

    allocated: int
    reserved: int
    total: int


class Memory(Protocol):
    """A device's memory."""

    def reset(self) -> None:
        """Give back what is not in use, and measure peaks from here."""

    def peak(self) -> Peak:
        """Since `reset`."""


class CudaMemory:
    """That of a CUDA device, as torch's allocator counts it."""

    def __init__(self, device: torch.device) -> None:
        """Of this device."""
        self._device = device

    def reset(self) -> None:
        """Empty the cache, reset the peaks."""
        import torch

        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)

    def peak(self) -> Peak:
        """Waits for the device."""
        import torch

        torch.cuda.synchronize(self._device)
        return Peak(
            torch.cuda.max_memory_allocated(self._device),
            torch.cuda.max_memory_reserved(self._device),
            torch.cuda.get_device_properties(self._device).total_memory,
        )


def probe(
    device: torch.device,
    attempt: Callable[[int], None],
    micro_batch: int,
    *,
    adapt: bool,
    say: Callable[[str], None],
    memory: Memory | None = None,
) -> int:
    """Try one step over the largest rows; on a device without memory of its own, nothing is done.

    Args:
        device: where the model is.
        attempt: forward, backward and what the optimizer keeps, over so many rows; leaves no trace.
        micro_batch: rows in one forward pass, as the settings say.
        adapt: halve it until a step fits with some room. The caller keeps the effective batch size, by
            more accumulation.
        say: is told the peak.
        memory: of the device.

    Returns:
        the rows for one forward pass.

    Raises:
        TrainingFailed: a step does not fit, naming what it needed and the settings to change.
    """
    if memory is None:
        if device.type != "cuda":
            return micro_batch
        memory = CudaMemory(device)
    asked = micro_batch
    while True:
        memory.reset()
        shortage = None
        try:
            attempt(micro_batch)
        except Exception as error:
            shortage = out_of_memory(error, f"a trial step of {micro_batch} rows")
            if shortage is None:
                raise
        peak = memory.peak()
        memory.reset()
        share = peak.reserved / peak.total
        if shortage is None:
            say(
                f"a step of {micro_batch} rows takes {_gib(peak.allocated)} allocated, {_gib(peak.reserved)} reserved "
                f"of {_gib(peak.total)} ({share:.0%})"
            )
        if shortage is not None and (not adapt or micro_batch == 1):
            remedy = "nothing smaller is left" if adapt else "a smaller batch_size, or adapt_batch_size = true"
            raise TrainingFailed(f"{shortage}; {remedy}")
        if shortage is None and (share <= NEARLY_FULL or not adapt or micro_batch == 1):
            if share > NEARLY_FULL:
                say(f"that is over {NEARLY_FULL:.0%} of the device's memory: a longer row may not fit (batch_size)")
            if micro_batch < asked:
                say(f"batch_size {asked} is taken in forward passes of {micro_batch} rows (adapt_batch_size)")
            return micro_batch
        micro_batch = -(-micro_batch // 2)


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"
