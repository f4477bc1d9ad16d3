"""What an optimization needs beside its optimizer: device, parameter groups, learning rates, and when to stop.

A run that goes on without learning is stopped (`CollapseWatch`), and one whose loss runs away (`LossWatch`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from trainers.common.errors import InputError, TrainingFailed

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR

LOWEST_RATE = 0.1
"""Share of the learning rate that remains after the decay, for a run that goes on beyond it."""
SMOOTHING = 0.9
"""Weight of the past in the smoothed loss: about the last ten steps count."""
WARM_UP_LOSSES = 5
"""So many steps must have been seen before a loss is called diverging: the first ones say little."""
SAME = 1e-6
"""Probabilities that differ by less over a whole window are one answer (float32 has about 1e-7)."""


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for AdamW: matrices are decayed, biases and normalisation weights are not."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {
            "params": [parameter for parameter in trained if parameter.dim() >= 2],
            "weight_decay": weight_decay,
        },
        {"params": [parameter for parameter in trained if parameter.dim() < 2], "weight_decay": 0.0},
    ]


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """The highest learning rate from now on, of each group its ``share`` of it (1 where it has none)."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] = rate * group.get("share", 1.0)


def warm_up_then_decay(optimizer: Optimizer, warmup_steps: int, decay_steps: int, done: int = 0) -> LambdaLR:
    """A linear rise over ``warmup_steps``, a linear fall until ``decay_steps``, and flat from there.

    After ``done`` steps of it; then the optimizer's groups need their ``initial_lr`` (`set_rate`).
    """
    from torch.optim.lr_scheduler import LambdaLR

    def share(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        done = (step - warmup_steps) / max(1, decay_steps - warmup_steps)
        return 1 - (1 - LOWEST_RATE) * min(1.0, done)

    return LambdaLR(optimizer, share, last_epoch=done - 1)


def pick_device(wanted: str, say: Callable[[str], None]) -> torch.device:
    """The device to train on, told to ``say`` in one line.

    Raises:
        InputError: CUDA is demanded and there is none.
    """
    import torch

    there = torch.cuda.device_count() if wanted != "cpu" and torch.cuda.is_available() else 0
    if wanted == "cuda" and not there:
        raise InputError("device = cuda: no CUDA device is visible")
    if there:
        told = torch.cuda.get_device_properties(0)
        spec = f"{told.name}, {told.total_memory / 2**30:.1f} GiB, compute capability {told.major}.{told.minor}"
        say(f"device: cuda:0 ({spec}), 1 of {there} visible")
        return torch.device("cuda", 0)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    spec = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {memory:.1f} GiB"
    say(f"device: cpu ({spec})" + ("" if wanted == "cpu" else ", no CUDA device is visible"))
    return torch.device("cpu")


class LossWatch:
    """Stops a run whose loss runs away.

    The smoothed loss is held against the lowest it has been, but never against less than ``chance`` (the loss
    of a guess): a batch that a trained model gets wrong is no divergence.
    """

    def __init__(self, factor: float, chance: float) -> None:
        """Stop at ``factor`` times the best smoothed loss, or times ``chance`` where that is more."""
        self._factor = factor
        self._chance = chance
        self.smoothed = 0.0
        self.best: float | None = None
        self.count = 0

    def update(self, loss: float, step: int) -> None:
        """Take in one step's loss.

        Raises:
            TrainingFailed: the smoothed loss is over ``factor`` times its best.
        """
        if not math.isfinite(loss):  # the scaler has skipped this step
            return
        self.count += 1
        # An average over the steps seen so far, until there are enough of them to forget the oldest.
        past = min(SMOOTHING, 1 - 1 / self.count)
        self.smoothed = past * self.smoothed + (1 - past) * loss
        if self.count >= WARM_UP_LOSSES:
            limit = self._factor * max(self._chance, self.best or 0.0)
            if self.smoothed > limit:
                raise TrainingFailed(
                    f"step {step}: the loss diverges: smoothed {self.smoothed:.4g}, over {limit:.4g} "
                    f"({self._factor:g} times its best, divergence_factor); lower the learning rate",
                    "collapse",
                )
        self.best = self.smoothed if self.best is None else min(self.best, self.smoothed)

    def state(self) -> dict[str, Any]:
        """For a checkpoint; JSON."""
        return {"smoothed": self.smoothed, "best": self.best, "count": self.count}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.smoothed, self.best, self.count = state["smoothed"], state["best"], state["count"]


class CollapseWatch:
    """Judges a run by windows of its optimizer steps: gradients gone or exploding, one answer to every question.

    The signs are those that the post-mortem's production runs were watched for. Windows follow each other; one odd
    window is weather, several in a row are the end of a run.
    """

    def __init__(
        self,
        *,
        window: int = 5,
        patience: int = 3,
        grace: int,
        vanishing_norm: float = 1e-7,
        exploding_norm: float = 100.0,
    ) -> None:
        """Begin.

        Args:
            window: steps that are judged together.
            patience: so many windows in a row that show a collapse end the run.
            grace: steps in which predictions are not judged: a new model begins with one answer.
            vanishing_norm: gradient norms, before clipping, are too small under this,
            exploding_norm: and too large over this.
        """
        self._window, self._patience, self._grace = window, patience, grace
        self._vanishing, self._exploding = vanishing_norm, exploding_norm
        self.events: list[dict[str, Any]] = []
        """Every window that showed a collapse; JSON."""
        self._in_a_row = 0
        self._open: list[dict[str, Any]] = []

    def update(
        self, step: int, *, loss: float, gradient_norm: float, probabilities: Sequence[float], labels: Sequence[int]
    ) -> None:
        """Take in one optimizer step.

        Args:
            step: its number.
            loss: its mean loss.
            gradient_norm: before clipping.
            probabilities: of class 1, of each of its rows.
            labels: of each of its rows.

        Raises:
            TrainingFailed: the last windows all show a collapse, naming what and the settings that decide.
        """
        finite = [probability for probability in probabilities if math.isfinite(probability)]
        self._open.append(
            {
                "finite": math.isfinite(loss) and math.isfinite(gradient_norm),
                "norm": gradient_norm if math.isfinite(gradient_norm) else None,
                "lowest": min(finite, default=0.5),
                "highest": max(finite, default=0.5),
                "labels": sorted(set(labels)),
            }
        )
        if len(self._open) < self._window:
            return
        kinds = self._kinds(step)
        if kinds:
            norms = [taken["norm"] for taken in self._open if taken["norm"] is not None]
            self.events.append(
                {
                    "step": step,
                    "first_step": step - self._window + 1,
                    "kinds": kinds,
                    "gradient_norms": [min(norms), max(norms)] if norms else None,
                    "probabilities": self._spread() if "not_finite" not in kinds else None,
                }
            )
        self._in_a_row = self._in_a_row + 1 if kinds else 0
        self._open.clear()
        if self._in_a_row >= self._patience:
            raise TrainingFailed(self._told(step), "collapse")

    def _kinds(self, step: int) -> list[str]:
        """What this window shows: usually nothing."""
        if not all(taken["finite"] for taken in self._open):
            return ["not_finite"]
        norms = [taken["norm"] for taken in self._open]
        kinds = ["vanishing_gradient"] * (max(norms) < self._vanishing)
        kinds += ["exploding_gradient"] * (min(norms) > self._exploding)
        lowest, highest = self._spread()
        labels = {label for taken in self._open for label in taken["labels"]}
        if step > self._grace and len(labels) > 1:  # rows of one class are rightly given one answer
            if highest - lowest < SAME:
                kinds.append("constant_predictions")
            elif lowest > 0.5 or highest <= 0.5:
                kinds.append("one_class")
        return kinds

    def _spread(self) -> list[float]:
        return [min(taken["lowest"] for taken in self._open), max(taken["highest"] for taken in self._open)]

    def _told(self, step: int) -> str:
        recent = self.events[-self._patience :]
        kinds = ", ".join(sorted({kind for event in recent for kind in event["kinds"]}))
        return (
            f"step {step}: the run has collapsed: {kinds} in {self._patience} windows of {self._window} steps in a row "
            f"(collapse_patience, collapse_window; vanishing_norm = {self._vanishing:g}, "
            f"exploding_norm = {self._exploding:g}, collapse_grace = {self._grace})"
        )

    def report(self) -> dict[str, Any]:
        """All events with the limits that made them; JSON."""
        limits = {
            "collapse_window": self._window,
            "collapse_patience": self._patience,
            "collapse_grace": self._grace,
            "vanishing_norm": self._vanishing,
            "exploding_norm": self._exploding,
        }
        return {"limits": limits, "events": self.events}

    def state(self) -> dict[str, Any]:
        """For a checkpoint; JSON."""
        return {"events": list(self.events), "in_a_row": self._in_a_row, "open": list(self._open)}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.events[:] = state["events"]
        self._in_a_row, self._open = state["in_a_row"], list(state["open"])


def require_finite(model: nn.Module, step: int) -> None:
    """Look at every weight before it is saved.

    Raises:
        TrainingFailed: one is NaN or infinite, naming it.
    """
    import torch

    tensors = {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    # Stacked, so that there is one wait for the device and not one for each weight.
    finite = torch.stack([torch.isfinite(tensor).all() for tensor in tensors.values()])
    if not bool(finite.all()):
        name = next(name for name, good in zip(tensors, finite.tolist(), strict=True) if not good)
        raise TrainingFailed(f"step {step}: weight {name} is not finite; nothing was saved at this step", "nan")
