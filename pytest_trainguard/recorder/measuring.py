"""Inside a run that is looked at closely: which targets an evaluation holds its outputs against."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from typing import Any

import torch

from pytest_trainguard.recorder.close_look import CloseLook
from pytest_trainguard.recorder.doors import Observer
from pytest_trainguard.recorder.supervision import IGNORED, OVER_CLASSES
from pytest_trainguard.recorder.surroundings import find_caller
from pytest_trainguard.recorder.tensors import bytes_of, tensors_in

MOST_ROWS = 512  # of a loss's targets, that are told apart


class Measuring(Observer):
    """Tells of each of torch's losses that nothing is learnt from (`look measured`), and of its mean (`look mean`)."""

    def __init__(self, look: CloseLook):
        self._look = look
        self._rows = 0  # of the last outermost pass without gradients
        self._values = 0  # of what went first into the last outermost pass without gradients
        self._shapes: set[str] = set()  # of rows since the last loss; of token ids none, as their padding is known

    def forwarded(
        self, module: torch.nn.Module, inputs: tuple[object, ...], output: object, *, outermost: bool
    ) -> None:
        if outermost and not torch.is_grad_enabled():
            first = next((tensor for tensor in tensors_in(list(inputs)) if tensor.dim()), None)
            self._values = first.numel() if first is not None else 0
            self._rows = len(first) if first is not None else 0
            if first is not None and (first.is_floating_point() or first.dim() != 2):
                self._shapes.add(str(tuple(first.shape[1:])))

    def scored(self, function: str, arguments: Mapping[str, Any]) -> None:
        scores, target = arguments.get("input"), arguments.get("target")
        if not isinstance(scores, torch.Tensor) or not isinstance(target, torch.Tensor) or scores.requires_grad:
            return
        if not target.dim() or len(target) > MOST_ROWS:
            return
        with contextlib.suppress(Exception):  # a fake tensor, which has no values
            rows = target.detach().cpu()
            self._look.write(
                "measured",
                targets=[hashlib.blake2b(bytes_of(row), digest_size=6).hexdigest() for row in rows],
                # Each row against each of the others; and what is to come out is what could have gone in.
                square=target.dim() == 1 and scores.dim() == 2 and scores.shape[0] == scores.shape[1],
                restores=target.numel() == self._values,
                shapes=sorted(self._shapes),
            )
        self._shapes = set()

    def valued(self, function: str, arguments: Mapping[str, Any], value: object) -> None:
        target = arguments.get("target")
        if torch.is_grad_enabled() or not self._rows or not isinstance(target, torch.Tensor):
            return
        if not isinstance(value, torch.Tensor) or value.dim() or arguments.get("reduction", "mean") != "mean":
            return
        with contextlib.suppress(Exception):  # a fake tensor, which has no values
            ignored = arguments.get("ignore_index", IGNORED) if function in OVER_CLASSES else None
            counts = target.numel() if ignored is None else int((target != ignored).sum())
            self._look.write("mean", value=float(value), rows=self._rows, targets=counts, place=find_caller())
