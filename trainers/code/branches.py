"""Which checkpoints of earlier runs the branches of a fusion begin with, and how far each is believed."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainers.common import resume
from trainers.common.checkpoint import Checkpoint, Damaged, load_weights, numbered, verify
from trainers.common.errors import InputError, show

if TYPE_CHECKING:
    import torch
    from torch import nn


def best_of(name: str, setting: str, program: str, say: Callable[[str], None]) -> Checkpoint:
    """The checkpoint that a setting names: itself, or the best (else the newest whole) one of a run's folder.

    Args:
        name: the setting's value.
        setting: for messages.
        program: whose checkpoint it must be.
        say: is told what was passed over.

    Raises:
        InputError: it is missing, damaged or of another program, naming setting and folder.
    """
    folder = Path(name)
    try:
        best = json.loads((folder / "training_metadata.json").read_bytes())["best_checkpoint"]
    except (OSError, ValueError, KeyError, TypeError):
        best = None  # a checkpoint itself; or a run without validation
    try:
        is_run = isinstance(best, str) and (folder / best).is_dir()
        found = verify(folder / best) if is_run else resume.choose(folder, folder, say)
        if found is None:
            raise InputError(f"{show(folder)}: no checkpoint in it")
        resume.require_program(found, program)
    except Damaged as damage:
        raise InputError(f"{setting} {show(folder / best)} is damaged: {damage}") from None
    except InputError as error:
        raise InputError(*(f"{setting}: {line}" for line in error.lines)) from None
    return found


def best_loss(found: Checkpoint | None) -> float | None:
    """The validation loss at the best step of the run that a checkpoint is of; None where that is not told."""
    if found is None:
        return None
    try:
        loss = json.loads((found.path.parent / "training_metadata.json").read_bytes())["best"]["loss"]
        return float(loss)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def kept(name: str, best: Checkpoint) -> list[Path]:
    """The whole checkpoints of the run whose `best_of` is ``best``; it alone where ``name`` is a checkpoint itself."""
    if best.path == Path(name):
        return [best.path]
    found = []
    for _, path in numbered(Path(name)):
        with contextlib.suppress(Damaged):
            if verify(path).state.get("model") == best.state.get("model"):
                found.append(path)
    return found


def load_mean_weights(paths: Sequence[Path], model: nn.Module) -> None:
    """Read the mean of several files' weights into ``model``; see `load_weights`.

    Raises:
        InputError: a file is unreadable, or of another model.
    """
    import torch

    total: dict[str, torch.Tensor] = {}
    for path in paths:
        load_weights(path, model)
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                total[name] = total[name] + tensor.double() if name in total else tensor.double()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name in total:
                tensor.copy_(total[name] / len(paths))


def trust_in(text: Checkpoint | None, graph: Checkpoint | None) -> tuple[float, float]:
    """Weights for two branches, the larger one 1: what each explained of a coin's entropy in its best validation.

    Both 1 where that is not known of one of them, or neither explained anything.
    """
    explained = [best_loss(found) for found in (text, graph)]
    known = [max(0.0, 1 - loss / math.log(2)) for loss in explained if loss is not None]
    if len(known) < 2 or not max(known):
        return 1.0, 1.0
    return known[0] / max(known), known[1] / max(known)
