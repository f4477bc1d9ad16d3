"""What a run's process does once it is set up: train, or answer a question about the trainer."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import sys
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from pytest_trainguard.adapters import load_trainer
from pytest_trainguard.adapters.command import become, is_this_python, write_settings
from pytest_trainguard.contract import settings
from pytest_trainguard.contract.trainer import Run, Trainer
from pytest_trainguard.rows.suffixes import SAFETENSORS

RUN_VARIABLE = "TRAINGUARD_RUN"  # tells a subprocess of the run where its recording and its fault are


def train(job: dict[str, Any], folder: Path, *, disk: Path | None) -> int:
    """Run the trainer's program once, observed, with the job's fault in it.

    Returns:
        the exit code that the program asked for by returning one; 0 where it returned nothing.
    """
    trainer = load_trainer(job["trainer"])
    output_dir = Path(job["output_dir"])
    note = _note(job, folder, disk)
    if job["recorder"] and job["repeats"] == 1:
        observe(note)
    _seed(job["seed"])
    run = Run(
        settings=job["settings"],
        data=Path(job["data"]) if job["data"] else None,
        output_dir=output_dir,
        max_steps=job["max_steps"],
        seed=job["seed"],
        resume_from=_resume_point(trainer, job),
        config_type=trainer.config,
    )
    if job["settings_file"]:
        assert trainer.command is not None
        become(trainer.command, run, Path(job["settings_file"]))
        return 0
    if job["repeats"] > 1:
        return _train_repeatedly(trainer, run, job["repeats"], folder)
    code = trainer.train(run)
    return code if isinstance(code, int) else 0


def _train_repeatedly(trainer: Trainer, run: Run, times: int, folder: Path) -> int:
    """Several runs in this one process, each in a folder of its own; what memory is in use after each is recorded.

    Only that: the doors' observers hold on to a model's parameters, and would be taken for a leak.
    """
    from pytest_trainguard.recorder.census import census
    from pytest_trainguard.recorder.writer import Recorder

    recorder = Recorder(folder)
    for number in range(1, times + 1):
        _seed(run.seed)
        output_dir = run.output_dir / f"run-{number}"
        output_dir.mkdir()
        code = trainer.train(dataclasses.replace(run, output_dir=output_dir))
        if code:
            return code
        recorder.write("memory", run=number, **census())
    return 0


def run_command(job: dict[str, Any], folder: Path) -> NoReturn:
    """Go on as a command, in an interpreter of its own where that is Python's; what it starts is observed.

    Raises:
        OSError: there is no such program.
    """
    _note(job, folder, None)
    argv = job["argv"]
    program = sys.executable if is_this_python(argv[0]) else argv[0]
    os.execvp(program, [program, *argv[1:]])


def _note(job: dict[str, Any], folder: Path, disk: Path | None) -> dict[str, Any]:
    """Tell the Python processes below this one where the recording and the fault are."""
    note = {
        "folder": str(folder),
        "output_dir": job["output_dir"],
        "data": job.get("data") or None,
        "fault": job["fault"],
        "census": job.get("census", False),
        "disk": str(disk) if disk else None,
    }
    (folder / "run.json").write_text(json.dumps(note))
    os.environ[RUN_VARIABLE] = str(folder / "run.json")
    return note


def observe(note: dict[str, Any]) -> None:
    """Install the doors in this process, the recorder first, then the fault."""
    from pytest_trainguard.faults import Fault
    from pytest_trainguard.faults.inject import Injector
    from pytest_trainguard.recorder.doors import Doors, Observer
    from pytest_trainguard.recorder.writer import Recorder

    recorder = Recorder(Path(note["folder"]))
    observers: list[Observer] = [recorder]
    if note["fault"] and note["fault"]["kind"] == "gpus":
        from pytest_trainguard.faults import gpus

        gpus.pretend(recorder)
    if note["census"]:
        from pytest_trainguard.recorder.census import Census

        observers.append(Census(recorder))
    if note["fault"]:
        disk = Path(note["disk"]) if note["disk"] else None
        observers.append(Injector(Fault(**note["fault"]), recorder, disk))
    # Every file that is opened would be looked at: only where the fault waits for one.
    data = Path(note["data"]) if note["data"] and note["fault"] and note["fault"]["where"] == "read" else None
    Doors(Path(note["output_dir"]), observers, data).install()


def _resume_point(trainer: Trainer, job: dict[str, Any]) -> Path | None:
    if job["resume_from"]:
        return Path(job["resume_from"])
    return trainer.resume_from(Path(job["output_dir"])) if job["resume"] else None


def _seed(seed: int) -> None:
    """Seed every generator, as most programs do themselves; those that do not become repeatable all the same."""
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def describe(trainer: Any) -> dict[str, Any]:
    """What pytest has to know of a trainer, in plain values: pytest itself never imports its module."""
    loaded = load_trainer(trainer)
    kind = type(loaded)
    fields = settings.fields_of(loaded.config) if loaded.config is not None else []
    return {
        "production": dict(loaded.production),
        "tiny": dict(loaded.tiny),
        "overfit": dict(loaded.overfit),
        "fields": [{**field.__dict__, "choices": list(field.choices)} for field in fields],
        "roles": dict(loaded.fields),
        "rows": loaded.rows,
        "labels": loaded.labels,
        "command": loaded.command,
        "settings_name": loaded.settings_name,
        "queue": asdict(loaded.queue) if loaded.queue else None,
        "own_checkpoints": kind.checkpoints is not Trainer.checkpoints,
    }


def make_data(trainer: Any, folder: str, rows: int, seed: int) -> dict[str, Any]:
    """Have the trainer put data into `folder`: the path, or what went wrong in one line and its traceback."""
    os.makedirs(folder, exist_ok=True)
    try:
        path = load_trainer(trainer).make_data(Path(folder), rows, seed)
    except (OSError, ValueError) as error:
        return {"path": None, "error": str(error), "traceback": traceback.format_exc()}
    return {"path": str(path) if path else None, "error": None}


def make_rows(trainer: Any, method: str, folder: str, rows: int, length: int, seed: int) -> dict[str, Any]:
    """As `make_data`, of rows by length: `make_longest` or `make_varied`."""
    os.makedirs(folder, exist_ok=True)
    try:
        path = getattr(load_trainer(trainer), method)(Path(folder), rows, length, seed)
    except (OSError, ValueError) as error:
        return {"path": None, "error": str(error), "traceback": traceback.format_exc()}
    return {"path": str(path) if path else None, "error": None}


def settings_file(trainer: Any, folder: str, values: dict[str, Any]) -> str:
    """Write settings to a file in `folder`, in the form of the trainer's own settings file."""
    loaded = load_trainer(trainer)
    path = Path(folder) / loaded.settings_name
    known = loaded.config if isinstance(loaded.config, Mapping) else {}
    write_settings(path, settings.merge(known, values))
    return str(path)


def held_out(trainer: Any, data: str) -> list[int] | None:
    """The rows of the data that a trainer holds out for validation, or None."""
    rows = load_trainer(trainer).held_out(Path(data))
    return None if rows is None else [int(row) for row in rows]


def validated(trainer: Any, output_dir: str) -> dict[str, Any]:
    """What a run told of its validations: `losses` (pairs of step and loss), and the path of the `best` checkpoint."""
    loaded, folder = load_trainer(trainer), Path(output_dir)
    best = loaded.best_checkpoint(folder)
    losses = sorted((int(step), float(loss)) for step, loss in loaded.validation_losses(folder).items())
    return {"losses": losses, "best": str(best) if best else None}


def own_checkpoints(trainer: Any, output_dir: str) -> list[str]:
    """The checkpoints in an output folder, by a trainer's own way of finding them."""
    return [str(path) for path in load_trainer(trainer).checkpoints(Path(output_dir))]


def resume_point(trainer: Any, output_dir: str) -> str | None:
    """What a trainer is told to carry on from in an output folder: the folder, a checkpoint in it, or nothing."""
    path = load_trainer(trainer).resume_from(Path(output_dir))
    return str(path) if path else None


def negate_step_counts(checkpoints: list[str], within: str) -> dict[str, int]:
    """See `damage.checkpoints.negate_step_counts`."""
    from pytest_trainguard.damage import checkpoints as damage

    return damage.negate_step_counts(checkpoints, within)


def compare(first: str, second: str) -> dict[str, Any]:
    """Of two checkpoints: the `step` that is saved in the first, and whether they hold the `same` weights."""
    from pytest_trainguard.damage.checkpoints import read_step_count
    from pytest_trainguard.damage.weights import hold_same_weights

    return {"step": read_step_count(Path(first)), "same": hold_same_weights(Path(first), Path(second))}


def bad_tensors(files: list[str]) -> dict[str, str]:
    """The files among `files` that cannot be loaded, or hold a value that is not finite; path to what is wrong.

    Files are read as safetensors or with `torch.load(weights_only=True)`: never unpickled. A file of another
    kind that the restricted reader refuses (a pickled Python object) is not judged.
    """
    import pickle

    import torch

    found: dict[str, str] = {}
    for file in files:
        try:
            if file.endswith(SAFETENSORS):
                from safetensors.torch import load_file

                content: Any = load_file(file)
            else:
                content = torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            if os.path.getsize(file) == 0 or "Unsupported" not in str(error):
                found[file] = f"cannot be loaded ({_first_line(error)})"
            continue
        except Exception as error:
            found[file] = f"cannot be loaded ({_first_line(error)})"
            continue
        bad = _not_finite(content, "")
        if bad:
            found[file] = f"{bad} is not finite"
    return found


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _not_finite(value: Any, name: str) -> str | None:
    import torch

    if isinstance(value, torch.Tensor):
        return (name or "the tensor") if value.is_floating_point() and not value.isfinite().all() else None
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, inner in items:
        bad = _not_finite(inner, f"{name}.{key}" if name else str(key))
        if bad:
            return bad
    return None


def find_entries(files: list[str], names: list[str]) -> dict[str, dict[str, int]]:
    """See `damage.checkpoints.find_entries`."""
    from pytest_trainguard.damage import checkpoints as damage

    return damage.find_entries(files, names)


def set_entry(file: str, name: str, value: object, within: str) -> None:
    """See `damage.checkpoints.set_entry`."""
    from pytest_trainguard.damage import checkpoints as damage

    damage.set_entry(file, name, value, within)


def drop_entry(file: str, name: str, within: str) -> None:
    """See `damage.checkpoints.drop_entry`."""
    from pytest_trainguard.damage import checkpoints as damage

    damage.drop_entry(file, name, within)


def flip_bits(file: str) -> str:
    """See `damage.weights.flip_bits`."""
    from pytest_trainguard.damage import weights

    return weights.flip_bits(file)


def make_model(trainer: Any, folder: str) -> str | None:
    """Have the trainer put a small base model into `folder`: its path, or None."""
    os.makedirs(folder, exist_ok=True)
    path = load_trainer(trainer).make_model(Path(folder))
    return str(path) if path else None
