"""Pytest's side of the tracing: one trainer, at its production settings, traced as often as a question needs it.

Each trace is a run in a process of its own, forked from the trainer's warm server. Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pytest_trainguard.contract import settings
from pytest_trainguard.contract.trainer import Trainer, spec_of
from pytest_trainguard.launch import questions
from pytest_trainguard.launch.protocol import SEED, Ended, MadeData, ProcessRequest
from pytest_trainguard.memory.replay.device import Device
from pytest_trainguard.memory.replay.trace import How, Trace
from pytest_trainguard.memory.traced import selftest
from pytest_trainguard.subject.launchpad import Launchpad
from pytest_trainguard.subject.shared import find_once
from pytest_trainguard.subject.subject import Subject

STEPS_PER_TRACE = 2  # the second one holds the optimizer's state
DEFAULT_ROW_LENGTH = 512  # where a trainer has no setting for the length of its rows
ROWS_AS_THEY_ARE = "with rows as they are in the data, not the longest ones together"
ENDED_EARLY = "the program ends with exit"
TRACE_TIME_LIMIT = 600.0  # seconds for one trace
CAPPED_TIME_LIMIT = 200.0  # for one in which memory runs out: a program may try the same thing again for ever


@dataclass(frozen=True)
class CappedRun:
    """How a run under a cap ended.

    Attributes:
        exit: its exit code; 1 where an exception left it.
        steps: optimizer steps that it took.
        ran_out: phase and step of each time that something did not fit.
        output: what it printed.
        unknown: what could not be traced; then the run says nothing.
        timed_out: it did not end within `CAPPED_TIME_LIMIT`, and was ended.
    """

    exit: int
    steps: int
    ran_out: tuple[tuple[str, int], ...]
    output: str
    unknown: str | None
    timed_out: bool = False


class Tracing:
    """One trainer under fake CUDA.

    Attributes:
        subject: the trainer.
        device: the card that it believes in.
        figures: of the last trace: `seconds`, `peak_rss` and `rss_before` in bytes.
        output: what the program printed in it.
    """

    def __init__(self, subject: Subject, device: Device | None = None):
        self.subject, self.device = subject, device or Device()
        self.figures: dict[str, Any] = {}
        self.output, self._timed_out = "", False
        self._traces: dict[str, Trace] = {}
        self._others: dict[int, Tracing] = {}  # on other cards, by the first part of their compute capability
        self._data: dict[tuple[int, int], tuple[Path | None, str | None]] = {}

    @cached_property
    def selftest_failure(self) -> str | None:
        """Why fake CUDA does not hold on this torch; None where it does."""
        code, ended = self.subject.server.perform(_request("tried fake CUDA"), selftest.main)
        if code == 0:
            return None
        words = ended.output.strip().splitlines() or ["nothing said"]
        return f"{words[-1]} (self-test, exit {ended.exit})"

    def trace(
        self,
        changes: Mapping[str, Any] | None = None,
        *,
        batch_size: int | None = None,
        max_length: int | None = None,
        steps: int = STEPS_PER_TRACE,
    ) -> Trace:
        """Trace one run at the production settings.

        Args:
            changes: settings on top of these.
            batch_size: a value for the setting of this role.
            max_length: the same for the length of rows.
            steps: optimizer steps to ask for.

        Raises:
            ValueError: the trainer has no setting of this role.
            CannotJudge: its module cannot be imported, or it has no data.
        """
        described = self.subject.description
        values = settings.merge(described.production, dict(changes or {}))
        for role, value in (("batch_size", batch_size), ("max_length", max_length)):
            if value is not None:
                values = settings.merge(values, {self._setting(role): value})
        key = repr((sorted(values.items(), key=repr), steps))
        if key not in self._traces:
            self._traces[key] = self._find_once(key, lambda: self._on_longest_rows(values, steps))
        return self._traces[key]

    def _find_once(self, key: str, make: Callable[[], Trace]) -> Trace:
        """A trace that one worker of the session makes for all of them: it may take a processor for minutes."""
        if self.subject.shared is None:
            return make()
        named = repr((self.subject.spec, self.device, key)).encode()
        name = f"trace-{hashlib.sha256(named).hexdigest()[:16]}"
        return Trace.from_json(find_once(self.subject.shared, name, str, lambda: make().to_json()))

    def trace_on(self, device: Device) -> Trace:
        """Trace the production settings on another card; those of one generation take the same kernels: one trace.

        Raises:
            CannotJudge: as `trace`.
        """
        generation = device.capability[0]
        if generation == self.device.capability[0]:
            return self.trace()
        if generation not in self._others:
            self._others[generation] = Tracing(self.subject, device)
        return self._others[generation].trace()

    def value(self, role: str) -> int | None:
        """The production value of the setting of a role; None where there is none."""
        return self._value(role, self.subject.description.production)

    def _setting(self, role: str) -> str:
        field = self.subject.settings.role(role)
        if field is None:
            raise ValueError(
                f"{self.subject.name} has no setting for its {role.replace('_', ' ')}: name it in Trainer.fields"
            )
        return field.path

    def _value(self, role: str, values: Mapping[str, Any]) -> int | None:
        field = self.subject.settings.role(role)
        if field is None:
            return None
        value = settings.value_at(values, field.path)
        value = field.default if value is None else value
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def _on_longest_rows(self, values: dict[str, Any], steps: int) -> Trace:
        """The trace; where the program refuses rows that long, of the rows as they are, with a note."""
        data, note = self.make_longest_rows(values, steps)
        trace = self._traced(values, steps, data)
        if data is not None and note is None and trace.unknown and trace.unknown.startswith(ENDED_EARLY):
            plain = self._traced(values, steps, self._plain_rows(values, steps))
            if plain.unknown is None:
                trace, note = plain, f"{ROWS_AS_THEY_ARE}: {trace.unknown}"
        trace.notes += [note] if note else []
        return trace

    def run_capped(self, cap: int, steps: int = STEPS_PER_TRACE) -> CappedRun:
        """Run at the production settings, on the longest rows, with so many bytes for the allocator.

        Raises:
            CannotJudge: the trainer cannot be imported, or it has no data.
        """
        values = dict(self.subject.description.production)
        data, _ = self.make_longest_rows(values, steps)
        trace = self._traced(values, steps, data, cap)
        found = self.figures
        if "ran_out" not in found:
            return CappedRun(-1, 0, (), self.output, trace.unknown, self._timed_out)
        untraceable = trace.unknown is not None and not trace.unknown.startswith("the program")
        ran_out = tuple((phase, step) for phase, step in found["ran_out"])
        return CappedRun(found["exit"], found["steps"], ran_out, self.output, trace.unknown if untraceable else None)

    def _traced(self, values: dict[str, Any], steps: int, data: Path | None, cap: int | None = None) -> Trace:
        self.subject.require_open("traced its memory")
        limit = TRACE_TIME_LIMIT if cap is None else CAPPED_TIME_LIMIT
        folder = Path(tempfile.mkdtemp(prefix="trace-", dir=self.subject.folder))
        (folder / "output").mkdir()
        self.subject.furnish(folder / "output", data)
        how: How = "fake cpu" if self.selftest_failure else "fake cuda"
        arguments = {
            "trainer": self.subject.spec, "settings": values, "data": str(data) if data else None,
            "output_dir": str(folder / "output"), "max_steps": steps, "seed": SEED,
            "device": self.device.as_json(), "how": how, "result": str(folder / "trace.json"), "cap": cap,
        }  # fmt: skip
        try:
            figures, ended = self.subject.server.perform(_request("traced its memory", limit), _run_engine, arguments)
            self.output, self.figures, self._timed_out = ended.output, {}, ended.timed_out
            written = folder / "trace.json"
            if figures is None or not written.exists():
                return Trace(unknown=_explain_missing_trace(ended), how=how)
            trace = Trace.from_json(written.read_text())
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self.subject.server.load_libraries(figures.pop("libraries"))
        self.figures = figures
        if trace.unknown and trace.unknown.startswith(ENDED_EARLY):
            words = [line.strip() for line in ended.output.splitlines() if line.strip()]
            trace.unknown += f": {words[-1][:300]}" if words else ""
        if self.selftest_failure:
            trace.notes.append(f"fake CUDA does not hold: {self.selftest_failure}")
        return trace

    def make_longest_rows(self, values: Mapping[str, Any], steps: int) -> tuple[Path | None, str | None]:
        """Data whose rows are all as long as they may be, enough of them for the steps; and what is less sure of it."""
        rows, length = self._count(values, steps), self._value("max_length", values) or DEFAULT_ROW_LENGTH
        if (rows, length) not in self._data:
            folder = Path(tempfile.mkdtemp(prefix="longest-", dir=self.subject.folder))
            made = self._made(questions.make_longest, folder, rows, length)
            if made.error:
                self._data[rows, length] = self._plain_rows(values, steps), f"{ROWS_AS_THEY_ARE}: {made.error}"
            else:
                self._data[rows, length] = made.path, None
        return self._data[rows, length]

    def _made(
        self, make: Callable[[Trainer, Path, int, int, int], MadeData], folder: Path, rows: int, length: int
    ) -> MadeData:
        return self.subject.server.ask(make, folder, rows, length, SEED)

    def trace_varied_lengths(self, steps: int) -> Trace:
        """Trace so many steps at the tiny settings, on rows of all lengths; the device is that of production.

        Raises:
            ValueError: there are no such rows; with what to override.
            CannotJudge: the trainer cannot be imported.
        """
        values, saving = dict(self.subject.settings.base), self.subject.settings.role("save_every")
        if saving is not None:
            values = settings.merge(values, {saving.path: max(1, steps // 4)})  # traced, a save takes half of a step
        device = self.subject.settings.role("device")
        if device is not None:
            wanted = settings.value_at(self.subject.description.production, device.path)
            values = settings.merge(values, {device.path: device.default if wanted is None else wanted})
        folder = Path(tempfile.mkdtemp(prefix="varied-", dir=self.subject.folder))
        length = self._value("max_length", values) or DEFAULT_ROW_LENGTH
        made = self._made(questions.make_varied, folder, self._count(values, steps), length)
        if made.error:
            raise ValueError(made.error)
        return self._traced(values, steps, made.path)

    def _plain_rows(self, values: Mapping[str, Any], steps: int) -> Path | None:
        folder = Path(tempfile.mkdtemp(prefix="rows-", dir=self.subject.folder))
        return self.subject.make_data(folder, self._count(values, steps))

    def _count(self, values: Mapping[str, Any], steps: int) -> int:
        """Rows for the steps, and more, since some may be held out."""
        return (self._value("batch_size", values) or 32) * (self._value("accumulation", values) or 1) * (steps + 1)


def _request(did: str, time_limit: float = TRACE_TIME_LIMIT) -> ProcessRequest:
    # The device must not be hidden from a program that is to believe in one.
    return ProcessRequest(did, time_limit=time_limit, env={"CUDA_VISIBLE_DEVICES": "0"})


def _run_engine(arguments: dict[str, Any]) -> dict[str, Any]:
    """`engine.run_traced`, in its own process: pytest does not import that module, which needs torch."""
    from pytest_trainguard.memory.traced import engine

    return engine.run_traced(**arguments)


def _explain_missing_trace(ended: Ended) -> str:
    """Why a run left no trace."""
    if ended.timed_out:
        return f"the run did not end within {TRACE_TIME_LIMIT:.0f} s"
    words = [line.strip() for line in ended.output.splitlines() if line.strip()]
    how = f"exit {ended.exit}" if ended.exit >= 0 else f"signal {-ended.exit}"
    return f"the process ended by itself, {how}, and left no trace" + (f": {words[-1][:300]}" if words else "")


@contextlib.contextmanager
def tracing(trainer: object, *, device: Device | None = None, root: Path | None = None) -> Iterator[Tracing]:
    """A trainer to be traced, outside pytest; its processes end with the context.

    Args:
        trainer: a `Trainer` subclass that can be imported, `module:Class`, or the table of a command line.
        device: the card that it is to believe in.
        root: the folder that its relative paths start from, and its modules; by default the current one.

    Raises:
        TypeError: it is none of these.
    """
    root = Path(root or os.getcwd())
    folder = Path(tempfile.mkdtemp(prefix="trainguard-"))
    pad = Launchpad(root, folder, [str(root)], TRACE_TIME_LIMIT)
    spec = spec_of(trainer)
    try:
        yield Tracing(pad.subject(spec.rpartition(":")[2] if isinstance(spec, str) else "trainer", spec), device)
    finally:
        pad.close()


def trace_of(
    trainer: object, settings: Mapping[str, Any] | None = None, *, batch_size: int | None = None,
    max_length: int | None = None, device: Device | None = None,
) -> Trace:  # fmt: skip
    """The births and deaths of a trainer's tensors in two optimizer steps, without a GPU.

    Args:
        trainer: a `Trainer` subclass that can be imported, `module:Class`, or the table of a command line.
        settings: on top of its production settings.
        batch_size: rows in a forward pass, by whatever name the trainer has for it.
        max_length: the longest row, likewise; rows are made to have it.
        device: the card; by default an A100 of 80 GiB.

    Raises:
        TypeError: it is no trainer.
        ValueError: it has no setting of this role.
        CannotJudge: its module cannot be imported, or it has no data.
    """
    with tracing(trainer, device=device) as traced:
        return traced.trace(settings, batch_size=batch_size, max_length=max_length)
