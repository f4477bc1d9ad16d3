"""What torch's allocator counted in a run on a GPU, beside what its model says of a trace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """What torch's allocator counted in one run.

    Attributes:
        allocated, reserved, requested, active: peaks, in bytes.
        retries: how often the cache was given back.
        ooms: out-of-memory errors, recovered from or not.
        exit: of the program.
    """

    allocated: int
    reserved: int
    requested: int
    active: int
    retries: int
    ooms: int
    exit: int

    @property
    def verdict(self) -> str:
        """The verdict in the words of a prediction."""
        return "OUT OF MEMORY" if self.ooms else "FITS" if self.exit == 0 else "UNKNOWN"


def read_counters(stats: Mapping[str, int], code: int) -> Measured:
    """Of `torch.cuda.memory_stats`, and the program's exit code."""

    def peak(name: str) -> int:
        return int(stats[f"{name}_bytes.all.peak"])

    return Measured(
        peak("allocated"), peak("reserved"), peak("requested"), peak("active"),
        stats["num_alloc_retries"], stats["num_ooms"], code,
    )  # fmt: skip
