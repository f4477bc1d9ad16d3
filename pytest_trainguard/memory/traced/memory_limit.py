"""Memory that runs out while a program is traced: at the operation where a GPU's would, with torch's own exception.

What the program does then is its own affair.
"""

from __future__ import annotations

from pytest_trainguard.memory.replay.allocator import Block, OutOfMemory
from pytest_trainguard.memory.replay.allocator_settings import allocator_of, of_environment
from pytest_trainguard.memory.replay.cards import GIB, MIB


class Live:
    """One device's memory under a cap.

    Attributes:
        ran_out: phase and optimizer step of each time that something did not fit.
    """

    def __init__(self, cap: int):
        self._allocator = allocator_of(of_environment(), cap)
        self._blocks: dict[int, Block] = {}
        self._cap = cap
        self.ran_out: list[tuple[str, int]] = []

    def born(self, block: int, size: int, stream: int, phase: str, step: int) -> None:
        """Take memory for a storage.

        Raises:
            torch.OutOfMemoryError: it does not fit, even after everything that is cached was given back.
        """
        try:
            self._blocks[block] = self._allocator.malloc(size, stream)
        except OutOfMemory as failure:
            import torch

            self.ran_out.append((phase, step))
            raise torch.OutOfMemoryError(self._message(failure)) from None

    def died(self, block: int) -> None:
        """Give it back; of one that was refused there is nothing to give."""
        if block in self._blocks:
            self._allocator.free(self._blocks.pop(block))

    def _message(self, failure: OutOfMemory) -> str:
        """Torch's own words, c10/cuda/CUDACachingAllocator.cpp."""
        free, cached = self._cap - failure.reserved, failure.reserved - failure.allocated
        return (
            f"CUDA out of memory. Tried to allocate {_shown(failure.asked)}. GPU 0 has a total capacity of "
            f"{_shown(self._cap)} of which {_shown(free)} is free. Including non-PyTorch memory, this process has "
            f"{_shown(failure.reserved)} memory in use. Of the allocated memory {_shown(failure.allocated)} is "
            f"allocated by PyTorch, and {_shown(cached)} is reserved by PyTorch but unallocated."
        )


def _shown(size: int) -> str:
    """As torch writes sizes: `2.00 GiB`, `913.41 MiB`, `4.00 KiB`, `96 bytes`."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size / unit:.2f} {name}"
    return f"{size} bytes"
