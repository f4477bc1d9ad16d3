"""The GPU that is present: what NVML says of it, and a run measured on it under the budget.

NVML is read without torch, so that a busy or too small GPU is told before anything is loaded. It comes with the extra
`gpu` (`nvidia-ml-py`, which is imported as `pynvml`); without it, or without a driver, no GPU is seen.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trainguard.contract.settings import merge
from pytest_trainguard.memory.answers.verdict import shown
from pytest_trainguard.memory.replay.budget import Limit
from pytest_trainguard.memory.replay.device import Device
from pytest_trainguard.verdicts.errors import CannotJudge

if TYPE_CHECKING:
    from pytest_trainguard.memory.answers.tracing import Tracing

STEPS = 3


@dataclass(frozen=True)
class Present:
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
        return f"{self.device.name}, {shown(self.device.memory)}{ecc}, driver {self.driver}"


def look() -> Present | None:
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


def _read(nvml: Any, visible: str) -> Present:
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
    return Present(device, memory.used, nvml.nvmlSystemGetDriverVersion(), ecc, processes)


def obstacle(present: Present, limit: Limit) -> str:
    """Why the budget cannot be measured on a GPU as it is now, in one line; empty where it can."""
    free = present.device.memory - present.used
    if limit.size > present.device.memory:
        return f"{present.device.name} is too small: {shown(present.device.memory)} of {shown(limit.size)}"
    if limit.size > free:
        others = ", ".join(f"process {pid} {shown(size)}" if size else f"process {pid}"
                           for pid, size in present.processes)  # fmt: skip
        return (
            f"{present.device.name} is busy: {shown(free)} of {shown(present.device.memory)} are free, "
            f"{shown(limit.size)} are wanted ({others or 'by what NVML does not name'})"
        )
    return ""


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
    def word(self) -> str:
        """The verdict in the words of a prediction."""
        return "OUT OF MEMORY" if self.ooms else "FITS" if self.exit == 0 else "UNKNOWN"


def on_gpu(tracing: Tracing, cap: int | None, changes: dict[str, Any] | None = None) -> Measured:
    """Measure a trainer's run at its production settings, on the rows that predictions are made with.

    Args:
        tracing: the trainer, as it is traced.
        cap: bytes for torch's allocator; None for all that there are.
        changes: settings that differ from production.

    Raises:
        CannotJudge: the run did not come to its end, or left no figures.
    """
    from pytest_trainguard.memory.answers.tracing import TIME_LIMIT
    from pytest_trainguard.subject.subject import SEED, Request

    subject = tracing.subject
    values = merge(subject.description["production"], changes or {})
    data, _ = tracing.rows(values, STEPS)
    folder = Path(tempfile.mkdtemp(prefix="measured-", dir=subject.folder))
    arguments = {"trainer": subject.spec, "settings": values, "data": str(data) if data else None,
                 "output_dir": str(folder), "max_steps": STEPS, "seed": SEED, "cap": cap}  # fmt: skip
    # Runs see no GPU unless they are to; this one sees those that its caller does.
    visible = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0")}
    request = Request(did="measured its memory", recorder=False, time_limit=TIME_LIMIT, env=visible)
    try:
        found, ended = subject.perform(f"{__name__}:run", arguments, request)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if found is None:
        last = ended["output"].strip().splitlines()[-1:] or [f"exit {ended['exit']}"]
        raise CannotJudge(f"{subject.name}: nothing was measured: {last[0]}", ended["output"])
    return Measured(**found)


def run(
    trainer: Any,
    settings: dict[str, Any],
    data: str | None,
    output_dir: str,
    max_steps: int,
    seed: int,
    cap: int | None,
) -> dict[str, Any]:
    """Inside a process of its own, on a GPU: run a trainer, unmodified, with `cap` bytes for torch's allocator.

    The arguments are those of `engine.run`.

    Returns:
        a `Measured` as plain values.

    Raises:
        RuntimeError: there is no GPU.
    """
    import torch

    from pytest_trainguard.adapters import load_trainer
    from pytest_trainguard.contract.trainer import Run

    if not torch.cuda.is_available():
        raise RuntimeError("nothing can be measured: torch sees no GPU")
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(cap / total, 1.0) if cap else 1.0, 0)
    torch.cuda.reset_peak_memory_stats(0)
    loaded = load_trainer(trainer)
    run = Run(settings, Path(data) if data else None, Path(output_dir), max_steps, seed, config_type=loaded.config)
    return asdict(counted(torch.cuda.memory_stats, _exit_code(loaded, run)))


def _exit_code(trainer: Any, run: Any) -> int:
    try:
        code = trainer.train(run)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:  # an out-of-memory error among them, which the allocator has counted
        traceback.print_exc()
        return 1
    return code if isinstance(code, int) else 0


def counted(stats: Any, code: int) -> Measured:
    """Read `torch.cuda.memory_stats` off."""
    found = stats(0)

    def peak(name: str) -> int:
        return int(found[f"{name}_bytes.all.peak"])

    return Measured(
        peak("allocated"), peak("reserved"), peak("requested"), peak("active"),
        found["num_alloc_retries"], found["num_ooms"], code,
    )  # fmt: skip
