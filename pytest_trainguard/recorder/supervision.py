"""Inside a run that is looked at closely: which targets count, at torch's own losses over classes."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from typing import Any

import torch

from pytest_trainguard.recorder.close_look import CloseLook
from pytest_trainguard.recorder.doors import Observer
from pytest_trainguard.recorder.surroundings import find_caller
from pytest_trainguard.recorder.tensors import bytes_of, tensors_in

OVER_CLASSES = ("cross_entropy", "nll_loss")
IGNORED = -100  # torch's own `ignore_index`, where none is given


class Supervision(Observer):
    """Tells of each backward pass how many targets its losses over classes had, and how many of these count.

    Its events are named `look supervised`; targets that are distributions are left out.
    """

    def __init__(self, look: CloseLook):
        self._look = look
        self._masks: list[torch.Tensor] = []  # of the losses since the last backward pass: True where a target counts
        self._place = self._function = ""
        self._others = 0  # losses since then of another kind, that the model learns from
        self._tokens: torch.Tensor | None = (
            None  # what went into the last outermost pass with gradients, [rows, tokens]
        )

    def forwarded(
        self, module: torch.nn.Module, inputs: tuple[object, ...], output: object, *, outermost: bool
    ) -> None:
        if outermost and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            first = next((tensor for tensor in tensors_in(list(inputs)) if tensor.dim()), None)
            is_text = first is not None and first.dim() == 2 and not first.is_floating_point() and len(first) > 0
            self._tokens = first if is_text else None

    def scored(self, function: str, arguments: Mapping[str, Any]) -> None:
        scores, target = arguments.get("input"), arguments.get("target")
        if not isinstance(scores, torch.Tensor) or not isinstance(target, torch.Tensor) or not scores.requires_grad:
            return
        if function not in OVER_CLASSES or target.is_floating_point():
            self._others += 1
            return
        self._masks.append(target.detach() != arguments.get("ignore_index", IGNORED))
        self._place, self._function = find_caller(), function

    def backward(self, losses: list[torch.Tensor]) -> None:
        if self._masks:
            self._look.write(
                "supervised",
                function=self._function,
                place=self._place,
                kept=sum(int(mask.sum()) for mask in self._masks),
                total=sum(mask.numel() for mask in self._masks),
                alone=not self._others,
                loss=sum(float(loss.detach().float().sum()) for loss in losses),
                **self._rows(),
            )
        self._masks, self._others = [], 0

    def differentiated(self, outputs: list[torch.Tensor], *, create_graph: bool) -> None:
        if not create_graph:
            with contextlib.suppress(RuntimeError):  # under torch.vmap a tensor has no single value
                self.backward(outputs)

    def _rows(self) -> dict[str, object]:
        """Of texts: in how many pieces the targets that count stand, and a digest of each row that has none."""
        if self._tokens is None or len(self._masks) != 1:
            return {}
        (mask,), tokens = self._masks, self._tokens.detach()
        if mask.numel() % len(tokens) or mask.numel() // len(tokens) < 2:
            return {}
        counts = mask.reshape(len(tokens), -1)
        some = counts.any(1)
        begins = counts & ~torch.nn.functional.pad(counts, (1, 0))[:, :-1]
        bare = tokens[~some.to(tokens.device)].cpu()
        return {
            "rows": len(tokens),
            "width": tokens.shape[1],
            "pieces": int(begins.sum(1).max()),
            "fewest": int(counts[some].sum(1).min()) if bool(some.any()) else 0,
            "bare": [hashlib.blake2b(bytes_of(row), digest_size=6).hexdigest() for row in bare],
            "filled": sum(len(row) > 1 and bool(row[-1] != row[-2]) for row in bare),
        }
