"""What Python code asks of a GPU, answered as if there were one: streams, events, properties, memory statistics.

All of it by public names of torch; what depends on torch's inside is in `fakecuda`.
"""

from __future__ import annotations

import functools
import threading
import types
from collections.abc import Callable
from typing import Protocol

import torch

from pytest_trainguard.memory.replay.device import Device
from pytest_trainguard.memory.traced.unknown import Unknown


class Meter(Protocol):
    """What `torch.cuda.memory_allocated` reads.

    Attributes:
        now: bytes that are allocated.
        most: the most that were, since the program last reset that.
    """

    now: int
    most: int

    def empty_cache(self) -> None:
        """The program gives back what the allocator has cached."""


class Stream:
    """A CUDA stream: a number, and nothing to wait for."""

    _count = 0

    def __init__(self, device: object = None, priority: int = 0, **kwargs: object):
        Stream._count += 1
        self.stream_id, self.priority = Stream._count, priority
        self.device = torch.device("cuda", 0)
        self.cuda_stream = self.stream_id

    def query(self) -> bool:
        """Whether all work is done."""
        return True

    def is_capturing(self) -> bool:
        """Whether a CUDA graph is being recorded."""
        return False

    def _nothing(self, *args: object, **kwargs: object) -> None:
        return None

    wait_stream = wait_event = synchronize = _nothing

    def record_event(self, event: Event | None = None) -> Event:
        """An event at this point of the stream."""
        return event or Event()

    def __enter__(self) -> Stream:
        self._before = current_stream()
        set_stream(self)
        return self

    def __exit__(self, *exception: object) -> None:
        set_stream(self._before)


class Event:
    """A CUDA event that has always happened already."""

    def __init__(self, *args: object, **kwargs: object):
        pass

    def query(self) -> bool:
        """Whether it has happened."""
        return True

    def elapsed_time(self, other: object) -> float:
        """Milliseconds; time is not what is predicted."""
        return 1.0

    def _nothing(self, *args: object, **kwargs: object) -> None:
        return None

    record = wait = synchronize = _nothing


class CUDAGraph:
    """Cannot be made; a class, since annotations name it."""

    def __init__(self, *args: object, **kwargs: object):
        raise Unknown("CUDA graphs, which keep memory pools of their own")


_streams = threading.local()
_default_stream = Stream()
_default_stream.stream_id = _default_stream.cuda_stream = 0


def current_stream(device: object = None) -> Stream:
    """The stream that this thread launches on."""
    found: Stream = getattr(_streams, "current", _default_stream)
    return found


def set_stream(stream: object) -> None:
    """Launch on this stream from now on."""
    if stream is not None:
        _streams.current = stream


class _On:
    """`torch.cuda.stream(s)` and `torch.cuda.device(d)`: contexts."""

    def __init__(self, target: object = None):
        self.target, self.idx, self.prev_idx = target, 0, 0

    def __enter__(self) -> None:
        self.before = current_stream()
        if isinstance(self.target, Stream):
            set_stream(self.target)

    def __exit__(self, *exception: object) -> None:
        set_stream(self.before)


def install_answers(device: Device, meter: Meter) -> None:
    """`torch.cuda` and `torch.accelerator`, as far as training programs ask them.

    Args:
        device: which one is there.
        meter: how much of its memory is allocated.
    """
    _copy_to_one_device()
    _generate_on_the_cpu()
    _load_then_move()
    import torch.cuda.amp.common

    major, minor = device.capability
    properties = types.SimpleNamespace(
        name=device.name, major=major, minor=minor, total_memory=device.memory, multi_processor_count=108,
        is_integrated=False, is_multi_gpu_board=False, warp_size=32, max_threads_per_multi_processor=2048,
        gcnArchName="", uuid="", L2_cache_size=40 << 20, regs_per_multiprocessor=65536,
        shared_memory_per_block=49152, shared_memory_per_multiprocessor=167936,
    )  # fmt: skip

    def constant(value: object) -> Callable[..., object]:
        return lambda *args, **kwargs: value

    def stats(*args: object, **kwargs: object) -> dict[str, int]:
        now, peak = meter.now, meter.most
        named = {"allocated_bytes": (now, peak), "reserved_bytes": (now, peak), "active_bytes": (now, peak)}
        counts = {f"{name}.all.{part}": value for name, both in named.items()
                  for part, value in zip(("current", "peak"), both, strict=True)}  # fmt: skip
        return {**counts, "num_alloc_retries": 0, "num_ooms": 0}

    def reset(*args: object, **kwargs: object) -> None:
        meter.most = meter.now

    state = torch.zeros(16, dtype=torch.uint8)
    answers: dict[str, object] = {
        "is_available": constant(True), "is_initialized": constant(True), "init": constant(None),
        "device_count": constant(1), "current_device": constant(0), "set_device": constant(None),
        "get_device_name": constant(device.name), "get_device_capability": constant(device.capability),
        "get_device_properties": constant(properties), "get_arch_list": constant([f"sm_{major}{minor}"]),
        "is_bf16_supported": constant(True), "can_device_access_peer": constant(False), "ipc_collect": constant(None),
        "utilization": constant(0), "synchronize": constant(None),
        "empty_cache": lambda: meter.empty_cache(),
        "memory_allocated": lambda *a, **k: meter.now, "max_memory_allocated": lambda *a, **k: meter.most,
        "memory_reserved": lambda *a, **k: meter.now, "max_memory_reserved": lambda *a, **k: meter.most,
        "memory_stats": stats, "memory_summary": constant(""), "memory_snapshot": constant([]),
        "mem_get_info": lambda *a, **k: (device.memory - meter.now, device.memory),
        "reset_peak_memory_stats": reset, "reset_accumulated_memory_stats": constant(None),
        "reset_max_memory_allocated": reset, "reset_max_memory_cached": constant(None),
        "set_per_process_memory_fraction": constant(None), "manual_seed": constant(None),
        "manual_seed_all": constant(None), "seed": constant(None), "seed_all": constant(None),
        "initial_seed": constant(0), "get_rng_state": lambda *a, **k: state.clone(),
        "get_rng_state_all": lambda *a, **k: [state.clone()], "set_rng_state": constant(None),
        "set_rng_state_all": constant(None), "Stream": Stream, "Event": Event, "ExternalStream": Stream,
        "current_stream": current_stream, "default_stream": constant(_default_stream), "set_stream": set_stream,
        "stream": _On, "device": _On, "device_of": _On, "_exchange_device": constant(0),
        "_maybe_exchange_device": constant(0), "is_current_stream_capturing": constant(False),
    }  # fmt: skip
    answers["CUDAGraph"] = CUDAGraph
    for name, answer in answers.items():
        setattr(torch.cuda, name, answer)
        for inner in ("memory", "random", "streams"):
            module = getattr(torch.cuda, inner, None)
            if module is not None and hasattr(module, name):
                setattr(module, name, answer)
    torch.cuda.amp.common.amp_definitely_not_available = constant(False)
    torch.version.cuda = torch.version.cuda or "12.8"
    _answer_for_accelerator(constant, meter)
    # Page-locked memory is the host's; a tensor that is used on another stream is freed a little later.
    torch.Tensor.pin_memory = lambda tensor, *args: tensor
    torch.Tensor.is_pinned = constant(False)
    torch.Tensor.record_stream = constant(None)


def _copy_to_one_device() -> None:
    """`DataParallel` scatters with functions that only a build with CUDA has; over one device it moves its inputs."""

    def forward(parallel: torch.nn.DataParallel, *inputs: object, **kwargs: object) -> object:
        def there(value: object) -> object:
            return value.to("cuda") if isinstance(value, torch.Tensor) else value

        return parallel.module(*map(there, inputs), **{name: there(value) for name, value in kwargs.items()})

    torch.nn.DataParallel.forward = forward


def _generate_on_the_cpu() -> None:
    """A generator for the device can only be made by a build with CUDA; fake tensors draw nothing from it."""

    class Generator(torch.Generator):  # type: ignore[misc]
        def __new__(cls, device: object = "cpu") -> torch.Generator:
            return super().__new__(cls, "cpu")

    torch.Generator = Generator


def _load_then_move() -> None:
    """`torch.load` onto the device copies bytes there itself; here it loads to the CPU, and moves."""
    original = torch.load

    def moved(value: object, device: torch.device) -> object:
        if isinstance(value, torch.Tensor):
            return value.to(device)
        if isinstance(value, dict):
            return type(value)((name, moved(inner, device)) for name, inner in value.items())
        if isinstance(value, list | tuple) and type(value) in (list, tuple):
            return type(value)(moved(inner, device) for inner in value)
        return value

    @functools.wraps(original)
    def load(file: object, map_location: object = None, *args: object, **kwargs: object) -> object:
        there = isinstance(map_location, str | torch.device) and torch.device(map_location).type == "cuda"
        loaded = original(file, "cpu" if there else map_location, *args, **kwargs)
        return moved(loaded, torch.device(map_location)) if there else loaded

    torch.load = load


def _answer_for_accelerator(constant: Callable[[object], Callable[..., object]], meter: Meter) -> None:
    accelerator = getattr(torch, "accelerator", None)
    if accelerator is None:  # torch before 2.6
        return
    answers = {
        "is_available": True, "device_count": 1, "current_accelerator": torch.device("cuda"),
        "current_device_index": 0, "current_device_idx": 0, "set_device_index": None, "set_device_idx": None,
        "synchronize": None, "current_stream": _default_stream, "set_stream": None,
    }  # fmt: skip
    for name, answer in answers.items():
        if hasattr(accelerator, name):
            setattr(accelerator, name, constant(answer))
    for module in (accelerator, getattr(accelerator, "memory", None)):
        if module is not None and hasattr(module, "empty_cache"):
            module.empty_cache = lambda: meter.empty_cache()
