"""One optimizer step, one validation, and what a checkpoint holds: the same for every program."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from trainers import checkpoint, metrics
from trainers.batches import Window
from trainers.errors import InputError, TrainingFailed
from trainers.numerics import require_finite
from trainers.process import Run, Watchdog
from trainers.progress import Progress

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR

    from trainers.numerics import LossWatch, Precision


class Labelled(Protocol):
    """What the step and the validation ask of a batch, whatever else is in it."""

    @property
    def labels(self) -> torch.Tensor:
        """int64, of shape (rows,)."""

    @property
    def truncated(self) -> int:
        """How many of its rows were cut."""


@dataclass
class Taken:
    """One optimizer step: its rows, their mean loss, the gradient's norm before clipping, rate, rows cut."""

    rows: int
    loss: float
    gradient_norm: float
    rate: float
    truncated: int

    def numbers(self) -> dict[str, float | None]:
        """For the log: no NaN and no infinity (a step that the scaler skipped), which are no JSON."""
        named = {"loss": self.loss, "gradient_norm": self.gradient_norm, "learning_rate": self.rate}
        return {name: value if math.isfinite(value) else None for name, value in named.items()}


@dataclass
class Learner:
    """A model and everything that changes with it.

    Attributes:
        model: on its device, in training mode.
        logits: the forward pass: from a batch to logits of shape (rows, classes), on the model's device.
        optimizer: over the model's parameters.
        scheduler: of the optimizer; stepped once for each step that was taken.
        precision: number type and gradient scaler.
        watch: stops a diverging loss.
        clip: largest norm of the gradient.
        save_others: writes into a checkpoint's folder what the program needs beside the weights.
    """

    model: nn.Module
    logits: Callable[[Any], torch.Tensor]
    optimizer: Optimizer
    scheduler: LambdaLR
    precision: Precision
    watch: LossWatch
    clip: float
    save_others: Callable[[Path], None]

    def losses(self, batch: Labelled) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy of each row, of shape (rows,), and the logits; in fp32 whatever the precision."""
        import torch

        with self.precision.autocast():
            logits = self.logits(batch).float()
            labels = batch.labels.to(logits.device, non_blocking=True)
            return torch.nn.functional.cross_entropy(logits, labels, reduction="none"), logits

    def step(self, run: Run, number: int, window: Window, incoming: Iterator[Labelled]) -> Taken:
        """One optimizer step over the batches of a window.

        Args:
            run: its stage is kept up to date, for messages.
            number: the step's, from 1.
            window: the rows of the step.
            incoming: gives the window's batches.

        Raises:
            TrainingFailed: loss or gradient are not finite, or the loss diverges; the weights are as before
                the step.
        """
        import torch

        size, loss, truncated = sum(map(len, window)), 0.0, 0
        for _ in window:
            run.stage = f"step {number}, preparing the batch"
            batch = next(incoming)
            run.stage = f"step {number}, forward"
            # The sum over the batch's rows, divided by the rows of the whole step: accumulated gradients then
            # equal those of one big batch, also where the last window, or the last batch in it, is short.
            part = self.losses(batch)[0].sum() / size
            loss, truncated = loss + part.item(), truncated + batch.truncated
            self.precision.check_loss(loss, number)
            run.stage = f"step {number}, backward"
            self.precision.scaler.scale(part).backward()
        run.stage = f"step {number}, optimizer"
        self.precision.scaler.unscale_(self.optimizer)  # before the clipping, which must see the true gradient
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip).item()
        if math.isfinite(norm):  # else the scaler skips this step, and its loss says nothing
            self.watch.update(loss, number)
        rate = self.scheduler.get_last_lr()[0]
        if self.precision.step(self.optimizer, norm, number):
            self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        return Taken(size, loss, norm, rate, truncated)

    def validate(self, run: Run, held_out: Iterator[Labelled], step: int, watchdog: Watchdog) -> dict[str, Any] | None:
        """The mean loss and the scores on the rows held out; None where a signal came in between.

        Raises:
            TrainingFailed: the loss is not finite.
        """
        import torch

        labels: list[int] = []
        predictions: list[int] = []
        total = 0.0
        run.stage = f"step {step}, validation"
        self.model.eval()
        with torch.no_grad():
            for batch in held_out:
                if run.received is not None:
                    break
                watchdog.step()
                losses, logits = self.losses(batch)
                total += losses.sum().item()
                labels += batch.labels.tolist()
                predictions += logits.argmax(dim=1).tolist()
        self.model.train()
        if run.received is not None:
            return None
        if not math.isfinite(total):
            raise TrainingFailed(f"step {step}: the validation loss is {total / len(labels)}")
        return {"loss": total / len(labels), **metrics.scores(labels, predictions)}

    def save(self, root: Path, done: Progress, state: dict[str, Any]) -> None:
        """Write the checkpoint of the step that was just done.

        Raises:
            TrainingFailed: a weight is not finite, or the disk does not take it.
        """
        require_finite(self.model, done.step)
        checkpoint.save(
            root,
            done.step,
            model=self.model,
            state={**asdict(done), **state, "watch": self.watch.state(), "skipped": self.precision.skipped},
            training={
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "scaler": self.precision.scaler.state_dict(),
                "random": checkpoint.random_state(),
            },
            others=self.save_others,
        )

    def restore(self, found: checkpoint.Checkpoint) -> None:
        """Go on where a checkpoint was saved; the model's weights are loaded already.

        Raises:
            InputError: its states are of another program or torch.
        """
        try:
            saved = checkpoint.load_training(found)
            self.optimizer.load_state_dict(saved["optimizer"])
            self.scheduler.load_state_dict(saved["scheduler"])
            self.precision.scaler.load_state_dict(saved["scaler"])
            self.precision.skipped = found.state["skipped"]
            self.watch.load(found.state["watch"])
            checkpoint.restore_random_state(saved["random"])
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise InputError(f"checkpoint {found.path}: {type(error).__name__} in its states: {error}") from error
