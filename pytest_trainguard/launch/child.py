"""Inside a run's own process: limits, streams and environment first, then the trainer's program.

`prepare` makes the forked process look like one that was started by hand: its own process group, standard input from
nowhere, its own temporary folder. The harness's frames are left out of its
tracebacks, and it ends as a Python program ends: exit code, handlers of `atexit`, open files flushed.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import os
import resource
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType

from pytest_trainguard import linux
from pytest_trainguard.adapters import load_trainer
from pytest_trainguard.contract.trainer import TrainerSpec
from pytest_trainguard.launch import protocol
from pytest_trainguard.launch.exit_code import run_to_exit_code
from pytest_trainguard.launch.protocol import Call, Command, Launch, LoadedModules, Train
from pytest_trainguard.launch.reach import modules_of_others
from pytest_trainguard.launch.stacks import write_stack_on_signal

RESULT_FILE = "result.json"
MODULES_FILE = "modules.json"
OWN_PATH = "TRAINGUARD_PYTHONPATH"  # PYTHONPATH as it was given to pytest
STARTUP = Path(__file__).parent / "startup"


def prepare(
    launch: Launch, output: int, disk: Path | None, confine: Callable[[], None] | None = None
) -> Callable[[], int]:
    """Set this forked process up as it was asked for; what it is then to do.

    Args:
        launch: what was asked for.
        output: the descriptor that it prints to.
        disk: where a small disk is mounted, if one is.
        confine: keeps the run from the world; None where nothing is to.
    """
    os.setpgid(0, 0)
    linux.die_with_parent(signal.SIGKILL)
    _redirect_streams(output)
    write_stack_on_signal(launch.folder)
    if confine is not None:
        confine()
    _set_environment(launch)
    os.chdir(launch.cwd)
    _limit_memory(launch.job.request.memory_limit)
    return lambda: _end_like_a_program(lambda: _work(launch, disk))


def _redirect_streams(output: int) -> None:
    """Standard input from nowhere, what is printed to `output`."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(null)
    os.close(output)
    sys.stdout = sys.__stdout__ = _stream(1)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _stream(2)  # type: ignore[misc]


def _stream(fd: int) -> TextIOWrapper:
    return os.fdopen(fd, "w", buffering=1, errors="backslashreplace", closefd=False)


def _set_environment(launch: Launch) -> None:
    os.environ.update(launch.job.request.env)
    # A Python process that the run starts gets the recorder as well.
    search = [str(STARTUP), *filter(None, [os.environ.pop(OWN_PATH, None)])]
    os.environ["PYTHONPATH"] = os.pathsep.join(search)
    # What is installed beside the interpreter is found, also where its environment is not activated.
    os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
    os.environ["TMPDIR"] = tempfile.tempdir = str(launch.tmp)
    os.makedirs(tempfile.tempdir, exist_ok=True)


def _limit_memory(limit: int | None) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a provoked segfault leaves no core file behind
    if limit:
        linux.one_arena()
        linux.limit_memory(limit)  # over what the warm server brought along, which is not the run's


def _work(launch: Launch, disk: Path | None) -> int:
    """Do the job; the exit code that it asks for."""
    from pytest_trainguard.launch import calls, jobs

    job, folder = launch.job, launch.folder
    # To take hold of each module's name has the system copy the page that it stands on: only where it is asked for.
    before = frozenset(sys.modules) if isinstance(job, Train) and job.request.tell_modules else frozenset()
    started = time.time()
    if isinstance(job, Call):
        result = calls.answer(job)
        (folder / RESULT_FILE).write_text(json.dumps(protocol.to_json(result)))
        return 0
    if isinstance(job, Command):
        return jobs.run_command(job, folder)
    try:
        return jobs.train(job, folder, disk)
    finally:
        if job.request.tell_modules and folder.exists():  # some programs clear up more than is theirs
            project = str(launch.cwd)
            others = _modules_of_others(job.trainer, project) & before
            apart = (str(launch.tmp), str(folder.parents[1]))  # all that this session's runs leave is below it
            found = loaded_modules(project, apart, others, started)
            _tell_modules(found, folder / MODULES_FILE)


def _tell_modules(found: LoadedModules, file: Path) -> None:
    """Write down which modules are loaded, beside what a program that this one started has written there."""
    if file.exists():
        earlier = protocol.from_json(LoadedModules, json.loads(file.read_text()))
        libraries = tuple(dict.fromkeys((*earlier.libraries, *found.libraries)))
        found = LoadedModules(libraries, tuple(sorted({*earlier.own, *found.own})))
    file.write_text(json.dumps(protocol.to_json(found)))


def loaded_modules(
    project: str, apart: Sequence[str] = (), others: Collection[str] = (), started: float = math.inf
) -> LoadedModules:
    """What is loaded here, of libraries and of the project in that folder.

    Args:
        project: the folder.
        apart: folders whose modules are neither: temporary ones, into which libraries write code.
        others: modules of the project that are no concern of this trainer.
        started: seconds since the epoch; what was written later is no source of the project's.
    """
    libraries, own = [], _scripts_run(project)
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not file or name.startswith(("__mp_main__", "pytest_trainguard")) or _is_inside(file, apart):
            continue
        if _is_inside(file, [project]) and "site-packages" not in file and not _of_library(name, project):
            if name not in others and os.path.isfile(file) and os.stat(file).st_mtime < started:
                own.append(file)
        elif name != "__main__":
            libraries.append(name)
    return LoadedModules(tuple(libraries), tuple(map(Path, sorted(set(own)))))


def _is_inside(file: str, folders: Sequence[str]) -> bool:
    return any(file.startswith(folder + os.sep) for folder in folders)


def _of_library(name: str, project: str) -> bool:
    """Whether a module is part of a package from outside the project, wherever its own file is."""
    package = getattr(sys.modules.get(name.partition(".")[0]), "__file__", None)
    return package is not None and not _is_inside(package, [project])


def _modules_of_others(trainer: TrainerSpec, project: str) -> set[str]:
    if not isinstance(trainer, str):
        return set()
    return modules_of_others(type(load_trainer(trainer)), trainer.partition(":")[0], project)


def _scripts_run(project: str) -> list[str]:
    """The script that a command line ran as `__main__`, which is no module any more once it has ended."""
    script = os.path.realpath(sys.argv[0])
    served = os.path.realpath(getattr(sys.modules["__main__"], "__file__", None) or "")
    inside = script.startswith(os.path.realpath(project) + os.sep) and script.endswith(".py")
    return [script] if inside and script != served and os.path.isfile(script) else []


def _end_like_a_program(work: Callable[[], int]) -> int:
    """Run `work`, then end as the interpreter would: threads, `atexit`, open streams, exit code.

    Taking the interpreter itself down, with all that the warm server loaded, would cost a second and show nothing.
    """
    code = run_to_exit_code(work, _report)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code & 0xFF)


def _report(error: BaseException) -> None:
    """What left the program, as the interpreter tells it."""
    if isinstance(error, KeyboardInterrupt):
        traceback.print_exception(error)
        return
    error = error.with_traceback(_without_harness(error.__traceback__))
    sys.excepthook(type(error), error, error.__traceback__)


def _without_harness(frames: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame that is not the harness's own."""
    here = str(Path(__file__).parent.parent)
    first = frames
    while first is not None and first.tb_frame.f_code.co_filename.startswith(here):
        first = first.tb_next
    return first or frames
