"""Inside a run: bringing a fault about at its door and step."""

from __future__ import annotations

import builtins
import contextlib
import errno
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from pytest_trainguard import linux
from pytest_trainguard.faults import FILLER, HOST_MEMORY_LEFT, Fault
from pytest_trainguard.faults.gradients import SpoiltGradient
from pytest_trainguard.faults.passes import TrainingPasses
from pytest_trainguard.recorder.doors import Observer
from pytest_trainguard.recorder.tensors import tensors_in
from pytest_trainguard.recorder.writer import Recorder
from pytest_trainguard.rows.suffixes import TEXT  # files that are read from their beginning

__all__ = ["Injector"]

GRACE = 2  # optimizer steps between a reboot's SIGTERM and its SIGKILL
DYING = 2.0  # seconds at most until a process has died of a signal; one that catches it may live on
WORSE = 1000.0  # times what a model puts out, with the other sign; and its own loss, where it computes one
FILE_LIMIT = 16 * 1024  # bytes; the recorder goes on in another file when it meets this limit itself


class Injector(Observer):
    """Stands at the doors beside the recorder and lets one fault in, once."""

    def __init__(self, fault: Fault, recorder: Recorder, disk: Path | None):
        self.fault, self.recorder, self.disk = fault, recorder, disk
        self.done = False
        self._events = 0  # writes, fsyncs or reads that could have been the one
        self._path, self._broken = "", False  # of the data, the last that was opened; the kernel's reads of it fail
        self._unwritable: str | None = None  # a path to which a file could not be moved
        self._passes = TrainingPasses()
        self._gradient = SpoiltGradient(self._spoilt, self._fire)
        self._batch: list[tuple[torch.Tensor, torch.Tensor]] = []  # spoilt, with what was in it, until it is used
        self._kept: list[tuple[torch.Tensor, torch.Tensor]] = []  # parameters, with what was in them before a step
        self._differentiates = True  # no backward pass was seen: torch.autograd.grad is how this program gets gradients
        self.inner = fault.where in ("batch", "activation")

    def _due(self, *doors: str) -> bool:
        fault = self.fault
        return not self.done and fault.where in doors and self.recorder.steps + 1 >= fault.step

    def _fire(self) -> None:
        """Note that the fault comes about, then let it happen."""
        self.done = True
        self.recorder.write("fault", step=self.recorder.steps, kind=self.fault.kind, where=self.fault.where)
        happen: Callable[[], None] | None = {
            "raise": self._raise,
            "signal": lambda: os.kill(os.getpid(), signal.Signals[self.fault.value]),
            "terminate": _terminate,
            "hang": _hang,
            "pause": lambda: _wait_for(Path(self.fault.value)),
            "fill_disk": self._fill_disk,
            "io_error": self._fail,
            "exhaust": self._exhaust,
            "device": self._poison,
            "reboot": lambda: os.kill(os.getpid(), signal.SIGTERM),
            "clock": lambda: _shift_clock(int(self.fault.value)),
        }.get(self.fault.kind)
        if happen:
            happen()

    def _raise(self) -> None:
        kind = getattr(builtins, self.fault.value, None) or getattr(torch, self.fault.value)
        raise kind(self.fault.text)

    def _fail(self) -> None:
        """EIO: from the kernel, for the reads that follow, where it can be had so; else raised here."""
        file = Path(self._path)
        self._broken = self.fault.where == "read" and file.suffix in TEXT and linux.break_file(file)
        if not self._broken:
            _io_error(self._unwritable)

    def _exhaust(self) -> None:
        """Have the system refuse, for real, what the program asks for here."""
        linux.limit_memory(HOST_MEMORY_LEFT)
        if self.fault.value == "torch":
            torch.empty(16 * HOST_MEMORY_LEFT, dtype=torch.uint8)
        else:
            bytearray(16 * HOST_MEMORY_LEFT)

    def _poison(self) -> None:
        """Raise the device's error, now and at whatever the program tries next; weights cannot be copied out either."""

        def save(obj: object, f: object, *args: object, **kwargs: object) -> None:
            if isinstance(f, str | os.PathLike):
                Path(f).write_bytes(b"PK\x03\x04")  # the file is begun, then the copy from the device fails
            self._raise_again("save")

        torch.save = save
        module = sys.modules.get("safetensors.torch")
        if module is not None:
            module.serialize_file = save  # type: ignore[attr-defined]
        raise _device_error(self.fault.text)

    def _raise_again(self, door: str) -> None:
        """The context is lost: what is tried in it fails, and is noted."""
        if self.done and self.fault.kind == "device":
            self.recorder.write("again", step=self.recorder.steps, where=door)
            raise _device_error(self.fault.text)

    def _end_here(self) -> None:
        self.recorder.write("killed", step=self.recorder.steps)
        os.kill(os.getpid(), signal.SIGKILL)

    def _count(self, door: str) -> None:
        """An event of which the `nth` is the one."""
        if not self.done and self.fault.where == door:
            self._events += 1
            if self._events == self.fault.nth:
                self._fire()

    def _fill_disk(self) -> None:
        if self.disk is None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT, resource.RLIM_INFINITY))
            return
        filler = os.open(self.disk / FILLER, os.O_WRONLY | os.O_CREAT)
        for size in (1 << 20, 1 << 12, 1):  # down to the last byte
            with contextlib.suppress(OSError):
                while os.write(filler, bytes(size)):
                    pass
        os.close(filler)

    def fetched(self, batch: object) -> None:
        if not self._passes.expected():
            return
        if self._due("data"):
            self._fire()
        if self._due("batch"):
            floats = [t for t in tensors_in(batch) if t.is_floating_point()]
            self._batch = [(tensor, tensor.clone()) for tensor in floats]
            for tensor in floats:
                tensor.copy_(self._spoilt(tensor))
            if floats:  # where the inputs are whole numbers, the first layer's output takes their place
                self._fire()

    def _settle_batch(self) -> None:
        """A forward pass begins, with the batch that was spoilt: if it does not train, that was the wrong batch."""
        if self._batch and not self._passes.training:
            with torch.no_grad():
                for tensor, before in self._batch:
                    tensor.copy_(before)
            self.done = False
        self._batch = []

    def _spoilt(self, tensor: torch.Tensor) -> torch.Tensor:
        """The same tensor with the fault's number in it, its graph kept; whole numbers stay as they are."""
        if not tensor.is_floating_point():
            return tensor
        if self.fault.kind == "overflow" and tensor.numel() > 1:
            largest = tensor.detach().abs().max().clamp(min=1e-6)
            return tensor / largest * torch.finfo(tensor.dtype).max
        return tensor * (math.nan if self.fault.kind == "nan" else math.inf)

    def reading(self, path: str) -> None:
        if self.done and self.fault.kind == "io_error" and self.fault.where == "read" and not self._broken:
            _io_error()  # a bad sector stays bad
        self._path = path
        if self._due("read"):
            self._count("read")

    def built(self, module: torch.nn.Module) -> None:
        if self._due("build"):
            self._fire()

    def moving(self, module: torch.nn.Module) -> None:
        if self._due("move"):
            self._fire()

    def forward(self, module: torch.nn.Module, *, outermost: bool) -> None:
        if not outermost:
            return
        self._raise_again("forward")
        training = self._passes.begin(module)
        self._settle_batch()
        if not training:
            if self._due("evaluate") and self.fault.kind != "worse":
                self._fire()
            return
        if self.done and self.fault.kind == "reboot" and self.recorder.steps + 1 >= self.fault.step + GRACE:
            self._end_here()
        if self.fault.kind == "undo" and self.fault.value and self.recorder.steps >= int(self.fault.value):
            self._end_here()
        if self._due("forward"):
            self._fire()

    def forwarded(
        self, module: torch.nn.Module, inputs: tuple[object, ...], output: object, *, outermost: bool
    ) -> object:
        if self.fault.kind == "worse":
            return self._worsen(output) if outermost and not torch.is_grad_enabled() else None
        if not self._passes.holds(module):
            return None
        leaf = not any(module.children()) and isinstance(output, torch.Tensor) and output.is_floating_point()
        wanted = outermost if self.fault.where == "loss" else leaf
        if not wanted or not self._due("loss", "batch", "activation"):
            return None
        self._fire()
        return _change_tensors(output, self._spoilt)

    def _worsen(self, output: object) -> object:
        if self.recorder.steps < self.fault.step:
            return None
        if not self.done:
            self._fire()
        return _change_tensors(output, _worse)

    def backward(self, losses: list[torch.Tensor]) -> None:
        self._differentiates = False
        self._begin_backward()

    def differentiated(self, outputs: list[torch.Tensor], *, create_graph: bool) -> None:
        if self._differentiates and not create_graph:
            self._begin_backward()

    def _begin_backward(self) -> None:
        self._raise_again("backward")
        self._gradient.disarm()
        if self._gradient.was_cleared() and self.fault.kind != "overflow":
            self.done = False
        if self._due("backward"):
            self._fire()
        if self._due("gradient"):
            self._gradient.arm(self._passes.module)

    def stepping(self, optimizer: torch.optim.Optimizer) -> None:
        self._raise_again("optimizer")
        self._gradient.disarm()
        if self._gradient.was_lost(optimizer) and self.fault.kind != "overflow":  # which clipping makes finite again
            self.done = False
        if self._due("optimizer"):
            self._fire()
        if self.fault.kind == "undo":
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            self._kept = [(parameter, parameter.detach().clone()) for parameter in parameters]

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        with torch.no_grad():
            for parameter, before in self._kept:
                parameter.copy_(before)
        self._kept = []

    def writing(self, path: str, how: str) -> None:
        if self._unwritable == path and self.done and how == "open":
            _io_error(path)  # a move that failed is tried again as a copy, to the same disk
        # What cannot be removed programs rightly pass over, and what is renamed there has been written there before.
        written = how in ("open", "move") or self.fault.kind != "io_error"
        if self.fault.where == "save" and written and self.recorder.steps >= self.fault.step:
            if not self.done and how == "move" and self.fault.kind == "io_error":
                self._unwritable = path
            self._count("save")
        if self.done and self.fault.kind == "reboot":
            self._events += 1
            if self._events == self.fault.nth:
                self._end_here()

    def synced(self, path: str) -> None:
        if self.recorder.steps >= self.fault.step:
            self._count("sync")

    def connecting(self, address: str) -> None:
        if self.fault.kind == "offline":
            if self.fault.value == "silent":
                _hang()
            raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))


def _io_error(path: str | None = None) -> None:
    """Raise EIO: reads and writes name no file; opening one and moving one do."""
    raise OSError(errno.EIO, os.strerror(errno.EIO), *filter(None, [path]))


def _device_error(text: str) -> RuntimeError:
    kind: type[RuntimeError] = getattr(torch, "AcceleratorError", RuntimeError)  # since torch 2.8
    return kind(text)


def _worse(tensor: torch.Tensor) -> torch.Tensor:
    """A loss that is far larger, scores that are far off, and as they were whole numbers."""
    if not tensor.is_floating_point():
        return tensor
    return tensor * (WORSE if not tensor.dim() else -WORSE)


def _shift_clock(seconds: int) -> None:
    """Have every module that holds `time.time` or `time.time_ns` hold one that is so many seconds off."""
    now, now_ns = time.time, time.time_ns
    shifted: dict[object, Callable[[], float]] = {
        now: lambda: now() + seconds,
        now_ns: lambda: now_ns() + seconds * 10**9,
    }
    for module in list(sys.modules.values()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if value is now or value is now_ns:
                setattr(module, name, shifted[value])


def _terminate() -> None:
    """SIGTERM to this process's children, then to itself, from a process of its own.

    A loader's worker that got it from its parent ends without a word (torch has it so); of any other, it is missed.
    Whatever dies of it is dead before this process goes on: a save that is quicker than that would hide it.
    """
    ours = os.getpid()
    others = linux.children_of(ours)
    # Until the sender is gone. A worker's death is told by SIGCHLD, whose handler raises: not in here.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGCHLD])
    sender = os.fork()
    if not sender:
        for pid in others:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + DYING
        while any(linux.may_die_of(pid, signal.SIGTERM) for pid in others) and time.monotonic() < until:
            time.sleep(0.002)
        os.kill(ours, signal.SIGTERM)
        os._exit(0)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(sender, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _hang() -> None:
    while True:
        time.sleep(1)


def _wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


def _change_tensors(value: object, change: Callable[[torch.Tensor], torch.Tensor]) -> object:
    """The same output with every tensor in it changed."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):  # transformers' outputs too
        for name in list(value):
            value[name] = _change_tensors(value[name], change)
        return value
    if isinstance(value, tuple | list):
        items = [_change_tensors(inner, change) for inner in value]
        made: object = getattr(value, "_make", type(value))(items)  # a named tuple takes its items one by one
        return made
    return value
