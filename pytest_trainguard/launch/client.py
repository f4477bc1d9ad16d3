"""Pytest's side of the launch: start the warm server, fork it for a trainer, start runs, wait for what they did."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pytest_trainguard import linux
from pytest_trainguard.adapters.command import PLAIN_PATH
from pytest_trainguard.contract.trainer import TrainerSpec
from pytest_trainguard.isolation.environment import caches, confine
from pytest_trainguard.isolation.policy import Confined, Policy
from pytest_trainguard.launch import protocol, wire
from pytest_trainguard.launch.child import OWN_PATH
from pytest_trainguard.launch.protocol import Ended, Fork, Forked, Launch, Load, Loaded, Lost, Message, Signal, Started

# Loaded by the base server. The first optimizer made in a process imports torch._dynamo, over a second's work.
PRELOAD = (
    "torch",
    "torch._dynamo",
    "torch.utils.data",
    "pytest_trainguard.launch.calls",
    "pytest_trainguard.launch.jobs",
    "pytest_trainguard.launch.questions",
    "pytest_trainguard.faults.inject",
    "pytest_trainguard.recorder.states",
    "pytest_trainguard.recorder.surroundings",
)
LOAD_LIMIT = 300.0  # seconds for importing a trainer's modules


class LaunchError(Exception):
    """The harness itself could not start or follow a run."""


class Running:
    """A run in progress. It ends with this object's connection, at the latest."""

    def __init__(self, link: socket.socket, time_limit: float, take_back: Callable[[socket.socket], None]):
        """`take_back` is given the connection once the run has ended, and its supervisor is free for another."""
        self._link: socket.socket | None = link
        self._take_back = take_back
        link.settimeout(time_limit + 60)  # the supervisor's own limit comes first; this one is for its loss
        first = self._receive()
        self.pid: int = first.pid if isinstance(first, Started) else 0
        self._last: Message | None = None if isinstance(first, Started) else first

    def signal(self, signum: int, *, group: bool = False) -> None:
        """Send a signal to the run's main process, or to its whole process group."""
        if self._link is not None:
            with contextlib.suppress(OSError):
                wire.send(self._link, protocol.encode(Signal(int(signum), group)))

    def wait(self) -> Ended:
        """Wait for the run's end; what the supervisor saw of it.

        Raises:
            LaunchError: the supervisor was lost.
        """
        if self._last is None:
            self._last = self._receive()
        if not isinstance(self._last, Ended):
            self.kill()
            raise LaunchError(_why_lost(self._last))
        if self._link is not None:
            self._take_back(self._link)
            self._link = None
        return self._last

    def kill(self) -> None:
        """End the run and everything it started: its lease is this connection."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def __del__(self) -> None:
        # A test that fails between start and end waits for nothing: its run ends here, without a ResourceWarning.
        self.kill()

    def _receive(self) -> Message:
        assert self._link is not None
        try:
            received = wire.receive(self._link)
            if received:
                return protocol.decode(received[0])
        except TimeoutError:
            pass
        except ValueError as error:  # a run may have got hold of it
            return protocol.lost(str(error))
        return protocol.lost("its connection ended")


def _why_lost(message: Message) -> str:
    return (message if isinstance(message, Lost) else protocol.lost(f"it sent {type(message).__name__}")).reason


class Server:
    """A warm server: the base one (`Server.start`), or one forked from it for a trainer (`fork`)."""

    def __init__(self, control: socket.socket, pid: int):
        self._control, self.pid = control, pid
        self._end = linux.open_process(pid)  # readable once the server has ended, whoever still holds its socket
        self._idle: list[socket.socket] = []  # connections to supervisors that wait for a run
        self._closed = False

    @classmethod
    def start(cls, policy: Policy, paths: list[str], log: Path, tmp: Path, hash_seed: int) -> Server:
        """Start the base server in the project's root, with `paths` put before its module search path.

        What a trainer's module puts into temporary files as it is imported goes to the folder `tmp`. Strings hash by
        `hash_seed`, where the environment sets no other.

        Raises:
            LaunchError: it did not come up; the message holds what it printed.
        """
        if not hasattr(os, "fork") or not hasattr(socket, "send_fds"):
            raise LaunchError("a preflight needs os.fork (Linux, macOS; on Windows use WSL)")
        ours, theirs = socket.socketpair()
        # One thread a run: as many runs as cores go side by side, and results do not depend on their number.
        environment = {
            "PYTHONHASHSEED": str(hash_seed),
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        inherited = confine(os.environ, policy.reach.keep, hubs=bool(policy.reach.network))
        environment |= caches(log.parent / "caches", Path.home(), inherited, policy.reach.keep)
        own = inherited.get("PYTHONPATH", "")
        environment |= {OWN_PATH: own, PLAIN_PATH: json.dumps(_plain_path(inherited, policy.root))}
        search = os.pathsep.join([*paths, *filter(None, [own])])
        with log.open("wb") as output:
            process = start_interpreter(
                theirs.fileno(),
                output.fileno(),
                policy.root,
                {**environment, **inherited, "PYTHONPATH": search, "TMPDIR": str(tmp)},
            )
        theirs.close()
        server = cls(ours, process.pid)
        server._process = process
        try:
            server.confined = server._confine(policy)
            error = server.load(PRELOAD, None)
        except BaseException:  # Ctrl-C while torch is being imported
            process.kill()
            server.close()
            raise
        if error:
            server.close()
            raise LaunchError(f"the warm server did not come up: {error}\n{log.read_text(errors='replace')}")
        return server

    _process: subprocess.Popen[bytes] | None = None
    confined: Confined | None = None

    def _confine(self, policy: Policy) -> Confined | None:
        """Have the server keep itself, and all runs, from the world; how, or None where it does not answer."""
        self._control.settimeout(LOAD_LIMIT)
        try:
            wire.send(self._control, protocol.encode(policy))
            answer = _answer(self._control)
        except OSError:
            return None
        return answer if isinstance(answer, Confined) else None

    def load(
        self, modules: Sequence[str], trainer: TrainerSpec | None, env: Mapping[str, str] | None = None
    ) -> str | None:
        """Have the server import modules, then the trainer's own, with these environment variables set before.

        Returns:
            None, or what went wrong with the trainer's module: a traceback, or one line.
        """
        self._dismiss()  # what is loaded now, a run of theirs would not have
        self._control.settimeout(LOAD_LIMIT)
        try:
            wire.send(self._control, protocol.encode(Load(tuple(modules), trainer, env or {})))
            answer = self._answer_or_end()
        except TimeoutError:
            self.close()
            return f"importing it did not end within {LOAD_LIMIT:.0f} s"
        except OSError:
            answer = None
        if not isinstance(answer, Loaded):
            return "the process ended while importing it (a crash, or os._exit)"
        return answer.error

    def _answer_or_end(self) -> Message | None:
        """What the server answers; None where it ends first.

        A process that a trainer's module forked holds the server's own end of the connection open after it.

        Raises:
            TimeoutError: neither comes within `LOAD_LIMIT`.
        """
        if self._end is not None:
            ready = _wait_for([self._control.fileno(), self._end], LOAD_LIMIT)
            if not ready:
                raise TimeoutError
            if self._control.fileno() not in ready:
                return None
        return _answer(self._control)

    @property
    def alive(self) -> bool:
        """Whether its process is there still; True where the system does not tell."""
        return self._end is None or not _wait_for([self._end], 0)

    def fork(self) -> Server:
        """A copy of this server in a process of its own, which shares what is loaded and nothing after."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._send(Fork(), theirs)
        ours.settimeout(LOAD_LIMIT)
        answer = _answer(ours)
        if not isinstance(answer, Forked):
            raise LaunchError(answer.reason if isinstance(answer, Lost) else "the warm server did not fork")
        return Server(ours, answer.pid)

    def run(self, launch: Launch) -> Running:
        """Start one run."""
        # What a supervisor gave up for one run, it has not for the next: its rights, a place without a disk mounted.
        plain = not (launch.job.request.ordinary_user or launch.disk)
        take_back = self._keep_idle if plain else socket.socket.close
        while plain and self._idle:
            link = self._idle.pop()
            try:
                wire.send(link, protocol.encode(launch))
            except OSError:  # somebody ended it meanwhile
                link.close()
            else:
                return Running(link, launch.time_limit, take_back)
        ours, theirs = socket.socketpair()
        with theirs:
            self._send(launch, theirs)
        return Running(ours, launch.time_limit, take_back)

    def _keep_idle(self, link: socket.socket) -> None:
        link.close() if self._closed else self._idle.append(link)

    def _dismiss(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def close(self) -> None:
        """End this server. Runs in progress go on until their own connections end."""
        self._closed = True
        self._dismiss()
        self._control.close()
        alive = self.alive
        if self._end is not None:
            os.close(self._end)
            self._end = None
        if self._process is not None:
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        elif alive:  # else its number may be another's by now
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def _send(self, message: Message, link: socket.socket) -> None:
        try:
            wire.send(self._control, protocol.encode(message), (link.fileno(),))
        except OSError as error:
            raise LaunchError(f"the warm server is gone: {error}") from error


def start_interpreter(control: int, output: int, cwd: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A new Python that is a base server: it is asked through the socket `control`, and prints to `output`."""
    return subprocess.Popen(
        [sys.executable, "-m", "pytest_trainguard.launch.server", str(control)],
        pass_fds=[control],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,  # Ctrl-C is pytest's; the server ends with its connection
        cwd=cwd,
        env=env,
    )


def _plain_path(environment: Mapping[str, str], cwd: Path) -> list[str]:
    """`sys.path` of a script that is started here by hand, without the entry for its own folder."""
    told = subprocess.run(
        [sys.executable, "-c", "import json, sys; print(json.dumps(sys.path[1:]))"],
        env=environment, cwd=cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return list(json.loads(told.stdout.splitlines()[-1])) if told.returncode == 0 else sys.path[1:]


def _wait_for(descriptors: Sequence[int], seconds: float) -> set[int]:
    """Those of some descriptors that are readable, as soon as one is; none where none is in time."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return {descriptor for descriptor, _ in poll.poll(seconds * 1000)}


def _answer(control: socket.socket) -> Message | None:
    received = wire.receive(control)
    return protocol.decode(received[0]) if received else None
