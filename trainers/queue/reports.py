"""What the queue keeps of each file in ``reports/ID/``: enough to know everything without the ledger.

``report.json`` says what becomes of the file, before that is done; the ledger only repeats it. Beside it is a
folder for each attempt:

================== ===============================================================================
``settings.json``  the trainer's settings in this attempt
``start.json``     its command, what it resumes from, which settings were changed by recovery
``output.log``     what the trainer printed
``heartbeat.json`` and ``outcome.json``: the trainer's own words, `trainers.common.status`
``ended.json``     its exit code, from `trainers.queue.keeper`
``stack.txt``      where it hung, if it did
================== ===============================================================================
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from trainers.common import files
from trainers.queue.layout import Layout, identity
from trainers.queue.recovery import Tried

REPORT, SETTINGS, START, OUTPUT, STACK, LOCK = (
    "report.json", "settings.json", "start.json", "output.log", "stack.txt", "keeper.lock",
)  # fmt: skip
ATTEMPT = re.compile(r"attempt-([0-9]{1,9})")


class Attempt(NamedTuple):
    """One attempt's number and folder."""

    number: int
    folder: Path


class Reports:
    """The reports of one queue."""

    def __init__(self, layout: Layout) -> None:
        """``layout``: of the queue."""
        self._root = layout.reports

    def folder(self, digest: str) -> Path:
        """Where everything on content of this SHA-256 is."""
        return self._root / identity(digest)

    def read(self, digest: str) -> dict[str, Any]:
        """The report; an empty one where there is none, or what is there is none."""
        return read_report(self.folder(digest) / REPORT)

    def write(self, digest: str, report: dict[str, Any]) -> None:
        """Replace the report, in one step.

        Raises:
            TrainingFailed: the disk is full or gone.
        """
        self.folder(digest).mkdir(parents=True, exist_ok=True)
        files.write_text(self.folder(digest) / REPORT, dumped(report))

    def last(self, digest: str) -> Attempt | None:
        """The newest attempt."""
        try:
            found = [(ATTEMPT.fullmatch(path.name), path) for path in self.folder(digest).iterdir()]
        except OSError:
            return None
        return max((Attempt(int(match[1]), path) for match, path in found if match), default=None)

    def all(self) -> list[dict[str, Any]]:
        """Every readable report."""
        found = [read_report(path / REPORT) for path in sorted(self._root.iterdir())]
        return [report for report in found if report]


def read_report(path: Path) -> dict[str, Any]:
    """A report in which everything is of the type that it must be; else an empty one."""
    try:
        report = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return report if isinstance(report, dict) and _sound(report) else {}


def read_start(folder: Path) -> dict[str, Any]:
    """What an attempt began with; empty where it never began."""
    try:
        start = json.loads((folder / START).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return start if isinstance(start, dict) else {}


def _sound(report: dict[str, Any]) -> bool:
    types = {"name": str, "hash": str, "state": str, "reason": str, "attempts": list}
    return (
        all(isinstance(report.get(name), kind) for name, kind in types.items())
        and report["state"] in ("queued", "done", "failed")
        and all(isinstance(attempt, dict) and _sound_attempt(attempt) for attempt in report["attempts"])
        and isinstance(report.get("done_number"), int | None)
        and isinstance(report.get("retry_at"), int | float | None)
    )


def _sound_attempt(attempt: dict[str, Any]) -> bool:
    types = {"number": int, "kind": str, "message": str, "counts": bool, "changes": dict, "forgiven": bool}
    return all(isinstance(attempt.get(name), kind) for name, kind in types.items())


def tried(report: dict[str, Any]) -> list[Tried]:
    """The attempts since the file came, or since somebody asked for it to be tried again."""
    return [Tried(attempt["kind"], attempt["counts"]) for attempt in _present(report)]


def changes(report: dict[str, Any]) -> dict[str, Any]:
    """The trainer's settings that recoveries have changed."""
    made: dict[str, Any] = {}
    for attempt in _present(report):
        made |= attempt["changes"]
    return made


def _present(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [attempt for attempt in report.get("attempts", []) if not attempt["forgiven"]]


def judged(report: dict[str, Any], number: int) -> bool:
    """Whether the report knows what became of an attempt."""
    return any(attempt["number"] == number for attempt in report.get("attempts", []))


def dumped(value: Any) -> str:
    """JSON in ASCII: names that are no UTF-8 come back as they were."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"
