"""What a run measured: scores of a yes-or-no classifier, and the files that they stand in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainers.common import files


def scores(labels: Sequence[int], probabilities: Sequence[float]) -> dict[str, Any]:
    """How well the probabilities of class 1 tell it from class 0.

    Args:
        labels: 0 or 1, of each row.
        probabilities: of class 1, of each row.

    Returns:
        F1, precision and recall of class 1, accuracy and balanced accuracy, all at a threshold of 0.5; the
        threshold with the highest F1, and that F1 (chosen on the very rows that it is measured on); numbers
        from 0 to 1 (0 where one is undefined). And ``flags``: ``one_class_predictions`` where every
        prediction is the same, ``zero_accuracy`` where every prediction is wrong.
    """
    from sklearn.metrics import (  # type: ignore[import-untyped, unused-ignore]
        accuracy_score,
        precision_recall_fscore_support,
    )

    predictions = [int(probability > 0.5) for probability in probabilities]
    precision, recall, f1, rows = precision_recall_fscore_support(
        labels, predictions, labels=[0, 1], average=None, zero_division=0.0
    )
    accuracy = float(accuracy_score(labels, predictions))
    # The mean recall of the classes that are there: sklearn's own warns where one is predicted and is not there.
    balanced = float(recall[rows > 0].mean())
    threshold, best_f1 = best_threshold(labels, probabilities)
    flags = []
    if len(set(predictions)) == 1 and len(predictions) > 1:
        flags.append("one_class_predictions")
    if accuracy == 0:
        flags.append("zero_accuracy")
    named = {"f1": float(f1[1]), "precision": float(precision[1]), "recall": float(recall[1])}
    named |= {"accuracy": accuracy, "balanced_accuracy": balanced}
    return {**named, "best_threshold": threshold, "best_f1": best_f1, "flags": flags}


def best_threshold(labels: Sequence[int], probabilities: Sequence[float]) -> tuple[float, float]:
    """The threshold with the highest F1 of class 1, and that F1; a row at the threshold counts as class 1."""
    import numpy
    from sklearn.metrics import precision_recall_curve

    if not any(labels):
        return 0.5, 0.0
    precision, recall, thresholds = precision_recall_curve(labels, probabilities)
    total = precision + recall
    f1 = numpy.divide(2 * precision * recall, total, out=numpy.zeros_like(total), where=total > 0)[:-1]
    best = int(f1.argmax())
    return float(thresholds[best]), float(f1[best])


def describe_flags(measured: dict[str, Any]) -> list[str]:
    """The flags of `scores` as warnings for people, each beginning with the flag's name."""
    words = {
        "one_class_predictions": "every validation prediction is of one class: degenerate output",
        "zero_accuracy": "every validation prediction is wrong",
    }
    return [f"{flag}: {words[flag]}" for flag in measured["flags"]]


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
