"""What the tests of the trainers share: tiny settings, and looks at an output folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TINY: dict[str, Any] = {
    "hidden_size": 32,
    "layers": 2,
    "heads": 2,
    "max_length": 64,
    "vocab_size": 400,
    "dropout": 0.1,
    "batch_size": 8,
    "learning_rate": 5e-4,
    "warmup_steps": 2,
    "log_every": 1,
    "save_every": 2,
    "device": "cpu",
}


def losses(folder: Path) -> list[tuple[int, float]]:
    """Step and loss of each training record."""
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [(record["step"], record["loss"]) for record in records if record["kind"] == "train"]


def left_behind(folder: Path) -> list[str]:
    """What has no business in an output folder after a run."""
    return [path.name for path in folder.glob("*") if path.name.startswith(".tmp") or path.name == "run.lock"]


def tree(folder: Path) -> dict[str, bytes]:
    """Every file under a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
