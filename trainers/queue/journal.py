"""What happens, for people and for programs: a line on the terminal, a JSON line in ``log.jsonl``; alerts."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainers.common.errors import reason, show
from trainers.queue.options import QueueSettings

ALERT_SECONDS = 10.0
"""How long an alert's command may take."""


class Journal:
    """The queue's log. It never stands in the way: what cannot be written (a full disk) is left out."""

    def __init__(self, path: Path, say: Callable[[str], None] = lambda line: None) -> None:
        """``say``: is given the events that are for people, too."""
        self.path = path
        self._say = say

    def add(self, event: str, line: str | None = None, /, **facts: Any) -> None:
        """One event; with a line, people see that."""
        add_line(self.path, {"time": now(), "event": event, **({"message": line} if line else {}), **facts})
        if line:
            self._say(line)

    def alert(self, chosen: QueueSettings, kind: str, line: str, **facts: Any) -> None:
        """Tell whoever the settings name. An alert that fails is an event, and nothing more."""
        self.add("alert", f"ALERT {kind}: {line}", kind=kind, **facts)
        content = {"time": now(), "kind": kind, "message": line, **facts}
        if chosen.alert_file is not None:
            why = add_line(self.path.parent / chosen.alert_file, content)
            if why is not None:
                self.add("alert_failed", f"alert_file {show(chosen.alert_file)}: {why}")
        if chosen.alert_command is not None:
            why = _run(chosen.alert_command, content)
            if why is not None:
                self.add("alert_failed", f"alert_command {show(chosen.alert_command[0])}: {why}")


def _run(command: list[str], content: dict[str, Any]) -> str | None:
    """Why the command failed, or None."""
    try:
        done = subprocess.run(
            command, input=json.dumps(content).encode("ascii") + b"\n", timeout=ALERT_SECONDS,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"took longer than {ALERT_SECONDS:g} seconds"
    except (OSError, ValueError) as error:
        return reason(error) if isinstance(error, OSError) else str(error)
    said = done.stderr.decode("utf-8", "replace").split()
    return f"exit code {done.returncode}: {ascii(' '.join(said))[:200]}" if done.returncode else None


def add_line(path: Path, content: dict[str, Any]) -> str | None:
    """Add one JSON line in one write; after a line that was cut off by a crash, on a line of its own.

    Returns:
        why it could not be done, or None.
    """
    # Only ASCII: names that are no UTF-8 come back as they were, through Python's surrogate escapes.
    line = json.dumps(content).encode("ascii") + b"\n"
    try:
        with open(path, "ab+", buffering=0) as file:
            if file.seek(0, os.SEEK_END) > 0:
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else b"\n" + line
            file.write(line)
    except OSError as error:
        return reason(error)
    return None


def last_lines(path: Path, count: int, most_bytes: int = 1 << 16) -> list[dict[str, Any]]:
    """The last events in a log, the newest last; what is no JSON object is left out."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - most_bytes))
        found = []
        for line in file.read().splitlines()[-count:]:
            with contextlib.suppress(ValueError, RecursionError):
                found.append(json.loads(line))
        return [event for event in found if isinstance(event, dict)]
    return []


def now() -> str:
    """The time in UTC, ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
