"""One trainer's warm server: processes are started from it, and functions called in them."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from pytest_trainguard.adapters.command import show_help
from pytest_trainguard.adapters.known import HELP, describe_known, faults_in_known, needs_help, read_known
from pytest_trainguard.contract.trainer import Trainer, TrainerSpec
from pytest_trainguard.launch import calls, child
from pytest_trainguard.launch.client import LaunchError, Running, Server
from pytest_trainguard.launch.protocol import Call, Command, Ended, Launch, ProcessRequest, Train
from pytest_trainguard.subject import room
from pytest_trainguard.subject.servers import HASH_SEEDS, Servers
from pytest_trainguard.verdicts.errors import CannotJudge

# Help is laid out in wide lines, without boxes and colours.
HELP_ENVIRONMENT = {"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1", "TYPER_USE_RICH": "0"}

P = ParamSpec("P")
R = TypeVar("R")


class TrainerServer:
    """A server with a trainer's module imported, forked from the base server when it is first needed.

    Attributes:
        name: the trainer's.
        folder: for its runs, one folder each.
        libraries: that it loads ahead of its runs.
        settings_told: how a command is given its settings, in a few words; empty of any other trainer.
        mistake: what the team wrote and has to mend before anything can be judged, in one line; empty where nothing is.
    """

    def __init__(
        self, servers: Servers, name: str, spec: TrainerSpec, hash_seed: int = HASH_SEEDS[0],
        env: Mapping[str, str] | None = None,
    ):  # fmt: skip
        """`hash_seed`: see `Servers.base`; `env` is set before the trainer's module is imported."""
        self._hash_seed, self._env = hash_seed, env or {}
        self.name, self._given, self._servers = name, spec, servers
        self.folder = Path(tempfile.mkdtemp(prefix="".join(filter(str.isalnum, name))[:20] + "-", dir=servers.folder))
        self._server: Server | None = None
        self.libraries = servers.recall_libraries(spec)
        self._folders = 0
        self._broken = ""
        self.mistake = self.settings_told = ""

    @property
    def pid(self) -> int:
        """Its process id. Raises as `launch`."""
        return self._warm_server().pid

    @property
    def given(self) -> TrainerSpec:
        """What the team wrote: a class's name, or a command's table as it stands. The program is not asked anything."""
        return self._given

    @cached_property
    def spec(self) -> TrainerSpec:
        """What the trainer is known by in another process: a command's table with what its `--help` said.

        The program is asked once, and nothing is trained.

        Raises:
            CannotJudge: the table does not fit what the program says of its settings.
        """
        table, root = self._given, self._servers.root
        if isinstance(table, str) or HELP in table or not needs_help(table, root):
            return table
        ended = ask_for_help(self, str(table["command"]))
        told = {**table, HELP: ended.output}
        try:
            known = read_known(told, root)
            wrong = faults_in_known(told, known)
        except (OSError, ValueError) as error:
            wrong = f"cannot be loaded: {error}"
        if wrong:
            said = ended.output.strip().splitlines() if ended.exit else []
            last = f" (--help ended with exit {ended.exit}: {said[-1].strip()[:300]})" if said else ""
            raise self.refuse(f"{self.name}: {wrong}{last}", ended.output[-4000:])
        self.settings_told = describe_known(known)
        return told

    def _warm_server(self) -> Server:
        if (
            self._server is not None and not self._server.alive
        ):  # ended by the kernel, by somebody, with the base server
            self.close()
        if self._server is None:
            self._server = self._fork()
        self._servers.keep_warm(self)
        return self._server

    def _fork(self) -> Server:
        self.require_sound()
        server = self._servers.base(self._hash_seed).fork()
        try:
            error = server.load(self.libraries, self._given, self._env)
        except BaseException:  # Ctrl-C while it is being imported
            server.close()
            raise
        if error:
            server.close()
            raise self.refuse(f"{self.name} cannot be loaded: {error.strip().splitlines()[-1]}", error)
        return server

    def give_up(self, reason: str, evidence: str) -> CannotJudge:
        """Note that nothing can be said of this trainer; the error to raise, with the evidence this once."""
        self._broken = reason
        return CannotJudge(reason, evidence)

    def refuse(self, mistake: str, evidence: str = "") -> CannotJudge:
        """As `give_up`, for what the team wrote and has to mend: it makes the session a usage error."""
        self.mistake = mistake
        return self.give_up(mistake, evidence)

    def require_sound(self) -> None:
        """Nothing is known that keeps this trainer from being judged.

        Raises:
            CannotJudge: something is; with the reason that `give_up` was given.
        """
        if self._broken:
            raise CannotJudge(self._broken)

    def load_libraries(self, libraries: Sequence[str]) -> None:
        """Have the server import what a run imported, so that later ones need not; in later sessions from the start."""
        new = [name for name in libraries if name not in set(self.libraries)]
        if new:
            self.libraries += new
            self._warm_server().load(libraries, None)
            self._servers.remember_libraries(self._given, libraries)

    def close(self) -> None:
        """End this trainer's server. Runs in progress go on; for the next one there is a new server."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def new_folder(self, name: str) -> Path:
        """A folder for one process."""
        self._folders += 1
        folder = self.folder / f"{self._folders:04}-{name}"
        folder.mkdir(parents=True)
        return folder

    def launch(self, job: Train | Call | Command, folder: Path, disk: Path | None = None) -> Running:
        """Start a process and do not wait for it.

        Raises:
            CannotJudge: it was given up, its module cannot be imported, no process can be started, or there is no disk
                space.
        """
        self.require_sound()
        if room.find_free(folder) < room.LEAST_FREE:
            raise CannotJudge(room.tell_full(self._servers.folder))
        limit = job.request.time_limit or self._servers.time_limit
        try:
            return self._warm_server().run(
                Launch(job, self._servers.root, folder, self._servers.new_tmp(), limit, disk)
            )
        except LaunchError as error:
            raise CannotJudge(f"{self.name}: {error}") from error

    def ask(self, function: Callable[Concatenate[Trainer, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What a function about the trainer, which is given it loaded, returns; see `launch.questions`.

        Raises:
            CannotJudge: it raised; the message is its last line.
        """
        request = ProcessRequest(function.__name__)
        return self._answered(function, calls.call_of(request, function, self.spec, (None, *args), kwargs))

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What a function returns in a process that has torch and the trainer loaded. Raises as `ask`."""
        return self._answered(function, calls.call_of(ProcessRequest(function.__name__), function, None, args, kwargs))

    def _answered(self, function: Callable[..., R], call: Call) -> R:
        result, ended = self._perform(function, call)
        if result and ended.exit == 0:
            return result[0]
        words = ended.output.strip().splitlines() or [f"exit {ended.exit}"]
        raise CannotJudge(f"{self.name}: {function.__name__}: {words[-1]}", ended.output)

    def perform(
        self, request: ProcessRequest, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> tuple[R | None, Ended]:
        """Call a function within limits, with nothing recorded.

        Returns:
            what it returned, None where the process did not come that far; and how the process ended.

        Raises:
            CannotJudge: the process could not be followed to its end.
        """
        result, ended = self._perform(function, calls.call_of(request, function, None, args, kwargs))
        return (result[0] if result else None), ended

    def _perform(self, function: Callable[..., R], call: Call) -> tuple[tuple[R] | None, Ended]:
        folder, kills = self.new_folder(function.__name__), room.count_oom_kills()
        try:
            ended = self.launch(call, folder).wait()
        except LaunchError as error:
            short = room.find_shortage(folder, -signal.SIGKILL, str(error), kills)
            raise CannotJudge(short or f"{self.name}: {error}") from error
        short = room.find_shortage(folder, ended.exit, ended.output, kills)
        if short:
            raise CannotJudge(short)
        written = folder / child.RESULT_FILE
        result = (calls.result_of(function, json.loads(written.read_text())),) if written.exists() else None
        shutil.rmtree(folder, ignore_errors=True)
        return result, ended


def ask_for_help(server: TrainerServer, command: str) -> Ended:
    """How a command ends that is asked for its `--help`, and what it prints; nothing is trained.

    Raises:
        CannotJudge: the process could not be followed to its end.
    """
    request = ProcessRequest("asked for its --help", env=HELP_ENVIRONMENT)
    return server.perform(request, show_help, command)[1]
