"""Where the kernel cannot hold a run: each of its Python processes refuses by itself what it is not to reach.

An audit hook, which nothing takes away again: connections to other machines and to what others listen on here fail as
they do without a network, files that log a person in are not there, and of a file of the project that is about to be
overwritten or removed a copy is kept, so that it can be put back.
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import json
import os
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pytest_trainguard.isolation import loopback
from pytest_trainguard.isolation.policy import HOSTS_VARIABLE, NETWORK_VARIABLE, Elsewhere

KEPT = "TRAINGUARD_KEPT"  # in a run's environment: the folder for copies of what it overwrites
ROOT = "TRAINGUARD_ROOT"  # and the folder whose files are put back
THROUGH = "TRAINGUARD_THROUGH"  # and those inside of it that runs write to for real
HIDDEN = "TRAINGUARD_HIDDEN"  # and the files that are not there for it, separated by colons
LIST = "kept.jsonl"
Hook = Callable[[str, tuple[Any, ...]], None]
_FOR_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {"os.remove": 0, "os.rename": 1, "os.truncate": 0, "os.link": 1, "os.symlink": 1, "os.mkdir": 0}


class Refusals:
    """The audit hook of one process and of those that are forked from it."""

    def __init__(self) -> None:
        self._local = threading.local()
        self.watchers: list[Hook] = []

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        """One audit event, before what it tells of is done."""
        if getattr(self._local, "asked", False):
            return
        for watcher in self.watchers:  # first: what is refused raises, and no hook after this one would see it
            watcher(event, args)
        if event not in _HOOKS:
            return
        self._local.asked = True
        try:
            _HOOKS[event](event, args)
        finally:
            self._local.asked = False


_installed: list[Refusals] = []  # the one of this process, if there is one


def install() -> None:
    """Put the hook in place for the rest of this process's life."""
    _installed.append(Refusals())
    sys.addaudithook(_installed[0])


def watch(hook: Hook) -> None:
    """Have an audit hook see every event of this process, those too that are refused."""
    if _installed:
        _installed[0].watchers.append(hook)
    else:
        sys.addaudithook(hook)


def fall_silent() -> None:
    """Keep no copies any more: what is done from here on is the harness's own."""
    os.environ.pop(KEPT, None)


def _connect(event: str, args: tuple[Any, ...]) -> None:
    address = args[1]
    if os.environ.get(NETWORK_VARIABLE) != "refused" or not isinstance(address, tuple):
        return
    host, port = str(address[0]), int(address[1])
    if host in _hosts():
        return
    if not loopback.is_loopback(host):
        raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
    if loopback.listens(port) and not loopback.listens_here(port):
        raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))


def _look_up(event: str, args: tuple[Any, ...]) -> None:
    host = args[0].decode() if isinstance(args[0], bytes) else str(args[0])
    if os.environ.get(NETWORK_VARIABLE) != "refused" or loopback.is_loopback(host) or host == socket.gethostname():
        return
    allowed = _hosts()
    if host in allowed:
        with contextlib.suppress(OSError):  # the connection that follows is to its address
            addresses = sorted({str(found[4][0]) for found in socket.getaddrinfo(host, None)})
            os.environ[HOSTS_VARIABLE] = ",".join([*allowed, *addresses])
        return
    with contextlib.suppress(OSError):
        socket.inet_aton(host)
        return  # an address: connecting to it is refused
    raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


def _hosts() -> list[str]:
    return [host for host in os.environ.get(HOSTS_VARIABLE, "").split(",") if host]


def _open(event: str, args: tuple[Any, ...]) -> None:
    path, mode, flags = args[0], args[1], args[2]
    if not isinstance(path, str | bytes | os.PathLike):
        return
    absolute = os.path.realpath(os.fsdecode(path))
    hidden = os.environ.get(HIDDEN, "")
    if hidden and any(absolute == one or absolute.startswith(one + os.sep) for one in hidden.split(os.pathsep)):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(path))
    if opens_for_writing(mode, flags):
        _keep(absolute)


def opens_for_writing(mode: object, flags: int | None) -> bool:
    """Whether the audit event `open`, by its second and third argument, is of a file that will be written."""
    return bool(set(mode) & set("wax+")) if isinstance(mode, str) else bool((flags or 0) & _FOR_WRITING)


def _change(event: str, args: tuple[Any, ...]) -> None:
    for path in args[: _CHANGES[event] + 1]:
        if isinstance(path, str | bytes | os.PathLike):
            folder, name = os.path.split(os.fsdecode(path))
            _keep(os.path.join(os.path.realpath(folder or "."), name))


def _keep(path: str) -> None:
    """Keep a copy of a file of the project's before it is changed for the first time in this run."""
    root, kept = os.environ.get(ROOT), os.environ.get(KEPT)
    if not root or not kept or not path.startswith(root + os.sep) or "__pycache__" in path:
        return
    through = os.environ.get(THROUGH, "").split(os.pathsep)
    if any(path.startswith(one + os.sep) for one in (kept, *through) if one):
        return
    os.makedirs(kept, exist_ok=True)
    with open(os.path.join(kept, LIST), "a+") as written:
        written.seek(0)
        known = [json.loads(line) for line in written.read().splitlines()]
        if any(entry["path"] == path for entry in known):
            return
        copy = ""
        if os.path.isfile(path):
            copy = os.path.join(kept, str(len(known)))
            shutil.copy2(path, copy)
        written.write(json.dumps({"path": path, "copy": copy, "folder": os.path.isdir(path)}) + "\n")


def put_back(kept: Path) -> list[Elsewhere]:
    """Put the project's files back as they were before a run: what it made goes, what it changed is as it was.

    Args:
        kept: the folder with the copies.

    Returns:
        the files that were not as before.
    """
    file = kept / LIST
    if not file.exists():
        return []
    found = []
    for entry in reversed([json.loads(line) for line in file.read_text().splitlines()]):
        path, copy = Path(entry["path"]), entry["copy"]
        now = path.is_file()
        if copy:
            if now and filecmp.cmp(path, copy, shallow=False):
                continue
            found.append(Elsewhere(path, "changed" if now else "removed", path.stat().st_mtime if now else 0.0))
            shutil.copy2(copy, path)
        elif now:
            found.append(Elsewhere(path, "made", path.stat().st_mtime))
            path.unlink()
        elif path.is_dir() and not entry["folder"]:
            with contextlib.suppress(OSError):
                path.rmdir()
    return found[::-1]


def environment(root: Path, through: Sequence[Path], kept: Path, hidden: Sequence[Path]) -> dict[str, str]:
    """What tells the hook in a run, and in the processes that it starts, what is to be kept and hidden."""
    return {
        ROOT: str(root),
        THROUGH: os.pathsep.join(map(str, through)),
        KEPT: str(kept),
        HIDDEN: os.pathsep.join(map(str, hidden)),
    }


_HOOKS = {
    "socket.connect": _connect,
    "socket.sendto": _connect,
    "socket.getaddrinfo": _look_up,
    "socket.gethostbyname": _look_up,
    "open": _open,
    **dict.fromkeys(_CHANGES, _change),
}
