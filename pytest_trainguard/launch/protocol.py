"""What crosses between pytest and a run: each message and each job as a frozen dataclass, and the way to JSON and back.

JSON and not pickle: what comes back passes through processes that a hostile trainer may have touched. Nothing here
imports torch, for pytest loads it.
"""

from __future__ import annotations

import functools
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from pytest_trainguard.contract.outcome import Leftover
from pytest_trainguard.contract.queues import Queue
from pytest_trainguard.contract.settings import Field
from pytest_trainguard.contract.trainer import Run, TrainerSpec
from pytest_trainguard.faults import Fault
from pytest_trainguard.isolation.policy import Confined, Elsewhere, Policy

RUN_STEPS = 8  # optimizer steps of an ordinary run
SEED = 0
NOTE_FILE = "run.json"  # in a run's folder; holds a `RunNote`
NOTE_VARIABLE = "TRAINGUARD_RUN"  # the environment variable with that file's path; `startup/sitecustomize` knows it
WANTED_PROCESSES = 24  # of one pytest process, its servers, supervisors and runs: a whole preflight went through so
_CLASS = "is"  # the key under which a dataclass's name stands in JSON

T = TypeVar("T")


@dataclass(frozen=True)
class ProcessRequest:
    """A process that is asked for, whatever it does.

    Attributes:
        did: what is done, in words; a finding begins with this.
        time_limit: seconds until it is ended; None for the session's own limit.
        memory_limit: bytes of its own over what is loaded already; mapped files do not count.
        small_disk: bytes of a file system of its own for the output folder.
        ordinary_user: file permissions apply to it, also where pytest runs as root.
        grace: seconds for processes that end after the run.
        env: environment variables, over those that there are.
    """

    did: str
    _: KW_ONLY
    time_limit: float | None = None
    memory_limit: int | None = None
    small_disk: int | None = None
    ordinary_user: bool = False
    grace: float = 2.0
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunRequest(ProcessRequest):
    """A training run that is asked for: what `Guard.run_all` takes, and what `Guard.run` makes of its options.

    Attributes:
        steps: optimizer steps in all, those before a resume included.
        settings: over the tiny ones; by dotted path where they are nested.
        data: what to train on; None for the trainer's own piece of data.
        output_dir: None for a new one.
        resume: carry on in `output_dir`.
        resume_from: carry on from this path, as it is.
        settings_file: the run is started by the trainer's command, with this file.
        fault: what goes wrong in it.
        census: memory in use is counted after each step.
        repeats: so many runs in one process, memory counted after each, nothing else recorded.
        recorder: what torch does is recorded.
        states: digests of its states are recorded with each step, and the norm of its gradients; those of a run that
            resumes are in any case.
        tell_modules: at its end it writes down which modules are loaded.
        anew: in an interpreter that was started anew, with another seed of its strings' hashes.
        closely: what a silent error shows in is recorded too (`recorder.close_look`).
        rows: of a batch, as the settings say; 0 where nobody knows.
        seed: what the program is to seed its generators with.
        still: no dropout is at work in it, whatever the program asks for.
        changes: what is done to the batches of each of its first steps (`faults.changed_batches`).
    """

    steps: int = RUN_STEPS
    settings: Mapping[str, object] = field(default_factory=dict)
    data: Path | None = None
    output_dir: Path | None = None
    resume: bool = False
    resume_from: Path | None = None
    settings_file: Path | None = None
    fault: Fault | None = None
    census: bool = False
    repeats: int = 1
    recorder: bool = True
    states: bool = False
    tell_modules: bool = False
    anew: bool = False
    closely: bool = False
    rows: int = 0
    seed: int = SEED
    still: bool = False
    changes: tuple[str, ...] = ()


class RunOptions(TypedDict, total=False):
    """The options of `Guard.run`: those fields of `RunRequest` that a case may set."""

    steps: int
    settings: Mapping[str, object]
    data: Path | None
    output_dir: Path | None
    resume: bool
    resume_from: Path | None
    settings_file: Path | None
    fault: Fault | None
    census: bool
    repeats: int
    time_limit: float | None
    memory_limit: int | None
    small_disk: int | None
    ordinary_user: bool
    grace: float
    env: Mapping[str, str]


# --- what a process is to do


@dataclass(frozen=True)
class Train:
    """Run the trainer's program once.

    Attributes:
        request: what was asked for.
        trainer: which trainer it is.
        run: what its `train` is given, but for its settings type and for a checkpoint that it has to choose itself.
    """

    request: RunRequest
    trainer: TrainerSpec
    run: Run


@dataclass(frozen=True)
class Call:
    """Call a function, and write down what it returns.

    Attributes:
        request: the limits.
        function: `module:name`; see `calls`.
        trainer: the trainer that the function is given, loaded, as its first argument; None for no trainer.
        arguments: by name, in JSON.
    """

    request: ProcessRequest
    function: str
    trainer: TrainerSpec | None
    arguments: Mapping[str, object]


@dataclass(frozen=True)
class Command:
    """Go on as a command, which works in `output_dir`, with a fault in whatever training it starts."""

    request: ProcessRequest
    argv: tuple[str, ...]
    output_dir: Path
    fault: Fault | None


# --- to a server, and its answers; the first of all is the `Policy`, answered by what is `Confined`


@dataclass(frozen=True)
class Load:
    """Import modules, then those of a trainer; `env` is set in the server, and so in all runs, before."""

    modules: tuple[str, ...]
    trainer: TrainerSpec | None = None
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Loaded:
    """What went wrong with the trainer's own modules: a traceback, or None."""

    error: str | None


@dataclass(frozen=True)
class Fork:
    """Make a copy of the server, which answers on the socket that comes with this."""


@dataclass(frozen=True)
class Forked:
    """The copy's process id."""

    pid: int


# --- to a supervisor, and what it tells of the run


@dataclass(frozen=True)
class Launch:
    """A process to be started.

    Attributes:
        job: what it is to do, and within which limits.
        cwd: the folder that it starts in: the project's root.
        folder: where its recording, its stacks and its result go.
        tmp: its temporary folder, which is removed after it.
        time_limit: seconds until it is ended.
        disk: the folder that the small disk is mounted on; None where none was asked for.
    """

    job: Train | Call | Command
    cwd: Path
    folder: Path
    tmp: Path
    time_limit: float
    disk: Path | None = None


@dataclass(frozen=True)
class Signal:
    """Send a signal to the run's main process, or to its whole process group."""

    signum: int
    group: bool = False


@dataclass(frozen=True)
class Started:
    """The run's main process is there."""

    pid: int


@dataclass(frozen=True)
class Ended:
    """How the run ended, as its supervisor saw it; what is not explained here is as in `Outcome`.

    Attributes:
        small_disk: the small disk that was asked for could be mounted.
        elsewhere: what it wrote outside of its own folders, as far as that was under a cover.
    """

    pid: int
    exit: int
    seconds: float
    peak_rss: int
    output: str
    output_bytes: int
    timed_out: bool
    leftovers: tuple[Leftover, ...]
    small_disk: bool
    elsewhere: tuple[Elsewhere, ...] = ()


@dataclass(frozen=True)
class Lost:
    """The run cannot be followed to its end, or not even started; in one line, why."""

    reason: str


def lost(why: str) -> Lost:
    """The process that stands over a run is gone."""
    return Lost(f"the run's supervisor was lost: {why}")


def failed(error: BaseException) -> Lost:
    """An error of the harness's own."""
    if isinstance(error, BlockingIOError):  # so says fork(2) where one more is not allowed
        return Lost(
            "the harness can start no process: as many as are allowed run already (ulimit -u; in a container "
            f"pids.max): allow {WANTED_PROCESSES} for each worker (-n)"
        )
    return lost(f"{type(error).__name__}: {error}")


Message = Policy | Confined | Load | Loaded | Fork | Forked | Launch | Signal | Started | Ended | Lost


# --- what is left in the run's folder, and what a call returns


@dataclass(frozen=True)
class RunNote:
    """What every Python process of a run has to know, those that it starts included.

    Attributes:
        folder: where the recording goes.
        output_dir: the folder whose files are watched.
        data: what is trained on, where it is known.
        fault: what goes wrong.
        census: memory in use is counted after each step.
        disk: where the small disk is mounted, if it could be.
        states: digests of its states are recorded with each step.
        closely: what a silent error shows in is recorded.
        rows: of a batch, as the settings say; 0 where nobody knows.
        still: no dropout is at work.
        changes: what is done to the batches of each of the first steps.
        forks: a process that is forked from one that has not trained yet is observed too, by itself.
    """

    folder: Path
    output_dir: Path
    data: Path | None
    fault: Fault | None
    census: bool = False
    disk: Path | None = None
    states: bool = False
    closely: bool = False
    rows: int = 0
    still: bool = False
    forks: bool = False
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoadedModules:
    """What is loaded in a run's process: `libraries` by name, safe to load ahead of later runs; its `own` files."""

    libraries: tuple[str, ...]
    own: tuple[Path, ...]


@dataclass(frozen=True)
class Description:
    """What pytest has to know of a trainer, whose module it never imports; see the attributes of `Trainer`.

    Attributes:
        fields: of its settings type.
        roles: the settings that it names for a role, by role.
        own_checkpoints: it finds its checkpoints in a way of its own.
        resumes: it can be told to resume.
        takes_path: it can be told what to resume from, by its path.
        takes_any_name: a setting that nobody knows is handed on to the program, which may reject it.
        takes_seed: the program is handed the seed of a run.
        mistake: what the team wrote and would be passed over, in one line; None where there is nothing.
    """

    production: Mapping[str, object]
    tiny: Mapping[str, object]
    overfit: Mapping[str, object]
    fields: tuple[Field, ...]
    roles: Mapping[str, str]
    rows: int
    labels: str | None
    command: str | None
    settings_name: str
    queue: Queue | None
    own_checkpoints: bool
    logs: tuple[str, ...] = ()
    overfit_below: float | None = None
    resumes: bool = True
    takes_path: bool = True
    takes_any_name: bool = False
    takes_seed: bool = False
    mistake: str | None = None


@dataclass(frozen=True)
class MadeData:
    """The path of data that a trainer made, None where it has none; or what went wrong, and the traceback of it."""

    path: Path | None
    error: str | None = None
    traceback: str = ""


# --- to JSON and back


def encode(message: Message) -> bytes:
    """A message as it goes over a socket."""
    return json.dumps(to_json(message)).encode()


def decode(body: bytes) -> Message:
    """The message that `encode` made.

    Raises:
        ValueError: it is none.
    """
    message = _checked(Message, json.loads(body))
    if not isinstance(message, Message):
        raise ValueError(f"not a message: {body[:80]!r}")
    return message


def to_json(value: object) -> object:
    """A value with its dataclasses and paths as what JSON can hold."""
    if is_dataclass(value) and not isinstance(value, type):
        return {_CLASS: type(value).__name__, **{f.name: to_json(getattr(value, f.name)) for f in fields(value)}}
    if isinstance(value, Mapping):
        return {str(key) if isinstance(key, Path) else key: to_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def from_json(kind: type[T], value: object) -> T:
    """The value of a type that `to_json` made into JSON's.

    Raises:
        ValueError: it is of another form.
    """
    found: T = _checked(kind, value)
    return found


def _checked(kind: object, value: object) -> Any:
    """What `_read` makes of it; whatever is wrong with it is a ValueError."""
    try:
        return _read(kind, value)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not of the form {kind}: {type(error).__name__}: {error}") from error


def _read(kind: Any, value: Any) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _read_one_of(inner, value)
    if isinstance(kind, type) and is_dataclass(kind):
        hints = hints_of(kind)
        return kind(**{f.name: _read(hints[f.name], value[f.name]) for f in fields(kind)})
    if origin is tuple:
        kinds = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
        return tuple(map(_read, kinds, value))
    if origin is list:
        return [_read(inner[0], one) for one in value]
    if isinstance(value, dict) and len(inner) == 2:  # JSON has texts for keys
        key = inner[0] if inner[0] in (int, Path) else str
        return {key(name): _read(inner[1], one) for name, one in value.items()}
    return Path(value) if kind is Path else value


def _read_one_of(kinds: tuple[Any, ...], value: Any) -> Any:
    """A value of a union: None, a dataclass by its name, or the one kind that is left."""
    if value is None:
        return None
    if isinstance(value, dict) and _CLASS in value:
        return _read({kind.__name__: kind for kind in kinds if isinstance(kind, type)}[value[_CLASS]], value)
    others = [kind for kind in kinds if kind is not types.NoneType]
    return _read(others[0], value) if len(others) == 1 else value


@functools.cache
def hints_of(annotated: object) -> dict[str, Any]:
    """The types of a dataclass's fields, or of a function's parameters and of what it returns (`return`)."""
    return typing.get_type_hints(annotated)
