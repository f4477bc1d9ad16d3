"""Inside a run that is looked at closely: which way a picture lies, and which way the target of its pixels does."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import torch

from pytest_trainguard.recorder.close_look import MOST_ROWS, CloseLook
from pytest_trainguard.recorder.doors import Observer
from pytest_trainguard.recorder.surroundings import find_caller
from pytest_trainguard.recorder.tensors import bytes_of, tensors_in

SMALLEST = 4  # pixels of a side
MOST_PIXELS = 1 << 22  # of a batch, that are looked at
RICH = 16  # different values of a picture: of fewer two pictures may be alike but for the way that they lie

Way = Callable[[torch.Tensor], torch.Tensor]
# How a picture may lie: as it is, and what flips and quarter turns make of it. The last four need a square.
WAYS: tuple[Way, ...] = (
    lambda x: x,
    lambda x: x.flip(-1),
    lambda x: x.flip(-2),
    lambda x: x.flip(-1, -2),
    lambda x: x.transpose(-1, -2),
    lambda x: x.transpose(-1, -2).flip(-1),
    lambda x: x.transpose(-1, -2).flip(-2),
    lambda x: x.transpose(-1, -2).flip(-1, -2),
)
CORNERS = torch.arange(4).reshape(2, 2)
# What each way makes of four corners, which tells all of them apart.
TURNS = [tuple(way(CORNERS).flatten().tolist()) for way in WAYS]


class Lying(Observer):
    """Tells of each loss over pixels how its pictures lie beside their targets. Its events are named `look lies`."""

    def __init__(self, look: CloseLook):
        self._look = look
        self._pictures: dict[int, tuple[str, torch.Tensor]] = {}  # the last that went into each model, by its id

    def forwarded(
        self, module: torch.nn.Module, inputs: tuple[object, ...], output: object, *, outermost: bool
    ) -> None:
        if not outermost or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return
        first = next((tensor for tensor in tensors_in(list(inputs)) if tensor.dim()), None)
        if first is not None and first.dim() == 4 and not first.requires_grad and not first.is_sparse:
            self._pictures[id(module)] = type(module).__name__, first.detach()

    def scored(self, function: str, arguments: Mapping[str, Any]) -> None:
        scores, target = arguments.get("input"), arguments.get("target")
        if not isinstance(scores, torch.Tensor) or not isinstance(target, torch.Tensor):
            return
        if not scores.requires_grad or target.requires_grad or target.dim() not in (3, 4) or target.is_sparse:
            return
        for name, pictures in self._pictures.values():
            if _fit(pictures, target):
                with contextlib.suppress(Exception):  # a fake tensor, which has no values
                    pairs = zip(pictures.cpu(), target.detach().cpu(), strict=True)
                    told = [ways for picture, mask in pairs if (ways := lie(picture, mask))]
                    self._look.write("lies", function=function, module=name, place=find_caller(), pictures=told)


def _fit(pictures: torch.Tensor, target: torch.Tensor) -> bool:
    """There is one target for each pixel of each picture, and it is not the picture itself."""
    if len(pictures) != len(target) or len(pictures) > MOST_ROWS or pictures.numel() > MOST_PIXELS:
        return False
    return bool(pictures.shape[-2:] == target.shape[-2:]) and min(pictures.shape[-2:]) >= SMALLEST


def lie(picture: torch.Tensor, target: torch.Tensor) -> list[str]:
    """What a picture and its target are, whichever way they lie, and how the one lies beside the other.

    Nothing where that cannot be told: of what is symmetric, of a picture of few values, and of what is to give back
    the very picture.
    """
    if len(picture.unique()) < RICH:
        return []
    ways = WAYS if picture.shape[-1] == picture.shape[-2] else WAYS[:4]
    one, other = ([_digest(way(tensor)) for way in ways] for tensor in (picture, target))
    if len(set(one)) < len(ways) or len(set(other)) < len(ways) or set(one) & set(other):
        return []
    mine, its = (TURNS[each.index(min(each))] for each in (one, other))
    beside = [its.index(corner) for corner in mine]
    return [min(one), min(other), "".join(map(str, beside))]


def _digest(tensor: torch.Tensor) -> str:
    shape = [size for size in tensor.shape if size > 1]  # a mask may have a channel of its own
    return hashlib.blake2b(str(shape).encode() + bytes_of(tensor), digest_size=6).hexdigest()
