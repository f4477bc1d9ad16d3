"""Inside a run's own process: limits, streams and environment first, then the trainer's program.

`prepare` makes the forked process look like one that was started by hand: its own process group, standard input from
nowhere, its own temporary folder. The harness's frames are left out of its
tracebacks, and it ends as a Python program ends: exit code, handlers of `atexit`, open files flushed.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import importlib
import json
import os
import resource
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from pytest_trainguard.launch import linux
from pytest_trainguard.launch.exit_code import run_to_exit_code

STACK_FILE = "stack.txt"
RESULT_FILE = "result.json"
MODULES_FILE = "modules.json"
# Far from the signals that schedulers and trainers use.
STACK_SIGNAL = getattr(signal, "SIGRTMIN", signal.SIGUSR2) + 5 if hasattr(signal, "SIGRTMIN") else signal.SIGUSR2
STARTUP = Path(__file__).parent / "startup"


def prepare(request: dict[str, Any], output: int, *, small_disk: bool) -> Callable[[], int]:
    """Set this forked process up as the request says; what it is then to do."""
    os.setpgid(0, 0)
    linux.die_with_parent(signal.SIGKILL)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(null)
    os.close(output)
    sys.stdout = sys.__stdout__ = _stream(1)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _stream(2)  # type: ignore[misc]
    folder = Path(request["folder"])
    write_stack_on_signal(folder)
    os.environ.update(request["env"])
    # A Python process that the run starts gets the recorder as well.
    search = [str(STARTUP), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(search)
    os.environ["TMPDIR"] = tempfile.tempdir = request["tmp"]
    os.makedirs(tempfile.tempdir, exist_ok=True)
    os.chdir(request["cwd"])
    _limit(request)
    return lambda: _end_like_a_program(lambda: _work(request, folder, small_disk=small_disk))


def _stream(fd: int) -> Any:
    return os.fdopen(fd, "w", buffering=1, errors="backslashreplace", closefd=False)


def write_stack_on_signal(folder: Path) -> None:
    """On STACK_SIGNAL, write the stacks of all threads to a file in `folder`."""
    stack = open(folder / STACK_FILE, "a")  # noqa: SIM115 (open for the life of the process)
    faulthandler.enable(stack)
    faulthandler.register(STACK_SIGNAL, stack, all_threads=True)


def _limit(request: dict[str, Any]) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a provoked segfault leaves no core file behind
    if request.get("memory_limit"):
        linux.one_arena()
        # The address space that the warm server brought along does not count against the run.
        pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
        limit = pages * resource.getpagesize() + request["memory_limit"]
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _work(request: dict[str, Any], folder: Path, *, small_disk: bool) -> int:
    if request["job"]["kind"] == "call":
        module, _, name = request["job"]["function"].partition(":")
        result = getattr(importlib.import_module(module), name)(**request["job"]["arguments"])
        (folder / RESULT_FILE).write_text(json.dumps(result))
        return 0
    from pytest_trainguard.launch import jobs

    if request["job"]["kind"] == "command":
        jobs.run_command(request["job"], folder)
    disk = Path(request["disk"]["folder"]) if small_disk else None
    try:
        return jobs.train(request["job"], folder, disk=disk)
    finally:
        if request["job"]["tell_modules"] and folder.exists():  # some programs clear up more than is theirs
            (folder / MODULES_FILE).write_text(json.dumps(loaded_modules(request["cwd"])))


def loaded_modules(project: str) -> dict[str, list[str]]:
    """What is loaded here: names of `libraries`, safe to load ahead of later runs, and the project's `own` files."""
    libraries, own = [], []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not file or name.startswith(("__mp_main__", "pytest_trainguard")):
            continue
        if file.startswith(project + os.sep) and "site-packages" not in file:
            own.append(file)
        elif name != "__main__":
            libraries.append(name)
    return {"libraries": libraries, "own": sorted(set(own))}


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
