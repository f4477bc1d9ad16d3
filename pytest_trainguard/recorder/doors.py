"""Inside a run: the doors through which torch is observed.

`Doors` gathers torch's global hooks (module forward, optimizer step), `torch.autograd.backward`, the data loader,
the gradient scaler and the interpreter's audit events for files in one place and tells its observers. The recorder
is one observer; a fault (`faults.inject`) is another, and enters through the same doors; under fake CUDA the labels of
a trace (`memory.traced.labels`) are the only one. A door at which nobody stands is not made. The trainer is not
changed.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
    register_module_parameter_registration_hook,
)
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from pytest_trainguard.recorder.project import is_own
from pytest_trainguard.recorder.tensors import tensors_in

LOSSES = (
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "huber_loss", "l1_loss", "mse_loss",
    "nll_loss", "smooth_l1_loss",
)  # fmt: skip
_OPEN_FOR_WRITING = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC


class Observer:
    """What can be seen at the doors. Every method may be left as it is; what it raises, the trainer meets.

    Attributes:
        inner: it wants to see the forward passes of modules inside other modules too.
    """

    inner = False

    def fetching(self) -> None:
        """The data loader is about to fetch a batch."""

    def fetched(self, batch: object) -> None:
        """The data loader is about to give `batch` to the program."""

    def forward(self, module: torch.nn.Module, *, outermost: bool) -> None:
        """A module's forward pass begins."""

    def forwarded(
        self, module: torch.nn.Module, inputs: tuple[object, ...], output: object, *, outermost: bool
    ) -> object:
        """A module's forward pass has ended, with keyword arguments last in `inputs`.

        What is returned, unless None, takes the output's place.
        """

    def called(self, module: torch.nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        """The outermost module's forward pass has ended; what it was called with."""

    def entered(self, module: torch.nn.Module) -> None:
        """Any module's forward pass begins: inner ones', and those computed again in the backward pass, too."""

    def left(self, module: torch.nn.Module, output: object) -> None:
        """A forward pass that was `entered` is over; `output` is None where an exception ended it."""

    def backward(self, losses: list[torch.Tensor]) -> None:
        """The backward pass begins; `losses` as they were before a gradient scaler."""

    def differentiated(self, outputs: list[torch.Tensor], *, create_graph: bool) -> None:
        """`torch.autograd.grad` begins, with these outputs: a step's losses, or a term of one (a gradient penalty)."""

    def stepping(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer step begins."""

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer step has ended."""

    def scaling(self, scaler: torch.amp.GradScaler) -> None:
        """A gradient scaler that is at work has scaled a loss."""

    def rescaled(self, scale: float) -> None:
        """The gradient scaler has set its scale."""

    def saving(self) -> None:
        """`torch.save` begins."""

    def saved(self) -> None:
        """`torch.save` is over, by an exception too."""

    def stored(self, value: object) -> None:
        """What `torch.save` is about to write; of a file that Safetensors wrote, the tensors in it by name."""

    def writing(self, path: str, how: str) -> None:
        """A file in the output folder is about to be opened to write (`how`: `open`), renamed, moved there, removed."""

    def synced(self, path: str) -> None:
        """A file or folder has been fsynced."""

    def reading(self, path: str) -> None:
        """A file of the run's data is about to be opened for reading."""

    def moving(self, module: torch.nn.Module) -> None:
        """A module with parameters is about to go to a device (or to another dtype)."""

    def loaded(self, module: torch.nn.Module) -> None:
        """A module's weights have been loaded."""

    def scored(self, function: str, arguments: Mapping[str, Any]) -> None:
        """One of torch's loss functions (`LOSSES`) is about to be called, with these arguments by name."""

    def valued(self, function: str, arguments: Mapping[str, Any], value: object) -> None:
        """One of torch's loss functions has been called with these arguments, and this is what came out."""

    def clipping(self, parameters: list[torch.Tensor]) -> None:
        """The gradients of these parameters are about to be clipped to a norm."""

    def clipped(self, parameters: list[torch.Tensor], limit: float, kind: float) -> None:
        """The gradients of these parameters have been clipped to a norm of at most `limit`; `kind` is 2 for L2."""

    def planned(self, scheduler: Any) -> None:
        """A learning rate scheduler has been made."""

    def scheduled(self, scheduler: Any, *, inner: bool) -> None:
        """A learning rate scheduler has been stepped: by the program, or where it is an `inner` one by another."""

    def opened(self, loader: torch.utils.data.DataLoader[Any]) -> None:
        """A pass over a data loader begins."""

    def connecting(self, address: str) -> None:
        """The program is about to look up or connect to a network address."""

    def built(self, module: torch.nn.Module) -> None:
        """The first module with parameters is being made."""


class Doors:
    """Installs the hooks once in a process and tells every observer, in order.

    In a forked process they fall silent: it is a helper of the program that is observed, a loader's worker above all,
    and what it does would be noted down as the program's, and met by the fault a second time. Where a program is
    observed that may fork those that train (a queue), one that is forked before anything was trained is observed by
    itself, from the first model on that is made in it.
    """

    def __init__(
        self, output_dir: Path | None, observers: list[Observer], data: Path | None = None,
        anew: Callable[[], list[Observer]] | None = None,
    ):  # fmt: skip
        """`anew` makes observers of the same kinds for a forked process that trains; None: none is observed."""
        self.observers = observers
        self._anew, self._asleep, self._trained = anew, False, False
        self._output = os.path.realpath(output_dir) + os.sep if output_dir else None
        self._data = os.path.realpath(data) + os.sep if data else None
        self._local = threading.local()
        self._built = False
        self._in_backward = False
        self._awaited: set[int] = set()  # optimizers, by id, whose closure has not ended
        self._unscaled: tuple[int, torch.Tensor] | None = None
        self._safetensors: ModuleType | None = None
        self._inner = any(observer.inner for observer in observers)
        self._every_pass, self._writes = self._wanted("entered", "left"), self._wanted("writing")
        self._stores = self._wanted("stored")
        self.active = True

    def install(self) -> None:
        """Put the hooks in place, for the rest of this process's life."""
        self._watch_modules()
        self._watch_training()
        self._watch_files()
        os.register_at_fork(after_in_child=self._fork)

    def _wanted(self, *doors: str) -> bool:
        """Some observer stands at one of these doors: its class has a method of its own there."""
        kinds = [type(observer) for observer in self.observers]
        return any(getattr(kind, door) is not getattr(Observer, door) for kind in kinds for door in doors)

    def _watch_modules(self) -> None:
        if self._every_pass or self._wanted("forward", "forwarded", "called"):
            register_module_forward_pre_hook(self._forward)
            if self._wanted("forwarded", "called"):
                register_module_forward_hook(self._forwarded, with_kwargs=True)
            register_module_forward_hook(self._left, always_call=True)  # last, and after an exception too
        if self._wanted("built"):
            register_module_parameter_registration_hook(self._registered)
        if self._wanted("moving"):
            torch.nn.Module.to = self._before_move(torch.nn.Module.to)
            torch.nn.Module.cuda = self._before_move(torch.nn.Module.cuda)
        if self._wanted("loaded"):
            torch.nn.Module.load_state_dict = self._after_load(torch.nn.Module.load_state_dict)

    def _watch_training(self) -> None:
        if self._wanted("stepping"):
            register_optimizer_step_pre_hook(self._before_step)
        if self._wanted("stepped", "writing"):
            register_optimizer_step_post_hook(self._stepped)
        if self._wanted("backward", "forward", "forwarded"):
            torch.autograd.backward = self._around_backward(torch.autograd.backward)
        if self._wanted("differentiated", "forward", "forwarded"):
            note_imported()
            plain, torch.autograd.grad = torch.autograd.grad, self._around_grad(torch.autograd.grad)
            _replace_imported(plain, torch.autograd.grad)
        if self._wanted("fetching", "fetched"):
            loader = torch.utils.data.dataloader._BaseDataLoaderIter
            loader.__next__ = self._around_fetch(loader.__next__)
        if self._wanted("opened"):
            iterator = torch.utils.data.dataloader._BaseDataLoaderIter
            iterator.__init__ = self._after_opening(iterator.__init__)
        scaler = torch.amp.GradScaler
        if self._wanted("backward", "scaling"):
            scaler.scale = self._around_scale(scaler.scale)
        if self._wanted("rescaled"):
            scaler.update = self._after_update(scaler.update)

        self._watch_helpers()

    def _watch_helpers(self) -> None:
        """What a program calls by name between its forward pass and its step."""
        if self._wanted("scored", "valued"):
            for name in LOSSES:
                self._replace(torch.nn.functional, name, self._around_loss)
        if self._wanted("clipping", "clipped"):
            self._replace(torch.nn.utils, "clip_grad_norm_", self._around_clip)
        if self._wanted("planned", "scheduled"):
            base = torch.optim.lr_scheduler.LRScheduler
            kinds: list[Any] = [kind for kind in vars(torch.optim.lr_scheduler).values() if isinstance(kind, type)]
            for kind in (kind for kind in kinds if issubclass(kind, base) and "step" in vars(kind)):
                kind.step = self._around_schedule(kind.step)
            base._initial_step = self._around_plan(base._initial_step)

    def _replace(self, module: ModuleType, name: str, around: Callable[..., Callable[..., object]]) -> None:
        """Put a function's replacement into its module, and into the program's own that took it by name."""
        original = getattr(module, name)
        setattr(module, name, around(original))
        _replace_imported(original, getattr(module, name))

    def _watch_files(self) -> None:
        if self._wanted("saving", "saved", "stored", "writing"):
            torch.save = self._around_save(torch.save)
        if self._wanted("synced"):
            os.fsync = self._after_sync(os.fsync)
            os.fdatasync = self._after_sync(os.fdatasync)
        if self._wanted("writing", "reading", "connecting"):
            sys.addaudithook(self._audit)

    def fall_silent(self) -> None:
        """Tell nobody anything any more."""
        self.active = False

    def _fork(self) -> None:
        """This process was forked from the one that is observed."""
        self.fall_silent()
        self._asleep = self._anew is not None and not self._trained

    def _wake(self) -> None:
        """It makes a model: observe it as a process of its own."""
        assert self._anew is not None
        self._asleep = self._built = self._in_backward = False
        self._local, self._unscaled = threading.local(), None
        self.observers = self._anew()
        self.active = True

    def _tell(self, what: str, *args: object, **kwargs: object) -> None:
        if self.active:
            for observer in self.observers:
                getattr(observer, what)(*args, **kwargs)

    def _forward(self, module: torch.nn.Module, inputs: object) -> None:
        # How many modules' forward passes this thread is in. Most calls of this hook end here: a model has many
        # modules, and the recorder wants the outermost one only.
        depth = self._local.depth = getattr(self._local, "depth", 0) + 1
        if self._every_pass:
            self._tell("entered", module)
        if (depth == 1 or self._inner) and not self._in_backward:
            # What activation checkpointing computes again, in the backward pass, is not a new forward pass.
            self._tell("forward", module, outermost=depth == 1)

    def _forwarded(
        self, module: torch.nn.Module, args: tuple[object, ...], kwargs: dict[str, object], output: object
    ) -> object:
        outermost = self._local.depth == 1
        if not (outermost or self._inner) or self._in_backward or not self.active:
            return None
        if outermost:
            self._tell("called", module, args, kwargs)
        result = output
        for observer in self.observers:
            changed = observer.forwarded(module, (*args, *kwargs.values()), result, outermost=outermost)
            result = result if changed is None else changed
        return None if result is output else result

    def _left(self, module: torch.nn.Module, args: object, output: object) -> None:
        self._local.depth = max(getattr(self._local, "depth", 0) - 1, 0)
        if self._every_pass:
            self._tell("left", module, output)

    def _before_step(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Tell that a step is about to be taken; where a closure makes its gradients, as soon as that has first ended.

        Lightning steps with closures. `args` begin with the optimizer.
        """
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if not callable(closure):
            self._tell("stepping", optimizer)
            return None
        self._awaited.add(id(optimizer))

        def make_gradients() -> object:
            loss = closure()
            self._tell_awaited(optimizer)
            return loss

        if "closure" in kwargs:
            return args, {**kwargs, "closure": make_gradients}
        return (args[0], make_gradients, *args[2:]), kwargs

    def _tell_awaited(self, optimizer: torch.optim.Optimizer) -> None:
        if id(optimizer) in self._awaited:
            self._awaited.discard(id(optimizer))
            self._tell("stepping", optimizer)

    def _stepped(self, optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        self._tell_awaited(optimizer)  # it may not have called its closure
        self._trained = True
        if self._writes:
            self._watch_safetensors()  # here, since a program may import it late
        self._tell("stepped", optimizer)

    def _registered(self, module: torch.nn.Module, name: str, parameter: object) -> None:
        if self._asleep:
            self._wake()
        if not self._built:
            self._built = True
            self._tell("built", module)

    def _around_backward(self, original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def backward(tensors: object, *args: object, **kwargs: object) -> None:
            if self._in_backward:
                return original(tensors, *args, **kwargs)
            self._local.depth, self._trained = 0, True
            self._tell("backward", [self._before_scaling(t) for t in tensors_in(tensors)])
            self._in_backward = True
            try:
                return original(tensors, *args, **kwargs)
            finally:
                self._in_backward = False

        return backward

    def _around_grad(self, original: Callable[..., object]) -> Callable[..., object]:
        @functools.wraps(original)
        def grad(outputs: object, *args: object, **kwargs: object) -> object:
            if self._in_backward:
                return original(outputs, *args, **kwargs)
            graph = bool(kwargs.get("create_graph", args[3] if len(args) > 3 else False))
            # What torch.compile differentiates as it traces has no values, and is of a class of its own.
            real = [t for t in tensors_in(outputs) if type(t) is torch.Tensor]
            self._tell("differentiated", [self._before_scaling(t) for t in real], create_graph=graph)
            self._in_backward = True  # the depth stays: a model may take gradients in the middle of its forward pass
            try:
                return original(outputs, *args, **kwargs)
            finally:
                self._in_backward = False

        return grad

    def _before_scaling(self, loss: torch.Tensor) -> torch.Tensor:
        scaled = self._unscaled
        return scaled[1] if scaled is not None and scaled[0] == id(loss) else loss

    def _around_scale(self, original: Callable[..., object]) -> Callable[..., object]:
        @functools.wraps(original)
        def scale(scaler: torch.amp.GradScaler, outputs: object) -> object:
            scaled = original(scaler, outputs)
            if isinstance(scaled, torch.Tensor):
                self._unscaled = (id(scaled), outputs)
            if scaler.is_enabled():
                self._tell("scaling", scaler)
            return scaled

        return scale

    def _after_update(self, original: Callable[..., object]) -> Callable[..., object]:
        @functools.wraps(original)
        def update(scaler: torch.amp.GradScaler, *args: object, **kwargs: object) -> object:
            result = original(scaler, *args, **kwargs)
            if scaler.is_enabled():
                self._tell("rescaled", scaler.get_scale())
            return result

        return update

    def _around_fetch(self, original: Callable[..., object]) -> Callable[..., object]:
        @functools.wraps(original)
        def following(iterator: object) -> object:
            self._tell("fetching")
            batch = original(iterator)
            self._tell("fetched", batch)
            return batch

        return following

    def _after_opening(self, original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def begin(iterator: object, loader: object, *args: object, **kwargs: object) -> None:
            original(iterator, loader, *args, **kwargs)
            self._tell("opened", loader)

        return begin

    def _around_loss(self, original: Callable[..., object]) -> Callable[..., object]:
        signature = inspect.signature(original)

        @functools.wraps(original)
        def score(*args: object, **kwargs: object) -> object:
            if torch.compiler.is_compiling():  # what torch.compile reads has no values
                return original(*args, **kwargs)
            given = signature.bind_partial(*args, **kwargs).arguments
            self._tell("scored", original.__name__, given)
            value = original(*args, **kwargs)
            self._tell("valued", original.__name__, given, value)
            return value

        return score

    def _around_clip(self, original: Callable[..., object]) -> Callable[..., object]:
        @functools.wraps(original)
        def clip(parameters: Any, max_norm: float, norm_type: float = 2.0, **kwargs: object) -> object:
            if not isinstance(parameters, torch.Tensor):
                parameters = list(parameters)  # a generator can be gone through once
            given = [parameters] if isinstance(parameters, torch.Tensor) else parameters
            self._tell("clipping", given)
            norm = original(parameters, max_norm, norm_type, **kwargs)
            self._tell("clipped", given, float(max_norm), float(norm_type))
            return norm

        return clip

    def _around_schedule(self, original: Callable[..., object]) -> Callable[..., object]:
        @functools.wraps(original)
        def step(scheduler: object, *args: object, **kwargs: object) -> object:
            inside, self._local.scheduling = getattr(self._local, "scheduling", False), True
            try:
                result = original(scheduler, *args, **kwargs)
            finally:
                self._local.scheduling = inside
            if not getattr(self._local, "planning", False):
                self._tell("scheduled", scheduler, inner=inside)
            return result

        return step

    def _around_plan(self, original: Callable[..., None]) -> Callable[..., None]:
        """A scheduler takes a step of its own as it is made."""

        @functools.wraps(original)
        def begin(scheduler: object) -> None:
            inside, self._local.planning = getattr(self._local, "planning", False), True
            try:
                original(scheduler)
            finally:
                self._local.planning = inside
            self._tell("planned", scheduler)

        return begin

    def _after_sync(self, original: Callable[..., None]) -> Callable[..., None]:
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
        def save(obj: object, f: object, *args: object, **kwargs: object) -> None:
            _tell_of_opening(f)
            self._tell("saving")
            self._tell("stored", obj)
            try:
                original(obj, f, *args, **kwargs)
            finally:
                self._tell("saved")

        return save

    def _before_move(self, original: Callable[..., object]) -> Callable[..., object]:
        @functools.wraps(original)
        def move(module: torch.nn.Module, *args: object, **kwargs: object) -> object:
            if next(module.parameters(), None) is not None:
                self._tell("moving", module)
            return original(module, *args, **kwargs)

        return move

    def _after_load(self, original: Callable[..., object]) -> Callable[..., object]:
        @functools.wraps(original)
        def load_state_dict(module: torch.nn.Module, *args: object, **kwargs: object) -> object:
            result = original(module, *args, **kwargs)
            self._tell("loaded", module)
            return result

        return load_state_dict

    def _watch_safetensors(self) -> None:
        """Safetensors writes in Rust, where no audit event is raised; its Python entry is watched instead."""
        module = sys.modules.get("safetensors.torch")
        if module is None or self._safetensors is module:
            return
        self._safetensors = module
        original: Callable[..., object] = module.serialize_file

        @functools.wraps(original)
        def serialize_file(tensors: object, filename: object, *args: object, **kwargs: object) -> object:
            _tell_of_opening(filename)
            result = original(tensors, filename, *args, **kwargs)
            if self._stores:
                tensors_of: dict[str, torch.Tensor] = {}
                with contextlib.suppress(Exception):  # it was written, whether it can be read or not
                    tensors_of = module.load_file(filename)
                self._tell("stored", tensors_of)
            return result

        module.serialize_file = serialize_file  # type: ignore[attr-defined]

    def _ours(self, path: str) -> bool:
        return self._output is not None and (path + os.sep).startswith(self._output)

    def _touched(self, path: object, how: str) -> None:
        if isinstance(path, str | bytes | os.PathLike):
            absolute = _absolute(path)
            if self._ours(absolute):
                self._tell("writing", absolute, how)

    def _opened(self, path: object) -> None:
        if self._data is not None and isinstance(path, str | bytes | os.PathLike):
            absolute = os.path.realpath(os.fsdecode(path))
            if (absolute + os.sep).startswith(self._data):
                self._tell("reading", absolute)

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
                else:
                    self._opened(args[0])
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
            elif event == "os.rename":
                self._touched(args[1], "rename" if self._ours(_absolute(args[0])) else "move")
            else:
                self._touched(args[0], event.partition(".")[2])
        finally:
            self._local.telling = False


def _absolute(path: str | bytes | os.PathLike[Any]) -> str:
    """Where a name stands, whatever it may be a link to itself."""
    name = os.fsdecode(path)
    return os.path.join(os.path.realpath(os.path.dirname(name) or "."), os.path.basename(name))


def _tell_of_opening(path: object) -> None:
    """Raise the audit event that opening a file raises, for one that is opened where Python does not see it."""
    if isinstance(path, str | bytes | os.PathLike):
        sys.audit("open", path, "wb", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)


_took_grad: list[ModuleType] = []  # modules that took torch.autograd.grad by name, of those that were looked at
_last_looked_at = ""  # the last of these, in the order of their import


def note_imported() -> None:
    """Note which modules took `torch.autograd.grad` by name, of those imported since this was done last.

    A server does it for all of its runs: a run that looks at each of some thousand modules has the system copy the
    page that each stands on, which takes as long as to train some steps.
    """
    global _last_looked_at
    for name in list(itertools.takewhile(lambda name: name != _last_looked_at, reversed(sys.modules))):
        module = sys.modules[name]
        if isinstance(module, ModuleType) and any(value is torch.autograd.grad for value in vars(module).values()):
            _took_grad.append(module)
    _last_looked_at = next(reversed(sys.modules))


def _replace_imported(original: object, replacement: object) -> None:
    """Put it into the program's own modules, too, which took it by name before the doors were there."""
    for module in filter(is_own, _took_grad):  # a library takes torch.autograd.grad as it is called
        for name in [name for name, value in vars(module).items() if value is original]:
            setattr(module, name, replacement)


_WATCHED = frozenset({"open", "os.rename", "os.remove", "os.rmdir", "socket.connect", "socket.getaddrinfo"})
