"""Stops a run that goes on without learning: gradients gone or exploding, one answer to every question.

The signs are those that the post-mortem's production runs were watched for. Steps are judged in windows that
follow each other; one odd window is weather, several in a row are the end of a run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from trainers.common.errors import TrainingFailed

SAME = 1e-6
"""Probabilities that differ by less over a whole window are one answer (float32 has about 1e-7)."""


class CollapseWatch:
    """Judges a run by windows of its optimizer steps."""

    def __init__(
        self,
        *,
        window: int = 5,
        patience: int = 3,
        grace: int,
        vanishing_norm: float = 1e-7,
        exploding_norm: float = 100.0,
    ) -> None:
        """Begin.

        Args:
            window: steps that are judged together.
            patience: so many windows in a row that show a collapse end the run.
            grace: steps in which predictions are not judged: a new model begins with one answer.
            vanishing_norm: gradient norms, before clipping, are too small under this,
            exploding_norm: and too large over this.
        """
        self._window, self._patience, self._grace = window, patience, grace
        self._vanishing, self._exploding = vanishing_norm, exploding_norm
        self.events: list[dict[str, Any]] = []
        """Every window that showed a collapse; JSON."""
        self._in_a_row = 0
        self._open: list[dict[str, Any]] = []

    def update(
        self, step: int, *, loss: float, gradient_norm: float, probabilities: Sequence[float], labels: Sequence[int]
    ) -> None:
        """Take in one optimizer step.

        Args:
            step: its number.
            loss: its mean loss.
            gradient_norm: before clipping.
            probabilities: of class 1, of each of its rows.
            labels: of each of its rows.

        Raises:
            TrainingFailed: the last windows all show a collapse, naming what and the settings that decide.
        """
        finite = [probability for probability in probabilities if math.isfinite(probability)]
        self._open.append(
            {
                "finite": math.isfinite(loss) and math.isfinite(gradient_norm),
                "norm": gradient_norm if math.isfinite(gradient_norm) else None,
                "lowest": min(finite, default=0.5),
                "highest": max(finite, default=0.5),
                "labels": sorted(set(labels)),
            }
        )
        if len(self._open) < self._window:
            return
        kinds = self._kinds(step)
        if kinds:
            norms = [taken["norm"] for taken in self._open if taken["norm"] is not None]
            self.events.append(
                {
                    "step": step,
                    "first_step": step - self._window + 1,
                    "kinds": kinds,
                    "gradient_norms": [min(norms), max(norms)] if norms else None,
                    "probabilities": self._spread() if "not_finite" not in kinds else None,
                }
            )
        self._in_a_row = self._in_a_row + 1 if kinds else 0
        self._open.clear()
        if self._in_a_row >= self._patience:
            raise TrainingFailed(self._told(step), "collapse")

    def _kinds(self, step: int) -> list[str]:
        """What this window shows: usually nothing."""
        if not all(taken["finite"] for taken in self._open):
            return ["not_finite"]
        norms = [taken["norm"] for taken in self._open]
        kinds = ["vanishing_gradient"] * (max(norms) < self._vanishing)
        kinds += ["exploding_gradient"] * (min(norms) > self._exploding)
        lowest, highest = self._spread()
        labels = {label for taken in self._open for label in taken["labels"]}
        if step > self._grace and len(labels) > 1:  # rows of one class are rightly given one answer
            if highest - lowest < SAME:
                kinds.append("constant_predictions")
            elif lowest > 0.5 or highest <= 0.5:
                kinds.append("one_class")
        return kinds

    def _spread(self) -> list[float]:
        return [min(taken["lowest"] for taken in self._open), max(taken["highest"] for taken in self._open)]

    def _told(self, step: int) -> str:
        recent = self.events[-self._patience :]
        kinds = ", ".join(sorted({kind for event in recent for kind in event["kinds"]}))
        return (
            f"step {step}: the run has collapsed: {kinds} in {self._patience} windows of {self._window} steps in a row "
            f"(collapse_patience, collapse_window; vanishing_norm = {self._vanishing:g}, "
            f"exploding_norm = {self._exploding:g}, collapse_grace = {self._grace})"
        )

    def report(self) -> dict[str, Any]:
        """All events with the limits that made them; JSON."""
        limits = {
            "collapse_window": self._window,
            "collapse_patience": self._patience,
            "collapse_grace": self._grace,
            "vanishing_norm": self._vanishing,
            "exploding_norm": self._exploding,
        }
        return {"limits": limits, "events": self.events}

    def state(self) -> dict[str, Any]:
        """For a checkpoint; JSON."""
        return {"events": list(self.events), "in_a_row": self._in_a_row, "open": list(self._open)}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.events[:] = state["events"]
        self._in_a_row, self._open = state["in_a_row"], list(state["open"])
