"""`transformers.Trainer` for chat: it trains, and what is saved, checked and told along the way is done here.

Its loop, gradient accumulation, clipping and precision are transformers' own. Of its methods these are replaced:
where batches come from, where it stands when it goes on, what is done with a step's numbers (`log`), validation
(`evaluate`) and saving (no pickles). It counts the steps of this data; ``done.before`` are those of earlier data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from trainers.chat import adapter, validation
from trainers.chat.adapter import ADAPTER, ADAPTER_WEIGHTS, Base
from trainers.chat.resume import TRAINER_STATE, Begun
from trainers.chat.settings import Settings
from trainers.chat.tokens import Collate, Encoder, Examples, Rows
from trainers.common import checkpoint
from trainers.common.batches import batched, epoch_windows, loader
from trainers.common.errors import InputError, Interrupted, TrainingFailed
from trainers.common.optimization import (
    CollapseWatch,
    LossWatch,
    parameter_groups,
    require_finite,
    set_rate,
    warm_up_then_decay,
)
from trainers.common.pretrained import quiet
from trainers.common.process import Run, Watchdog
from trainers.common.progress import MetricsLog
from trainers.common.rows import Split

SURE = 2.0
"""Nats a token. A loss below this is not called diverging because it was once far lower."""


class Order:
    """For a loader: the rows of each forward pass of an epoch; they follow from seed and epoch alone.

    Rows of an optimizer step stay together, so that the micro-batch may change and the steps stay what they are.
    """

    def __init__(self, rows: Sequence[int], seed: int, batch_size: int, gradient_accumulation: int) -> None:
        """Of what an epoch goes over, in forward passes of ``batch_size`` rows, so many of them a step."""
        self._rows, self._seed = rows, seed
        self._batch_size, self._effective = batch_size, batch_size * gradient_accumulation
        self.epoch = 0

    def __iter__(self) -> Iterator[list[int]]:
        """The rows of each forward pass."""
        windows = epoch_windows(
            self._rows,
            seed=self._seed,
            epoch=self.epoch,
            rows_done=0,
            effective=self._effective,
            cut=lambda window: batched(window, self._batch_size),
        )
        return (rows for window in windows for rows in window)

    def __len__(self) -> int:
        """Forward passes in an epoch."""
        return -(-len(self._rows) // self._batch_size)


class Task(NamedTuple):
    """What is trained on what.

    Attributes:
        model: base and adapter, on its device; the adapter as it was saved.
        base: for the adapter's folder.
        encoder: makes tokens of conversations.
        table: the conversations.
        split: which of them are held out.
    """

    model: PeftModel
    base: Base
    encoder: Encoder
    table: Rows
    split: Split


class ChatTrainer(Trainer):
    """One run on one file of rows."""

    def __init__(
        self, run: Run, chosen: Settings, output_dir: Path, begun: Begun, facts: dict[str, Any], task: Task
    ) -> None:
        """Prepare; nothing is written.

        Args:
            run: is told.
            chosen: the settings.
            output_dir: where checkpoints and metrics go.
            begun: where the run begins.
            facts: what a checkpoint says of program, model, base and data; JSON.
            task: what is trained on what.
        """
        self.run, self.chosen, self.output_dir, self.begun, self.facts = run, chosen, output_dir, begun, facts
        self.done, self.task = begun.done, task
        table, encoder, split, model = task.table, task.encoder, task.split, task.model
        self.order = Order(split.train, chosen.seed, chosen.batch_size, chosen.gradient_accumulation)
        self.examples = Examples(table, encoder)
        self.collate = Collate(encoder.tokenizer.pad_token_id, chosen.max_length, chosen.layout)
        self.numbers = MetricsLog(output_dir / "metrics.jsonl", self.done.step)
        self.loss_watch = LossWatch(chosen.divergence_factor, chance=SURE)
        self.collapse = CollapseWatch(
            window=chosen.collapse_window,
            patience=chosen.collapse_patience,
            grace=0,
            vanishing_norm=chosen.vanishing_norm,
            exploding_norm=chosen.exploding_norm,
        )
        self.watchdog = Watchdog(run, chosen.hang_timeout)
        self.validation = validation.Validation(run, chosen, encoder, table, split.validation, self.watchdog)
        self._loss = 0.0
        self._restored: dict[str, Any] = {}
        optimizer = torch.optim.AdamW(parameter_groups(model, chosen.weight_decay), lr=chosen.learning_rate)
        if begun.found is not None:
            self._restore(begun.found, optimizer)
        set_rate(optimizer, chosen.learning_rate)
        schedule = warm_up_then_decay(
            optimizer, chosen.warmup_steps, chosen.decay_steps or begun.plan.whole, self.done.step
        )
        super().__init__(
            model=model,
            args=self._arguments(model),
            optimizers=(optimizer, schedule),
            callbacks=[_Watch(self)],
        )
        self.remove_callback(PrinterCallback)
        self.state.train_batch_size = chosen.batch_size

    def fit(self) -> None:
        """Train until the last step.

        Raises:
            TrainingFailed: loss or gradient are not finite, the loss diverges, the run has collapsed, or the disk
                does not take a checkpoint.
            Interrupted: a signal came; a checkpoint was saved first.
        """
        found = self.begun.found
        bar = tqdm(total=self.begun.plan.last, initial=self.done.step, unit="step", disable=None)
        with self.run.deferred_signals(), self.watchdog, bar:
            self.bar = bar
            if self.begun.carried:  # from here on this folder can be gone on from, whatever happens
                self._save_checkpoint(self.model, None)
            with quiet():  # what changed on the way is told already
                self.train(resume_from_checkpoint=str(found.path) if found and not self.begun.carried else None)

    def due(self, every: int) -> bool:
        """Whether something that is done so often is done now."""
        return self.done.step == self.begun.plan.last or self.done.step % every == 0

    def _arguments(self, model: Any) -> TrainingArguments:
        chosen = self.chosen
        device = next(model.parameters()).device
        arguments = TrainingArguments(
            output_dir=str(self.output_dir),
            max_steps=self.begun.plan.last - self.done.before,
            per_device_train_batch_size=chosen.batch_size,
            gradient_accumulation_steps=chosen.gradient_accumulation,
            learning_rate=chosen.learning_rate,
            max_grad_norm=chosen.max_gradient_norm,
            bf16=chosen.precision == "bf16",
            activation_checkpointing=chosen.gradient_checkpointing,
            use_cpu=device.type == "cpu",
            seed=chosen.seed,
            logging_strategy="no",  # what is due is said by `_Watch`
            logging_nan_inf_filter=False,
            save_strategy="no",
            eval_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        arguments._n_gpu = min(1, arguments.n_gpu)  # else transformers takes every GPU that it sees
        return arguments

    # ---- what transformers asks for

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches in the order of `Order`."""
        pin = self.args.device.type == "cuda"
        return loader(self.examples, self.order, self.collate, workers=self.chosen.num_workers, pin=pin)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: transformers walks through all modules for it at each step, and nobody asks."""
        return 0

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward pass of one micro-batch."""
        rows, truncated = inputs.pop("rows"), inputs.pop("truncated")
        if truncated and not self.done.rows_truncated:
            self.run.say(f"rows longer than max_length = {self.chosen.max_length} are truncated")
        self.done.rows_seen += rows
        self.done.rows_truncated += truncated
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._loss += loss.item()
        return loss

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The cross-entropy of the assistant's tokens, summed, over those of the whole step.

        Raises:
            TrainingFailed: it is not finite.
        """
        self.run.stage = f"step {self.done.step + 1}, forward"
        result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss = (result[0] if return_outputs else result).item()
        if not math.isfinite(loss):
            raise TrainingFailed(f"step {self.done.step + 1}: the loss is {loss}", "nan")
        self.run.stage = f"step {self.done.step + 1}, backward"
        return result

    def check_gradients(self) -> None:
        """Before the optimizer's step: nothing may be learned from a gradient that is not finite.

        Raises:
            TrainingFailed: one is not.
        """
        self.run.stage = f"step {self.done.step + 1}, optimizer"
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        if not math.isfinite(torch.nn.utils.get_total_norm(gradients).item()):
            raise TrainingFailed(f"step {self.done.step + 1}: the gradient is not finite", "nan")

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """A step's numbers: judged, and kept for ``metrics.jsonl``.

        Raises:
            TrainingFailed: the loss diverges, or the run has collapsed.
        """
        if "grad_norm" not in logs:  # transformers' summary at the end
            return
        self.control = self.callback_handler.on_log(self.args, self.state, self.control, logs)
        step, loss, norm = self.done.step, self._loss, float(logs["grad_norm"])
        self._loss = 0.0
        self.loss_watch.update(loss, step)
        self.collapse.update(step, loss=loss, gradient_norm=norm, probabilities=(), labels=())
        if self.due(self.chosen.log_every):
            self.numbers.add(step, "train", loss=loss, gradient_norm=norm, learning_rate=logs["learning_rate"])

    def count_step(self) -> None:
        """After the optimizer's step."""
        self.done.step += 1
        self.run.status.step = self.done.step
        self.bar.update()

    # ---- validation

    def evaluate(self, *arguments: Any, **keywords: Any) -> dict[str, float]:
        """Loss on the rows held out, and answers to some of them.

        Raises:
            TrainingFailed: the loss is not finite.
        """
        self.run.stage = f"step {self.done.step}, validation"
        scores = self.validation.scores(self)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, scores or {})
        if scores is not None:  # None: a signal came in between
            self._validated(scores)
        return {}

    def summed_loss(self, inputs: dict[str, Any]) -> float:
        """The sum over the assistant's tokens of a batch."""
        loss: torch.Tensor = super().compute_loss(self.model, self._prepare_inputs(inputs), num_items_in_batch=1)
        return loss.item()

    def _validated(self, scores: dict[str, Any]) -> None:
        step = self.done.step
        if not math.isfinite(scores["loss"]):
            raise TrainingFailed(f"step {step}: the validation loss is {scores['loss']}", "nan")
        self.numbers.add(step, "validation", **scores)
        told = f"step {step}: validation loss {scores['loss']:.4f}"
        if scores["truncated"]:
            told += f" ({scores['truncated']} rows truncated)"
        if "exact_match" in scores:
            told += f", exact match {scores['exact_match']:.3f}, degenerate answers {scores['degenerate']:.3f}"
            for warning in validation.describe_flags(scores):
                self.run.say(f"step {step}: {warning}")
        self.run.say(told)
        if self.done.improved(scores, self.chosen.best_by):
            self.control.should_save = True

    # ---- checkpoints

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write the checkpoint of the step that was just done, in place of transformers' own.

        Raises:
            TrainingFailed: a weight is not finite, or the disk does not take it.
        """
        done, step = self.done, self.done.step
        self.run.stage = f"step {step}, saving"
        self.watchdog.step()
        require_finite(_Trained(self.model), step)
        checkpoint.save(
            self.output_dir,
            step,
            model=None,
            weights=f"{ADAPTER}/{ADAPTER_WEIGHTS}",
            state={
                **asdict(done),
                **self.facts,
                "last_step": self.begun.plan.last,
                "effective_batch_size": self.chosen.effective_batch_size,
                "loss_watch": self.loss_watch.state(),
                "collapse": self.collapse.state(),
            },
            training={
                "optimizer": self.optimizer.state_dict(),
                "random": checkpoint.random_state(),
            },
            others=self._save_others,
        )
        checkpoint.prune(self.output_dir, self.chosen.keep_last, done.best_step)
        self.numbers.write()

    def _save_others(self, folder: Path) -> None:
        adapter.save_adapter(folder / ADAPTER, self.model, self.task.base)
        self.state.save_to_json(str(folder / TRAINER_STATE))

    def _restore(self, found: checkpoint.Checkpoint, optimizer: torch.optim.Optimizer) -> None:
        self.run.stage = "restoring the optimizer"
        try:
            self._restored = checkpoint.load_training(found)
            optimizer.load_state_dict(self._restored["optimizer"])
            if not self.begun.carried:
                self.loss_watch.load(found.state["loss_watch"])
                self.collapse.load(found.state["collapse"])
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise InputError(f"checkpoint {found.path}: {type(error).__name__} in its states: {error}") from error

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """The weights are loaded already."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """They are loaded already."""

    def _load_rng_state(self, checkpoint_path: str | None) -> None:
        """The random generators, after the loader has gone to its place."""
        checkpoint.restore_random_state(self._restored["random"])


class _Trained:
    """What `require_finite` is to look at: weights that change."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {name: tensor for name, tensor in self._model.named_parameters() if tensor.requires_grad}


class _Watch(TrainerCallback):
    """Keeps time, and says when what is due. One line each: the work is the trainer's."""

    def __init__(self, trainer: ChatTrainer) -> None:
        self._trainer = trainer

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """The order of rows is this epoch's."""
        self._trainer.order.epoch = state.global_step // self._trainer.begun.plan.per_epoch

    def on_step_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """The limit of a step counts from here."""
        self._trainer.watchdog.step()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Gradients are clipped, nothing has moved."""
        self._trainer.check_gradients()

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """What is due now."""
        trainer, chosen = self._trainer, self._trainer.chosen
        trainer.count_step()
        ending = trainer.run.received is not None
        control.should_log = True  # `ChatTrainer.log` is where a step's numbers come out
        control.should_evaluate = bool(trainer.task.split.validation) and trainer.due(chosen.eval_every) and not ending
        control.should_save = trainer.due(chosen.save_every) or ending

    def on_save(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """A signal was noted: the checkpoint that it waited for is there."""
        if self._trainer.run.received is not None:
            raise Interrupted(self._trainer.run.received)
