"""What the training queue costs when it is long, and what is left of its files when it is killed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from trainers.queue import moves, opening
from trainers.queue.layout import FOLDERS, PRIORITIES, Layout
from trainers.queue.stock import Queue, Stock

PROJECT = Path(__file__).parent.parent
FEW, MANY, PAIRS, CHOICES = 100, 10_000, 7, 200
KILLS, FILES_A_KILL, LATEST_SECONDS = 200, 2, 1.0
SETTINGS = {"settle_seconds": 0.0, "unfinished_seconds": 0.0, "poll_seconds": 0.02, "min_free_mib": 0.0}
TRAINER = [
    *(
        sys.executable,
        "-c",
        "import pathlib, sys, time; time.sleep(0.02); pathlib.Path(sys.argv[1]).mkdir(exist_ok=True)",
    ),
    *("{output_dir}", "{data}"),
]
"""It says nothing of its end: only its exit code does."""


class Kills(NamedTuple):
    """What became of the files of a queue that was killed over and over.

    Attributes:
        kills: how often it was killed.
        files: how many were put in.
        lost: how many of them are in no folder at the end, or in two.
        twice: how many contents were trained to their end more than once.
        untrained: how many never were.
    """

    kills: int
    files: int
    lost: int
    twice: int
    untrained: int


def lengths(folder: Path) -> dict[str, tuple[float, float]]:
    """Seconds for a queue of 10,000 files in its inbox and for one of 100: for ``status``, and to choose the next."""
    with _queue(folder / "many", MANY) as many, _queue(folder / "few", FEW) as few:
        return {
            "status": _in_turns(lambda: _status(many), lambda: _status(few)),
            "choosing the next": _in_turns(lambda: _choosing(many), lambda: _choosing(few)),
        }


@contextmanager
def _queue(root: Path, count: int) -> Iterator[Queue]:
    """A queue that has taken its files in, half of which are done."""
    layout = _made(root)
    for number in range(count):
        _put(root, number)
    with opening.opened(layout, lambda line: None, daemon=True) as queue:
        Stock(queue).take_in()
        with queue.ledger.transaction():
            for row in queue.ledger.in_order("normal")[: count // 2]:
                layout.move(*row.place, "done", row.name, row.hash, sync=False)
                queue.ledger.change(row.seq, state="done", folder="done", done_number=row.seq)
        yield queue


def _made(root: Path, **settings: object) -> Layout:
    layout = Layout(root)
    layout.make()
    (root / "queue.json").write_text(json.dumps({**SETTINGS, "trainer": TRAINER, **settings}))
    return layout


def _put(root: Path, number: int, folder: str = "inbox") -> None:
    """As anybody does it: under another name first."""
    path = root / folder / f"{number:06}.jsonl"
    path.with_suffix(".part").write_text(json.dumps({"number": number}) + "\n")
    path.with_suffix(".part").rename(path)


def _in_turns(first: Callable[[], float], second: Callable[[], float]) -> tuple[float, float]:
    pairs = [(first(), second()) for _ in range(PAIRS + 1)][1:]
    return median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)


def _status(queue: Queue) -> float:
    """The whole command, as people see it."""
    began = time.perf_counter()
    subprocess.run([*_command(queue.layout.root), "status"], cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _choosing(queue: Queue) -> float:
    began = time.perf_counter()
    for _ in range(CHOICES):
        assert moves.next_row(queue) is not None
    return (time.perf_counter() - began) / CHOICES


def _command(root: Path) -> list[str]:
    return [sys.executable, "-m", "trainers.queue", "--root", str(root)]


def kills(folder: Path, count: int = KILLS) -> Kills:
    """Start the queue and kill it at a random instant, so many times, while files keep coming; then let it end."""
    root, chance = folder / "killed", random.Random(51)
    _made(root)
    put = 0
    for _ in range(count):
        for _ in range(FILES_A_KILL):
            _put(root, put, chance.choice(("inbox", *PRIORITIES)))
            put += 1
        _run_and_kill(root, chance.uniform(0, LATEST_SECONDS))
    subprocess.run([*_command(root), "once"], cwd=PROJECT, check=True, stderr=subprocess.DEVNULL)
    found = Counter(name for each in FOLDERS for name in os.listdir(root / each))
    trained = Counter(path.parent.parent.name for path in root.glob("reports/*/attempt-*/ended.json") if _success(path))
    lost = put - sum(count == 1 for count in found.values())
    return Kills(count, put, lost, sum(times > 1 for times in trained.values()), put - len(trained))


def _run_and_kill(root: Path, seconds: float) -> None:
    """The instant is counted from when the queue has its lock: its start alone is nothing to be killed in."""
    with subprocess.Popen([*_command(root), "run"], cwd=PROJECT, stderr=subprocess.DEVNULL) as process:
        while not _holds(root, process.pid) and process.poll() is None:
            time.sleep(0.005)
        time.sleep(seconds)
        process.kill()


def _holds(root: Path, pid: int) -> bool:
    try:
        return (root / "run.lock").read_text() == f"{pid}\n"
    except OSError:
        return False


def _success(path: Path) -> bool:
    return json.loads(path.read_bytes())["exit"] == 0


def main() -> int:
    """These figures alone: ``python -m benchmarks.queues``."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        for what, (many, few) in lengths(Path(name)).items():
            print(f"{what}: {many:.5f} s at {MANY} files, {few:.5f} s at {FEW}, ratio {many / few:.2f}", flush=True)
        print(kills(Path(name)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
