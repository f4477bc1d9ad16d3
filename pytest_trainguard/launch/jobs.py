"""What a run's process does once it is set up: train, observed and with a fault in it, or go on as a command."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_trainguard.adapters import load_trainer
from pytest_trainguard.adapters.command import CommandTrainer, become, goes_on_here, words_of
from pytest_trainguard.adapters.launchers import is_launcher, is_this_python
from pytest_trainguard.adapters.working_folder import furnish_alike
from pytest_trainguard.contract.trainer import Run, Trainer
from pytest_trainguard.launch import spare
from pytest_trainguard.launch.protocol import (
    NOTE_FILE,
    NOTE_VARIABLE,
    Command,
    RunNote,
    RunRequest,
    Train,
    from_json,
    to_json,
)

if TYPE_CHECKING:
    from pytest_trainguard.recorder.doors import Observer
    from pytest_trainguard.recorder.writer import Recorder


def train(job: Train, folder: Path, disk: Path | None) -> int:
    """Run the trainer's program once, observed, with the job's fault in it.

    Returns:
        the exit code that the program asked for by returning one; 0 where it returned nothing.
    """
    request, trainer = job.request, load_trainer(job.trainer)
    # Such runs are held against undisturbed ones; in all others nobody would look at the digests.
    states = request.states or request.resume or request.resume_from is not None
    note = RunNote(
        folder,
        job.run.output_dir,
        job.run.data,
        request.fault,
        request.census,
        disk,
        states,
        closely=request.closely,
        rows=request.rows,
        still=request.still,
        changes=request.changes,
    )
    leave_note(note)
    # Before anything is observed here: what a launcher starts is observed by itself.
    started = spare.fork_spare() if _goes_on_as_launcher(trainer, request) else None
    if request.recorder and request.repeats == 1:
        observe(note)
    _begin_generators_anew()
    if started is not None:
        become(started)
        return 0
    run = _complete(job.run, trainer, request)
    if request.settings_file:
        become(words_of(trainer, run, request.settings_file))
        return 0
    if request.repeats > 1:
        return _train_repeatedly(trainer, run, request.repeats, folder)
    code = trainer.train(run)
    return code if isinstance(code, int) else 0


def _goes_on_as_launcher(trainer: Trainer, request: RunRequest) -> bool:
    """Whether this process is to become a launcher, which starts the program that trains."""
    by_command = isinstance(trainer, CommandTrainer) or request.settings_file is not None
    return by_command and trainer.command is not None and is_launcher(shlex.split(trainer.command))


def _complete(run: Run, trainer: Trainer, request: RunRequest) -> Run:
    """The run with what only the loaded trainer tells: its settings type, and what to carry on from."""
    resume_from = run.resume_from
    if request.resume and resume_from is None:
        resume_from = trainer.resume_from(run.output_dir)
    return dataclasses.replace(run, config_type=trainer.config, resume_from=resume_from)


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
        if isinstance(trainer, CommandTrainer):
            furnish_alike(output_dir, run.output_dir)
        code = trainer.train(dataclasses.replace(run, output_dir=output_dir))
        if code:
            return code
        recorder.write("memory", run=number, **census())
    return 0


def run_command(job: Command, folder: Path) -> int:
    """Go on as a command. What trains in it, or in what it forks or starts, is observed.

    A Python program goes on in this process, which has the trainer's modules loaded; any other one by exec.

    Returns:
        0, where the program ends by returning.

    Raises:
        OSError: there is no such program.
    """
    note = RunNote(folder, job.output_dir, None, job.fault, forks=True)
    leave_note(note)
    argv = list(job.argv)
    if not goes_on_here(argv):
        program = sys.executable if is_this_python(argv[0]) else argv[0]
        os.execvp(program, [program, *argv[1:]])
    if "torch" in sys.modules:  # else nobody can train, here or in what is forked from here
        observe(note)
    _begin_generators_anew()
    become(argv)
    return 0


def leave_note(note: RunNote) -> None:
    """Tell the Python processes below this one where the recording and the fault are."""
    path = note.folder / NOTE_FILE
    path.write_text(json.dumps(to_json(note)))
    os.environ[NOTE_VARIABLE] = str(path)


def observe_as_noted(path: Path) -> None:
    """Observe this process as the note at a path says: what `startup/sitecustomize` does in a run's subprocesses."""
    observe(from_json(RunNote, json.loads(path.read_text())))


def observe(note: RunNote) -> None:
    """Install the doors in this process: who watches first, then the fault."""
    from pytest_trainguard.recorder.doors import Doors
    from pytest_trainguard.recorder.surroundings import Surroundings

    fault = note.fault
    recorder, observers = _make_observers(note)
    if fault and fault.kind == "gpus":
        from pytest_trainguard.faults import gpus

        gpus.pretend(recorder)
    if fault and fault.kind == "seeds":
        from pytest_trainguard.faults import seeds

        seeds.shift(recorder)
    if fault and fault.kind == "listing" and note.data is not None:
        from pytest_trainguard.faults import listings

        listings.turn_round(note.data, recorder)
    if note.still:
        from pytest_trainguard.faults import stillness

        stillness.turn_dropout_off()
    # Every file that is opened would be looked at: only where the fault waits for one.
    data = note.data if fault and fault.where == "read" and fault.kind != "listing" else None
    anew = (lambda: _make_observers(note)[1]) if note.forks else None
    Doors(note.output_dir, observers, data, anew).install()
    # All that the session's runs leave is below one folder.
    Surroundings(recorder.write, [note.output_dir, *note.folder.parents[:2]]).install()


def _make_observers(note: RunNote) -> tuple[Recorder, list[Observer]]:
    """Who stands at the doors of one process: the recorder, and all of them in their order."""
    from pytest_trainguard.faults.inject import Injector
    from pytest_trainguard.recorder.writer import Recorder

    states = None
    if note.states:
        from pytest_trainguard.recorder.states import States

        states = States()
    recorder, fault = Recorder(note.folder, states), note.fault
    observers: list[Observer] = [recorder] if states is None else [states, recorder]
    if note.census:
        from pytest_trainguard.recorder.census import Census

        observers.append(Census(recorder))
    if note.closely:
        from pytest_trainguard.recorder.averages import Averages
        from pytest_trainguard.recorder.close_look import CloseLook
        from pytest_trainguard.recorder.dependence import Dependence
        from pytest_trainguard.recorder.first_steps import FirstSteps
        from pytest_trainguard.recorder.lying import Lying
        from pytest_trainguard.recorder.measuring import Measuring
        from pytest_trainguard.recorder.misnamed import Misnamed
        from pytest_trainguard.recorder.pairing import Pairing
        from pytest_trainguard.recorder.rereading import Rereading
        from pytest_trainguard.recorder.rounding import Rounding
        from pytest_trainguard.recorder.saves import Saves
        from pytest_trainguard.recorder.supervision import Supervision
        from pytest_trainguard.recorder.traces import Traces

        look = CloseLook(recorder.write)
        observers += [
            look,
            Supervision(look),
            Pairing(look),
            Dependence(look, note.rows),
            Misnamed(look),
            Lying(look),
            Rereading(look),
            Rounding(look),
            Saves(look),
            Measuring(look),
            Averages(look),
            Traces(recorder.write),
            FirstSteps(recorder.write, max(1, len(note.changes))),
        ]
    if note.changes:
        from pytest_trainguard.faults.changed_batches import ChangedBatches

        observers.append(ChangedBatches(recorder.write, note.changes, note.rows))
    if fault and fault.kind != "listing":
        observers.append(Injector(fault, recorder, note.disk))
    return recorder, observers


def _begin_generators_anew() -> None:
    """Have every generator begin somewhere else than the server's, as in a process of its own: from the system's noise.

    A program that does not seed them is as little repeatable here as in production.
    """
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    if "torch" in sys.modules:
        # Those of GPUs begin with a fixed seed in each process, until the program seeds them.
        sys.modules["torch"].default_generator.seed()


def _seed(seed: int) -> None:
    """Seed every generator: of several runs in one process each is to be like the other."""
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)
