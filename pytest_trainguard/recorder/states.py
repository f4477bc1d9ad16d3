"""Inside a run: a digest of each state that a checkpoint has to bring back, taken as an optimizer step begins.

Two runs that should be alike are held against each other by these (`verdicts.parting`), to say which state differs
where they part. It costs time, so that a run has it only where it was asked for. It draws no random number, touches no
graph, and what has no digest (a sparse tensor, a fake one) is left out.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

from pytest_trainguard.recorder.doors import Observer
from pytest_trainguard.recorder.tensors import bytes_of, tensors_in

DIGEST_BYTES = 8
WHOLE = 1 << 22  # bytes of a tensor that are hashed one by one; of a larger one a sample of so many, and the sum of all
REMEMBERED = 32  # outputs of modules: what comes back as an input soon after is no data


class States(Observer):
    """Follows one training program; `take` gives what was found in each step.

    A step's forward passes are those in training mode and with gradients since the step before: neither an evaluation
    nor a look at the model's shape is among them.
    """

    def __init__(self) -> None:
        self._taken: dict[str, str] = {}
        self._modules: dict[int, torch.nn.Module] = {}
        self._buffers: dict[int, str] = {}
        self._inputs: list[str] = []
        self._scaler: str | None = None
        self._outputs: deque[torch.Tensor] = deque(maxlen=REMEMBERED)

    def take(self) -> dict[str, str]:
        """The digests of the step that has just ended, by state; the next step's begin."""
        taken = self._taken
        if self._buffers:
            taken["buffers"] = digest(list(self._buffers.values()))
        if self._inputs:
            taken["data"] = "".join(self._inputs)
        if self._scaler:
            taken["scaler"] = self._scaler
        self._taken, self._scaler = {}, None
        self._forget_forwards()
        return taken

    def _forget_forwards(self) -> None:
        self._modules, self._buffers, self._inputs = {}, {}, []

    def forward(self, module: torch.nn.Module, *, outermost: bool) -> None:
        if not outermost or not _trains(module) or id(module) in self._modules:
            return
        self._modules[id(module)] = module
        buffers = list(_buffers_of(module))
        if buffers:  # before the forward pass: what batch normalisation makes of the data is not what was restored
            with contextlib.suppress(Exception):
                self._buffers[id(module)] = digest(buffers)

    def forwarded(
        self, module: torch.nn.Module, inputs: tuple[object, ...], output: object, *, outermost: bool
    ) -> None:
        if not outermost or torch.compiler.is_compiling():
            return
        with contextlib.suppress(Exception):
            given = list(tensors_in(list(inputs)))
            data = [tensor for tensor in given if self._is_data(tensor)]
            if data and _trains(module):
                self._inputs.append(digest(data))
            places = set(map(_place, given))
            self._outputs.extend(made.detach() for made in tensors_in(output) if _place(made) not in places)

    def _is_data(self, tensor: torch.Tensor) -> bool:
        """It came from outside: it follows from no weights, and is no output of a module, detached or not."""
        return not tensor.requires_grad and _place(tensor) not in set(map(_place, self._outputs))

    def scaling(self, scaler: torch.amp.GradScaler) -> None:
        self._scaler = None
        with contextlib.suppress(Exception):
            self._scaler = digest(scaler.state_dict())

    def loaded(self, module: torch.nn.Module) -> None:
        # A forward pass before that was a trial, of a new model's buffers.
        self._forget_forwards()

    def rescaled(self, scale: float) -> None:
        # After a step that the scaler left out, what was seen belongs to none.
        self._forget_forwards()

    def stepping(self, optimizer: torch.optim.Optimizer) -> None:
        self._taken = {}
        for name, find in self._sources(optimizer).items():
            with contextlib.suppress(Exception):
                self._taken[name] = digest(find())

    def _sources(self, optimizer: torch.optim.Optimizer) -> dict[str, Callable[[], object]]:
        found: dict[str, Callable[[], object]] = {
            "weights": lambda: self._weights(optimizer),
            "optimizer": lambda: [optimizer.state.get(parameter, {}) for parameter in parameters_of(optimizer)],
            "lr": lambda: [group["lr"] for group in optimizer.param_groups],
            "python": random.getstate,
            "torch": torch.get_rng_state,
        }
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            found["numpy"] = lambda: numpy.random.get_state(legacy=False)
        return found

    def _weights(self, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
        """The optimizer's parameters, and then the others of the modules that the step went through.

        Of two networks with an optimizer each, the loss of either is of both.
        """
        found = {id(parameter): parameter for parameter in parameters_of(optimizer)}
        for module in self._modules.values():
            found.update((id(parameter), parameter) for parameter in module.parameters())
        return list(found.values())


def _trains(module: torch.nn.Module) -> bool:
    # While torch.compile reads a forward pass there are no values to look at.
    return module.training and torch.is_grad_enabled() and not torch.compiler.is_compiling()


def parameters_of(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    """What an optimizer holds, of all its groups."""
    for group in optimizer.param_groups:
        yield from group["params"]


def _buffers_of(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    """The buffers that a state_dict holds: the others are made anew by each start, and grow as they are needed."""
    for inner in module.modules():
        for name, buffer in inner._buffers.items():
            if buffer is not None and name not in inner._non_persistent_buffers_set:
                yield buffer


def _place(tensor: torch.Tensor) -> int:
    """Where its values lie, the same for all views of them."""
    place: int = tensor.untyped_storage().data_ptr()
    return place


def digest(value: object) -> str:
    """Of tensors, arrays and numbers, however they are nested; the same for the same values in the same order.

    Raises:
        Exception: whatever torch raises for a tensor whose values cannot be read.
    """
    hashed = hashlib.blake2b(digest_size=DIGEST_BYTES)
    with torch.no_grad():
        for part in _bytes_of(value):
            hashed.update(part)
    return hashed.hexdigest()


def _bytes_of(value: Any) -> Iterator[bytes]:
    """What is hashed of a value; nothing of objects of other kinds, whose texts may name their address."""
    if isinstance(value, torch.Tensor) and value.dim():
        yield f"{value.dtype}{tuple(value.shape)}".encode()
        yield from _values_of(value)
    elif isinstance(value, torch.Tensor):  # an optimizer's count of steps is a tensor here, a number there
        yield from _bytes_of(value.item())
    elif isinstance(value, int | float | complex):
        yield f"{complex(value)!r},".encode()
    elif isinstance(value, str):
        yield f"{value!r},".encode()
    elif isinstance(value, Mapping):
        # What is not there is None in other versions of an optimizer.
        items = {str(key): inner for key, inner in value.items() if isinstance(key, str | int) and inner is not None}
        yield from _bytes_of_all(part for item in sorted(items.items(), key=lambda item: item[0]) for part in item)
    elif isinstance(value, list | tuple):
        yield from _bytes_of_all(value)
    elif hasattr(value, "tobytes"):  # an array of NumPy's
        yield value.tobytes()


def _bytes_of_all(values: Iterable[object]) -> Iterator[bytes]:
    yield b"["
    for value in values:
        yield from _bytes_of(value)
    yield b"]"


def _values_of(tensor: torch.Tensor) -> Iterator[bytes]:
    raw = tensor.detach().cpu().resolve_conj().resolve_neg().reshape(-1).view(torch.uint8)
    if raw.numel() > WHOLE:
        yield str(int(raw.sum(dtype=torch.int64))).encode()
        raw = raw[:: raw.numel() // WHOLE | 1]  # an odd number: not always the same byte of each value
    yield bytes_of(raw)
