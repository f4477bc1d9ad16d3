"""Inside a run: the doors through which torch is observed, and the recorder that stands at them.

`Doors` gathers torch's global hooks (module forward, optimizer step), `torch.autograd.backward`, the data loader,
the gradient scaler and the interpreter's audit events for files in one place and tells its observers. The recorder
is one observer; a fault (`faults.inject`) is another, and enters through the same doors. The trainer is not changed,
no random number is drawn and no tensor is written, so its results are the same to the bit.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
    register_module_parameter_registration_hook,
)
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

SAMPLED = 64  # values of each parameter whose movement is followed
_OPEN_FOR_WRITING = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC


class Observer:
    """What can be seen at the doors. Every method may be left as it is; what it raises, the trainer meets."""

    def fetched(self, batch: Any) -> None:
        """The data loader is about to give `batch` to the program."""

    def forward(self, module: torch.nn.Module, *, outermost: bool) -> None:
        """A module's forward pass begins."""

    def forwarded(self, module: torch.nn.Module, inputs: tuple[Any, ...], output: Any, *, outermost: bool) -> Any:
        """A module's forward pass has ended, with keyword arguments last in `inputs`.

        What is returned, unless None, takes the output's place.
        """

    def backward(self, losses: list[torch.Tensor]) -> None:
        """The backward pass begins; `losses` as they were before a gradient scaler."""

    def stepping(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer step begins."""

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer step has ended."""

    def rescaled(self, scale: float) -> None:
        """The gradient scaler has set its scale."""

    def writing(self, path: str, how: str) -> None:
        """A file in the output folder is about to be opened for writing, renamed or removed."""

    def synced(self, path: str) -> None:
        """A file or folder has been fsynced."""

    def connecting(self, address: str) -> None:
        """The program is about to look up or connect to a network address."""

    def built(self, module: torch.nn.Module) -> None:
        """The first module with parameters is being made."""


class Doors:
    """Installs the hooks once in a process and tells every observer, in order."""

    def __init__(self, output_dir: Path | None, observers: list[Observer]):
        self.observers = observers
        self._output = os.path.realpath(output_dir) + os.sep if output_dir else None
        self._local = threading.local()
        self._built = False
        self._in_backward = False
        self._unscaled: tuple[int, torch.Tensor] | None = None
        self._safetensors: Any = None
        self.active = True

    def install(self) -> None:
        """Put the hooks in place, for the rest of this process's life; in a forked child they fall silent."""
        register_module_forward_pre_hook(self._forward)
        register_module_forward_hook(self._forwarded, with_kwargs=True)
        register_module_forward_hook(self._left, always_call=True)  # last, and after an exception too
        register_module_parameter_registration_hook(self._registered)
        register_optimizer_step_pre_hook(lambda optimizer, args, kwargs: self._tell("stepping", optimizer))
        register_optimizer_step_post_hook(self._stepped)
        torch.autograd.backward = self._around_backward(torch.autograd.backward)
        torch.save = self._around_save(torch.save)
        loader = torch.utils.data.dataloader._BaseDataLoaderIter
        loader.__next__ = self._after_fetch(loader.__next__)
        scaler = torch.amp.GradScaler
        scaler.scale = self._around_scale(scaler.scale)
        scaler.update = self._after_update(scaler.update)
        os.fsync = self._after_sync(os.fsync)
        os.fdatasync = self._after_sync(os.fdatasync)
        sys.addaudithook(self._audit)
        os.register_at_fork(after_in_child=self._fall_silent)

    def _tell(self, what: str, *args: Any, **kwargs: Any) -> None:
        if self.active:
            for observer in self.observers:
                getattr(observer, what)(*args, **kwargs)

    def _fall_silent(self) -> None:
        self.active = False

    def _depth(self, change: int) -> int:
        """How many modules' forward passes this thread is in."""
        depth: int = max(getattr(self._local, "depth", 0) + change, 0)
        self._local.depth = depth
        return depth

    def _forward(self, module: torch.nn.Module, inputs: Any) -> None:
        depth = self._depth(+1)
        if not self._in_backward:  # what activation checkpointing computes again is not a new forward pass
            self._tell("forward", module, outermost=depth == 1)

    def _forwarded(self, module: torch.nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        if self._in_backward or not self.active:
            return None
        result, outermost = output, self._depth(0) == 1
        for observer in self.observers:
            changed = observer.forwarded(module, (*args, *kwargs.values()), result, outermost=outermost)
            result = result if changed is None else changed
        return None if result is output else result

    def _left(self, module: torch.nn.Module, args: Any, output: Any) -> None:
        self._depth(-1)

    def _stepped(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._watch_safetensors()  # here, since a program may import it late
        self._tell("stepped", optimizer)

    def _registered(self, module: torch.nn.Module, name: str, parameter: Any) -> None:
        if not self._built:
            self._built = True
            self._tell("built", module)

    def _around_backward(self, original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def backward(tensors: Any, *args: Any, **kwargs: Any) -> None:
            if self._in_backward:
                return original(tensors, *args, **kwargs)
            self._local.depth = 0
            self._tell("backward", [self._before_scaling(t) for t in _tensors(tensors)])
            self._in_backward = True
            try:
                return original(tensors, *args, **kwargs)
            finally:
                self._in_backward = False

        return backward

    def _before_scaling(self, loss: torch.Tensor) -> torch.Tensor:
        scaled = self._unscaled
        return scaled[1] if scaled is not None and scaled[0] == id(loss) else loss

    def _around_scale(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def scale(scaler: Any, outputs: Any) -> Any:
            scaled = original(scaler, outputs)
            if isinstance(scaled, torch.Tensor):
                self._unscaled = (id(scaled), outputs)
            return scaled

        return scale

    def _after_update(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def update(scaler: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(scaler, *args, **kwargs)
            if scaler.is_enabled():
                self._tell("rescaled", scaler.get_scale())
            return result

        return update

    def _after_fetch(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def following(iterator: Any) -> Any:
            batch = original(iterator)
            self._tell("fetched", batch)
            return batch

        return following

    def _after_sync(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def sync(fd: Any) -> None:
            original(fd)
            if self._output and self.active and sys.platform == "linux":
                path = os.readlink(f"/proc/self/fd/{fd if isinstance(fd, int) else fd.fileno()}")
                if self._ours(path):
                    self._tell("synced", path)

        return sync

    def _around_save(self, original: Callable[..., None]) -> Callable[..., None]:
        """torch.save opens its file in C++, where no audit event is raised."""

        @functools.wraps(original)
        def save(obj: Any, f: Any, *args: Any, **kwargs: Any) -> None:
            self._touched(f, "open")
            original(obj, f, *args, **kwargs)

        return save

    def _watch_safetensors(self) -> None:
        """Safetensors writes in Rust, where no audit event is raised; its Python entry is watched instead."""
        module = sys.modules.get("safetensors.torch")
        if module is None or self._safetensors is module:
            return
        self._safetensors = module
        original: Callable[..., Any] = module.serialize_file

        @functools.wraps(original)
        def serialize_file(tensors: Any, filename: Any, *args: Any, **kwargs: Any) -> Any:
            self._touched(filename, "open")
            return original(tensors, filename, *args, **kwargs)

        module.serialize_file = serialize_file  # type: ignore[attr-defined]

    def _ours(self, path: str) -> bool:
        return self._output is not None and (path + os.sep).startswith(self._output)

    def _touched(self, path: Any, how: str) -> None:
        if isinstance(path, str | bytes | os.PathLike):
            absolute = os.path.join(
                os.path.realpath(os.path.dirname(os.fsdecode(path)) or "."),
                os.path.basename(os.fsdecode(path)),
            )
            if self._ours(absolute):
                self._tell("writing", absolute, how)

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in _WATCHED or not self.active or getattr(self._local, "telling", False):
            return
        self._local.telling = True
        try:
            if event == "open":
                if (isinstance(args[1], str) and set(args[1]) & set("wax+")) or (
                    args[1] is None and args[2] & _OPEN_FOR_WRITING
                ):
                    self._touched(args[0], "open")
            elif event in ("socket.connect", "socket.getaddrinfo"):
                address = args[1] if event == "socket.connect" else args[:2]
                # A path is a socket of this machine's own, and so is a loopback address.
                if isinstance(address, tuple) and str(address[0]) not in (
                    "127.0.0.1",
                    "::1",
                    "localhost",
                    "None",
                ):
                    self._tell("connecting", f"{address[0]}:{address[1]}")
            else:
                self._touched(args[1] if event == "os.rename" else args[0], event.partition(".")[2])
        finally:
            self._local.telling = False


_WATCHED = frozenset({"open", "os.rename", "os.remove", "os.rmdir", "socket.connect", "socket.getaddrinfo"})


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in a batch, an output or a list of losses, however it is nested."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _tensors(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _tensors(inner)
    elif hasattr(value, "to_dict"):  # PyTorch Geometric's Data, transformers' BatchEncoding
        yield from _tensors(value.to_dict())
    elif hasattr(value, "data") and isinstance(value.data, dict):
        yield from _tensors(value.data)


class Recorder(Observer):
    """Writes the recording: one line per event, appended at once, so that it outlives SIGKILL."""

    def __init__(self, folder: Path):
        self._folder, self._files, self._fd, self._inode = folder, 0, -1, -1
        self._last = time.perf_counter()
        self._losses: list[float] = []
        self._batches: list[int] = []
        self._length = self._eval_forwards = 0
        self._training = False
        self._autocast: str | None = None
        self._before: torch.Tensor | None = None
        self._followed: dict[int, tuple[int, list[torch.Tensor]]] = {}
        self.steps = 0
        self.write("start", pid=os.getpid(), rank=int(os.environ.get("RANK", 0)))

    def write(self, kind: str, /, **values: Any) -> None:
        """Append one event."""
        line = (json.dumps({"event": kind, **values}) + "\n").encode()
        if not self._append(line):
            # The file met a limit on its size, or the program closed descriptors that are not its own.
            path = self._folder / f"recording-{os.getpid()}-{self._files:04}.jsonl"
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._files += 1
            self._inode = os.fstat(self._fd).st_ino
            self._append(line)

    def _append(self, line: bytes) -> bool:
        try:
            # A program that closed the descriptor may have opened a file of its own under the same number.
            return os.fstat(self._fd).st_ino == self._inode and os.write(self._fd, line) == len(line)
        except OSError:
            return False

    def forward(self, module: torch.nn.Module, *, outermost: bool) -> None:
        if outermost:
            self._training = module.training
            self._eval_forwards += not module.training
            dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
            if torch.cuda.is_initialized() and torch.is_autocast_enabled("cuda"):
                dtype = torch.get_autocast_dtype("cuda")
            self._autocast = str(dtype) if dtype else None

    def forwarded(self, module: torch.nn.Module, inputs: tuple[Any, ...], output: Any, *, outermost: bool) -> None:
        if outermost and module.training:
            first = next((t for t in _tensors(list(inputs)) if t.dim()), None)
            if first is not None:
                self._batches.append(first.shape[0])
                self._length = max(self._length, first.shape[1] if first.dim() > 1 else 0)

    def backward(self, losses: list[torch.Tensor]) -> None:
        self._losses.extend(_value(loss) for loss in losses)
        if losses and losses[0].grad_fn is None and not losses[0].requires_grad:
            self.write("backward", step=self.steps, detached=True)

    def stepping(self, optimizer: torch.optim.Optimizer) -> None:
        self._before = self._values(optimizer)

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        after, before = self._values(optimizer), self._before
        same = before is not None and after is not None and before.shape == after.shape
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        gradients = [p.grad for p in parameters if p.grad is not None and not p.grad.is_sparse]
        now = time.perf_counter()
        self.steps += 1
        self.write(
            "step",
            number=self.steps,
            loss=sum(self._losses) / len(self._losses) if self._losses else float("nan"),
            losses=self._losses,
            grad_norm=_value(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0,
            lr=[float(group.get("lr", 0.0)) for group in optimizer.param_groups],
            moved=_value((after - before).norm()) if same else float("nan"),  # type: ignore[operator]
            training=self._training,
            dtype=str(parameters[0].dtype) if parameters else "",
            autocast=self._autocast,
            batches=self._batches,
            length=self._length,
            eval_forwards=self._eval_forwards,
            seconds=now - self._last,
            rss=_resident(),
            cuda=_cuda_peaks(),
            children=_children(),
            time=time.time(),
        )
        self._losses, self._batches, self._length, self._eval_forwards = [], [], 0, 0
        self._last = now

    def _values(self, optimizer: torch.optim.Optimizer) -> torch.Tensor | None:
        """A sample of the parameters' values, shape [parameters × at most SAMPLED], copied."""
        views = []
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                known = self._followed.get(id(parameter))
                if known is None or known[0] != parameter.data_ptr():
                    flat = parameter.detach().reshape(-1)
                    known = (parameter.data_ptr(), [flat[:: max(1, flat.numel() // SAMPLED)][:SAMPLED]])
                    self._followed[id(parameter)] = known
                views.extend(known[1])
        return torch.cat([view.float() for view in views]) if views else None

    def rescaled(self, scale: float) -> None:
        self.write("scale", step=self.steps, scale=scale)

    def writing(self, path: str, how: str) -> None:
        self.write("write", step=self.steps, path=path, how=how, time=time.time())

    def synced(self, path: str) -> None:
        status = os.stat(path)
        entries = {}
        if os.path.isdir(path):
            entries = {entry.name: entry.inode() for entry in os.scandir(path)}
        self.write(
            "fsync",
            step=self.steps,
            path=path,
            inode=status.st_ino,
            modified=status.st_mtime_ns,
            entries=entries,
        )

    def connecting(self, address: str) -> None:
        self.write("network", address=address)

    def built(self, module: torch.nn.Module) -> None:
        self.write("model", module=type(module).__name__)


def _value(tensor: torch.Tensor) -> float:
    """A tensor's value as a Python number: exact for one element, the mean of several."""
    detached = tensor.detach()
    return float(detached if detached.numel() == 1 else detached.float().mean())


def _resident() -> int:
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _children() -> int:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as children:
            return len(children.read().split())
    except OSError:
        return 0


def _cuda_peaks() -> tuple[int, int] | None:
    if not torch.cuda.is_initialized():
        return None
    return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
