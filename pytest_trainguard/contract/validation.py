"""Reading what a program told of its validations, where it is told in a form that many programs share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_trainguard.contract import checkpoints


@dataclass(frozen=True)
class Validated:
    """What a run told of its validations.

    Attributes:
        losses: the validation loss by optimizer step, in order.
        best: the checkpoint that it kept as its best; None where it names none.
    """

    losses: dict[int, float]
    best: Path | None


def losses(output_dir: Path) -> dict[int, float]:
    """The validation loss by optimizer step, from the newest `trainer_state.json` of `transformers`; else empty."""
    history = _trainer_state(output_dir).get("log_history", [])
    return {int(entry["step"]): float(entry["eval_loss"]) for entry in history if "eval_loss" in entry}


def best(output_dir: Path) -> Path | None:
    """The checkpoint that `trainer_state.json` calls the best; None where it names none."""
    named = _trainer_state(output_dir).get("best_model_checkpoint")
    return output_dir / Path(named).name if named else None


def _trainer_state(output_dir: Path) -> dict[str, Any]:
    found = checkpoints.find(output_dir)
    path = found[-1] / "trainer_state.json" if found else output_dir / "trainer_state.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
