"""How far a run is: in memory, in its checkpoints, and in the files for people."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from trainers.common import files
from trainers.common.checkpoint import Checkpoint
from trainers.common.errors import InputError, show

RECORD = "training_metadata.json"


@dataclass
class Progress:
    """What a checkpoint remembers of the run.

    Attributes:
        step: optimizer steps done.
        best_step: the step with the best validation, None before the first.
        best_score: its value of the metric that decides (``best_by``).
        rows_seen: rows trained on in all.
        rows_truncated: how many of them were cut.
    """

    step: int = 0
    best_step: int | None = None
    best_score: float | None = None
    rows_seen: int = 0
    rows_truncated: int = 0

    def improved(self, scores: dict[str, Any], best_by: str) -> bool:
        """Whether this step's validation is the best so far; if so, it is noted."""
        score: float = scores[best_by]
        better = self.best_score is None or (score < self.best_score if best_by == "loss" else score > self.best_score)
        if better:
            self.best_step, self.best_score = self.step, score
        return better


Kind = TypeVar("Kind", bound=Progress)


def restored(kind: type[Kind], found: Checkpoint) -> Kind:
    """The progress in a checkpoint.

    Raises:
        InputError: a field is not there.
    """
    return kind(**saved_fields(found, *(field.name for field in fields(kind))))


def saved_fields(found: Checkpoint, *names: str) -> dict[str, Any]:
    """Fields of a checkpoint's state.

    Raises:
        InputError: one is not there, naming it.
    """
    try:
        return {name: found.state[name] for name in names}
    except KeyError as error:
        raise InputError(f"checkpoint {show(found.path)}: state.json lacks {error}: of another program?") from None


class MetricsLog:
    """``metrics.jsonl``: one record a line, whole at every moment, none of a step that was lost."""

    def __init__(self, path: Path, until_step: int) -> None:
        """Go on with the records in ``path`` up to a step (0: none); those of later steps will come again."""
        self._path = path
        self.records = [record for record in _records(path) if record["step"] <= until_step]

    def add(self, step: int, kind: str, **numbers: Any) -> None:
        """Note one record; `write` puts it on the disk."""
        self.records.append({"step": step, "kind": kind, **numbers})

    def write(self) -> None:
        """Replace the file by all records so far.

        Raises:
            TrainingFailed: it cannot be written.
            ValueError: a number is NaN or infinite.
        """
        files.write_json_lines(self._path, self.records)


def _records(path: Path) -> list[dict[str, Any]]:
    """The records of a file, up to the first that somebody has spoilt: a log is no reason to stop."""
    records: list[dict[str, Any]] = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if type(record["step"]) is not int:
                break
            records.append(record)
    except (OSError, ValueError, TypeError, KeyError):
        pass
    return records


def ended_at(folder: Path) -> int | None:
    """The step at which the last run in a folder came to its end; None where none did, or that cannot be told."""
    try:
        told = json.loads((folder / RECORD).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    finished = isinstance(told, dict) and told.get("status") == "finished" and type(told.get("step")) is int
    return told["step"] if finished else None


def note_end(folder: Path, step: int, last: int) -> None:
    """Note that there is nothing more to do in a folder, whose checkpoints stand at a step and were to go on.

    Raises:
        TrainingFailed: it cannot be written.
    """
    if ended_at(folder) == step:
        return
    try:
        told = json.loads((folder / RECORD).read_bytes())
    except (OSError, ValueError, RecursionError):
        told = {}
    told = told if isinstance(told, dict) else {}
    files.write_json(folder / RECORD, {**told, "status": "finished", "step": step, "last_step": last})


class Record:
    """``training_metadata.json``: what was run on what, how far it came, and the best and the last scores.

    Its ``status`` is ``running`` from the first step on; a run that fails or is killed leaves it so.
    """

    def __init__(
        self, output_dir: Path, log: MetricsLog, events: list[dict[str, Any]], facts: Mapping[str, Any]
    ) -> None:
        """Begin.

        Args:
            output_dir: where the file stands.
            log: has all validations, those of an earlier start too.
            events: signs of a collapse, a list that grows while the run goes on.
            facts: what does not change meanwhile; JSON.
        """
        self._path = output_dir / RECORD
        self._log, self._events, self._facts = log, events, facts
        self._begun = time.monotonic()

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
