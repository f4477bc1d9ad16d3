"""The GPU that is present, as NVML sees it.

It is read without torch, so that a busy or too small GPU is told before anything is loaded. NVML comes with the extra
`gpu` (`nvidia-ml-py`, which is imported as `pynvml`); without it, or without a driver, no GPU is seen.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from pytest_trainguard.memory.replay.budget import Limit
from pytest_trainguard.memory.replay.device import Device
from pytest_trainguard.memory.replay.sizes import format_size


@dataclass(frozen=True)
class PresentGpu:
    """A GPU as NVML sees it.

    Attributes:
        device: its name, capability, and the bytes that CUDA can give out.
        used: bytes that are taken now, by whatever runs there.
        driver: version.
        ecc: whether error correction is on; None where the card has none.
        processes: what runs there: process id and bytes (0 where the driver does not tell).
    """

    device: Device
    used: int
    driver: str
    ecc: bool | None
    processes: tuple[tuple[int, int], ...]

    @property
    def words(self) -> str:
        """The card in one line."""
        ecc = "" if self.ecc is None else f", ECC {'on' if self.ecc else 'off'}"
        return f"{self.device.name}, {format_size(self.device.memory)}{ecc}, driver {self.driver}"


def find_gpu() -> PresentGpu | None:
    """The first GPU that this process may use; None where there is none to be seen."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if not visible or visible.startswith("-"):
        return None
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        return _read(pynvml, visible)
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def _read(nvml: Any, visible: str) -> PresentGpu:
    find = nvml.nvmlDeviceGetHandleByIndex if visible.isdigit() else nvml.nvmlDeviceGetHandleByUUID
    handle = find(int(visible) if visible.isdigit() else visible)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    try:
        ecc: bool | None = bool(nvml.nvmlDeviceGetEccMode(handle)[0])
    except nvml.NVMLError:
        ecc = None
    device = Device(
        nvml.nvmlDeviceGetName(handle),
        tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle)),
        memory.total - memory.reserved,
    )
    running = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    processes = tuple((one.pid, one.usedGpuMemory or 0) for one in running)
    return PresentGpu(device, memory.used, nvml.nvmlSystemGetDriverVersion(), ecc, processes)


def find_obstacle(present: PresentGpu, limit: Limit) -> str:
    """Why the budget cannot be measured on a GPU as it is now, in one line; empty where it can."""
    free = present.device.memory - present.used
    if limit.size > present.device.memory:
        return f"{present.device.name} is too small: {format_size(present.device.memory)} of {format_size(limit.size)}"
    if limit.size > free:
        others = ", ".join(f"process {pid} {format_size(size)}" if size else f"process {pid}"
                           for pid, size in present.processes)  # fmt: skip
        return (
            f"{present.device.name} is busy: {format_size(free)} of {format_size(present.device.memory)} are free, "
            f"{format_size(limit.size)} are wanted ({others or 'by what NVML does not name'})"
        )
    return ""
