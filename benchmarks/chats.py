"""What it costs to validate a file of chat rows, beside reading its JSON and nothing else."""

from __future__ import annotations

import json
import time
from pathlib import Path
from statistics import median

from trainers.chat import rows, syllogisms

ROWS, PAIRS = 20_000, 7


def validation(folder: Path) -> tuple[float, float]:
    """Seconds for every row of a file of 20,000 rows: validated, and through `json.loads` alone."""
    path = folder / "chats.jsonl"
    if not path.exists():
        syllogisms.write_jsonl(path, ROWS, "hard")
    pairs = [(_validated(path), _loaded(path)) for _ in range(PAIRS + 1)][1:]  # the first one reads the disk
    return median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)


def _validated(path: Path) -> float:
    began = time.perf_counter()
    assert rows.validate(path).rows == ROWS
    return time.perf_counter() - began


def _loaded(path: Path) -> float:
    began = time.perf_counter()
    with path.open("rb") as file:
        for line in file:
            json.loads(line)
    return time.perf_counter() - began
