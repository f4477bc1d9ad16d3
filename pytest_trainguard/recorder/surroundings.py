"""Inside a run: what it reaches for beyond its own folders and processes, by the interpreter's audit events.

Other machines, programs that are there to reach them, ports by their number, locks, and files elsewhere. What is done
in C++ or by a program that is not Python is not seen here: the harness keeps those from the world, and sees what they
wrote.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

from pytest_trainguard.isolation import loopback, refusals
from pytest_trainguard.isolation.covers import CACHES

Tell = Callable[..., None]  # of an event's kind, and its values by name

# Programs that are there to move data between machines; of those with several uses the words that do.
REMOTE = {
    "aws": "", "gsutil": "", "gcloud": "", "az": "", "azcopy": "", "s5cmd": "", "rclone": "", "mc": "", "oci": "",
    "kaggle": "", "huggingface-cli": "", "hf": "", "wandb": "", "curl": "", "wget": "", "scp": "", "sftp": "",
    "ssh": "",
    "rsync": "", "git": "push|pull|fetch|clone|ls-remote|lfs", "dvc": "push|pull|fetch", "docker": "push|pull",
}  # fmt: skip
_HERE = str(Path(__file__).parent.parent) + os.sep
_SYSTEM = ("/dev", "/proc", "/sys", "/run")


class Surroundings:
    """Watches one process, and those that are forked from it."""

    def __init__(self, tell: Tell, apart: Iterable[Path]):
        """`apart`: the run's own folders, which it may write to."""
        self._tell = tell
        places = [*apart, Path(tempfile.gettempdir()), Path(sys.prefix)]
        self._apart = tuple(os.path.realpath(place) + os.sep for place in places)
        self._told: set[tuple[str, str]] = set()
        self._local = threading.local()

    def install(self) -> None:
        """Watch, for the rest of this process's life."""
        refusals.watch(self._audit)

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        handle = _HANDLERS.get(event)
        if handle is None or getattr(self._local, "telling", False):
            return
        self._local.telling = True
        try:
            handle(self, event, args)
        except (OSError, ValueError, TypeError, IndexError):
            return  # an event of another form: nobody is to fail over being watched
        finally:
            self._local.telling = False

    def _note(self, kind: str, what: str) -> None:
        if (kind, what) not in self._told:
            self._told.add((kind, what))
            self._tell("reach", kind=kind, what=what, caller=find_caller(), time=time.time())

    def _connects(self, event: str, args: tuple[Any, ...]) -> None:
        address = args[1]
        if isinstance(address, tuple) and args[0].family in (socket.AF_INET, socket.AF_INET6):
            host, port = str(address[0]), int(address[1])
            if not loopback.is_loopback(host):
                self._note("network", f"{host}:{port}")
            elif port:
                # In a namespace of its own nobody else listens; else what listens may be somebody else's.
                self._note("own" if loopback.listens_here(port) else "network", f"127.0.0.1:{port}")

    def _looks_up(self, event: str, args: tuple[Any, ...]) -> None:
        host = args[0].decode() if isinstance(args[0], bytes) else str(args[0])
        if not loopback.is_loopback(host) and host not in (socket.gethostname(), "None") and not _is_address(host):
            port = args[1] if len(args) > 1 else None
            self._note("network", f"{host}:{port}" if port else host)

    def _binds(self, event: str, args: tuple[Any, ...]) -> None:
        address = args[1]
        if isinstance(address, tuple) and args[0].type & socket.SOCK_STREAM and int(address[1]):
            self._note("port", str(address[1]))

    def _starts(self, event: str, args: tuple[Any, ...]) -> None:
        for command in _commands(event, args):
            words = command.split() if isinstance(command, str) else list(command)
            name = os.path.basename(words[0]) if words else ""
            if name in REMOTE and re.search(rf"\b({REMOTE[name]})\b" if REMOTE[name] else "", " ".join(words[1:])):
                self._note("command", shlex.join(words[:6]))

    def _locks(self, event: str, args: tuple[Any, ...]) -> None:
        path = os.readlink(f"/proc/self/fd/{args[0] if isinstance(args[0], int) else args[0].fileno()}")
        if self._is_elsewhere(path):
            self._note("lock", path)

    def _opens(self, event: str, args: tuple[Any, ...]) -> None:
        path, mode, flags = args[0], args[1], args[2]
        if refusals.opens_for_writing(mode, flags) and isinstance(path, str | bytes | os.PathLike):
            self._written(os.path.realpath(os.fsdecode(path)))

    def _renames(self, event: str, args: tuple[Any, ...]) -> None:
        self._written(os.path.realpath(os.fsdecode(args[1])))

    def _written(self, path: str) -> None:
        if self._is_elsewhere(path):
            self._note("write", path)

    def _is_elsewhere(self, path: str) -> bool:
        return not (path.startswith((*self._apart, *_SYSTEM)) or CACHES.search(path))


def find_caller() -> str:
    """The place in the team's own code that leads to here, nearest first: `train.py:12`; empty where there is none."""
    project = os.getcwd() + os.sep
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        path = os.path.join(project, frame.f_code.co_filename)
        foreign = "site-packages" in path or path.startswith((sys.prefix + os.sep, _HERE))
        if path.startswith(project) and not foreign:
            return f"{os.path.relpath(path, project)}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return True
    return False


def _commands(event: str, args: tuple[Any, ...]) -> list[str | list[str]]:
    """What is started, each as words or as a line of them; of a shell the commands in its line."""
    if event == "os.system":
        return _of_shell(os.fsdecode(args[0]))
    words = args[1]
    if isinstance(words, str | bytes):
        return _of_shell(os.fsdecode(words))
    told = [os.fsdecode(word) for word in words]
    if len(told) > 2 and os.path.basename(told[0]) in ("sh", "bash", "dash", "zsh") and told[1] == "-c":
        return _of_shell(told[2])
    return [told]


def _of_shell(line: str) -> list[str | list[str]]:
    return [part.strip() for part in re.split(r"[;&|\n]+", line) if part.strip()]


_HANDLERS: dict[str, Callable[[Surroundings, str, tuple[Any, ...]], None]] = {
    "socket.connect": Surroundings._connects,
    "socket.sendto": Surroundings._connects,
    "socket.getaddrinfo": Surroundings._looks_up,
    "socket.gethostbyname": Surroundings._looks_up,
    "socket.bind": Surroundings._binds,
    "subprocess.Popen": Surroundings._starts,
    "os.system": Surroundings._starts,
    "os.exec": Surroundings._starts,
    "os.posix_spawn": Surroundings._starts,
    "fcntl.flock": Surroundings._locks,
    "fcntl.lockf": Surroundings._locks,
    "open": Surroundings._opens,
    "os.rename": Surroundings._renames,
}
