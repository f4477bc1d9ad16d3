"""What keeps the numbers of a training run right: precision, the learning rate's course, and when to stop."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
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


def decay_or_not(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
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


class Precision:
    """The number type of the forward pass, and the gradient scaler that fp16 needs."""

    def __init__(self, name: str, device: torch.device, max_skipped: int) -> None:
        """Prepare for one run.

        Args:
            name: ``fp32``, ``bf16`` or ``fp16``.
            device: where the model is.
            max_skipped: the scaler may skip fewer steps in a row than this.
        """
        import torch

        self._device = device.type
        self._dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
        self._max_skipped = max_skipped
        self.skipped = 0
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")
        self.scales = name == "fp16"

    def autocast(self) -> torch.autocast:
        """For the forward pass and the loss."""
        import torch

        return torch.autocast(self._device, dtype=self._dtype, enabled=self._dtype != torch.float32)

    def check_loss(self, loss: float, step: int) -> None:
        """A loss that is not finite stops the run before anything learns from it; a scaler skips the step.

        Raises:
            TrainingFailed: naming the step.
        """
        if not self.scales and not math.isfinite(loss):
            raise TrainingFailed(f"step {step}: the loss is {loss}", "nan")

    def step(self, optimizer: Optimizer, gradient_norm: float, step: int) -> bool:
        """Take the optimizer's step unless a gradient is not finite. Gradients are unscaled already.

        Returns:
            whether the step was taken; the scaler skips one and shrinks its scale.

        Raises:
            TrainingFailed: the gradient is not finite and there is no scaler, or it has skipped too many
                steps in a row.
        """
        if self.scales:
            scale = self.scaler.get_scale()
            self.scaler.step(optimizer)
            self.scaler.update()
            taken = bool(self.scaler.get_scale() >= scale)
            self.skipped = 0 if taken else self.skipped + 1
            if self.skipped >= self._max_skipped:
                raise TrainingFailed(
                    f"step {step}: gradient not finite {self.skipped} times in a row (max_skipped_steps)", "nan"
                )
            return taken
        if not math.isfinite(gradient_norm):
            raise TrainingFailed(f"step {step}: the gradient's norm is {gradient_norm}", "nan")
        optimizer.step()
        return True


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
