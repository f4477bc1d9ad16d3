"""How far a run is: in memory, in its checkpoints, and in the files for people."""

from __future__ import annotations

import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainers import files
from trainers.metrics import MetricsLog, describe_flags
from trainers.process import Run


@dataclass
class Progress:
    """What a checkpoint remembers of the run.

    Attributes:
        step: optimizer steps done.
        epoch: passes over the data done.
        rows_done: rows done of the running pass.
        best_step: the step with the lowest validation loss, None before the first validation.
        best_loss: that loss, the mean of the rows.
        rows_seen: rows trained on in all.
        rows_truncated: how many of them were cut.
    """

    step: int = 0
    epoch: int = 0
    rows_done: int = 0
    best_step: int | None = None
    best_loss: float | None = None
    rows_seen: int = 0
    rows_truncated: int = 0

    def add(self, rows: int, truncated: int) -> None:
        """One more step, over so many rows, of which so many were cut."""
        self.step += 1
        self.rows_done += rows
        self.rows_seen += rows
        self.rows_truncated += truncated


class Record:
    """``training_metadata.json``: what was run on what, how far it came, and the last scores.

    Its ``status`` is ``running`` from the first step on; a run that fails or is killed leaves it so.
    """

    def __init__(self, run: Run, output_dir: Path, log: MetricsLog, **facts: Any) -> None:
        """``facts``: what does not change while the run goes on; JSON."""
        import torch

        self._run = run
        self._path = output_dir / "training_metadata.json"
        self._log = log
        self._begun = time.monotonic()
        self._scores: dict[str, Any] | None = None
        self._facts = {
            "program": run.program,
            "python": platform.python_version(),
            "torch": torch.__version__,
            **facts,
        }

    def write(self, status: str, done: Progress) -> None:
        """Replace the file."""
        best = None if done.best_step is None else f"checkpoint-{done.best_step}"
        files.write_json(
            self._path,
            {
                "status": status,
                **asdict(done),
                "best_checkpoint": best,
                "validation": self._scores,
                "seconds": round(time.monotonic() - self._begun, 3),
                **self._facts,
            },
        )

    def validated(self, done: Progress, scores: dict[str, Any]) -> None:
        """Take in one validation: the log's record, the best so far, and a warning for each flag."""
        self._scores = {"step": done.step, **scores}
        self._log.add(done.step, "validation", **scores)
        self._run.say(
            f"step {done.step}: validation loss {scores['loss']:.4f}, "
            f"F1 {scores['f1']:.3f}, accuracy {scores['accuracy']:.3f}"
        )
        for warning in describe_flags(scores):
            self._run.say(f"step {done.step}: {warning}")
        if done.best_loss is None or scores["loss"] < done.best_loss:
            done.best_step, done.best_loss = done.step, scores["loss"]
