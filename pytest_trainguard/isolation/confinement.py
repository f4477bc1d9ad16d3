"""How a server, and each run that is forked from it, is kept from the world: made once, in the base server.

The base server enters a user, a network and a mount namespace, where it may. In it caches are covered once, so that
what one run puts there the next one finds; secrets are hidden. A trainer's server covers the project's and the home
folder, for what a module writes as it is imported; a supervisor does so anew for each run, on top of that, and looks at
what was written.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import tempfile
from pathlib import Path

from pytest_trainguard import linux
from pytest_trainguard.isolation import covers, environment, refusals
from pytest_trainguard.isolation.policy import HOSTS_VARIABLE, NETWORK_VARIABLE, Confined, Elsewhere, Held, Policy


class Confinement:
    """What holds this process and those that are forked from it.

    Attributes:
        policy: what was asked for.
        confined: what could be had.
    """

    def __init__(self, policy: Policy):
        """Enter the namespaces; the process must have one thread only, and be the base server."""
        self.policy = policy
        self._home = Path.home()
        self._imported: dict[Path, Path] = {}  # covered folder to where a trainer's server writes instead
        self._hidden = environment.list_secret_files(self._home, policy.reach.keep)
        policy.scratch.mkdir(parents=True, exist_ok=True)
        wants_network_gone = not policy.reach.network
        inside = policy.reach.namespaces and linux.enter_namespaces(network=wants_network_gone)
        network: Held = "open" if policy.reach.allows_all else "refused"
        if inside and wants_network_gone:
            linux.raise_loopback()
            network = "namespace"
        os.environ[NETWORK_VARIABLE] = network
        os.environ[HOSTS_VARIABLE] = ",".join(policy.reach.hosts)
        covered = self._prepare_mounts() if inside else ()
        self.confined = Confined(network, covered)
        if network == "refused" and not policy.reach.hosts:
            environment.refuse_programs()
        root = policy.root
        self._root_covered = any(folder == root or folder in root.parents for folder in covered)
        if network == "refused" or not self._root_covered:
            refusals.install()
        if not self._root_covered:
            sys.dont_write_bytecode = True  # the project's folder stays as it is
        self._kept = policy.scratch / "kept-of-server"
        self._tell_refusals(self._kept)

    def _prepare_mounts(self) -> tuple[Path, ...]:
        """Hide what is secret, cover the caches; the folders that can be covered for a run."""
        scratch, real = self.policy.scratch, self.policy.through
        every = covers.choose(self.policy.root, self._home, *map(Path, ("/tmp", "/var/tmp")))
        folders = [folder for folder in every if not any(path == folder or path in folder.parents for path in real)]
        try:
            if any(folder in scratch.parents for folder in folders):
                linux.mount_tmpfs(scratch)  # what a folder is covered with must not be inside of it
            self._hide()
            self._know_own_name()
        except OSError:
            return ()
        for number, cache in enumerate(_caches(self._home)):
            self._can_cover(cache, f"cache-{number}")
        covered = [folder for number, folder in enumerate(folders) if self._can_cover(folder, f"try-{number}")]
        for folder in covered:
            covers.take_off(folder)
        return tuple(covered)

    def _can_cover(self, folder: Path, name: str) -> bool:
        """Cover a folder; whether that can be done."""
        try:
            covers.put_on(folder, self.policy.scratch / name, [], self.policy.through)
        except OSError:
            return False
        return True

    def _hide(self) -> None:
        nothing = self.policy.scratch / "nothing"
        nothing.mkdir()
        for path in self._hidden:
            linux.bind(nothing if path.is_dir() else Path(os.devnull), path.resolve())

    def _know_own_name(self) -> None:
        """Have this machine's name be the loopback's: its other addresses are not in the namespace."""
        hosts, name = Path("/etc/hosts"), socket.gethostname()
        if self.policy.reach.network or not hosts.exists():
            return
        own = self.policy.scratch / "hosts"
        others = [line for line in hosts.read_text().splitlines() if name not in line.split("#")[0].split()[1:]]
        own.write_text("\n".join([f"127.0.0.1 localhost {name}", *others, ""]))
        with contextlib.suppress(OSError):
            linux.bind(own, hosts)

    def enter_trainer(self) -> None:
        """In the server of one trainer, before its module is imported: cover what that might write to."""
        if not self.confined.covered:
            return
        linux.enter_mount_namespace()
        for number, folder in enumerate(self.confined.covered):
            place = self._place(f"import-{number}")
            covers.put_on(folder, place, [], self.policy.through)
            self._imported[folder] = place
        os.chdir(self.policy.root)  # this process stands in the folder beneath the cover still

    def enter_supervisor(self) -> None:
        """In a supervisor: a network of its own for its runs, so that two can listen on one port, and mounts."""
        if self.confined.network == "namespace" and linux.enter_network_namespace():
            linux.raise_loopback()
        if self.confined.covered:
            linux.enter_mount_namespace()
            for folder in self._imported:
                covers.take_off(folder)

    def _place(self, name: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.policy.scratch))

    def begin_run(self) -> RunCover:
        """Cover the folders for one run; for its supervisor."""
        places = {}
        for number, folder in enumerate(self.confined.covered):
            place = self._place(f"run-{number}")
            earlier = [self._imported[folder] / "upper"] if folder in self._imported else []
            covers.put_on(folder, place, earlier, self.policy.through)
            places[folder] = place
        return RunCover(places, dict(self._imported), self._place("kept"))

    def set_up_run(self, cover: RunCover, tmp: Path) -> None:
        """In the run's own process: its environment, and no rights beyond those of its user."""
        os.environ.update(environment.of_run(tmp, self.policy.reach.keep))
        self._tell_refusals(cover.kept)
        linux.give_up_rights()

    def end(self) -> int:
        """When the base server ends: put back what modules changed as they were imported, where nothing was covered."""
        refusals.fall_silent()
        refusals.put_back(self._kept)
        return 0

    def _tell_refusals(self, kept: Path) -> None:
        if not self._root_covered:
            told = refusals.environment(self.policy.root, self.policy.through, kept, self._hidden)
            os.environ.update(told)


class RunCover:
    """The covers of one run."""

    def __init__(self, places: dict[Path, Path], imported: dict[Path, Path], kept: Path):
        """`places` and `imported`: covered folder to where the run, and its trainer's module before it, wrote instead.

        `kept`: copies of what it overwrote where nothing could be covered.
        """
        self._places, self._imported, self.kept = places, imported, kept

    def end(self) -> list[Elsewhere]:
        """Take the covers off, undo what was written, and tell what that was; when no process of the run is left."""
        refusals.fall_silent()  # what is put back here is no run's doing
        found = {one.path: one for one in refusals.put_back(self.kept)}
        covers.clear(self.kept)
        for folder, place in self._places.items():
            covers.take_off(folder)
            earlier = [self._imported[folder]] if folder in self._imported else []
            found.update({one.path: one for each in (*earlier, place) for one in covers.list_changes(folder, each)})
            covers.clear(place)
        return list(found.values())


def _caches(home: Path) -> list[Path]:
    """The folders in which libraries keep what they fetched or compiled, those that exist."""
    named = [os.environ.get(name) for name in ("XDG_CACHE_HOME", "HF_HOME", "TORCH_HOME")]
    every = [home / ".cache", *(Path(path) for path in named if path)]
    there = [path.resolve() for path in every if path.is_dir()]
    return sorted({path for path in there if not any(other in path.parents for other in there)})
