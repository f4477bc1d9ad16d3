"""A night's work of the training queue: 20,000 hard syllogisms in four files, LoRA, to the end.

    python -m benchmarks.hard_file [--folder FOLDER]

The files go through the queue one after the other, each trained from the run of the one before, as the team did with
its own. Told of each: steps, seconds, the most memory that the queue and all its processes had at once, and how many
answers to questions of forms that were held out are right.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

from trainers.chat import syllogisms
from trainers.common import files
from trainers.queue.layout import Layout

PROJECT = Path(__file__).parent.parent
ROWS, FILES, SEED = 20_000, 4, 42
BATCH = 8  # as the team's: 2,487 optimizer steps in all
LOOK = 1.0  # seconds between two looks at the memory, each of which costs some milliseconds a process
SETTINGS = {"settle_seconds": 0.0, "poll_seconds": 0.05, "trainer_settings": {"batch_size": BATCH}}


class File(NamedTuple):
    """What one file came to.

    Attributes:
        name: of the file.
        rows: in it.
        steps: optimizer steps.
        seconds: from claimed to done.
        peak: bytes that the queue and its processes had at once, at most; memory that they share is counted once.
        exact_match: share of the answers to held-out questions that are right, at the last step.
    """

    name: str
    rows: int
    steps: int
    seconds: float
    peak: int
    exact_match: float


@dataclass
class Watched:
    """What was seen while a file was trained: when first and last, by the clock, and the most memory."""

    first: float = 0.0
    last: float = 0.0
    peak: int = 0

    def look(self, pid: int) -> None:
        """Once more, at the queue of this process."""
        self.last = time.monotonic()
        self.first = self.first or self.last
        self.peak = max(self.peak, _memory(pid))


def train(folder: Path, rows: int = ROWS, count: int = FILES) -> list[File]:
    """Put the files into a queue, and train them all.

    Raises:
        RuntimeError: a file is not done.
    """
    root = folder / "queue"
    (root / "inbox").mkdir(parents=True)
    files.write_json(root / "queue.json", SETTINGS)
    everything = syllogisms.rows("hard", SEED)
    names = [f"syllogisms-{number}.jsonl" for number in range(1, count + 1)]
    for name in names:
        files.write_json_lines(root / "inbox" / name, itertools.islice(everything, rows // count))
    watched = {name: Watched() for name in names}
    with subprocess.Popen([sys.executable, "-m", "trainers.queue", "--root", str(root), "once"], cwd=PROJECT) as queue:
        while queue.poll() is None:
            for name in set(_names(root / "processing")).intersection(names):
                watched[name].look(queue.pid)
            time.sleep(LOOK)
    done = list(_names(root / "done"))
    if sorted(done) != names:
        raise RuntimeError(f"{sorted(set(names) - set(done))} not done: see {root / 'log.jsonl'}")
    return [_told(root, name, rows // count, watched[name]) for name in names]


def _names(folder: Path) -> Iterator[str]:
    with contextlib.suppress(FileNotFoundError):
        yield from sorted(path.name for path in folder.iterdir() if path.suffix == ".jsonl")


def _memory(pid: int) -> int:
    """Bytes of a process and all that it started, what they share counted once (the proportional set size)."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return sum(_share(each) for each in [process, *process.children(recursive=True)])
    return 0


def _share(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        return int(process.memory_full_info().pss)
    return 0


def _told(root: Path, name: str, rows: int, watched: Watched) -> File:
    """From the run's own records."""
    layout = Layout(root)
    run = layout.run(files.sha256(layout.path("done", name)))
    told = json.loads((run / "training_metadata.json").read_bytes())
    return File(name, rows, told["step"], watched.last - watched.first, watched.peak, told["validation"]["exact_match"])


def table(done: Iterable[File]) -> Iterator[str]:
    """A line for each file. Steps are counted from the first file's first."""
    before = 0
    for file in done:
        memory = f"{file.peak / 2**20:.0f} MiB"
        yield (
            f"{file.name}: {file.rows} rows, {file.steps - before} steps, {file.seconds:.0f} s, at most {memory}, "
            f"{file.exact_match:.3f} of the answers right"
        )
        before = file.steps


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hard_file", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folder", type=Path, help="an empty folder for the queue; left out: a temporary one")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for line in table(train(told.folder or Path(name))):
            print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
