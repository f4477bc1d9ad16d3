"""Inside a run: the gradient of the first optimizer steps, before anything is clipped, and what it was computed of.

It is on only in runs that are looked at closely, so that two runs can be held against each other in which the same rows
are dealt out otherwise: in parts, at once, in another order, beside more padding, beside another document.
"""

from __future__ import annotations

import contextlib
import math
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from pytest_trainguard.recorder.close_look import operation, shape_of
from pytest_trainguard.recorder.doors import Observer
from pytest_trainguard.recorder.states import digest
from pytest_trainguard.recorder.surroundings import find_caller
from pytest_trainguard.recorder.tensors import tensors_in

WALKED = 2000  # nodes of a loss's graph that are looked at
MOST_TARGETS = 4096  # of one call of a loss function, of which each one's loss is told
MOVED = ("Roll", "Flip")  # of what holds each row against its neighbour, or its opposite
NORMS = ("NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm", "NativeGroupNorm")  # over rows, or over positions
NORMED = (torch.nn.modules.batchnorm._NormBase, torch.nn.GroupNorm)
CONVOLUTIONS = ("Convolution", "Unfold")


class FirstSteps(Observer):
    """Follows one training program for some optimizer steps. Its events are `look gradient` and `look targets`."""

    def __init__(self, write: Callable[..., None], steps: int):
        """`write`: appends one event to the recording. `steps`: how many are followed."""
        self._write, self._steps = write, steps
        self._names: dict[int, str] = {}  # of parameters, by id
        self._held: list[torch.Tensor] = []  # those, so that no other gets the id of one
        self._number = 0  # steps that are done
        self._noted = False
        self._begin()

    def _begin(self) -> None:
        """A step begins."""
        self._noted = False
        self._place = ""
        self._drawn: list[object] = []  # the random states as the first pass began
        self._rows = 0  # of what goes in
        self._inputs: list[list[object]] = []  # shape and digest of each tensor that went in, in each pass
        self._sizes: dict[int, int] = {}  # of what goes into each inner module, by id
        self._square = self._norms = self._convolves = self._routes = False

    def forward(self, module: torch.nn.Module, *, outermost: bool) -> None:
        if not outermost or not self._follows():
            return
        self._drawn = self._drawn or _random_states()
        for name, parameter in module.named_parameters():
            if id(parameter) not in self._names:
                self._held.append(parameter)
                self._names[id(parameter)] = name
        for inner in module.modules():
            self._norms = self._norms or isinstance(inner, NORMED)
            self._convolves = self._convolves or isinstance(inner, torch.nn.modules.conv._ConvNd)

    def forwarded(
        self, module: torch.nn.Module, inputs: tuple[object, ...], output: object, *, outermost: bool
    ) -> None:
        if not self._follows():
            return
        given = [tensor for tensor in tensors_in(list(inputs)) if tensor.dim()]
        self._sizes[id(module)] = len(given[0]) if given else 0
        if outermost:
            self._rows = self._sizes[id(module)]
            self._routes = self._routes or any(gives_shares(inner, self._sizes) for inner in module.modules())
            self._sizes = {}
            if self._steps > 1:
                self._inputs += [[list(tensor.shape), _digest(tensor)] for tensor in given]

    def _follows(self) -> bool:
        training = torch.is_grad_enabled() and not torch.compiler.is_compiling()
        return self._number < self._steps and not self._noted and training

    def scored(self, function: str, arguments: Mapping[str, Any]) -> None:
        scores, target = arguments.get("input"), arguments.get("target")
        if self._number >= self._steps or self._steps == 1 or function not in ("cross_entropy", "nll_loss"):
            return
        if isinstance(scores, torch.Tensor) and isinstance(target, torch.Tensor) and scores.requires_grad:
            losses = _loss_of_each(function, scores, target, arguments.get("ignore_index", -100))
            if losses:
                targets = target.detach().flatten().tolist()
                self._write("look targets", step=self._number, losses=losses, targets=targets, place=find_caller())

    def backward(self, losses: list[torch.Tensor]) -> None:
        if self._number < self._steps and not self._noted:
            self._place = find_caller()
            for loss in losses:
                self._look_through(loss)

    def _look_through(self, loss: torch.Tensor) -> None:
        """Note what rows and positions have to do with each other on the way to a loss."""
        for node in _nodes_behind(loss):
            name = operation(node)
            # There are two dimensions of rows, or they are moved on by one.
            self._square = self._square or shape_of(node).count(self._rows) > 1 or name in MOVED
            self._norms = self._norms or name in NORMS
            self._convolves = self._convolves or name.startswith(CONVOLUTIONS)
            self._routes = self._routes or name == "Topk"

    def clipping(self, parameters: list[torch.Tensor]) -> None:
        self._note()

    def stepping(self, optimizer: torch.optim.Optimizer) -> None:
        self._note()

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        self._number += 1
        self._begin()
        if self._number == self._steps:
            self._held = []

    def _note(self) -> None:
        """Write the norm of each gradient. Clipping each parameter by itself is done when the first one is."""
        if self._noted or self._number >= self._steps:
            return
        self._noted = True
        gradients = [(self._names[id(p)], p.grad) for p in self._held if p.grad is not None and not p.grad.is_sparse]
        self._write(
            "look gradient",
            step=self._number,
            norms={name: float(gradient.detach().float().norm()) for name, gradient in gradients},
            place=self._place,
            drawn=self._drawn != _random_states(),
            square=self._square,
            across=self._norms,
            convolves=self._convolves,
            routes=self._routes,
            inputs=self._inputs,
        )


def gives_shares(module: torch.nn.Module, sizes: Mapping[int, int]) -> bool:
    """The modules of a list are alike, and in one pass each was given a share of its own of what goes in.

    Args:
        module: a list of experts, or any other.
        sizes: of what went into modules in that pass, by id.
    """
    if not isinstance(module, torch.nn.ModuleList | torch.nn.ModuleDict):
        return False
    inner = list(module.children())
    given = {sizes[id(one)] for one in inner if id(one) in sizes}
    return len({type(one) for one in inner}) == 1 and len(given) > 1


def chooses_among(output: torch.Tensor) -> bool:
    """It comes from a choice of the largest of some numbers, as a mixture of experts makes it."""
    return any(operation(node) == "Topk" for node in _nodes_behind(output))


def _digest(tensor: torch.Tensor) -> str:
    with contextlib.suppress(Exception):  # a sparse tensor, or a fake one, which has no values
        return digest(tensor)
    return ""


def _random_states() -> list[object]:
    numpy = sys.modules.get("numpy")
    known = [] if numpy is None else [digest(numpy.random.get_state(legacy=False))]
    return [digest(torch.get_rng_state()), digest(random.getstate()), *known]


def _nodes_behind(loss: torch.Tensor) -> Iterator[Any]:
    """The nodes of a loss's graph, but for the parameters."""
    waiting: list[Any] = [loss.grad_fn]
    seen: set[Any] = set()
    while waiting and len(seen) < WALKED:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        waiting += [behind for behind, _ in node.next_functions if not hasattr(behind, "variable")]


def _loss_of_each(function: str, scores: torch.Tensor, target: torch.Tensor, ignored: int) -> list[float | None]:
    """The loss of each target that is the number of a class; None for one that is ignored, nothing where that is."""
    if target.is_floating_point() or target.numel() > MOST_TARGETS or scores.dim() != target.dim() + 1:
        return []
    if scores.dim() < 2:
        return []
    with torch.no_grad():
        logits = scores.detach().float()
        likely = logits.log_softmax(1) if function == "cross_entropy" else logits
        counts = target != ignored
        known = target.masked_fill(~counts, 0).clamp(0, likely.shape[1] - 1)  # of any other the program will hear
        chosen = likely.gather(1, known.unsqueeze(1)).squeeze(1).flatten()
        values = (-chosen).tolist()
    return [
        value if told and math.isfinite(value) else None
        for value, told in zip(values, counts.flatten().tolist(), strict=True)
    ]
