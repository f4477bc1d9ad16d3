"""The run of a training program: from the data to the last checkpoint, whatever the model.

A program calls `begin`, then `enter`, builds its model and what belongs to it (a `Task`), and hands that to
`fit`. Up to `enter` nothing has imported torch; up to the middle of `fit` nothing has been written.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trainers.code import data, misuse, rows
from trainers.code.classification import MetricsLog
from trainers.common import batches, checkpoint, files, resume
from trainers.common.errors import Interrupted, TrainingFailed, show
from trainers.common.process import Run, Watchdog
from trainers.common.program import Places
from trainers.common.progress import Progress, Record
from trainers.common.settings import RunSettings

if TYPE_CHECKING:
    import torch
    from torch import nn

    from trainers.code.learner import Batch, Learner, Validated
    from trainers.code.ranks import Ranks

PRELOAD = (
    "trainers.common.collapse", "trainers.code.learner", "trainers.code.objective", "trainers.code.ranks",
    "trainers.code.rehearsal",
)  # fmt: skip
"""What a run imports late, whatever the program."""

LOGITS = "validation_logits.safetensors"
"""Logits, labels and keys of the rows held out, at the best validation: what an ensemble is made of."""
COLLAPSE_REPORT = "collapse_report.json"


class Begun(NamedTuple):
    """What a run knows before torch is imported.

    Attributes:
        found: the checkpoint that it goes on from, if any.
        done: how far that is.
        table: the rows.
        split: which are held out.
        last_step: the run's last optimizer step.
        decay_steps: the step at which the learning rate has fallen.
    """

    found: checkpoint.Checkpoint | None
    done: Progress
    table: rows.Rows
    split: rows.Split
    last_step: int
    decay_steps: int


@dataclass(frozen=True)
class Task:
    """What a program brings.

    Attributes:
        model: new, pretrained, or with the checkpoint's weights; on the CPU.
        forward: from the model and a batch on its device to logits of shape (rows, 2).
        dataset: for the loader: by a row's number, what ``collate`` wants of it.
        collate: makes a batch.
        cut: the rows of an optimizer step, and the largest number of rows in a forward pass, to the rows of
            each forward pass.
        groups: the optimizer's parameter groups; ``share`` in one is its part of the learning rate, 1 if it
            is not there.
        save_others: writes into a checkpoint's folder what is needed beside the weights.
        limit: the settings that say how long a row may be, with their values, for people.
    """

    model: nn.Module
    forward: Callable[[nn.Module, Any], torch.Tensor]
    dataset: Any
    collate: Callable[[list[Any]], Batch]
    cut: Callable[[Sequence[int], int], list[list[int]]]
    groups: list[dict[str, Any]]
    save_others: Callable[[Path], None]
    limit: str


def begin(run: Run, chosen: RunSettings, places: Places) -> Begun | None:
    """Look for a checkpoint and check all the data; None where there is nothing left to train."""
    found, done = resume.find_checkpoint(run, places, chosen.described())
    table, split = data.open_rows(run, places.data, chosen)
    an_epoch = batches.steps_per_epoch(len(split.train), chosen.batch_size * chosen.gradient_accumulation)
    last_step = chosen.max_steps or chosen.max_epochs * an_epoch
    if done.step >= last_step:
        run.say(f"already trained: step {done.step} of {last_step}, nothing to do")
        return None
    return Begun(found, done, table, split, last_step, chosen.decay_steps or chosen.max_epochs * an_epoch)


def enter(run: Run, chosen: RunSettings) -> Ranks:
    """Import torch, meet the other processes if there are any, and seed the random generators."""
    run.stage = "importing torch"
    if chosen.num_workers:  # a tokenizer that runs in threads does not survive the fork of a loader worker
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from trainers.code.ranks import Ranks

    ranks = Ranks(chosen.device, run.say)
    checkpoint.seed_random(chosen.seed)
    return ranks


def fit(run: Run, chosen: RunSettings, places: Places, begun: Begun, ranks: Ranks, task: Task) -> None:
    """Train, validate and save until the last step. The output folder's lock is held."""
    _Fit(run, chosen, places, begun, ranks, task).train()
    ranks.leave()


class _Fit:
    """One call of `fit`: what its parts share."""

    def __init__(self, run: Run, chosen: RunSettings, places: Places, begun: Begun, ranks: Ranks, task: Task) -> None:
        self.run, self.chosen, self.places, self.begun, self.ranks, self.task = run, chosen, places, begun, ranks, task
        self.done, self.output_dir = begun.done, places.output_dir
        self.rows_now = {
            "fingerprint": begun.table.fingerprint,
            "seed": chosen.seed,
            "data_seed": chosen.data_seed,
            "held_out": chosen.validation_fraction,
        }
        self.feed = batches.Feed(chosen, begun.table, begun.split, task, ranks)
        run.stage = f"moving the model to {ranks.device}"
        task.model.to(ranks.device).train()
        self.learner = self._learner(self._optimizer(chosen.learning_rate))
        self.rate_from = "settings"
        if begun.found is not None:
            self._resume(begun.found)

    def train(self) -> None:
        """Everything after the model is built."""
        run, chosen, done, last_step = self.run, self.chosen, self.done, self.begun.last_step
        from tqdm import tqdm

        self._rehearse()
        self._accept()
        with (
            run.deferred_signals(),
            Watchdog(run, chosen.hang_timeout) as watchdog,
            tqdm(total=last_step, initial=done.step, unit="step", disable=True if run.rank else None) as bar,
        ):
            while done.step < last_step:
                windows = self.feed.windows(done.epoch, done.rows_done)[: last_step - done.step]
                with self.feed.stream([batch for window in windows for batch in window]) as incoming:
                    for window in windows:
                        watchdog.step()
                        self._step(window, incoming)
                        bar.update()
                        if self._due(chosen.eval_every) and self.begun.split.validation and run.received is None:
                            self._validate(watchdog)
                        if self._due(chosen.save_every) or done.best_step == done.step or run.received is not None:
                            run.stage = f"step {done.step}, saving"
                            watchdog.step()
                            self._save()
                        if run.received is not None:
                            self._write(f"ended by signal {run.received}")
                            raise Interrupted(run.received)
                if done.rows_done >= len(self.begun.split.train):
                    done.epoch, done.rows_done = done.epoch + 1, 0
        for count, what in ((done.rows_truncated, "truncated"), (done.rows_unparsed, "no Python")):
            if count:
                run.say(f"{count} of {done.rows_seen} rows seen were {what}")
        self._write("finished")
        run.say(f"finished at step {done.step}; results in {show(self.output_dir)}")

    # ---- before the first step

    def _learner(self, optimizer: torch.optim.Optimizer) -> Learner:
        from trainers.code.learner import Learner
        from trainers.code.objective import Objective, capped_weights
        from trainers.common.collapse import CollapseWatch
        from trainers.common.optimization import LossWatch, Precision, warm_up_then_decay

        chosen, weights = self.chosen, [1.0, 1.0]
        if chosen.class_balance == "weights":
            weights = capped_weights(map(self.begun.table.label, self.begun.split.train), chosen.class_weight_cap)
        if weights != [1.0, 1.0]:
            self.run.say(f"class weights: {', '.join(f'{weight:.3f}' for weight in weights)}")
        return Learner(
            self.task.model,
            self.task.forward,
            optimizer,
            warm_up_then_decay(optimizer, chosen.warmup_steps, self.begun.decay_steps),
            Precision(chosen.precision, self.ranks.device, chosen.max_skipped_steps),
            Objective(tuple(weights), chosen.focal_gamma),
            self.ranks,
            LossWatch(chosen.divergence_factor, chance=math.log(2)),
            CollapseWatch(
                window=chosen.collapse_window,
                patience=chosen.collapse_patience,
                grace=chosen.collapse_grace,
                vanishing_norm=chosen.vanishing_norm,
                exploding_norm=chosen.exploding_norm,
            ),
            chosen.max_gradient_norm,
            self.task.save_others,
        )

    def _optimizer(self, rate: float) -> torch.optim.AdamW:
        import torch

        return torch.optim.AdamW([{**group, "lr": rate * group.get("share", 1.0)} for group in self.task.groups])

    def _resume(self, found: checkpoint.Checkpoint) -> None:
        self.run.stage = "restoring the optimizer"
        self.learner.restore(found)
        self.rate_from = f"step {found.step}"
        if found.state.get("rows") != self.rows_now:
            self.run.say(f"data or seed are not those of step {found.step}: its epoch is left, the next one begins")
            self.done.epoch, self.done.rows_done = self.done.epoch + 1, 0

    def _rehearse(self) -> None:
        """What can be found out before the first step: room on the disk, room on the device, a learning rate."""
        from trainers.code import rehearsal
        from trainers.common.optimization import set_rate, warm_up_then_decay

        run, chosen, learner = self.run, self.chosen, self.learner
        run.stage = "looking for room"
        checkpoint.require_room(self.output_dir, self.task.model, chosen.keep_last, run.say)
        self.feed.micro_batch = rehearsal.largest_that_fits(run, chosen, self.feed, learner, self._optimizer)
        if chosen.find_learning_rate and self.begun.found is None:
            choice = rehearsal.find_rate(run, chosen, self.feed, learner, self._optimizer, self.output_dir)
            set_rate(learner.optimizer, choice.rate)
            learner.scheduler = warm_up_then_decay(learner.optimizer, chosen.warmup_steps, self.begun.decay_steps)
            self.rate_from = choice.source

    def _accept(self) -> None:
        """From here on the run is accepted, and writes."""
        run, chosen, done, begun, output_dir = self.run, self.chosen, self.done, self.begun, self.output_dir
        if run.rank == 0:
            files.remove_leftovers(output_dir)
            resume.set_aside(output_dir, done.step, run.say)
            files.remove(output_dir / COLLAPSE_REPORT)
            files.write_json(output_dir / "settings.json", chosen.model_dump())
        self.log = MetricsLog(output_dir / "metrics.jsonl", done.step)
        parameters = sum(parameter.numel() for parameter in self.task.model.parameters())
        facts = {
            "device": str(self.ranks.device),
            "processes": self.ranks.world,
            "parameters": parameters,
            "seed": chosen.seed,
            "last_step": begun.last_step,
            "train_rows": len(begun.split.train),
            "validation_rows": len(begun.split.validation),
            "effective_batch_size": chosen.batch_size * chosen.gradient_accumulation,
            "learning_rates": self.learner.scheduler.base_lrs,
            "learning_rate_from": self.rate_from,
            "data": show(self.places.data or misuse.standard_library()),
        }
        self.record = Record(run, output_dir, self.log, self.learner.collapse.events, **facts)
        self._write("running")
        run.say(f"{parameters} parameters, steps {done.step + 1} to {begun.last_step}")
        if chosen.warmup_steps >= begun.last_step or begun.last_step > begun.decay_steps:
            run.say(f"the learning rate rises for {chosen.warmup_steps} steps and falls until step {begun.decay_steps}")

    # ---- the steps

    def _due(self, every: int) -> bool:
        return self.done.step == self.begun.last_step or self.done.step % every == 0

    def _step(self, window: batches.Window, incoming: Generator[Batch, None, None]) -> None:
        run, done = self.run, self.done
        try:
            taken = self.learner.step(run, done.step + 1, window, incoming)
        except TrainingFailed:
            if run.rank == 0 and self.learner.collapse.events:
                files.write_json(self.output_dir / COLLAPSE_REPORT, self.learner.collapse.report())
            raise
        if taken.seen.truncated and not done.rows_truncated:
            run.say(f"rows longer than {self.task.limit} are truncated")
        done.add(taken.rows, taken.seen.truncated, taken.seen.unparsed)
        if self._due(self.chosen.log_every):
            self.log.add(done.step, "train", epoch=done.epoch, **taken.numbers())
        run.received = self.ranks.agree(run.received)

    def _validate(self, watchdog: Watchdog) -> None:
        lists = self.feed.held_out()
        with self.feed.stream(lists, empty=False) as held_out:
            validated = self.learner.validate(self.run, lists, held_out, self.done.step, watchdog)
        if validated is None:
            return
        self.record.validated(self.done, validated.scores)
        if self.done.improved(validated.scores, self.chosen.best_by) and self.run.rank == 0:
            self._keep(validated)

    def _keep(self, validated: Validated) -> None:
        """For the ensemble of several seeds: `LOGITS`."""
        import torch
        from safetensors.torch import save

        keys = [rows.signed_key(self.begun.table[index].code) for index in self.begun.split.validation]
        tensors = {"logits": validated.logits, "labels": validated.labels, "keys": torch.tensor(keys)}
        files.write_bytes(self.output_dir / LOGITS, save(tensors, metadata={"step": str(self.done.step)}))

    def _save(self) -> None:
        if self.run.rank == 0:
            about = {"program": self.run.program, "model": self.chosen.described(), "rows": self.rows_now}
            self.learner.save(self.output_dir, self.done, about)
            checkpoint.prune(self.output_dir, self.chosen.keep_last, self.done.best_step)
            self.log.write()

    def _write(self, status: str) -> None:
        if self.run.rank == 0:
            self.record.write(status, self.done)
