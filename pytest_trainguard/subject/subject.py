"""A trainer under test, seen from pytest: its warm server, what it says of itself, its data, its undisturbed run.

Expensive things happen here, once each: the base server, one fork of it for each trainer, one description, one
piece of data, one undisturbed run.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from pytest_trainguard.contract import settings
from pytest_trainguard.contract.outcome import Leftover, Outcome
from pytest_trainguard.contract.settings import Field
from pytest_trainguard.faults import Fault
from pytest_trainguard.launch import child
from pytest_trainguard.launch.client import LaunchError, Running, Server
from pytest_trainguard.recorder.timeline import Recording
from pytest_trainguard.verdicts.errors import CannotJudge

STEPS = 8  # optimizer steps of an ordinary run
SAVE_EVERY = 2  # steps between its checkpoints, where the trainer has a setting for that
SEED = 0
OF_THE_TRAINER = frozenset(  # of the functions in `jobs`, those that are told which trainer it is
    {"describe", "make_data", "make_model", "make_rows", "own_checkpoints", "resume_point", "settings_file",
     "held_out", "validated"}
)  # fmt: skip
WARM = 6  # trainers whose servers are kept at the same time
TMP_LENGTH = 70  # characters; a socket's name has at most 107, of which multiprocessing adds 32


@dataclass
class Request:
    """One run that is asked for; see `Guard.run` for what each part means."""

    did: str
    steps: int = STEPS
    settings: dict[str, Any] = field(default_factory=dict)
    data: Path | None = None
    output_dir: Path | None = None
    resume: bool = False
    resume_from: Path | None = None
    settings_file: Path | None = None
    fault: Fault | None = None
    time_limit: float | None = None
    memory_limit: int | None = None
    small_disk: int | None = None
    ordinary_user: bool = False
    grace: float = 2.0
    env: dict[str, str] = field(default_factory=dict)
    recorder: bool = True
    census: bool = False
    repeats: int = 1
    tell_modules: bool = False


class Started:
    """A run in progress: `pid`, `signal`, and its `outcome` at the end."""

    def __init__(
        self,
        running: Running,
        request: Request,
        folder: Path,
        output_dir: Path,
        before: dict[str, tuple[int, str]] | None = None,
    ):
        """`before`: what `output_dir` held ahead of the start; None where the caller looks at it by itself."""
        self._running, self._request, self.folder = running, request, folder
        self.output_dir, self._before = output_dir, before
        self.pid = running.pid

    def signal(self, signum: int, *, group: bool = False) -> None:
        """Send the run a real signal; with `group`, its whole process group."""
        self._running.signal(signum, group=group)

    def kill(self) -> None:
        """End the run and all that it started, where its outcome is of no interest."""
        self._running.kill()

    @property
    def recording(self) -> Recording:
        """What it recorded so far."""
        return Recording.read(self.folder)

    def outcome(self) -> Outcome:
        """Wait for the end.

        Raises:
            CannotJudge: the run could not be followed to its end.
        """
        try:
            ended = self._running.wait()
        except LaunchError as error:
            raise CannotJudge(str(error)) from error
        stack = self.folder / child.STACK_FILE
        return Outcome(
            did=self._request.did,
            exit=ended["exit"],
            output=ended["output"],
            output_bytes=ended["output_bytes"],
            recording=self.recording,
            output_dir=self.output_dir,
            before=self._before or {},
            after={} if self._before is None else snapshot(self.output_dir),
            seconds=ended["seconds"],
            peak_rss=ended["peak_rss"],
            leftovers=tuple(Leftover(**left) for left in ended["leftovers"]),
            timed_out=ended["timed_out"],
            stack=_without_harness(stack.read_text(errors="replace")) if stack.exists() else "",
            pid=ended["pid"],
            small_disk=ended["small_disk"],
        )


class Launchpad:
    """The base server and the folders of one pytest process."""

    def __init__(
        self, root: Path, folder: Path, paths: list[str], time_limit: float, cache: pytest.Cache | None = None,
        shared: Path | None = None,
    ):  # fmt: skip
        """`shared`: a folder that the session's other processes have too; see `shared.once`."""
        self.root, self.folder, self.paths, self.time_limit = root, folder, paths, time_limit
        self.shared = shared
        self._cache = cache
        self._subjects: dict[str, Subject] = {}
        self._warm: list[Subject] = []  # those with a server, the last used at the end
        self._tmps = 0
        self._server_tmp = Path(self.new_tmp())

    @cached_property
    def server(self) -> Server:
        """The base server, started when the first run needs it."""
        try:
            self._server_tmp.mkdir(parents=True, exist_ok=True)
            return Server.start(self.root, self.paths, self.folder / "server.log", self._server_tmp)
        except LaunchError as error:
            raise CannotJudge(str(error).splitlines()[0], str(error)) from error

    def subject(self, name: str, spec: object) -> Subject:
        """The trainer that `spec` is, loaded once; names need not be unique."""
        key = repr(spec)
        if key not in self._subjects:
            self._subjects[key] = Subject(self, name, spec)
        return self._subjects[key]

    def keep_warm(self, subject: Subject) -> None:
        """Have a subject's server stay; of the others, those used last. Each takes memory of its own."""
        if subject in self._warm:
            self._warm.remove(subject)
        self._warm.append(subject)
        if len(self._warm) > WARM:
            self._warm.pop(0).close()

    def recalled(self, spec: object) -> list[str]:
        """The libraries that a trainer's undisturbed run imported in an earlier session."""
        return list(self._cache.get(_cache_key(spec), [])) if self._cache else []

    def remember(self, spec: object, libraries: list[str]) -> None:
        """Keep them for later sessions, whose server then has them before the first run."""
        if self._cache:
            self._cache.set(_cache_key(spec), libraries)

    def new_tmp(self) -> str:
        """A name for a temporary folder: of a run, whose supervisor removes it, or of the servers.

        Short, since sockets live in such folders, and the name of one may have a little over 100 characters.
        """
        self._tmps += 1
        path = self.folder / "t" / str(self._tmps)
        return str(path) if len(str(path)) <= TMP_LENGTH else tempfile.mkdtemp(prefix="tg-")

    def close(self) -> None:
        """End every server, and remove what the runs left; runs end with their connections. Closing twice is fine."""
        self._warm.clear()
        while self._subjects:
            self._subjects.popitem()[1].close()
        server = self.__dict__.pop("server", None)
        if server is not None:
            server.close()
        for folder in (self._server_tmp, self.folder):
            shutil.rmtree(folder, ignore_errors=True)


class Subject:
    """One trainer: start runs of it with `start`, ask it things with `call`."""

    def __init__(self, pad: Launchpad, name: str, spec: object):
        self.pad, self.name, self.spec = pad, name, spec
        self.folder = Path(tempfile.mkdtemp(prefix="".join(filter(str.isalnum, name))[:20] + "-", dir=pad.folder))
        self.kept: dict[str, Any] = {}  # what a probe found out about it and need not find out again
        self._server: Server | None = None
        self._libraries: list[str] = []
        self._runs = 0
        self._broken = ""

    @property
    def server(self) -> Server:
        """A warm server of the trainer's own, with its module imported.

        Raises:
            CannotJudge: its module cannot be imported.
        """
        if self._server is None:
            self._server = self._warmed()
        self.pad.keep_warm(self)
        return self._server

    def _warmed(self) -> Server:
        self._raise_if_broken()
        server = self.pad.server.fork()
        try:
            error = server.load(self._libraries or self.pad.recalled(self.spec), self.spec)
        except BaseException:  # Ctrl-C while it is being imported
            server.close()
            raise
        if error:
            server.close()
            raise self._break(f"{self.name} cannot be loaded: {error.strip().splitlines()[-1]}", error)
        return server

    def _break(self, reason: str, evidence: str) -> CannotJudge:
        """Note that nothing can be said of this trainer; the error to raise, with the evidence this once."""
        self._broken = reason
        return CannotJudge(reason, evidence)

    def _raise_if_broken(self) -> None:
        if self._broken:
            raise CannotJudge(self._broken)

    def close(self) -> None:
        """End this trainer's server. Runs in progress go on; for the next one there is a new server."""
        if self._server is not None:
            self._server.close()
            self._server = None

    @cached_property
    def description(self) -> dict[str, Any]:
        """What the trainer says of itself; see `jobs.describe`."""
        described: dict[str, Any] = self.call("describe")
        return described

    @cached_property
    def fields(self) -> list[Field]:
        """The fields of its settings type."""
        return [Field(**{**item, "choices": tuple(item["choices"])}) for item in self.description["fields"]]

    def role(self, name: str) -> Field | None:
        """The setting that plays a role; see `settings.ROLES`."""
        return settings.role(name, self.fields, self.description["roles"])

    def production(self, field: Field) -> Any:
        """A setting's value as it will be launched."""
        value = settings.value_at(self.description["production"], field.path)
        return field.default if value is None else value

    @cached_property
    def base_settings(self) -> dict[str, Any]:
        """The tiny settings, with checkpoints often enough for a short run."""
        values = settings.merge(self.description["production"], self.description["tiny"])
        saving = self.role("save_every")
        return settings.merge(values, {saving.path: SAVE_EVERY}) if saving else values

    @cached_property
    def data(self) -> Path | None:
        """A piece of the trainer's data.

        Raises:
            CannotJudge: the sample is missing or unreadable.
        """
        return self.make_data(self.folder / "data", self.description["rows"])

    def make_data(self, folder: Path, rows: int, seed: int = SEED) -> Path | None:
        """Have the trainer make `rows` rows of data in `folder`."""
        made = self.call("make_data", folder=str(folder), rows=rows, seed=seed)
        if made["error"]:
            raise CannotJudge(f"{self.name} has no data: {made['error']}", made["traceback"])
        return Path(made["path"]) if made["path"] else None

    def call(self, function: str, **arguments: Any) -> Any:
        """Have a function of `launch.jobs` answered in a process that has the trainer loaded.

        Raises:
            CannotJudge: it raised; the message is its last line.
        """
        if function in OF_THE_TRAINER:
            arguments["trainer"] = self.spec
        result, ended = self.perform(f"pytest_trainguard.launch.jobs:{function}", arguments, Request(did=function))
        if ended["exit"] != 0:
            words = ended["output"].strip().splitlines() or [f"exit {ended['exit']}"]
            raise CannotJudge(f"{self.name}: {function}: {words[-1]}", ended["output"])
        return result

    def perform(self, function: str, arguments: dict[str, Any], request: Request) -> tuple[Any, dict[str, Any]]:
        """Have a function, `module:name`, called in a process that has the trainer loaded, with nothing recorded.

        Returns:
            what it returned, None where the process did not come that far; and how the process ended.

        Raises:
            CannotJudge: the process could not be followed to its end.
        """
        folder = self._new_folder(function.rpartition(":")[2])
        job = {"kind": "call", "function": function, "arguments": arguments}
        try:
            ended = self.server.run(self._envelope(job, folder, request)).wait()
        except LaunchError as error:
            raise CannotJudge(f"{self.name}: {error}") from error
        written = folder / child.RESULT_FILE
        result = json.loads(written.read_text()) if written.exists() else None
        shutil.rmtree(folder, ignore_errors=True)
        return result, ended

    def start(self, request: Request) -> Started:
        """Start a run and do not wait for it."""
        folder = self._new_folder("run")
        disk = folder / "disk" if request.small_disk else None
        output_dir = (disk or folder) / "output"
        output_dir.mkdir(parents=True)
        if request.output_dir is not None:
            if disk is None:
                output_dir.rmdir()
                output_dir = request.output_dir
            else:
                shutil.copytree(request.output_dir, output_dir, dirs_exist_ok=True, symlinks=True)
        job = {
            "kind": "train",
            "trainer": self.spec,
            "settings": settings.merge(self.base_settings, request.settings),
            "data": str(request.data or self.data or ""),
            "output_dir": str(output_dir),
            "max_steps": request.steps,
            "seed": SEED,
            "resume": request.resume,
            "resume_from": str(request.resume_from or ""),
            "settings_file": str(request.settings_file or ""),
            "fault": request.fault.as_json() if request.fault else None,
            "recorder": request.recorder,
            "census": request.census,
            "repeats": request.repeats,
            "tell_modules": request.tell_modules,
        }
        before = snapshot(output_dir)  # ahead of the start: a run may write at once
        return Started(self._launch(job, request, folder, disk), request, folder, output_dir, before)

    def start_command(self, request: Request, argv: list[str]) -> Started:
        """Start a command of the trainer's, which works in `request.output_dir`; its caller looks at that."""
        assert request.output_dir is not None
        job = {
            "kind": "command",
            "argv": argv,
            "output_dir": str(request.output_dir),
            "fault": request.fault.as_json() if request.fault else None,
        }
        folder = self._new_folder("command")
        return Started(self._launch(job, request, folder), request, folder, request.output_dir)

    def _launch(self, job: dict[str, Any], request: Request, folder: Path, disk: Path | None = None) -> Running:
        try:
            return self.server.run(self._envelope(job, folder, request, disk))
        except LaunchError as error:
            raise CannotJudge(f"{self.name}: {error}") from error

    def _new_folder(self, name: str) -> Path:
        self._runs += 1
        folder = self.folder / f"{self._runs:04}-{name}"
        folder.mkdir(parents=True)
        return folder

    def _envelope(
        self, job: dict[str, Any], folder: Path, request: Request, disk: Path | None = None
    ) -> dict[str, Any]:
        return {
            "job": job,
            "cwd": str(self.pad.root),
            # Behaviour is judged on the CPU, also where there is a GPU.
            "env": {"CUDA_VISIBLE_DEVICES": "", **request.env},
            "folder": str(folder),
            "tmp": self.pad.new_tmp(),
            "time_limit": request.time_limit or self.pad.time_limit,
            "memory_limit": request.memory_limit,
            "grace": request.grace,
            "ordinary_user": request.ordinary_user,
            "disk": {"folder": str(disk), "size": request.small_disk} if disk else None,
        }

    @cached_property
    def reference(self) -> Outcome:
        """The undisturbed run that everything else is held against.

        What it imports is loaded into the warm server, for all runs after it.

        Raises:
            CannotJudge: it fails, so that nothing can be said of disturbed ones.
        """
        self._raise_if_broken()
        started = self.start(Request(did="trained undisturbed", tell_modules=True))
        outcome = started.outcome()
        problem = _what_is_wrong_with(outcome)
        if problem:
            said = (outcome.stack if outcome.timed_out else outcome.last_words).splitlines()
            detail = f" ({said[-1]})" if said and outcome.exit != 0 and not outcome.timed_out else ""
            raise self._break(f"{self.name}: {problem}{detail}", outcome.output[-4000:] + outcome.stack)
        modules = started.folder / child.MODULES_FILE
        if modules.exists():
            libraries = self._libraries = json.loads(modules.read_text())["libraries"]
            if set(libraries) - set(self.pad.recalled(self.spec)):
                self.server.load(libraries, None)
                self.pad.remember(self.spec, libraries)
        return outcome

    @cached_property
    def second_reference(self) -> Outcome:
        """A second undisturbed run: whether it equals the first tells whether equality says anything."""
        return self.start(Request(did="trained undisturbed again")).outcome()

    @cached_property
    def own_modules(self) -> list[Path]:
        """The trainer's own source files: what the undisturbed run imported from inside the project."""
        self.reference  # noqa: B018 (it writes them down)
        first = next(self.folder.glob(f"*-run/{child.MODULES_FILE}"), None)
        return [Path(path) for path in json.loads(first.read_text())["own"]] if first else []


def _what_is_wrong_with(outcome: Outcome) -> str | None:
    """Why disturbed runs cannot be held against this undisturbed one, if they cannot."""
    taken = len(outcome.recording.steps)
    if outcome.exit != 0 or outcome.timed_out:
        return f"the undisturbed run fails: {outcome.how}"
    if not outcome.output_dir.exists():
        return "the undisturbed run removes its own output folder (run.output_dir): what it was to leave there is lost"
    if not taken:
        return "the undisturbed run takes no optimizer step that torch knows of"
    if not outcome.recording.finite:
        return "the undisturbed run has a loss that is not finite"
    if taken < STEPS and not outcome.recording.ended:
        return f"the undisturbed run breaks off, os._exit(0), after {taken} of {STEPS} optimizer steps"
    return None


def _cache_key(spec: object) -> str:
    return f"trainguard/libraries-{hashlib.blake2b(repr(spec).encode(), digest_size=8).hexdigest()}"


def snapshot(folder: Path) -> dict[str, tuple[int, str]]:
    """Everything below a folder: a file's path from there to its size and content hash, a link's to where it leads.

    A folder's path ends in a slash.
    """
    found = {}
    for root, folders, names in os.walk(folder):
        for name in folders:
            path = Path(root, name)
            found[f"{path.relative_to(folder)}/"] = (0, _leads_to(path))
        for name in names:
            path = Path(root, name)
            if path.is_symlink():
                found[str(path.relative_to(folder))] = (0, _leads_to(path))
            elif path.is_file():
                content = path.read_bytes()
                digest = hashlib.blake2b(content, digest_size=16).hexdigest()
                found[str(path.relative_to(folder))] = (len(content), digest)
    return found


def _leads_to(path: Path) -> str:
    return f"-> {os.readlink(path)}" if path.is_symlink() else ""


def _without_harness(stack: str) -> str:
    """The stacks without the harness's own frames."""
    return "\n".join(line for line in stack.splitlines() if "/pytest_trainguard/" not in line and "<frozen" not in line)
