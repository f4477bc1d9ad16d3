"""A classifier of two classes: the loss that it is trained by, and the scores that it is judged by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

LOGITS = "validation_logits.safetensors"
"""Logits, labels and keys of the rows held out, at the best validation: what an ensemble is made of."""


def capped_weights(labels: Iterable[int], cap: float, classes: int = 2) -> list[float]:
    """A weight for each class: its inverse frequency (1 where the classes are equal), at most ``cap``.

    The cap keeps a rare class from making the gradient noisy; a class without a row weighs 1.
    """
    counts = Counter(labels)
    rows = counts.total()
    return [min(cap, rows / (classes * counts[label])) if counts[label] else 1.0 for label in range(classes)]


@dataclass(frozen=True)
class Objective:
    """From the cross-entropy of each row to what is minimised.

    Attributes:
        weights: of each class.
        gamma: of the focal loss (Lin et al. 2017, https://arxiv.org/abs/1708.02002); 0 leaves the
            cross-entropy as it is.
    """

    weights: tuple[float, ...] = (1.0, 1.0)
    gamma: float = 0.0

    def __call__(self, entropies: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of each row, of shape (rows,).

        Args:
            entropies: cross-entropy of each row, of shape (rows,).
            labels: int64, of shape (rows,), on the same device.
        """
        losses = entropies
        if self.gamma:
            # expm1: exact near 0; the floor: a power of 0 below 1 has no finite slope there.
            losses = (-(-entropies).expm1()).clamp_min(1e-12) ** self.gamma * losses
        if any(weight != 1 for weight in self.weights):
            losses = losses * losses.new_tensor(self.weights)[labels]
        return losses


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
