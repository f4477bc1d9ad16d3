"""The GPU that a prediction is made for: what a training program can find out about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict


class DeviceJson(TypedDict):
    """A card in plain values."""

    name: str
    capability: Sequence[int]
    memory: int


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

    def as_json(self) -> DeviceJson:
        """As plain values."""
        return {"name": self.name, "capability": self.capability, "memory": self.memory}

    @classmethod
    def from_json(cls, values: DeviceJson) -> Device:
        """Read back what `as_json` gave."""
        return cls(values["name"], (values["capability"][0], values["capability"][1]), values["memory"])
