"""Base servers for the sessions of pytest that tests start: forked from one that has torch loaded already.

To import torch is most of what a small preflight costs, and hundreds of tests make one. So each process that runs
tests keeps one process with all that a base server imports, the nursery, and a session that a test starts has its base
server forked from that: the same module is run as `__main__`, with the environment, the folder, the streams and the
search path that the session asks for. Where the nursery differs in what a new interpreter would have got (its user, its
limits, its control group, its hash seed, a variable that is read as torch is imported, a module of the project's by a
name that is loaded already), the session starts an interpreter, as it does for a user. `Project(..., warm=False)` and
the fixture `cold` have it do so anyway.

As a module of its own this is a plugin of those sessions (`PYTEST_PLUGINS`); as a script it is the nursery.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

ADDRESS = "TRAINGUARD_TESTS_NURSERY"  # the path of its socket
HASH_SEED = "113"  # of a first start; the second start's server is begun as ever
AT_IMPORT = ("CUDA_", "GOMP_", "KMP_", "LD_", "MALLOC_", "MKL_", "OMP_", "PYTHON", "PYTORCH_", "TORCH")
NOT_AT_IMPORT = {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "TORCHINDUCTOR_CACHE_DIR"}
AS_A_SERVER = {"PYTHONHASHSEED": HASH_SEED, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
SERVER = "pytest_trainguard.launch.server"


class Nursery:
    """The nursery of this process, started when a first session is."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What a session must be given to use it; the nursery may still be starting."""
        if self._folder is None:
            self._start()
        assert self._folder is not None
        return {ADDRESS: str(Path(self._folder.name) / "socket"), "PYTEST_PLUGINS": "warm_start"}

    def _start(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tg-nursery-")
        path = str(Path(self._folder.name) / "socket")
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(path)
        listening.listen(16)
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(listening.fileno())],
            pass_fds=[listening.fileno()],
            stdin=subprocess.PIPE,  # it ends with this process
            env={**os.environ, **AS_A_SERVER},
            start_new_session=True,
        )
        listening.close()

    def close(self) -> None:
        """End it. The servers that were forked from it go on until their sessions end."""
        if self._process is not None and self._folder is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()
            self._folder.cleanup()
            self._folder = self._process = None


class Forked:
    """A server that was forked from the nursery, as far as `subprocess.Popen` would tell of it."""

    def __init__(self, pid: int):
        self.pid = pid
        try:
            self._end: int | None = os.pidfd_open(pid)
        except ProcessLookupError:
            self._end = None

    def wait(self, seconds: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it did not come in time.
        """
        if self._end is not None:
            if not select.select([self._end], [], [], seconds)[0]:
                raise subprocess.TimeoutExpired(SERVER, seconds or 0.0)
            os.close(self._end)
            self._end = None
        return 0

    def kill(self) -> None:
        """End it at once."""
        if self._end is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._end, signal.SIGKILL)


# ---- in a session that a test started


def pytest_configure() -> None:
    """Have this session's base servers come from the nursery of the process that started it."""
    install(lambda: os.environ[ADDRESS])


def install(find_address: Callable[[], str]) -> None:
    """Have this process's base servers come from the nursery at an address, which is asked for when one is started."""
    from pytest_trainguard.launch import client

    cold = client.start_interpreter

    def start(control: int, output: int, cwd: Path, env: Mapping[str, str]) -> object:
        own = {name: value for name, value in env.items() if name not in (ADDRESS, "PYTEST_PLUGINS")}
        pid = _ask(find_address(), control, output, cwd, own)
        return Forked(pid) if pid else cold(control, output, cwd, own)

    client.start_interpreter = start  # type: ignore[assignment]


def _ask(address: str, control: int, output: int, cwd: Path, env: Mapping[str, str]) -> int:
    """The process that the nursery forked; 0 where it cannot stand for a new interpreter."""
    order = {"surroundings": surroundings(), "env": dict(env), "cwd": str(cwd)}
    with socket.socket(socket.AF_UNIX) as asking:
        try:
            asking.connect(address)
            socket.send_fds(asking, [b"!"], [control, output])
            asking.sendall(json.dumps(order).encode())
            asking.shutdown(socket.SHUT_WR)
            return int(asking.recv(32) or 0)
        except OSError:
            return 0


def surroundings() -> dict[str, object]:
    """What a process hands on to those that it starts, but for its environment and folder."""
    limits = {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")}
    spaces = {name: os.readlink(f"/proc/self/ns/{name}") for name in ("cgroup", "mnt", "net", "pid", "user")}
    return {
        "executable": sys.executable,
        "user": [os.getuid(), os.geteuid(), os.getgid(), *os.getgroups()],
        "limits": {name: list(limit) for name, limit in sorted(limits.items())},
        "namespaces": spaces,
        "group": Path("/proc/self/cgroup").read_text(),
        "mask": next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Umask")),
    }


# ---- the nursery


def serve(listening: socket.socket) -> None:
    """Fork a server for each session that asks, until standard input ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the servers
    while sys.stdin not in select.select([sys.stdin, listening], [], [])[0]:
        asking, _ = listening.accept()
        _, fds, _, _ = socket.recv_fds(asking, 1, 2)
        order = json.loads(_read_all(asking))
        fits = _fits(order)
        pid = os.fork() if fits else 0
        if fits and not pid:
            listening.close()
            asking.close()
            become_server(fds[0], fds[1], order)
        with contextlib.suppress(OSError):
            asking.sendall(str(pid).encode())
        asking.close()
        for descriptor in fds:
            os.close(descriptor)


def _read_all(connection: socket.socket) -> bytes:
    return b"".join(iter(functools.partial(connection.recv, 1 << 16), b""))


def _fits(order: dict[str, object]) -> bool:
    """Whether a fork of this process is what a new interpreter would be."""
    env, here = order["env"], dict(os.environ)
    assert isinstance(env, dict)
    names = {name for name in (*env, *here) if _is_read_at_import(name)}
    return (
        json.loads(json.dumps(surroundings())) == order["surroundings"]
        and all(env.get(name) == here.get(name) for name in names)
        and not _hides_what_is_loaded(order)
    )


def _is_read_at_import(name: str) -> bool:
    return name.startswith(AT_IMPORT) and name not in NOT_AT_IMPORT


def _hides_what_is_loaded(order: dict[str, object]) -> bool:
    """Whether the search path has something of its own by the name of a module that is loaded here."""
    loaded = {name.partition(".")[0] for name in sys.modules} - {"__main__", "tests"}
    for folder in _search_path(order):
        with contextlib.suppress(OSError):
            if not loaded.isdisjoint(name.partition(".")[0] for name in os.listdir(folder)):
                return "pytest_trainguard" not in os.listdir(folder)  # the repository itself, as it is
    return False


def _search_path(order: dict[str, object]) -> list[str]:
    env = order["env"]
    assert isinstance(env, dict)
    return [str(order["cwd"]), *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]


def become_server(control: int, output: int, order: dict[str, object]) -> None:
    """Go on as the base server of a session; does not return."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in enumerate((nothing, output, output)):
        os.dup2(descriptor, number)
    os.dup2(control, 3)
    os.closerange(4, os.sysconf("SC_OPEN_MAX"))
    env = order["env"]
    assert isinstance(env, dict)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(str(order["cwd"]))
    sys.path[:0] = _search_path(order)
    sys.dont_write_bytecode = bool(env.get("PYTHONDONTWRITEBYTECODE"))
    tempfile.tempdir = None
    sys.argv = [sys.argv[0], "3"]
    runpy.run_module(SERVER, run_name="__main__", alter_sys=True)


def main() -> None:
    """Load what base servers load, then serve on the socket whose descriptor is the first argument."""
    del sys.path[0]  # this file's folder, which a server does not search
    from pytest_trainguard import linux
    from pytest_trainguard.launch import client, server

    server.load(client.PRELOAD, None)
    linux.join_pages()
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
