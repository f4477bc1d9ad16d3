"""What is asked of isolation, and what could be had of it on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

NETWORK_VARIABLE = "TRAINGUARD_NETWORK"  # in a run's environment: how its network is held, a word of `Held`
HOSTS_VARIABLE = "TRAINGUARD_HOSTS"  # hosts that it may reach all the same, separated by commas

Held = Literal["namespace", "refused", "open"]


@dataclass(frozen=True)
class Reach:
    """What a team opens of the world for its runs.

    Attributes:
        network: nothing but what a run listens on itself (empty), everything (`allow`), or these hosts as well.
        keep: names and patterns of environment variables that stay, and paths of files, with a slash in them.
        own: folders that runs write to for real, beside those that are made for them: pytest's temporary one.
        namespaces: use the kernel's namespaces where this user may make them.
    """

    network: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    own: tuple[Path, ...] = ()
    namespaces: bool = True

    @property
    def allows_all(self) -> bool:
        """Whether every host may be reached."""
        return self.network == ("allow",)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts that may be reached although the network is closed."""
        return () if self.allows_all else self.network


@dataclass(frozen=True)
class Policy:
    """How runs are to be held.

    Attributes:
        root: the project's folder, whose files stay as they are.
        scratch: a folder for what runs write elsewhere than in their own folders.
        through: folders inside of covered ones that runs write to for real: the session's own, the interpreter's.
        reach: what is open to them.
    """

    root: Path
    scratch: Path
    through: tuple[Path, ...] = ()
    reach: Reach = Reach()


@dataclass(frozen=True)
class Confined:
    """How runs are held, as it turned out on this machine.

    Attributes:
        network: in a `namespace` of their own, by being `refused` in each Python process, or not at all (`open`).
        covered: folders whose files are under a cover, so that whatever is written there is seen and undone; of the
            rest, and of all where there are none, what Python opens to write is seen.
    """

    network: Held
    covered: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Elsewhere:
    """A file that a run wrote, changed or removed outside of its own folders.

    Attributes:
        path: of the file.
        how: `made`, `changed` or `removed`; that has been undone.
        time: when it was last written, in seconds since the epoch; 0 where it was removed.
    """

    path: Path
    how: Literal["made", "changed", "removed"]
    time: float
