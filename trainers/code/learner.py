"""One optimizer step, one validation, and what a checkpoint holds: the same for every program."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from trainers.code import classification
from trainers.code.classification import Objective
from trainers.code.ranks import Ranks
from trainers.common import checkpoint
from trainers.common.batches import Window
from trainers.common.errors import InputError, TrainingFailed
from trainers.common.optimization import CollapseWatch, LossWatch, require_finite
from trainers.common.process import Run, Watchdog
from trainers.common.progress import Progress

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR


Forward = Callable[["nn.Module", Any], "torch.Tensor | tuple[torch.Tensor, torch.Tensor]"]


class Batch(Protocol):
    """What the step and the validation ask of a batch, whatever else is in it."""

    @property
    def labels(self) -> torch.Tensor:
        """int64, of shape (rows,)."""

    @property
    def truncated(self) -> int:
        """How many of its rows were cut."""

    @property
    def unparsed(self) -> int:
        """How many of its rows are no Python."""

    def to(self, device: torch.device) -> Any:
        """The same on a device."""


class Seen(NamedTuple):
    """What forward and backward passes over a step's rows gave: of one process, or of all.

    Attributes:
        loss: the mean loss of the step's rows; of one process, its part of that mean.
        probabilities: of class 1, of each row.
        labels: of each row.
        truncated: rows cut.
        unparsed: rows that are no Python.
    """

    loss: float
    probabilities: list[float]
    labels: list[int]
    truncated: int
    unparsed: int


@dataclass
class Taken:
    """One optimizer step: what was seen, the gradient's norm before clipping, the learning rate."""

    rows: int
    seen: Seen
    gradient_norm: float
    rate: float

    def numbers(self) -> dict[str, float | None]:
        """For the log: no NaN and no infinity (a step that the scaler skipped), which are no JSON."""
        named = {"loss": self.seen.loss, "gradient_norm": self.gradient_norm, "learning_rate": self.rate}
        return {name: value if math.isfinite(value) else None for name, value in named.items()}


class Validated(NamedTuple):
    """One validation: its scores, and the logits that they were made of.

    Attributes:
        scores: ``loss`` (mean cross-entropy) and `classification.scores`.
        logits: float32, of shape (rows, 2), in the order of the rows held out.
        labels: int64, of shape (rows,).
    """

    scores: dict[str, Any]
    logits: torch.Tensor
    labels: torch.Tensor


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


@dataclass
class Learner:
    """A model and everything that changes with it.

    Attributes:
        model: on its device, in training mode.
        forward: from a batch on the model's device to logits of shape (rows, classes); with them, in training, what a
            second objective adds to each row's loss, of shape (rows,).
        optimizer: over the model's parameters.
        scheduler: of the optimizer; stepped once for each step that was taken.
        precision: number type and gradient scaler.
        objective: what is minimised.
        ranks: the processes that share the step.
        watch: stops a diverging loss.
        collapse: stops a run that has ceased to learn.
        clip: largest norm of the gradient.
        save_others: writes into a checkpoint's folder what the program needs beside the weights.
    """

    model: nn.Module
    forward: Forward
    optimizer: Optimizer
    scheduler: LambdaLR
    precision: Precision
    objective: Objective
    ranks: Ranks
    watch: LossWatch
    collapse: CollapseWatch
    clip: float
    save_others: Callable[[Path], None]
    _called: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        """The model as it is called: under torchrun, one that shares its gradients."""
        self._called = self.ranks.wrap(self.model)

    def losses(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Cross-entropy of each row, of shape (rows,), the logits, and what a second objective adds to each row.

        In fp32 whatever the precision.
        """
        import torch

        with self.precision.autocast():
            told = self.forward(self._called, batch)
            logits, beside = told if isinstance(told, tuple) else (told, None)
            logits = logits.float()
            return torch.nn.functional.cross_entropy(logits, batch.labels, reduction="none"), logits, beside

    def gradients(self, run: Run, number: int, window: Window, incoming: Iterator[Batch]) -> Seen:
        """Forward and backward passes over the batches of a window; gradients add to those that are there.

        Args:
            run: its stage is kept up to date, for messages.
            number: the step's, from 1.
            window: the rows of the step, of all processes.
            incoming: gives this process's batches of the window.

        Returns:
            what all processes saw.

        Raises:
            TrainingFailed: the loss is not finite.
        """
        import torch

        size, loss, truncated, unparsed = sum(map(len, window)), 0.0, 0, 0
        probabilities: list[float] = []
        labels: list[int] = []
        for index, rows in enumerate(window):
            run.stage = f"step {number}, preparing the batch"
            batch = next(incoming)
            mine = len(self.ranks.share(rows))  # none: the batch only keeps the other processes company
            truncated, unparsed = truncated + batch.truncated * bool(mine), unparsed + batch.unparsed * bool(mine)
            batch = batch.to(self.ranks.device)
            run.stage = f"step {number}, forward"
            with self.ranks.sync(self._called, last=index == len(window) - 1):
                entropies, logits, beside = self.losses(batch)
                # The sum over the batch's rows, divided by the rows of the whole step: accumulated gradients then
                # equal those of one big batch, also where the last window, or the last batch in it, is short.
                share = bool(mine) / size
                part = self.objective(entropies, batch.labels).sum() * share
                told = torch.cat([part.detach()[None], logits.detach().softmax(1)[:mine, 1]]).tolist()
                loss += told[0]
                if self.ranks.world == 1:  # else all of them stop together, below
                    self.precision.check_loss(loss, number)
                run.stage = f"step {number}, backward"
                # Told is the loss that validation measures, too; learnt from is the second objective as well.
                learnt = part if beside is None else part + beside.sum() * share
                # Gradients become means over the processes: so each brings its part that many times.
                self.precision.scaler.scale(learnt * self.ranks.world).backward()
            probabilities += told[1:]
            labels += batch.labels[:mine].tolist()
        seen = _together(self.ranks.gather(Seen(loss, probabilities, labels, truncated, unparsed)))
        self.precision.check_loss(seen.loss, number)
        return seen

    def step(self, run: Run, number: int, window: Window, incoming: Iterator[Batch]) -> Taken:
        """One optimizer step over the batches of a window; see `gradients`.

        Raises:
            TrainingFailed: loss or gradient are not finite, or the loss diverges; the weights are as before
                the step. Or the run has collapsed.
        """
        seen = self.gradients(run, number, window, incoming)
        run.stage = f"step {number}, optimizer"
        norm = self.clipped(self.optimizer)
        if math.isfinite(norm):  # else the scaler skips this step, and its loss says nothing
            self.watch.update(seen.loss, number)
        rate = self.scheduler.get_last_lr()[0]
        if self.precision.step(self.optimizer, norm, number):
            self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.collapse.update(
            number, loss=seen.loss, gradient_norm=norm, probabilities=seen.probabilities, labels=seen.labels
        )
        return Taken(sum(map(len, window)), seen, norm, rate)

    def clipped(self, optimizer: Optimizer) -> float:
        """Clip the gradients, first unscaled: the clipping must see the true ones. Returns the norm before."""
        import torch

        self.precision.scaler.unscale_(optimizer)
        return torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip).item()

    def validate(
        self, run: Run, lists: list[list[int]], held_out: Iterator[Batch], step: int, watchdog: Watchdog
    ) -> Validated | None:
        """The mean loss and the scores on the rows held out; None where a signal came in between.

        Args:
            run: its stage is kept up to date, and its signal looked for.
            lists: the rows of each batch, of all processes, in ascending order.
            held_out: gives this process's batches; none for a list in which it has no row.
            step: steps done.
            watchdog: is told of each batch.

        Raises:
            TrainingFailed: the loss is not finite.
        """
        import torch

        run.stage = f"step {step}, validation"
        rows: list[int] = []
        parts: list[torch.Tensor] = []
        self.model.eval()
        with torch.no_grad():
            for share in filter(None, map(self.ranks.share, lists)):
                if run.received is not None:
                    break
                watchdog.step()
                batch = next(held_out).to(self.ranks.device)
                entropies, logits, _ = self.losses(batch)
                rows += share
                parts.append(torch.cat([entropies[:, None], logits, batch.labels[:, None]], dim=1).cpu())
        self.model.train()
        run.received = self.ranks.agree(run.received)
        if run.received is not None:
            return None
        everything = self.ranks.gather((rows, torch.cat(parts) if parts else torch.empty(0, 4)))
        order = torch.tensor([row for theirs, _ in everything for row in theirs]).argsort()
        table = torch.cat([theirs for _, theirs in everything])[order]
        loss, logits, labels = table[:, 0].double().mean().item(), table[:, 1:3], table[:, 3].long()
        if not math.isfinite(loss):
            raise TrainingFailed(f"step {step}: the validation loss is {loss}")
        scores = classification.scores(labels.tolist(), logits.softmax(1)[:, 1].tolist())
        return Validated({"loss": loss, **scores}, logits.contiguous(), labels)

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
            state={**asdict(done), **state, **self._watches()},
            training={
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "scaler": self.precision.scaler.state_dict(),
                "random": checkpoint.random_state(),
            },
            others=self.save_others,
        )

    def _watches(self) -> dict[str, Any]:
        return {
            "watch": self.watch.state(),
            "collapse": self.collapse.state(),
            "skipped": self.precision.skipped,
        }

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
            self.collapse.load(found.state["collapse"])
            checkpoint.restore_random_state(saved["random"])
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise InputError(f"checkpoint {found.path}: {type(error).__name__} in its states: {error}") from error


def _together(parts: list[Seen]) -> Seen:
    """What all processes saw, in one."""
    return Seen(
        sum(part.loss for part in parts),
        [value for part in parts for value in part.probabilities],
        [label for part in parts for label in part.labels],
        sum(part.truncated for part in parts),
        sum(part.unparsed for part in parts),
    )
