"""The warm servers of one pytest process, its folders, and what is remembered of trainers from session to session."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import pytest

from pytest_trainguard import folders
from pytest_trainguard.contract.trainer import TrainerSpec
from pytest_trainguard.isolation.policy import Confined, Policy, Reach
from pytest_trainguard.launch.client import LaunchError, Server
from pytest_trainguard.verdicts.errors import CannotJudge

MOST_WARM = 6  # trainers whose servers are kept at the same time
NOTHING = Reach()
# Of the first start's strings and of a second one's: of 34 small sets of labels, {"0", "1", "2"} or {"yes", "no"} among
# them, 31 have another order with the second; of the seeds from 1 to 259 no two tell more of them apart.
HASH_SEEDS = (113, 196)
TMP_LENGTH = 70  # characters; a socket's name has at most 107, of which multiprocessing adds 32


class Closable(Protocol):
    """What holds a server that can be closed, and started again."""

    def close(self) -> None:
        """End the server."""


class Servers:
    """The base server and the folders of one pytest process.

    Attributes:
        root: the project's root, where runs start.
        folder: for all that runs leave.
        time_limit: seconds that a run may take where nothing else is said.
        shared: a folder that the session's other processes have too; see `find_once`.
        reach: what is open to runs of the world.
    """

    def __init__(
        self, root: Path, folder: Path, paths: list[str], time_limit: float, cache: pytest.Cache | None = None,
        shared: Path | None = None, reach: Reach = NOTHING,
    ):  # fmt: skip
        """`paths` are put before the servers' module search path."""
        self.root, self.folder, self.time_limit, self.shared = root, folder, time_limit, shared
        self.reach = reach
        self._paths, self._cache = paths, cache
        self._bases: dict[int, Server] = {}  # by the seed of their string hashes
        self._warm: list[Closable] = []  # those with a server, the last used at the end
        self._tmps = 0
        too_long = len(str(folder / "t" / "00000")) > TMP_LENGTH
        self._short = Path(tempfile.mkdtemp(prefix="tg-")) if too_long else None
        self._server_tmp = self.new_tmp()

    def base(self, hash_seed: int = HASH_SEEDS[0]) -> Server:
        """The base server, started when the first run needs it, and again where the kernel or somebody ended it.

        Args:
            hash_seed: of its strings' hashes, which decide the order of sets; where the environment sets one
                (PYTHONHASHSEED), every server has that.
        """
        there = self._bases.get(hash_seed)
        if there is not None and not there.alive:
            there.close()
            del self._bases[hash_seed]
        if hash_seed not in self._bases:
            self._bases[hash_seed] = self._start(hash_seed)
        return self._bases[hash_seed]

    def _start(self, hash_seed: int) -> Server:
        log = self.folder / f"server-{hash_seed}.log"
        try:
            self._server_tmp.mkdir(parents=True, exist_ok=True)
            return Server.start(self._make_policy(), self._paths, log, self._server_tmp, hash_seed)
        except LaunchError as error:
            raise CannotJudge(str(error).splitlines()[0], str(error)) from error

    def _make_policy(self) -> Policy:
        """How runs are held: they write for real to this session's folders and to the interpreter's alone."""
        own = [self.folder, self._server_tmp, *self.reach.own, *([self._short] if self._short else [])]
        through = [*own, Path(sys.prefix), Path(sys.base_prefix), Path(sys.exec_prefix)]
        real = tuple(sorted({path.resolve() for path in through}))
        # A new one for each server: mounts of one that is gone may still be there.
        scratch = Path(tempfile.mkdtemp(prefix="elsewhere-", dir=self.folder)).resolve()
        return Policy(self.root.resolve(), scratch, real, self.reach)

    @property
    def confined(self) -> Confined | None:
        """How runs are held, as it turned out; None where no server was started."""
        return next((base.confined for base in self._bases.values()), None)

    def keep_warm(self, used: Closable) -> None:
        """Have a trainer's server stay; of the others, those used last. Each takes memory of its own."""
        if used in self._warm:
            self._warm.remove(used)
        self._warm.append(used)
        if len(self._warm) > MOST_WARM:
            self._warm.pop(0).close()

    def recall_libraries(self, spec: TrainerSpec) -> list[str]:
        """The libraries that a trainer's undisturbed run imported in an earlier session."""
        return list(self._cache.get(_cache_key(spec), [])) if self._cache else []

    def remember_libraries(self, spec: TrainerSpec, libraries: Sequence[str]) -> None:
        """Keep them for later sessions, whose server then has them before the first run."""
        if self._cache:
            self._cache.set(_cache_key(spec), list(libraries))

    def new_tmp(self) -> Path:
        """A name for a temporary folder: of a run, whose supervisor removes it, or of the servers.

        Short, since sockets live in such folders, and the name of one may have a little over 100 characters.
        """
        self._tmps += 1
        path = self.folder / "t" / str(self._tmps)
        return path if self._short is None else self._short / str(self._tmps)

    def close(self) -> None:
        """End the base server, and remove what the runs left. Closing twice is fine."""
        self._warm.clear()
        while self._bases:
            self._bases.popitem()[1].close()
        for folder in (self._server_tmp, self.folder, *([self._short] if self._short else [])):
            folders.remove(folder)


def _cache_key(spec: TrainerSpec) -> str:
    return f"trainguard/libraries-{hashlib.blake2b(repr(spec).encode(), digest_size=8).hexdigest()}"
