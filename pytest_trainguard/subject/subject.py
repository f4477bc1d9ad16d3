"""A trainer under test, seen from pytest: what it says of itself, its data, and the runs that are started of it."""

from __future__ import annotations

import contextlib
import filecmp
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from pytest_trainguard import folders
from pytest_trainguard.adapters.known import counts_epochs
from pytest_trainguard.adapters.tables import find_missing_program
from pytest_trainguard.adapters.working_folder import (
    TOLD,
    Place,
    choose_links,
    furnish,
    is_unbounded,
    sample_place,
    works_in_output,
)
from pytest_trainguard.contract import checkpoints, settings
from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.contract.trainer import Run, TrainerSpec
from pytest_trainguard.damage import data_files
from pytest_trainguard.isolation.policy import Reach
from pytest_trainguard.launch import questions
from pytest_trainguard.launch.protocol import RUN_STEPS, SEED, Command, Description, RunRequest, Train
from pytest_trainguard.subject.description import TrainerSettings
from pytest_trainguard.subject.findings import Findings
from pytest_trainguard.subject.servers import HASH_SEEDS, Servers
from pytest_trainguard.subject.snapshot import snapshot
from pytest_trainguard.subject.started import StartedRun
from pytest_trainguard.subject.trainer_server import TrainerServer
from pytest_trainguard.verdicts.errors import CannotJudge, NotApplicable

NO_STEPS = "give it an option for that, and write {max_steps} behind it in the command"


class Sealed(Exception):
    """A run was asked for of a trainer of which no more are started; the message is what was to be done to it."""


class Subject:
    """One trainer.

    Attributes:
        name: as it stands in test ids.
        root: the project's root.
        shared: a folder that the session's other processes have too; see `find_once`.
        server: asks it things.
        folder: of its runs.
        findings: what is known of it.
        sealed: no more runs are started of it: whoever asks for one is told so.
    """

    def __init__(self, servers: Servers, name: str, spec: TrainerSpec):
        self.name, self.root, self.shared = name, servers.root, servers.shared
        self.server = TrainerServer(servers, name, spec)
        self.folder = self.server.folder
        self.findings = Findings()
        self.sealed = False
        self._servers = servers
        self._written: set[str] = set()
        self._linked: list[Place] | None = None

    @cached_property
    def spec(self) -> TrainerSpec:
        """What it is known by in another process. Raises as `TrainerServer.spec`.

        Where a command counts epochs, and its table does not say how many optimizer steps one has, these are counted
        in a run of one epoch.
        """
        spec = self.server.spec
        if isinstance(spec, str) or not counts_epochs(spec) or "steps_per_epoch" in spec:
            return spec
        return {**spec, "steps_per_epoch": max(1, self._count_steps({**spec, "steps_per_epoch": RUN_STEPS}))}

    def _count_steps(self, spec: TrainerSpec) -> int:
        """The optimizer steps of a run of one epoch; 0 where it fails, as the undisturbed run will tell."""
        outcome = self._start(RunRequest("trained for one epoch"), spec).outcome()
        return len(outcome.recording.steps) if outcome.exit == 0 and not outcome.timed_out else 0

    @property
    def reach(self) -> Reach:
        """What is open to its runs of the world."""
        return self._servers.reach

    @property
    def apart(self) -> bool:
        """Whether runs side by side have a network and the machine's folders each for itself."""
        confined = self._servers.confined
        return confined is not None and confined.network == "namespace" and bool(confined.covered)

    def make_server(self, env: Mapping[str, str]) -> TrainerServer:
        """A server in which these environment variables were set before the trainer's module was imported."""
        return TrainerServer(self._servers, self.name, self.spec, env=env)

    @cached_property
    def second_server(self) -> TrainerServer:
        """For second starts: another interpreter, whose strings hash otherwise."""
        server = TrainerServer(self._servers, self.name, self.spec, HASH_SEEDS[1])
        server.libraries = self.server.libraries
        return server

    @cached_property
    def description(self) -> Description:
        """What the trainer says of itself.

        Raises:
            CannotJudge: it cannot be loaded, or something in it would be passed over.
        """
        missing = None if isinstance(self.server.spec, str) else find_missing_program(self.server.spec, self.root)
        if missing:
            raise self.server.refuse(f"{self.name}: {missing}")
        described = self.server.ask(questions.describe)
        if described.mistake:
            raise self.server.refuse(f"{self.name}: {described.mistake}")
        return described

    @cached_property
    def settings(self) -> TrainerSettings:
        """Its settings: fields, roles, values."""
        return TrainerSettings(self.description)

    @cached_property
    def data(self) -> Path | None:
        """A piece of the trainer's data.

        Raises:
            CannotJudge: the sample is missing or unreadable.
        """
        try:
            return self.make_data(self.folder / "data", self.description.rows)
        except CannotJudge as error:
            raise self.server.refuse(str(error), error.evidence) from None

    def close(self) -> None:
        """End its servers."""
        self.server.close()
        if "second_server" in self.__dict__:
            self.second_server.close()

    def make_data(self, folder: Path, rows: int, seed: int = SEED) -> Path | None:
        """Have the trainer make `rows` rows of data in `folder`. Raises as `data`."""
        made = self.server.ask(questions.make_data, folder, rows, seed)
        if made.error:
            raise CannotJudge(f"{self.name} has no data: {made.error}", made.traceback)
        return made.path

    def make_validation(self, folder: Path) -> Path | None:
        """Have the trainer make rows to validate on, in `folder`: others than those that it is trained on.

        Of a sample that is cut the first rows are trained on, and those behind them are these, where there are any.
        Raises as `data`.
        """
        rows = self.description.rows
        made = self.make_data(folder, rows, SEED + 1)
        if made is None or self.data is None or not made.is_file() or not filecmp.cmp(made, self.data, shallow=False):
            return made
        behind = None
        with contextlib.suppress(CannotJudge, NotApplicable):
            more = self.make_data(self.server.new_folder("more"), 2 * rows, SEED + 1)
            behind = data_files.rows_behind(more, folder, rows) if more else None
        return behind or made

    def find_checkpoints(self, output_dir: Path) -> list[Path]:
        """The finished checkpoints in an output folder, oldest first, found as the trainer finds them."""
        if self.description.own_checkpoints:
            return self.server.ask(questions.own_checkpoints, output_dir)
        return checkpoints.find(output_dir)

    def start(self, request: RunRequest) -> StartedRun:
        """Start a run and do not wait for it.

        Raises:
            Sealed: no more are to be started.
            NotApplicable: another number of steps is asked for than the usual one, and it cannot be told that.
        """
        self.require_open(request.did)
        if self.unbounded and request.steps != RUN_STEPS:
            raise NotApplicable(f"its command cannot be told a number of steps: {NO_STEPS}", NO_STEPS)
        return self._start(request, self.spec)

    def list_forms(self) -> list[str]:
        """How a command is given its settings, and where it is started, as far as there is something to be told."""
        return [told for told in (self.server.settings_told, TOLD if self.works_in_output else "") if told]

    @property
    def unbounded(self) -> bool:
        """Whether its command is told no number of steps."""
        return is_unbounded(self.server.given)

    @property
    def works_in_output(self) -> bool:
        """Whether its command names no output folder, and is started in it."""
        return works_in_output(self.server.given)

    def require_open(self, did: str) -> None:
        """Runs may still be started of it.

        Raises:
            Sealed: they may not.
        """
        if self.sealed:
            raise Sealed(did)

    def _start(self, request: RunRequest, spec: TrainerSpec) -> StartedRun:
        folder = self.server.new_folder("run")
        disk = folder / "disk" if request.small_disk else None
        output_dir = _output_dir(request.output_dir, folder, disk)
        run = Run(
            settings=settings.merge(self.settings.base, request.settings),
            data=request.data or self.data,
            output_dir=output_dir,
            max_steps=request.steps,
            seed=request.seed,
            resume_from=request.resume_from,
        )
        self.furnish(output_dir, run.data)
        before = snapshot(output_dir)  # ahead of the start: a run may write at once
        server = self.second_server if request.anew else self.server
        running = server.launch(Train(request, spec, run), folder, disk)
        small = request.small_disk is not None
        return StartedRun(running, request.did, folder, output_dir, before, self.description.logs, small, request.fault)

    def furnish(self, output_dir: Path, data: Path | None) -> None:
        """Have a program that is started in its output folder find there what it reads; nothing for any other.

        Args:
            output_dir: the folder.
            data: the run's, in the place of the sample where the program is not told of it.
        """
        spec = self.server.spec
        if works_in_output(spec):
            place = sample_place(spec, self.root)
            furnish(output_dir, self._links(place), (place, data) if place and data else None)

    def _links(self, sample: Path | None) -> list[Place]:
        """What of the project is linked into the output folder, where that is the working folder."""
        if self._linked is None:
            self._linked = choose_links(self.root, sample, self._written, self.folder)
        return self._linked

    def keep_from_project(self, outcome: Outcome) -> bool:
        """Whether a run, started in its output folder, wrote through a link to the project; such links are no more."""
        if not works_in_output(self.spec):
            return False
        inside = [one.path.relative_to(self.root) for one in outcome.elsewhere if self.root in one.path.parents]
        new = {path.parts[0] for path in inside} - self._written
        self._written |= new
        self._linked = None
        return bool(new)

    def start_command(self, command: Command) -> StartedRun:
        """Start a command of the trainer's; its caller looks at the folder that it works in. Raises as `start`."""
        self.require_open(command.request.did)
        folder = self.server.new_folder("command")
        running = self.server.launch(command, folder)
        return StartedRun(running, command.request.did, folder, command.output_dir, fault=command.fault)


def _output_dir(given: Path | None, folder: Path, disk: Path | None) -> Path:
    """The folder that a run is to write to: a new one, the one that was given, or that one's copy on a small disk."""
    if given is not None and disk is None:
        return given
    output_dir = (disk or folder) / "output"
    output_dir.mkdir(parents=True)
    if given is not None:
        folders.copy(given, output_dir)
    return output_dir
