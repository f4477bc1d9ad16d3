"""Questions about a trainer, answered in a process that has it loaded; `TrainerServer.ask` is how pytest puts them.

The first parameter of each is the loaded trainer.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from pytest_trainguard.adapters.command import CommandTrainer, known_fields
from pytest_trainguard.adapters.handing_on import hands_on_all, takes_seed
from pytest_trainguard.adapters.mistakes import find_mistake
from pytest_trainguard.adapters.settings_files import write_settings
from pytest_trainguard.contract import settings
from pytest_trainguard.contract.trainer import Trainer
from pytest_trainguard.contract.validation import Validated
from pytest_trainguard.launch.protocol import Description, MadeData


def describe(trainer: Trainer) -> Description:
    """What the trainer says of itself."""
    return Description(
        production=dict(trainer.production),
        tiny=dict(trainer.tiny),
        overfit=dict(trainer.overfit),
        overfit_below=trainer.overfit_below,
        fields=known_fields(trainer),
        roles=dict(trainer.fields),
        rows=trainer.rows,
        labels=trainer.labels,
        command=trainer.command,
        settings_name=trainer.settings_name,
        queue=trainer.queue,
        own_checkpoints=getattr(trainer.checkpoints, "__func__", None) is not Trainer.checkpoints,
        logs=tuple(trainer.logs),
        resumes=not isinstance(trainer, CommandTrainer) or trainer.resumes,
        takes_path=not isinstance(trainer, CommandTrainer) or trainer.takes_path,
        takes_any_name=hands_on_all(trainer),
        takes_seed=takes_seed(trainer),
        mistake=find_mistake(trainer),
    )


def make_data(trainer: Trainer, folder: Path, rows: int, seed: int) -> MadeData:
    """Have the trainer put data into `folder`."""
    return _make(folder, lambda: trainer.make_data(folder, rows, seed))


def make_longest(trainer: Trainer, folder: Path, rows: int, length: int, seed: int) -> MadeData:
    """Have the trainer put rows of full length into `folder`."""
    return _make(folder, lambda: trainer.make_longest(folder, rows, length, seed))


def make_varied(trainer: Trainer, folder: Path, rows: int, length: int, seed: int) -> MadeData:
    """Have the trainer put rows of all lengths into `folder`."""
    return _make(folder, lambda: trainer.make_varied(folder, rows, length, seed))


def _make(folder: Path, make: Callable[[], Path | None]) -> MadeData:
    os.makedirs(folder, exist_ok=True)
    try:
        return MadeData(make())
    except (OSError, ValueError) as error:
        return MadeData(None, str(error), traceback.format_exc())


def make_model(trainer: Trainer, folder: Path) -> Path | None:
    """Have the trainer put a small base model into `folder`: its path, or None."""
    os.makedirs(folder, exist_ok=True)
    return trainer.make_model(folder)


def settings_file(trainer: Trainer, folder: Path, values: Mapping[str, object]) -> Path:
    """Write settings to a file in `folder`, in the form of the trainer's own settings file."""
    path = folder / trainer.settings_name
    known = trainer.config if isinstance(trainer.config, Mapping) else {}
    write_settings(path, settings.merge(known, values))
    return path


def held_out(trainer: Trainer, data: Path) -> list[int] | None:
    """The rows of the data that the trainer holds out for validation, or None."""
    rows = trainer.held_out(data)
    return None if rows is None else [int(row) for row in rows]


def validated(trainer: Trainer, output_dir: Path) -> Validated:
    """What a run told of its validations."""
    losses = sorted((int(step), float(loss)) for step, loss in trainer.validation_losses(output_dir).items())
    return Validated(dict(losses), trainer.best_checkpoint(output_dir))


def own_checkpoints(trainer: Trainer, output_dir: Path) -> list[Path]:
    """The checkpoints in an output folder, by the trainer's own way of finding them."""
    return list(trainer.checkpoints(output_dir))


def resume_point(trainer: Trainer, output_dir: Path) -> Path | None:
    """What the trainer is told to carry on from in an output folder: the folder, a checkpoint in it, or nothing."""
    return trainer.resume_from(output_dir)
