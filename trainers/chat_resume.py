"""Where a chat run begins: at step 0, where the same data was left, or where other data was trained to its end."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from trainers import resume
from trainers.chat_model import Base, require_base
from trainers.chat_settings import Settings
from trainers.checkpoint import Checkpoint, numbered
from trainers.errors import InputError, show
from trainers.process import Run
from trainers.program import Places
from trainers.steps import Plan, plan

TRAINER_STATE = "trainer_state.json"
"""transformers' own account of where it stands, JSON."""


@dataclass
class Done:
    """What a checkpoint remembers of the run.

    Attributes:
        step: optimizer steps done, in all.
        before: how many of them on other data.
        best_step: the step with the best validation on this data, None before the first.
        best_score: its value of the metric that decides (``best_by``).
        rows_seen: rows of this data trained on.
        rows_truncated: how many of them were cut.
    """

    step: int = 0
    before: int = 0
    best_step: int | None = None
    best_score: float | None = None
    rows_seen: int = 0
    rows_truncated: int = 0

    @property
    def here(self) -> int:
        """Optimizer steps done on this data."""
        return self.step - self.before

    def improved(self, scores: dict[str, Any], best_by: str) -> bool:
        """Whether this step's validation is the best so far; if so, it is noted."""
        score: float = scores[best_by]
        better = self.best_score is None or (score < self.best_score if best_by == "loss" else score > self.best_score)
        if better:
            self.best_step, self.best_score = self.step, score
        return better


class Begun(NamedTuple):
    """Where a run begins, known before torch is imported.

    Attributes:
        found: the checkpoint that it goes on from, if any.
        done: how far that is.
        plan: the run's steps.
        carried: the checkpoint is of other data: adapter, optimizer and step go on, the data begins anew.
    """

    found: Checkpoint | None
    done: Done
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
        InputError: see `resume.choose`; the checkpoint is of another program, base or adapter; it stands in the middle
            of other data; its effective batch size is another one; the output folder holds an earlier run.
    """
    run.stage = "looking for a checkpoint"
    found = None
    if places.resume_from is not None:
        found = resume.choose(places.resume_from, places.output_dir, run.say)
    elif there := numbered(places.output_dir):
        message = f"holds {there[0][1].name} of an earlier run: resume from it, or choose another folder"
        raise InputError(f"output folder {show(places.output_dir)} {message}")
    done, carried = Done(), False
    if found is not None:
        resume.require_program(found, run.program)
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


def _continued(run: Run, found: Checkpoint, chosen: Settings, data: dict[str, Any]) -> tuple[Done, bool]:
    name = show(found.path)
    try:
        done = Done(**{field.name: found.state[field.name] for field in fields(Done)})
        last, effective, theirs = (found.state[name] for name in ("last_step", "effective_batch_size", "data"))
    except KeyError as error:
        raise InputError(f"checkpoint {name}: state.json lacks {error}: of another program?") from None
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
    if found.step < last:
        changed = ", ".join(f"{key} {theirs.get(key)!r} there, {data[key]!r} here" for key in data
                            if theirs.get(key) != data[key])  # fmt: skip
        raise InputError(
            f"checkpoint {name} stands at step {found.step} of {last} on other data ({changed}): "
            "train that to its end first"
        )
    run.say(f"going on from {name}: other data was trained up to step {found.step}, this begins at {found.step + 1}")
    return Done(step=found.step, before=found.step), True
