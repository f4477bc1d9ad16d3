"""Reading a recording: one JSON line per event, appended as it happened, so whole up to the last instant.

A run may have several processes that train (`torchrun`); each writes a file of its own. The recording is that of
the process which took the optimizer steps: of several, the one of lowest rank; where none took one, that in which the
fault came about, or a model was made.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

PATTERN = "recording-*.jsonl"
Event = dict[str, Any]  # what stands in it goes by its kind, `event`; see `Recording.of`


@dataclass(frozen=True)
class Step:
    """One optimizer step.

    Attributes:
        number: 1 for the first step of this run (a resumed run starts at 1 again).
        loss: the mean of its micro-batches' losses, as they were before a gradient scaler, or their sum where the
            program gave each its share (`loss / 4`); NaN where none was seen.
        losses: the loss of each micro-batch, in order.
        grad_norm: L2 norm over all gradients as the optimizer got them (unscaled, clipped); NaN in a run of which no
            `states` are recorded.
        lr: the learning rate of each parameter group.
        moved: L2 norm of the change of a sample of the parameters' values since this optimizer's step before.
        training: the outermost module was in training mode.
        dtype: of the parameters, as `torch.float32`.
        autocast: the dtype that autocast was on with in the forward pass, or None.
        batches: size of the first dimension of the inputs, for each forward pass in training mode.
        length: the largest second dimension of the inputs: tokens for a language model; 0 where there is none.
        eval_forwards: forward passes in evaluation mode since the step before.
        seconds: wall time since the step before (or since the recorder started).
        rss: resident memory of the process, in bytes.
        cuda: (allocated, reserved) peak bytes, or None where CUDA is not in use.
        children: direct child processes at the end of the step.
        time: seconds since the epoch.
        states: digests of what a checkpoint has to bring back, as the step began: `weights`, `buffers`, `optimizer`,
            `lr`, `scaler`, `data`, `python`, `numpy`, `torch` (the last three random generators). A state that the step
            has not, or that has no digest, is not there; in most runs none is. `data` is of each forward pass, joined.
    """

    number: int
    loss: float
    losses: tuple[float, ...]
    grad_norm: float
    lr: tuple[float, ...]
    moved: float
    training: bool
    dtype: str
    autocast: str | None
    batches: tuple[int, ...]
    length: int
    eval_forwards: int
    seconds: float
    rss: int
    cuda: tuple[int, int] | None
    children: int
    time: float
    states: Mapping[str, str] = field(default_factory=dict)

    @property
    def examples(self) -> int:
        """The effective batch size: all examples of the step."""
        return sum(self.batches)


class Recording:
    """What one run recorded. Empty where the run ended before torch did anything."""

    def __init__(self, events: list[Event]):
        self.events = events

    @classmethod
    def read(cls, folder: Path) -> Recording:
        """The recording of the training process in `folder`; a last line that was cut off is left out."""
        candidates = [recording.events for recording in cls.read_all(folder)]
        candidates.sort(key=_how_far)
        return cls(candidates[0] if candidates else [])

    @classmethod
    def read_all(cls, folder: Path) -> list[Recording]:
        """The recording of every process in `folder`, as where a queue starts one for each file."""
        processes: dict[str, list[Event]] = {}
        for path in sorted(folder.glob(PATTERN)):  # one process may write several files, in order of their names
            processes.setdefault(path.name.split("-")[1], []).extend(_lines(path))
        return [cls(events) for events in processes.values()]

    @cached_property
    def steps(self) -> list[Step]:
        """The optimizer steps, in order."""
        found = []
        for event in self.of("step"):
            values = {name: event[name] for name in Step.__dataclass_fields__ if name in event}
            for name in ("losses", "lr", "batches"):
                values[name] = tuple(values[name])
            values["cuda"] = tuple(values["cuda"]) if values["cuda"] else None
            found.append(Step(**values))
        return found

    def of(self, kind: str) -> list[Event]:
        """The events of one kind.

        `start`, `step`, `model`, `scale`, `write`, `fsync`, `fault`, `again`, `network`, `memory`, `device`, `reach`,
        `end`.
        """
        return [event for event in self.events if event["event"] == kind]

    def reached(self, kind: str) -> dict[str, str]:
        """What the run reached for beyond its own folders and processes, with the place in its code; may be empty.

        Args:
            kind: `network` (host and port), `command`, `port`, `lock` or `write` (a path).
        """
        own = {event["what"] for event in self.of("reach") if event["kind"] == "own"}
        found = {event["what"]: event["caller"] for event in self.of("reach") if event["kind"] == kind}
        return {what: caller for what, caller in found.items() if what not in own}

    @property
    def pid(self) -> int | None:
        """The process that trained, which a launcher may have started; None where nothing was recorded."""
        return next((event["pid"] for event in self.of("start")), None)

    @property
    def built_model(self) -> bool:
        """A module with parameters was made during the run."""
        return bool(self.of("model"))

    @property
    def ended(self) -> bool:
        """The program ended as Python programs do: it was not killed, nor did it leave by `os._exit`."""
        return bool(self.of("end"))

    @property
    def fault_fired(self) -> bool:
        """The fault that was asked for did come about."""
        return bool(self.of("fault"))

    @property
    def steps_before_fault(self) -> int:
        """Optimizer steps that were complete when the (first) fault came about."""
        return self.of("fault")[0]["step"] if self.fault_fired else len(self.steps)

    @property
    def scales(self) -> list[float]:
        """The gradient scaler's scale after each update; empty where no scaler was at work."""
        return [event["scale"] for event in self.of("scale")]

    @property
    def predictions(self) -> dict[int, dict[str, int]]:
        """Of a classifier in evaluation mode: by the optimizer steps done, how many rows got which class."""
        found: dict[int, dict[str, int]] = {}
        for event in self.of("predicted"):
            counts = found.setdefault(event["step"], {})
            for name, count in event["classes"].items():
                counts[name] = counts.get(name, 0) + count
        return found

    @property
    def finite(self) -> bool:
        """Every recorded loss is a finite number."""
        return all(math.isfinite(loss) for step in self.steps for loss in step.losses)


def _lines(path: Path) -> Iterator[Event]:
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.endswith("\n"):
                yield json.loads(line)


def _how_far(events: list[Event]) -> tuple[int, bool, bool, int]:
    """What sorts the process that trained before others: its steps; where none took one, that it was about to."""
    kinds = {event["event"] for event in events}
    return -_steps(events), "fault" not in kinds, "model" not in kinds, events[0].get("rank", 0) if events else 0


def _steps(events: list[Event]) -> int:
    return sum(event["event"] == "step" for event in events)
