"""Memory that runs out while a program is traced: at the operation where a GPU's would, with torch's own exception.

What the program does then is its own affair.
"""

from __future__ import annotations

from pytest_trainguard.memory.replay.allocator import Block, OutOfMemory
from pytest_trainguard.memory.replay.allocator_settings import make_allocator, read_environment
from pytest_trainguard.memory.replay.sizes import format_size_like_torch


class MemoryLimit:
    """One device's memory under a cap.

    Attributes:
        ran_out: phase and optimizer step of each time that something did not fit.
    """

    def __init__(self, cap: int):
        self._allocator = make_allocator(read_environment(), cap)
        self._blocks: dict[int, Block] = {}
        self._cap = cap
        self.ran_out: list[tuple[str, int]] = []

    def allocate(self, block: int, size: int, stream: int, phase: str, step: int) -> None:
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

    def release(self, block: int) -> None:
        """Give it back; of one that was refused there is nothing to give."""
        if block in self._blocks:
            self._allocator.free(self._blocks.pop(block))

    def empty_cache(self) -> None:
        """Give back what is cached."""
        self._allocator.flush()

    def _message(self, failure: OutOfMemory) -> str:
        """Torch's own words, c10/cuda/CUDACachingAllocator.cpp."""
        free, cached = self._cap - failure.reserved, failure.reserved - failure.allocated
        sizes = (failure.asked, self._cap, free, failure.reserved, failure.allocated, cached)
        asked, total, left, held, in_use, unused = map(format_size_like_torch, sizes)
        return (
            f"CUDA out of memory. Tried to allocate {asked}. GPU 0 has a total capacity of {total} of which {left} is "
            f"free. Including non-PyTorch memory, this process has {held} memory in use. Of the allocated memory "
            f"{in_use} is allocated by PyTorch, and {unused} is reserved by PyTorch but unallocated."
        )
