"""Where a chat run begins: at step 0, where the same data was left, or where other data was trained to its end."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from trainers.chat.adapter import Base, require_base
from trainers.chat.settings import Settings
from trainers.common import progress, resume
from trainers.common.batches import Plan, plan
from trainers.common.checkpoint import Checkpoint
from trainers.common.errors import InputError, show
from trainers.common.process import Run
from trainers.common.program import Places
from trainers.common.progress import Progress

TRAINER_STATE = "trainer_state.json"
"""transformers' own account of where it stands, JSON."""


@dataclass
class Position(Progress):
    """`Progress` on this data: of all fields, ``step`` alone counts what was done on other data too.

    Attributes:
        before: how many optimizer steps were done on other data.
    """

    before: int = 0

    @property
    def here(self) -> int:
        """Optimizer steps done on this data."""
        return self.step - self.before


class Begun(NamedTuple):
    """Where a run begins, known before torch is imported.

    Attributes:
        found: the checkpoint that it goes on from, if any.
        done: how far that is.
        plan: the run's steps.
        carried: the checkpoint is of other data: adapter, optimizer and step go on, the data begins anew.
    """

    found: Checkpoint | None
    done: Position
    plan: Plan
    carried: bool


def begin(run: Run, chosen: Settings, places: Places, base: Base, rows: int, data: dict[str, Any]) -> Begun:
    """Look for a checkpoint, and count the steps.

    Args:
        run: is told.
        chosen: the settings.
        places: whence and where to.
        base: must be that of the checkpoint.
        rows: to train on.
        data: what they are; with the same, a run is continued.

    Raises:
        InputError: see `resume.find_checkpoint`; the checkpoint is of another base or adapter; it stands in the
            middle of other data; its effective batch size is another one.
    """
    found, done, carried = resume.find_checkpoint(run, places), Position(), False
    if found is not None:
        require_base(f"checkpoint {show(found.path)}", found.state.get("base"), base)
        resume.require_same(found, "model", chosen.described())
        done, carried = _continued(run, found, chosen, data)
    planned = plan(
        rows,
        batch_size=chosen.batch_size,
        gradient_accumulation=chosen.gradient_accumulation,
        max_epochs=chosen.max_epochs,
        max_steps=chosen.max_steps,
        before=done.before,
    )
    return Begun(found, done, planned, carried)


def require_trainer_state(found: Checkpoint, here: int) -> None:
    """A step count that is missing in its own state `transformers` takes for 0, and trains again from there.

    Args:
        found: the checkpoint.
        here: the optimizer steps that it has done on this data, which are those that `transformers` counts.

    Raises:
        InputError: it does not state them.
    """
    try:
        told = json.loads((found.path / TRAINER_STATE).read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"checkpoint {show(found.path)}: {TRAINER_STATE} cannot be read: {error}") from None
    step = told.get("global_step") if isinstance(told, dict) else None
    if type(step) is not int or step != here:
        raise InputError(f"checkpoint {show(found.path)}: {TRAINER_STATE} states step {step!r}, not {here}")


def _continued(run: Run, found: Checkpoint, chosen: Settings, data: dict[str, Any]) -> tuple[Position, bool]:
    name = show(found.path)
    done = progress.restored(Position, found)
    last, effective, theirs = progress.saved_fields(found, "last_step", "effective_batch_size", "data").values()
    if theirs == data:
        if effective != chosen.effective_batch_size and done.here:
            raise InputError(
                f"checkpoint {name}: its effective batch size is {effective}, batch_size = {chosen.batch_size} times "
                f"gradient_accumulation = {chosen.gradient_accumulation} is {chosen.effective_batch_size}: where it "
                "stands in the data cannot be told"
            )
        require_trainer_state(found, done.here)
        run.say(f"resuming from {name} at step {found.step}")
        return done, False
    if found.step < last and progress.ended_at(found.path.parent) != found.step:
        changed = ", ".join(f"{key} {theirs.get(key)!r} there, {data[key]!r} here" for key in data
                            if theirs.get(key) != data[key])  # fmt: skip
        raise InputError(
            f"checkpoint {name} stands at step {found.step} of {last} on other data ({changed}): "
            "train that to its end first"
        )
    run.say(f"going on from {name}: other data was trained up to step {found.step}, this begins at {found.step + 1}")
    return Position(step=found.step, before=found.step), True
