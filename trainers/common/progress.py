"""How far a run is: in memory, in its checkpoints, and in the files for people."""

from __future__ import annotations

import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainers.code.classification import MetricsLog, describe_flags
from trainers.common import files
from trainers.common.process import Run


@dataclass
class Progress:
    """What a checkpoint remembers of the run.

    Attributes:
        step: optimizer steps done.
        epoch: passes over the data done.
        rows_done: rows done of the running pass.
        best_step: the step with the best validation, None before the first.
        best_score: its value of the metric that decides (``best_by``).
        rows_seen: rows trained on in all.
        rows_truncated: how many of them were cut.
        rows_unparsed: how many of them were no Python.
    """

    step: int = 0
    epoch: int = 0
    rows_done: int = 0
    best_step: int | None = None
    best_score: float | None = None
    rows_seen: int = 0
    rows_truncated: int = 0
    rows_unparsed: int = 0

    def add(self, rows: int, truncated: int, unparsed: int) -> None:
        """One more step, over so many rows, of which so many were cut and so many are no Python."""
        self.step += 1
        self.rows_done += rows
        self.rows_seen += rows
        self.rows_truncated += truncated
        self.rows_unparsed += unparsed

    def improved(self, scores: dict[str, Any], best_by: str) -> bool:
        """Whether this step's validation is the best so far; if so, it is noted."""
        score: float = scores[best_by]
        better = self.best_score is None or (score < self.best_score if best_by == "loss" else score > self.best_score)
        if better:
            self.best_step, self.best_score = self.step, score
        return better


class Record:
    """``training_metadata.json``: what was run on what, how far it came, and the last scores.

    Its ``status`` is ``running`` from the first step on; a run that fails or is killed leaves it so.
    """

    def __init__(self, run: Run, output_dir: Path, log: MetricsLog, events: list[dict[str, Any]], **facts: Any) -> None:
        """Begin.

        Args:
            run: is told of validations.
            output_dir: where the file stands.
            log: takes in validations, and has those of an earlier start.
            events: signs of a collapse, a list that grows while the run goes on.
            facts: what does not change meanwhile; JSON.
        """
        import torch

        self._run = run
        self._path = output_dir / "training_metadata.json"
        self._log = log
        self._events = events
        self._begun = time.monotonic()
        self._facts = {
            "program": run.program,
            "python": platform.python_version(),
            "torch": torch.__version__,
            **facts,
        }

    def write(self, status: str, done: Progress) -> None:
        """Replace the file."""
        validations = [record for record in self._log.records if record.get("kind") == "validation"]
        files.write_json(
            self._path,
            {
                "status": status,
                **asdict(done),
                "best_checkpoint": None if done.best_step is None else f"checkpoint-{done.best_step}",
                "best": next((record for record in validations if record["step"] == done.best_step), None),
                "validation": validations[-1] if validations else None,
                "collapse_events": self._events,
                "seconds": round(time.monotonic() - self._begun, 3),
                **self._facts,
            },
        )

    def validated(self, done: Progress, scores: dict[str, Any]) -> None:
        """Take in one validation: the log's record, a line, and a warning for each flag."""
        self._log.add(done.step, "validation", **scores)
        self._run.say(
            f"step {done.step}: validation loss {scores['loss']:.4f}, "
            f"F1 {scores['f1']:.3f}, accuracy {scores['accuracy']:.3f}"
        )
        for warning in describe_flags(scores):
            self._run.say(f"step {done.step}: {warning}")
