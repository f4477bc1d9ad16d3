"""Finds variable misuse in Python functions with a RoBERTa-type classifier.

    python -m trainers.transformer --output-dir runs/transformer

trains on the functions of Python's own standard library (`trainers.misuse` says what the task is). From top
to bottom: the settings, the two entries, the model, the run. One step, and one validation, is
`trainers.learner`'s.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from trainers import batches, checkpoint, data, encoder, files, misuse, pretrained, resume, rows
from trainers.errors import Interrupted, show
from trainers.metrics import MetricsLog
from trainers.process import Run, Watchdog
from trainers.program import PathLike, Places, Program
from trainers.progress import Record
from trainers.settings import RunSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PRELOAD = (
    "torch", "torch._dynamo", "torch.utils.data", "numpy", "tqdm", "tokenizers",
    "safetensors.torch", "sklearn.metrics",
    "transformers.models.auto.tokenization_auto", "transformers.models.auto.modeling_auto",
    "transformers.models.roberta.modeling_roberta", "trainers.numerics", "trainers.transformer",
)  # fmt: skip
"""What a run imports late. A server from which many runs are forked imports these once."""


class Settings(RunSettings):
    """Settings of this program, for two CPU cores and the functions of one library.

    RoBERTa-base is 768 / 12 / 12 at ``max_length`` 512; it, and ``model``, want ``dropout`` 0.1 and a tenth or
    less of ``learning_rate``.
    """

    model: str | None = Field(
        None, description="pretrained weights and tokenizer: a folder, or a name on the model hub"
    )
    hidden_size: int = Field(64, ge=8, le=16_384, description="width of the encoder (without --model)")
    layers: int = Field(3, ge=1, le=256, description="layers of the encoder (without --model)")
    heads: int = Field(4, ge=1, le=256, description="attention heads in a layer (without --model)")
    vocab_size: int = Field(
        4096,
        ge=encoder.SMALLEST_VOCABULARY,
        le=1_000_000,
        description="the tokenizer's largest vocabulary (without --model)",
    )
    max_length: int = Field(128, ge=8, le=32_768, description="tokens of a function that are read; the rest is cut off")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout in the encoder")

    @model_validator(mode="after")
    def _heads_divide(self) -> Settings:
        if self.model is None and self.hidden_size % self.heads:
            raise ValueError(f"heads = {self.heads} must divide hidden_size = {self.hidden_size}")
        return self

    def described(self) -> dict[str, Any]:
        """What makes saved weights fit or not."""
        size = ["hidden_size", "layers", "heads", "vocab_size"] if self.model is None else []
        return {name: getattr(self, name) for name in ("model", "max_length", *size)}


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return PROGRAM.main(argv)


def launch(
    values: Mapping[str, Any] | Settings | None = None,
    *,
    data: PathLike | None = None,
    output_dir: PathLike | None = None,
    max_steps: int | None = None,
    resume_from: PathLike | None = None,
    seed: int | None = None,
) -> int:
    """The same program for a caller in Python.

    Args:
        values: settings by field name; what is left out has its default.
        data: a ``.jsonl`` file or a folder of Python; the standard library if left out.
        output_dir: for checkpoints and metrics; ``runs/transformer`` if left out.
        max_steps: overrides the setting of that name, if given.
        resume_from: a checkpoint, or an output folder: then its newest whole checkpoint.
        seed: overrides the setting of that name, if given.

    Returns:
        the exit code: 0 success, 1 training failed, 2 bad settings or data, 130 / 143 ended by a signal; why
        stands on stderr.
    """
    return PROGRAM.launch(
        values, data=data, output_dir=output_dir, max_steps=max_steps, resume_from=resume_from, seed=seed
    )


def precheck(values: Mapping[str, Any]) -> None:
    """Reject a model path that is not there, before torch is imported."""
    if isinstance(values.get("model"), str):
        pretrained.require_local(values["model"])


def build(
    run: Run, chosen: Settings, found: checkpoint.Checkpoint | None, table: rows.Rows, split: rows.Split
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Tokenizer and model: from the checkpoint, from pretrained weights, or new."""
    run.stage = "building the model"
    if found is not None:
        return encoder.resumed(found.path, chosen.dropout)
    shortest = rows.shortest(table, split.train)
    if chosen.model is not None:
        tokenizer, model = pretrained.load(pretrained.locate(chosen.model), chosen.dropout)
        encoder.require_length(tokenizer, shortest, chosen.max_length)
    else:
        run.stage = "training the tokenizer"
        tokenizer = encoder.train_tokenizer(table, split.train, chosen.vocab_size, chosen.max_length)
        encoder.require_length(tokenizer, shortest, chosen.max_length)
        run.stage = "building the model"
        model = encoder.new_model(
            tokenizer,
            hidden_size=chosen.hidden_size,
            layers=chosen.layers,
            heads=chosen.heads,
            max_length=chosen.max_length,
            dropout=chosen.dropout,
        )
    encoder.require_fit(tokenizer, model, chosen.max_length)
    return tokenizer, model


def train(run: Run, chosen: Settings, places: Places) -> None:
    """Everything from the data to the last checkpoint. The output folder's lock is held."""
    found, done = resume.find_checkpoint(run, places, chosen.described())
    table, split = data.open_rows(run, places.data, chosen)
    an_epoch = batches.steps_per_epoch(len(split.train), chosen.batch_size, chosen.gradient_accumulation)
    last_step = chosen.max_steps or chosen.max_epochs * an_epoch
    decay_steps = chosen.decay_steps or chosen.max_epochs * an_epoch
    if done.step >= last_step:
        run.say(f"already trained: step {done.step} of {last_step}, nothing to do")
        return
    if chosen.model is not None and found is None:
        run.stage = "looking for the model"
        pretrained.require_sound(pretrained.locate(chosen.model))

    # Only now the imports that take seconds.
    run.stage = "importing torch"
    if chosen.num_workers:  # a tokenizer that runs in threads does not survive the fork of a loader worker
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import torch
    from tqdm import tqdm

    from trainers.learner import Learner
    from trainers.numerics import LossWatch, Precision, decay_or_not, pick_device, warm_up_then_decay

    device = pick_device(chosen.device, run.say)
    checkpoint.seed_random(chosen.seed)
    tokenizer, model = build(run, chosen, found, table, split)
    run.stage = f"moving the model to {device}"
    model.to(device).train()

    def logits(batch: encoder.Batch) -> torch.Tensor:
        inputs = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.inputs.items()}
        scores: torch.Tensor = model(**inputs).logits
        return scores

    def save_others(folder: Path) -> None:
        tokenizer.save_pretrained(folder)
        model.config.save_pretrained(folder)

    optimizer = torch.optim.AdamW(decay_or_not(model, chosen.weight_decay), lr=chosen.learning_rate)
    learner = Learner(
        model,
        logits,
        optimizer,
        warm_up_then_decay(optimizer, chosen.warmup_steps, decay_steps),
        Precision(chosen.precision, device, chosen.max_skipped_steps),
        LossWatch(chosen.divergence_factor, chance=math.log(2)),
        chosen.max_gradient_norm,
        save_others,
    )
    rows_now = {"fingerprint": table.fingerprint, "seed": chosen.seed, "held_out": chosen.validation_fraction}
    if found is not None:
        run.stage = "restoring the optimizer"
        learner.restore(found)
        if found.state.get("rows") != rows_now:
            run.say(f"data or seed are not those of step {done.step}: its epoch is left, the next one begins")
            done.epoch, done.rows_done = done.epoch + 1, 0

    # From here on the run is accepted, and writes.
    output_dir = places.output_dir
    files.remove_leftovers(output_dir)
    resume.set_aside(output_dir, done.step, run.say)
    files.write_json(output_dir / "settings.json", chosen.model_dump())
    log = MetricsLog(output_dir / "metrics.jsonl", done.step)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    facts = {"device": str(device), "parameters": parameters, "last_step": last_step}
    facts |= {"train_rows": len(split.train), "validation_rows": len(split.validation)}
    record = Record(run, output_dir, log, data=show(places.data or misuse.standard_library()), **facts)
    record.write("running", done)
    run.say(f"{parameters} parameters, steps {done.step + 1} to {last_step}")
    if chosen.warmup_steps >= last_step or last_step > decay_steps:
        run.say(f"the learning rate rises for {chosen.warmup_steps} steps and falls until step {decay_steps}")

    collate = encoder.Collate(tokenizer, chosen.max_length)

    def stream(lists: list[list[int]]) -> contextlib.closing[Generator[encoder.Batch, None, None]]:
        pin = device.type == "cuda"
        return contextlib.closing(batches.stream(table, lists, collate, workers=chosen.num_workers, pin=pin))

    def due(every: int) -> bool:
        return done.step == last_step or done.step % every == 0

    with (
        run.deferred_signals(),
        Watchdog(run, chosen.hang_timeout) as watchdog,
        tqdm(total=last_step, initial=done.step, unit="step", disable=None) as bar,
    ):
        while done.step < last_step:
            windows = batches.epoch_windows(
                split.train,
                seed=chosen.seed,
                epoch=done.epoch,
                rows_done=done.rows_done,
                batch_size=chosen.batch_size,
                accumulation=chosen.gradient_accumulation,
                together=table.together,
            )[: last_step - done.step]
            with stream([batch for window in windows for batch in window]) as incoming:
                for window in windows:
                    watchdog.step()
                    taken = learner.step(run, done.step + 1, window, incoming)
                    if taken.truncated and not done.rows_truncated:
                        run.say(f"rows longer than max_length = {chosen.max_length} are truncated, and counted")
                    done.add(taken.rows, taken.truncated)
                    bar.update()
                    if due(chosen.log_every):
                        log.add(done.step, "train", epoch=done.epoch, **taken.numbers())
                    if due(chosen.eval_every) and split.validation and run.received is None:
                        with stream(batches.batched(split.validation, chosen.batch_size)) as held_out:
                            measured = learner.validate(run, held_out, done.step, watchdog)
                        if measured is not None:
                            record.validated(done, measured)
                    if due(chosen.save_every) or done.best_step == done.step or run.received is not None:
                        run.stage = f"step {done.step}, saving"
                        watchdog.step()
                        learner.save(output_dir, done, {"model": chosen.described(), "rows": rows_now})
                        checkpoint.prune(output_dir, chosen.keep_last, done.best_step)
                        log.write()
                    if run.received is not None:
                        record.write(f"ended by signal {run.received}", done)
                        raise Interrupted(run.received)
            if done.rows_done >= len(split.train):
                done.epoch, done.rows_done = done.epoch + 1, 0
    if done.rows_truncated:
        run.say(f"{done.rows_truncated} of {done.rows_seen} rows seen were truncated (max_length)")
    record.write("finished", done)
    run.say(f"finished at step {done.step}; results in {show(output_dir)}")


PROGRAM = Program("trainers.transformer", (__doc__ or "").split("\n\n")[0], Settings, precheck, train)

if __name__ == "__main__":
    sys.exit(main())
