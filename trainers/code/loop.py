"""The run of a training program: from the data to the last checkpoint, whatever the model.

A program calls `begin`, then `enter`, builds its model and what belongs to it (a `Task`), and hands that to
`fit`. Up to `enter` nothing has imported torch; up to the middle of `fit` nothing has been written.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trainers.code import misuse, rehearsal
from trainers.code.classification import LOGITS, Objective, capped_weights, describe_flags
from trainers.code.learner import Batch, Forward, Learner, Precision, Validated
from trainers.code.prepared import Prepared, is_prepared
from trainers.code.ranks import Cut, Feed, Ranks
from trainers.code.rows import RowFile, Rows, signed_key
from trainers.code.settings import DataSettings, RunSettings
from trainers.common import checkpoint, files, progress, resume
from trainers.common.batches import Plan, Window, plan
from trainers.common.errors import InputError, Interrupted, TrainingFailed, show
from trainers.common.optimization import CollapseWatch, LossWatch, set_rate, warm_up_then_decay
from trainers.common.process import Run, Watchdog
from trainers.common.program import Places
from trainers.common.progress import MetricsLog, Progress, Record
from trainers.common.rows import Split, split_by_content

if TYPE_CHECKING:
    import torch
    from torch import nn

COLLAPSE_REPORT = "collapse_report.json"


@dataclass
class Position(Progress):
    """`Progress` with the place in the data.

    Attributes:
        epoch: passes over the data done.
        rows_done: rows done of the running pass.
        rows_unparsed: how many of the rows seen were no Python.
    """

    epoch: int = 0
    rows_done: int = 0
    rows_unparsed: int = 0

    def add(self, rows: int, truncated: int, unparsed: int) -> None:
        """One more step, over so many rows, of which so many were cut and so many are no Python."""
        self.step += 1
        self.rows_done += rows
        self.rows_seen += rows
        self.rows_truncated += truncated
        self.rows_unparsed += unparsed


class Begun(NamedTuple):
    """What a run knows before torch is imported.

    Attributes:
        found: the checkpoint that it goes on from, if any.
        done: how far that is.
        table: the rows.
        split: which are held out.
        plan: the run's steps.
        decay_steps: the step at which the learning rate has fallen.
    """

    found: checkpoint.Checkpoint | None
    done: Position
    table: Rows
    split: Split
    plan: Plan
    decay_steps: int


@dataclass(frozen=True)
class Task:
    """What a program brings.

    Attributes:
        model: new, pretrained, or with the checkpoint's weights; on the CPU.
        forward: see `Learner`.
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
    forward: Forward
    dataset: Any
    collate: Callable[[list[Any]], Batch]
    cut: Cut
    groups: list[dict[str, Any]]
    save_others: Callable[[Path], None]
    limit: str


def open_rows(run: Run, path: Path | None, chosen: DataSettings) -> tuple[Rows, Split]:
    """The rows, all of them checked, and which of them are held out.

    Args:
        run: is told how many there are, and what was left out.
        path: as `rows.check_path` returned it, a folder may be prepared; None is the standard library.
        chosen: the share held out; where rows are made from Python source, also the seed of twins and split,
            the longest function, and how many twins it has. Prepared data has all of that decided.

    Raises:
        InputError: the rows are not as they must be, one line a fault.
    """
    run.stage = "reading the data"
    if chosen.more_code is not None and path is not None and (path.is_file() or is_prepared(path)):
        raise InputError(f"more_code = {chosen.more_code!r}: only where rows are made from Python source")
    if path is not None and path.is_file():
        file = RowFile(path)
        table: Rows = file
        split = split_by_content(file, chosen.validation_fraction)
    elif path is not None and is_prepared(path):
        prepared = Prepared(path)
        table, split = prepared, prepared.split
        for fault in prepared.unparsed:
            run.say(f"not parsed: {fault}")
    else:
        corpus = misuse.open_corpus(run, path, chosen)
        table, split = corpus, corpus.split
    run.say(f"{len(split.train)} rows to train on, {len(split.validation)} to validate on")
    if not split.validation:
        run.say("validation is skipped: no row is held out")
    return table, split


def begin(run: Run, chosen: RunSettings, places: Places) -> Begun | None:
    """Look for a checkpoint and check all the data; None where there is nothing left to train."""
    found, done = resume.find_checkpoint(run, places), Position()
    if found is not None:
        resume.require_same(found, "model", chosen.described())
        done = progress.restored(Position, found)
        run.say(f"resuming from {show(found.path)} at step {found.step}")
    table, split = open_rows(run, places.data, chosen)
    planned = plan(
        len(split.train),
        batch_size=chosen.batch_size,
        gradient_accumulation=chosen.gradient_accumulation,
        max_epochs=chosen.max_epochs,
        max_steps=chosen.max_steps,
    )
    if done.step >= planned.last:
        run.say(f"already trained: step {done.step} of {planned.last}, nothing to do")
        return None
    return Begun(found, done, table, split, planned, chosen.decay_steps or planned.whole)


def enter(run: Run, chosen: RunSettings) -> Ranks:
    """Import torch, meet the other processes if there are any, and seed the random generators."""
    run.stage = "importing torch"
    if chosen.num_workers:  # a tokenizer that runs in threads does not survive the fork of a loader worker
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
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
        self.feed = Feed(
            chosen, begun.table, begun.split, ranks, dataset=task.dataset, collate=task.collate, cut=task.cut
        )
        run.stage = f"moving the model to {ranks.device}"
        task.model.to(ranks.device).train()
        self.learner = self._learner(self._optimizer(chosen.learning_rate))
        self.rate_from = "settings"
        if begun.found is not None:
            self._resume(begun.found)

    def train(self) -> None:
        """Everything after the model is built."""
        run, chosen, done, last_step = self.run, self.chosen, self.done, self.begun.plan.last
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
        import torch

        run, chosen, done, begun, output_dir = self.run, self.chosen, self.done, self.begun, self.output_dir
        if run.rank == 0:
            files.remove_leftovers(output_dir)
            resume.set_aside(output_dir, done.step, run.say)
            files.remove(output_dir / COLLAPSE_REPORT)
            files.write_json(output_dir / "settings.json", chosen.model_dump())
        self.log = MetricsLog(output_dir / "metrics.jsonl", done.step)
        parameters = sum(parameter.numel() for parameter in self.task.model.parameters())
        facts = {
            "program": run.program,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "device": str(self.ranks.device),
            "processes": self.ranks.world,
            "parameters": parameters,
            "seed": chosen.seed,
            "last_step": begun.plan.last,
            "train_rows": len(begun.split.train),
            "validation_rows": len(begun.split.validation),
            "effective_batch_size": chosen.batch_size * chosen.gradient_accumulation,
            "learning_rates": self.learner.scheduler.base_lrs,
            "learning_rate_from": self.rate_from,
            "data": show(self.places.data or misuse.standard_library()),
        }
        self.record = Record(output_dir, self.log, self.learner.collapse.events, facts)
        self._write("running")
        run.say(f"{parameters} parameters, steps {done.step + 1} to {begun.plan.last}")
        if chosen.warmup_steps >= begun.plan.last or begun.plan.last > begun.decay_steps:
            run.say(f"the learning rate rises for {chosen.warmup_steps} steps and falls until step {begun.decay_steps}")

    # ---- the steps

    def _due(self, every: int) -> bool:
        return self.done.step == self.begun.plan.last or self.done.step % every == 0

    def _step(self, window: Window, incoming: Generator[Batch, None, None]) -> None:
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
        self._tell(validated.scores)
        if self.done.improved(validated.scores, self.chosen.best_by) and self.run.rank == 0:
            self._keep(validated)

    def _tell(self, scores: dict[str, Any]) -> None:
        """A validation: the log's record, a line, and a warning for each flag."""
        step = self.done.step
        self.log.add(step, "validation", **scores)
        self.run.say(
            f"step {step}: validation loss {scores['loss']:.4f}, "
            f"F1 {scores['f1']:.3f}, accuracy {scores['accuracy']:.3f}"
        )
        for warning in describe_flags(scores):
            self.run.say(f"step {step}: {warning}")

    def _keep(self, validated: Validated) -> None:
        """For the ensemble of several seeds: `LOGITS`."""
        import torch
        from safetensors.torch import save

        keys = [signed_key(self.begun.table[index].code) for index in self.begun.split.validation]
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
