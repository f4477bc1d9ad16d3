"""Another process: one that has a PID, and may hold real locks on files."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pytest_trainguard.verdicts.errors import CannotJudge

__all__ = ["reassign_pid", "start_bystander"]

SMALL = 4096  # bytes; a larger file is no note of a PID
# Both kinds of lock, on each file: flock(2) and fcntl(2). Held until standard input ends, so not longer than pytest.
_HOLD = """
import fcntl, sys
files = [open(name, "r+b") for name in sys.argv[1:]]
for file in files:
    fcntl.flock(file, fcntl.LOCK_EX)
    fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def start_bystander(*locked: Path) -> Iterator[int]:
    """A process that has nothing to do with the run, alive inside the context; its PID.

    Args:
        locked: files that it holds exclusive locks on.

    Raises:
        CannotJudge: somebody else holds a lock on one of them.
    """
    command = [sys.executable, "-I", "-S", "-c", _HOLD, *map(str, locked)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != b"held\n":
                raise CannotJudge("another process could not be given its locks")
            yield process.pid
        finally:
            process.kill()


def reassign_pid(folder: Path, pids: Sequence[int], to: int) -> None:
    """In the notes of an output folder (a lock, a PID file), the PIDs of a dead run become that of a living process.

    As after a reboot, when the system counts from the beginning again: to whoever reads the note, the process that it
    names lives. Text alone is changed; a file's times stay.
    """
    noted = re.compile(rb"(?<!\d)(?:%s)(?!\d)" % b"|".join(b"%d" % pid for pid in pids))
    for path in folder.rglob("*"):
        if path.is_symlink() or not path.is_file() or path.stat().st_size > SMALL:
            continue
        content = path.read_bytes()
        if b"\0" not in content and noted.search(content):
            path.write_bytes(noted.sub(b"%d" % to, content))
