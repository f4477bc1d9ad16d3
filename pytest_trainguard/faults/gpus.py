"""Inside a run: several GPUs where there are none, as far as a program's choice among them can be seen.

torch.cuda tells of as many devices as CUDA_VISIBLE_DEVICES names; what goes to one stays on the CPU, and where it
should have gone is recorded. Nothing is computed by a GPU, and nothing of its speed, memory or errors is shown.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import TypeAlias

import torch
from torch.overrides import TorchFunctionMode

from pytest_trainguard.recorder.writer import Recorder

Device: TypeAlias = int | str | torch.device  # as a program may name one

__all__ = ["Devices", "pretend"]

MEMORY = 80 * 2**30  # bytes that each device says it has
_NOTHING = ("synchronize", "empty_cache", "ipc_collect", "reset_peak_memory_stats", "reset_accumulated_memory_stats",
            "manual_seed", "manual_seed_all", "set_rng_state", "set_rng_state_all", "_lazy_init", "init")  # fmt: skip
_ZERO = ("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved")


def pretend(recorder: Recorder) -> None:
    """Have torch say that there are the devices of CUDA_VISIBLE_DEVICES, for the rest of this process's life."""
    devices = Devices(recorder)
    cuda = torch.cuda
    for name in _NOTHING:
        setattr(cuda, name, lambda *args, **kwargs: None)
    for name in _ZERO:
        setattr(cuda, name, lambda *args, **kwargs: 0)
    told = SimpleNamespace(name="pretended GPU", total_memory=MEMORY, major=8, minor=0, multi_processor_count=108)
    answers: dict[str, Callable[..., object]] = {
        "is_available": lambda: devices.count() > 0,
        "device_count": devices.count,
        "current_device": lambda: devices.current,
        "set_device": devices.choose,
        "_exchange_device": devices.exchange,
        "_maybe_exchange_device": devices.exchange,
        "get_device_properties": lambda device=None: told,
        "get_device_name": lambda device=None: told.name,
        "get_device_capability": lambda device=None: (told.major, told.minor),
        "is_bf16_supported": lambda *args, **kwargs: True,
        "mem_get_info": lambda device=None: (MEMORY, MEMORY),
        "get_rng_state": lambda device=None: torch.get_rng_state(),
        "get_rng_state_all": lambda: [torch.get_rng_state()] * devices.count(),
    }
    for name, answer in answers.items():
        setattr(cuda, name, answer)
    for name in ("get_rng_state", "get_rng_state_all", "set_rng_state", "set_rng_state_all"):
        setattr(cuda.random, name, getattr(cuda, name))  # where `transformers.Trainer` takes them from
    accelerator = torch.accelerator
    accelerator.is_available = cuda.is_available
    accelerator.device_count = devices.count
    accelerator.current_accelerator = lambda *args, **kwargs: torch.device("cuda")
    accelerator.set_device_index = devices.choose
    accelerator.current_device_index = cuda.current_device
    accelerator.synchronize = cuda.synchronize
    stream = SimpleNamespace(is_capturing=lambda: False, synchronize=cuda.synchronize, wait_stream=cuda.synchronize)
    accelerator.current_stream = cuda.current_stream = lambda device=None: stream
    tensor = torch.Tensor
    tensor.pin_memory = lambda self, *args: self
    _keep_in_one_place(devices)
    devices.__enter__()


def _keep_in_one_place(devices: Devices) -> None:
    """`DataParallel` takes its devices, and calls the one module that there is."""

    def init(
        self: torch.nn.DataParallel, module: torch.nn.Module, device_ids: Iterable[Device] | None = None, *rest: object
    ) -> None:
        torch.nn.Module.__init__(self)
        self.module = module
        self.device_ids = list(range(devices.count()) if device_ids is None else device_ids)
        for device in self.device_ids:
            devices.record_use(device, "model")

    parallel = torch.nn.DataParallel
    parallel.__init__ = init
    parallel.forward = lambda self, *inputs, **named: self.module(*inputs, **named)


class Devices(TorchFunctionMode):  # type: ignore[misc]
    """Every torch function that is told a CUDA device is told the CPU instead."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self.recorder, self.current = recorder, 0
        self._seen: set[tuple[int, str]] = set()

    def count(self) -> int:
        """How many can be seen."""
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        return len([name for name in visible.split(",") if name.strip()])

    def choose(self, device: Device) -> None:
        """`torch.cuda.set_device`."""
        self.current = self._index(device)

    def exchange(self, device: int) -> int:
        """What `with torch.cuda.device(...)` does; -1 is none."""
        before = self.current
        self.current = device if device >= 0 else before
        return before

    def record_use(self, device: Device, by: str) -> None:
        """Record, once, that the `model` or its `data` went to a device."""
        index = self._index(device)
        if (index, by) not in self._seen:
            self._seen.add((index, by))
            self.recorder.write("device", index=index, by=by)

    def _index(self, device: Device) -> int:
        index = device if isinstance(device, int) else torch.device(device).index
        index = self.current if index is None else index
        if index >= self.count():
            raise getattr(torch, "AcceleratorError", RuntimeError)("CUDA error: invalid device ordinal")
        return int(index)

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Where the tensor goes is noted: a parameter is of the model, everything else is data."""
        kwargs = dict(kwargs or {})
        if func is torch.device or getattr(func, "__name__", "") == "_parse_to":  # nothing goes anywhere yet
            return func(*args, **kwargs)
        by = "model" if args and isinstance(args[0], torch.nn.Parameter) else "data"
        if func is torch.Tensor.cuda:
            where = [*args[1:2], *filter(None, [kwargs.get("device")])]
            self.record_use("cuda" if not where or where[0] is None else where[0], by)
            return args[0]
        numbered = func is torch.Tensor.to  # `.to(1)` is `.to("cuda:1")`
        args = [self._on_cpu(value, by, numbered=numbered and place == 1) for place, value in enumerate(args)]
        kwargs = {name: self._on_cpu(value, by) if name == "device" else value for name, value in kwargs.items()}
        return func(*args, **kwargs)

    def _on_cpu(self, value: object, by: str, *, numbered: bool = False) -> object:
        is_device = isinstance(value, torch.device) and value.type == "cuda"
        is_name = isinstance(value, str) and value.partition(":")[0] == "cuda"
        if is_device or is_name or (numbered and type(value) is int):
            self.record_use(value, by)
            return torch.device("cpu")
        return value
