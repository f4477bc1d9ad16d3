"""The GPU that a prediction is made for: what a training program can find out about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Device:
    """A card.

    Attributes:
        name: as torch gives it.
        capability: compute capability, major and minor; decides which attention kernels there are.
        memory: bytes in all.
    """

    name: str = "NVIDIA A100-SXM4-80GB"
    capability: tuple[int, int] = (8, 0)
    memory: int = 80 * 2**30

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Device:
        """Read back what `as_json` gave."""
        return cls(values["name"], (values["capability"][0], values["capability"][1]), values["memory"])
