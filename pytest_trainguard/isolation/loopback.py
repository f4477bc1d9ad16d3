"""Whether somebody of a run's own listens on a port of this machine."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_LISTEN = "0A"  # the state's number in /proc/net/tcp
LOOPBACK = ("127.", "::1", "localhost", "::ffff:127.", "0.0.0.0")


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    return host in ("", "::", "None") or host.startswith(LOOPBACK)


def listens(port: int) -> bool:
    """Whether anybody listens on a TCP port that this process can reach over the loopback."""
    return bool(_listeners(port))


def listens_here(port: int) -> bool:
    """Whether one of this run's own processes does: one of the session that its supervisor began, or below it."""
    wanted = {f"socket:[{inode}]" for inode in _listeners(port)}
    return bool(wanted) and any(wanted & _sockets_of(pid) for pid in _own_processes())


def _listeners(port: int) -> set[str]:
    """The inodes of the sockets that listen on a port."""
    found = set()
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(fields[9])
    return found


def _own_processes() -> list[int]:
    own = os.getsid(0)
    found = []
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if entry.isdigit() and os.getsid(int(entry)) == own:
                found.append(int(entry))
    return found


def _sockets_of(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):
        for fd in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found.add(os.readlink(fd.path))
    return found
