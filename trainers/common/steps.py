"""How many optimizer steps a training has: one pure function, asked before anything needs the number."""

from __future__ import annotations

from typing import NamedTuple

from trainers.common.errors import InputError


class Plan(NamedTuple):
    """The optimizer steps of a training.

    Attributes:
        per_epoch: in one pass over the rows; the last one may have fewer rows.
        whole: the number of the last step of all passes, those before this data included.
        last: the number of the step at which the training ends: ``whole``, or ``max_steps``.
    """

    per_epoch: int
    whole: int
    last: int


def plan(
    rows: int,
    *,
    batch_size: int,
    gradient_accumulation: int,
    max_epochs: int,
    max_steps: int | None = None,
    before: int = 0,
) -> Plan:
    """The optimizer steps of a training.

    Args:
        rows: to train on.
        batch_size: rows of a forward pass (the micro-batch).
        gradient_accumulation: forward passes of an optimizer step. A window of fewer rows is a step too.
        max_epochs: passes over the rows.
        max_steps: end at this step, whatever ``max_epochs`` says; counted in all, those before included.
        before: optimizer steps done on other data.

    Raises:
        InputError: there is no row.
        ValueError: an argument that no setting allows.
    """
    if min(batch_size, gradient_accumulation, max_epochs) < 1 or before < 0 or rows < 0:
        raise ValueError(f"{rows} rows, {batch_size} × {gradient_accumulation}, {max_epochs} epochs, {before} before")
    if rows == 0:
        raise InputError("0 rows to train on: not one optimizer step can be made of them")
    per_epoch = -(-rows // (batch_size * gradient_accumulation))
    whole = before + max_epochs * per_epoch
    return Plan(per_epoch, whole, whole if max_steps is None else max_steps)
