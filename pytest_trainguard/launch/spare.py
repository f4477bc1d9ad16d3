"""A process that is kept ready for the one program that a launcher starts.

`accelerate launch train.py` and `torchrun train.py` start `python train.py` in an interpreter of its own, which imports
torch and all that is warm here once more. So this process forks another before it goes on as the launcher; what the
launcher then starts, that one becomes: a child of the launcher's as it would be, with the environment, streams and
folder that it was given. A launcher that starts several, for several ranks, starts all of them as ever.

It is forked ahead, and not as it is wanted: a launcher has threads by then.
"""

from __future__ import annotations

import inspect
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_trainguard.adapters.launchers import is_this_python
from pytest_trainguard.launch import wire
from pytest_trainguard.launch.protocol import from_json, to_json

# What this interpreter has taken in at its start: another value is for another interpreter.
_OF_THE_START = ("PYTHONPATH", "PYTHONHASHSEED", "PYTHONHOME", "PYTHONOPTIMIZE", "PYTHONWARNINGS")
# Arguments of `Popen` that are beyond what a process can do to itself here, with the values that ask for nothing.
_NOTHING_ASKED: Mapping[str, tuple[object, ...]] = {
    "executable": (None,), "preexec_fn": (None,), "pass_fds": ((),), "shell": (False,), "gid": (None,), "gids": (None,),
    "uid": (None,), "umask": (-1,), "process_group": (None, -1),
}  # fmt: skip


@dataclass(frozen=True)
class Program:
    """A Python program to become.

    Attributes:
        words: of its command, without the interpreter's own.
        env: its whole environment.
        cwd: the folder that it starts in; None for this one.
        new_session: it is the leader of a session of its own.
        streams: the numbers of the standard streams that it is given, in the order of the descriptors sent with this.
    """

    words: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str | None
    new_session: bool
    streams: tuple[int, ...]


def fork_spare() -> list[str] | None:
    """Fork a process that is ready for what this one starts.

    Returns:
        None in this process, which goes on as a launcher; in the other, once it is wanted, the words of the Python
        program that it is to become. It ends where this process ends, or has closed its end, before that.
    """
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid:
        theirs.close()
        _Starts(ours, pid).install()
        _find_runpy()
        return None
    ours.close()
    received = wire.receive(theirs)
    if received is None:
        os._exit(0)
    theirs.close()
    program = from_json(Program, json.loads(received[0]))
    _set_up(program, received[1])
    return [sys.executable, *program.words]


def _find_runpy() -> None:
    """Tell `inspect` of which module the frames below every launcher here are.

    `torchrun` looks at its own stack for each event that it notes down. For a frame that is no module's `inspect` goes
    through all modules, of which thousands are loaded here: that took ten times as long as the training.
    """
    inspect.modulesbyfile[os.path.abspath("<frozen runpy>")] = "runpy"


class _Starts:
    """The launcher's side: the first Python program that it starts is handed over."""

    def __init__(self, link: socket.socket, pid: int):
        self._link: socket.socket | None = link
        self._pid = pid
        popen: Any = subprocess.Popen
        self._start = popen._execute_child
        self._signature = inspect.signature(self._start)

    def install(self) -> None:
        """Stand in for how `subprocess` starts a process, for the rest of this process's life."""

        def execute_child(popen: Any, *args: object, **kwargs: object) -> None:
            asked = self._signature.bind(popen, *args, **kwargs).arguments
            if not self._hand_over(popen, asked):
                self._start(popen, *args, **kwargs)

        subprocess.Popen._execute_child = execute_child  # type: ignore[attr-defined]

    def _hand_over(self, popen: Any, asked: Mapping[str, Any]) -> bool:
        """Have the spare process become what is asked for; whether it does."""
        given = {0: asked["p2cread"], 1: asked["c2pwrite"], 2: asked["errwrite"]}
        streams = {number: fd for number, fd in given.items() if fd != -1}
        program = _read_program(asked, tuple(streams))
        if self._link is None or program is None:
            return False
        try:
            wire.send(self._link, json.dumps(to_json(program)).encode(), tuple(streams.values()))
        except OSError:  # it has been ended
            return False
        finally:
            self._link.close()
            self._link = None
        popen.pid, popen._child_created = self._pid, True
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        popen._close_pipe_fds(*(asked[name] for name in pipes))
        return True


def _read_program(asked: Mapping[str, Any], streams: tuple[int, ...]) -> Program | None:
    """The Python program that a launcher starts; None where it is none, one of several, or asks for more than that."""
    if any(asked.get(name, values[0]) not in values for name, values in _NOTHING_ASKED.items()):
        return None
    args, env, cwd = asked["args"], asked["env"], asked["cwd"]
    words = [] if isinstance(args, str | bytes | os.PathLike) else list(map(os.fsdecode, args))
    env = {os.fsdecode(name): os.fsdecode(value) for name, value in (os.environ if env is None else env).items()}
    if not words or not is_this_python(words[0]) or env.get("WORLD_SIZE", "1") != "1":
        return None
    own = words[2:] if words[1:2] == ["-u"] else words[1:]
    if not own or (own[0].startswith("-") and own[0] != "-m"):
        return None
    if any(env.get(name) != os.environ.get(name) for name in _OF_THE_START):
        return None
    folder = None if cwd is None else os.fsdecode(cwd)
    return Program(tuple(own), env, folder, bool(asked["start_new_session"]), streams)


def _set_up(program: Program, descriptors: list[int]) -> None:
    """Make this process like one that was started as the launcher asked for it.

    Raises:
        OSError: its folder is not there.
    """
    threads = os.environ.get("OMP_NUM_THREADS")
    os.environ.clear()
    os.environ.update(program.env)
    if program.new_session:
        os.setsid()
    for number, descriptor in zip(program.streams, descriptors, strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)
    if program.cwd is not None:
        os.chdir(program.cwd)
    wanted = program.env.get("OMP_NUM_THREADS", "")
    if wanted != threads and wanted.isdecimal() and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(max(1, int(wanted)))  # torch has read the variable long ago
