"""The contract between a training program and the harness: `Trainer` and `Run`.

A team writes one `Trainer` (one required method) or none at all, where its program has a command line. Nothing here
imports torch: a team's `preflight.py` is read long before its program is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from pytest_trainguard.contract import checkpoints, settings, validation
from pytest_trainguard.contract.queues import Queue
from pytest_trainguard.rows import longest, samples

TrainerSpec = str | Mapping[str, object]  # `module:Class`, or the table of a command line


@dataclass
class Run:
    """One bounded start of a trainer: what `Trainer.train` is given.

    Attributes:
        settings: the values that differ from the defaults of `Trainer.config`, nested as that is.
        data: the data to train on, in the form of the trainer's own sample; None where it has none.
        output_dir: an existing folder for everything that the run writes.
        max_steps: optimizer steps in all, those before a resume included.
        seed: for the program to seed every random generator with. The harness seeds none of them.
        resume_from: where to carry on from (see `Trainer.resume_from`); None for a fresh start.
    """

    settings: dict[str, Any]
    data: Path | None
    output_dir: Path
    max_steps: int
    seed: int = 0
    resume_from: Path | None = None
    config_type: Any = field(default=None, repr=False)

    @cached_property
    def config(self) -> Any:
        """The settings as the program's own type, or as a plain mapping where it has none.

        Raises:
            Exception: whatever the type raises for values that it rejects.
        """
        return settings.build(self.config_type, self.settings)


class Trainer:
    """What the harness is told of one training program. Subclass it, set what applies, write `train`.

    Attributes:
        config: the pydantic model or dataclass that the program's settings are, or a plain mapping of them.
        production: what will be launched, where that differs from the defaults of `config`.
        tiny: on top of `production`, what makes the program small enough for a CPU.
        overfit: on top of `tiny`, what makes it learn 32 examples by heart in 50 steps (a learning rate, no dropout).
        overfit_below: what the loss must come below in those 50 steps, where it is not what case 66 asks of any loss.
        sample: real data, of which the harness cuts a small piece: a file or a folder in one of the forms that
            `rows.samples` cuts (JSONL, JSON, CSV, Parquet, text, arrays, shards, pictures by class, and others). A
            relative path starts at pytest's root folder.
        rows: how many rows of the sample a run gets.
        fields: the settings that play a known role under another name, `{"batch_size": "data.bs"}`; the roles and
            the names that are recognised without this are in `settings.ROLES`.
        queue: the training queue in front of the program, where it has one.
        command: how the program is started in a terminal, with the places of a command's table (`{config}` is the
            path of a settings file); with it, the cases about that file apply.
        labels: the field of a row that is to be learnt, dotted where fields are nested (`messages.-1.content`); with it
            and with a validation set that can be told (`held_out`, or a setting for it), the cases about validation
            apply.
        settings_name: a name for the settings file, whose suffix says its form: `.json`, `.toml`, `.yaml`.
        preload: modules of the team's own that the program imports late, in `train`: imported once, in the process from
            which all runs are forked. Libraries need not be named; what the undisturbed run imports is found.
        logs: patterns of files that it writes to the output folder whatever comes of the run, beside those of the usual
            loggers (`outcome.LOGS`): no checkpoint, and not half of one.
    """

    config: ClassVar[Any] = None
    production: ClassVar[Mapping[str, object]] = {}
    tiny: ClassVar[Mapping[str, object]] = {}
    overfit: ClassVar[Mapping[str, object]] = {}
    overfit_below: ClassVar[float | None] = None
    sample: ClassVar[str | Path | None] = None
    rows: ClassVar[int] = 64
    fields: ClassVar[Mapping[str, str]] = {}
    queue: ClassVar[Queue | None] = None
    labels: ClassVar[str | None] = None
    command: ClassVar[str | None] = None
    settings_name: ClassVar[str] = "settings.json"
    preload: ClassVar[Sequence[str]] = ()
    logs: ClassVar[Sequence[str]] = ()

    def train(self, run: Run) -> int | None:
        """Run the training program once. The one method that every trainer writes.

        Returns:
            None, or the exit code that the program's own `main` returns.
        """
        raise TypeError(f"{type(self).__name__} has no train(self, run): write the one method that runs the program")

    def make_data(self, folder: Path, rows: int, seed: int) -> Path | None:
        """Put `rows` rows of data into `folder`; the path that `run.data` will be.

        By default a piece of `sample`. A trainer that makes its own data overrides this; the same seed must
        make the same data.

        Raises:
            OSError, ValueError: the sample is missing, unreadable or of a kind that is not known.
        """
        return None if self.sample is None else samples.cut_sample(Path(self.sample), folder, rows)

    def make_longest(self, folder: Path, rows: int, length: int, seed: int) -> Path | None:
        """Put `rows` rows into `folder`, each as long as the program reads them at most; the path of the data.

        GPU memory is predicted with them: what decides is the batch in which the longest rows come together, and a
        sample seldom has it. By default the rows of `make_data`, their texts repeated until none is short; the
        program cuts them at its own maximal length. A trainer whose rows have no text overrides this.

        Args:
            folder: an existing one.
            rows: how many.
            length: the program's maximal length: tokens, nodes, whatever it counts.
            seed: the same makes the same data.

        Raises:
            OSError, ValueError: the sample is missing, unreadable or of a kind that is not known.
        """
        data = self.make_data(folder, rows, seed)
        return None if data is None else longest.stretch_rows(data, rows, length)

    def make_varied(self, folder: Path, rows: int, length: int, seed: int) -> Path | None:
        """Put `rows` rows of all lengths into `folder`, from short up to `length`; the path of the data.

        With them, GPU memory is looked at over many steps: batches that change their size fragment it. Else as
        `make_longest`.

        Raises:
            OSError, ValueError: the sample is missing, unreadable or of a kind that is not known.
        """
        data = self.make_data(folder, rows, seed)
        return None if data is None else longest.vary_rows(data, rows, length)

    def make_model(self, folder: Path) -> Path | None:
        """Put a small base model into `folder`; the path, for the setting that names the model.

        It is damaged on purpose, so a copy of the one that is launched would do, if it is small. By default None:
        then the model of the tiny or the production settings is copied, where it is a local path.
        """
        return None

    def checkpoints(self, output_dir: Path) -> list[Path]:
        """The finished checkpoints in an output folder, oldest first. By default found by their names."""
        return checkpoints.find(output_dir)

    def resume_from(self, output_dir: Path) -> Path | None:
        """What `run.resume_from` is when the harness carries on in `output_dir`.

        By default the newest checkpoint. A program that chooses for itself returns `output_dir`.
        """
        found = self.checkpoints(output_dir)
        return found[-1] if found else None

    def held_out(self, data: Path) -> Sequence[int] | None:
        """The rows of `data` that the program validates on, counted from 0; other labels must not change them.

        By default None: it holds none out, but has a setting for its validation data (`settings.ROLES`), or
        does not validate.
        """
        return None

    def validation_losses(self, output_dir: Path) -> Mapping[int, float]:
        """The validation losses that a run told of: optimizer step to loss. By default those of `transformers`."""
        return validation.losses(output_dir)

    def best_checkpoint(self, output_dir: Path) -> Path | None:
        """The checkpoint that a run kept as its best. By default the one that `transformers` names."""
        return validation.best(output_dir)


def spec_of(trainer: object) -> TrainerSpec:
    """What a trainer is known by in another process: `module:Class`, or the table of a command line.

    Raises:
        TypeError: it is neither a `Trainer` subclass, `module:Class`, nor a table.
    """
    if isinstance(trainer, type) and issubclass(trainer, Trainer):
        return f"{trainer.__module__}:{trainer.__qualname__}"
    if isinstance(trainer, str):
        return trainer
    if isinstance(trainer, os.PathLike):
        return os.fsdecode(trainer)
    if isinstance(trainer, Mapping):
        return dict(trainer)
    raise TypeError(f"a trainer is a Trainer subclass or 'module:Class', not {trainer!r}")
