"""What the tests of the queue share: a queue in a folder, commands to it, looks at it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainers.queue import cli

PROJECT = Path(__file__).parents[2]
FOLDERS = ("inbox", "high", "normal", "low", "processing", "done", "failed")
TRAINER = [
    *(sys.executable, str(Path(__file__).with_name("queue_trainer.py")), "--settings", "{settings}"),
    *("--data", "{data}", "--output-dir", "{output_dir}", "--resume-from", "{resume_from}"),
    *("--status-dir", "{status_dir}"),
]
QUICK: dict[str, Any] = {
    "trainer": TRAINER,
    "settle_seconds": 0.0,
    "unfinished_seconds": 0.0,
    "poll_seconds": 0.02,
    "backoff_seconds": 0.0,
    "heartbeat_timeout": 60.0,
    "min_free_mib": 0.0,
}


class Queue:
    """A queue in a folder, seen from outside."""

    def __init__(self, root: Path, *, preload: list[str] | None = None, **settings: Any) -> None:
        """`preload` stays, whatever other settings it is given later."""
        self.root = root
        self._always = {} if preload is None else {"preload": preload}
        self.settings(**settings)

    def settings(self, **settings: Any) -> None:
        self.root.mkdir(exist_ok=True)
        (self.root / "queue.json").write_text(json.dumps({**QUICK, **self._always, **settings}))

    def __call__(self, *words: str | Path) -> int:
        """A command, in this process."""
        return cli.main(["--root", str(self.root), *map(str, words)])

    def start(self, *words: str, before: str = "") -> subprocess.Popen[str]:
        """A command as a process of its own, optionally with some Python before it."""
        code = f"import sys\nsys.path.append({str(PROJECT)!r})\n{before}\nfrom trainers.queue.cli import main\n"
        code += f"sys.exit(main({['--root', str(self.root), *words]!r}))"
        return subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=PROJECT
        )

    def put(self, folder: str, name: str, content: Any = None, **row: Any) -> Path:
        """A file, as anybody drops it in."""
        for each in FOLDERS:
            (self.root / each).mkdir(exist_ok=True)
        path = self.root / folder / name
        path.write_bytes(content if isinstance(content, bytes) else line(id=name, **row))
        return path

    def told(self) -> dict[str, Any]:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            assert self("status", "--json") == 0
        return json.loads(out.getvalue())

    def states(self) -> dict[str, str]:
        return {file["name"]: file["state"] for file in self.told()["files"]}

    def file(self, name: str) -> dict[str, Any]:
        (found,) = [file for file in self.told()["files"] if file["name"] == name]
        return found

    def tree(self) -> dict[str, list[str]]:
        """The names in each folder that has any."""
        found = {folder: sorted(os.listdir(self.root / folder)) for folder in FOLDERS}
        return {folder: names for folder, names in found.items() if names}

    def everywhere(self) -> list[str]:
        return sorted(name for names in self.tree().values() for name in names)

    def diary(self, event: str | None = None) -> list[dict[str, Any]]:
        """What the trainers did."""
        try:
            lines = (self.root / "diary.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [entry for entry in map(json.loads, lines) if event in (None, entry["event"])]

    def begun(self) -> list[str]:
        return [entry["row"] for entry in self.diary("begin")]

    def events(self, event: str | None = None) -> list[dict[str, Any]]:
        entries = map(json.loads, (self.root / "log.jsonl").read_text().splitlines())
        return [entry for entry in entries if event in (None, entry["event"])]

    def report(self, name: str) -> dict[str, Any]:
        folder = self.root / "reports" / self.file(name)["hash"][:32]
        return json.loads((folder / "report.json").read_text())

    def attempts(self) -> list[Path]:
        return sorted(self.root.glob("reports/*/attempt-*"))

    def trained(self) -> Counter[str]:
        """How many attempts with each content were a success, by what they and their keepers left."""
        return Counter(folder.parent.name for folder in self.attempts() if was_success(folder))


def was_success(attempt: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return json.loads((attempt / "outcome.json").read_text())["kind"] == "success"
    with contextlib.suppress(FileNotFoundError):
        return json.loads((attempt / "ended.json").read_text())["exit"] == 0
    return False


def line(**row: Any) -> bytes:
    return json.dumps(row).encode() + b"\n"


def wait_for(what: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def assert_sound(queue: Queue, names: list[str]) -> None:
    """Every file is in exactly one folder, each was trained at most once, and the ledger knows."""
    assert queue.everywhere() == sorted(names)
    told = queue.told()
    assert sum(told["counts"].values()) == len(names)
    assert {(file["folder"], file["file"]) for file in told["files"]} == {
        (folder, name) for folder, found in queue.tree().items() for name in found
    }
    assert max(queue.trained().values(), default=0) <= 1
