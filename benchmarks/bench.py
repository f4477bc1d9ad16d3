"""What the harness costs, as ratios measured in one run; each is printed beside its goal.

    python -m benchmarks.bench [--only TEXT]

The whole takes long. Two things that take turns are measured alternately, so that a busy machine slows both; the
median counts.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import chats, hard_file, preflights, programs, queues
from benchmarks.memory import rivals
from pytest_trainguard.launch.protocol import RunRequest
from pytest_trainguard.subject.launchpad import Launchpad
from trainers.code import gnn, transformer

WIDTH = 66
FIVE_MINUTES = 300.0
WARM = "warm run ÷ cold import of torch, transformers, peft, PyG"
STARTS, WARM_RUNS, PAIRS, STEPS = 21, 15, 10, 30

TRAINERS = '''
import time

import torch

from pytest_trainguard import Trainer


class Trivial(Trainer):
    def train(self, run):
        model = torch.nn.Linear(8, 2)
        optimizer = torch.optim.AdamW(model.parameters())
        for _ in range(run.max_steps):
            optimizer.zero_grad()
            model(torch.ones(4, 8)).sum().backward()
            optimizer.step()


class Timed(Trainer):
    """A small transformer, as many modules and parameters as such a program has; prints its seconds per step."""

    def train(self, run):
        layer = torch.nn.TransformerEncoderLayer(128, 4, 256, batch_first=True)
        model = torch.nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        optimizer = torch.optim.AdamW(model.parameters())
        batch = torch.rand(16, 48, 128)
        seconds = []
        for _ in range(run.max_steps):
            began = time.perf_counter()
            optimizer.zero_grad()
            model(batch).square().mean().backward()
            optimizer.step()
            seconds.append(time.perf_counter() - began)
        print(sorted(seconds)[len(seconds) // 4])  # the lower quartile: what else the machine does only adds
'''


def seconds_of(command: list[str], folder: Path, cwd: Path | None = None) -> float:
    """Wall time of a process; compiled Python is kept in `folder` between runs, whatever the environment says."""
    return _timed(command, folder, cwd)[0]


def processor_seconds_of(command: list[str], folder: Path) -> float:
    """Processor time of a process that does not wait: steadier than wall time where a difference is small."""
    return _timed(command, folder, None)[1]


def _timed(command: list[str], folder: Path, cwd: Path | None) -> tuple[float, float]:
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder / "pycache")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=cwd or folder, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 5):  # 5: pytest collected nothing
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return time.perf_counter() - began, used


def in_turns(count: int, first: Callable[[], float], second: Callable[[], float]) -> tuple[float, float]:
    """The medians of two things that are measured alternately, after one of each that is not counted."""
    pairs = [(first(), second()) for _ in range(count + 1)][1:]
    return median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)


def cold_import(folder: Path, *modules: str) -> float:
    """Seconds for importing libraries in a new process, once their files are in memory."""
    command = [sys.executable, "-c", f"import {', '.join(modules)}"]
    return median([seconds_of(command, folder) for _ in range(4)][1:])


def start_up(folder: Path) -> tuple[float, float]:
    """Collecting an empty file, with the plugin and without: processor time."""
    (folder / "test_empty.py").touch()
    (folder / "pytest.ini").touch()
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "test_empty.py"]
    without = [*command, "-p", "no:trainguard"]
    return in_turns(
        STARTS, lambda: processor_seconds_of(command, folder), lambda: processor_seconds_of(without, folder)
    )


def warm_run(pad: Launchpad, folder: Path) -> tuple[float, float]:
    """A run of a trivial trainer from start to outcome, and a cold import of what trainers are made of."""
    subject = pad.subject("Trivial", "timed:Trivial")

    def run() -> float:
        began = time.perf_counter()
        outcome = subject.start(RunRequest("timed", steps=20)).outcome()
        assert outcome.exit == 0, outcome.output
        return time.perf_counter() - began

    warm = median([run() for _ in range(WARM_RUNS + 2)][2:])
    return warm, cold_import(folder, "torch", "transformers", "peft", "torch_geometric")


def recorder(pad: Launchpad, folder: Path) -> tuple[float, float]:
    """Seconds per step of a small transformer, recorded and not."""
    subject = pad.subject("Timed", "timed:Timed")

    def step(recorder: bool) -> float:
        outcome = subject.start(RunRequest("timed", steps=STEPS, recorder=recorder)).outcome()
        assert outcome.exit == 0, outcome.output
        return float(outcome.output)

    return in_turns(PAIRS, lambda: step(True), lambda: step(False))


class Place:
    """Where things are measured: a folder, and a launchpad in it that is started when the first part needs it."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "timed.py").write_text(TRAINERS)

    @cached_property
    def pad(self) -> Launchpad:
        """Where runs start from."""
        (self.folder / "pad").mkdir()
        return Launchpad(self.folder, self.folder / "pad", [str(self.folder)], 120.0)

    def close(self) -> None:
        """End what was started."""
        if "pad" in self.__dict__:
            self.pad.close()


Part = Callable[[Place], Iterable[str]]  # measures, and makes lines of the table


def ratio(what: str, goal: float, measure: Callable[[Place], tuple[float, float]]) -> dict[str, Part]:
    """A part of one line: one thing divided by another, beside the goal."""
    return {what: lambda place: [row(what, goal, measure(place))]}


def row(what: str, goal: float, measured: tuple[float, float]) -> str:
    """One line of the table."""
    ours, theirs = measured
    met = "met" if ours / theirs <= goal else "MISSED"
    return f"{what:<{WIDTH}} {ours:>8.3f} {theirs:>8.3f} {ours / theirs:>7.3f} {goal:>7.3f}  {met}"


def rate(what: str, per_second: float) -> str:
    """A line that has no goal."""
    return f"{what:<{WIDTH}} {per_second:>8.0f}"


def _warm(place: Place) -> Iterable[str]:
    if find_spec("peft") and find_spec("torch_geometric"):
        yield row(WARM, 1 / 25, warm_run(place.pad, place.folder))
    else:
        yield f"skipped: {WARM} (peft and torch_geometric are not installed)"


def _against_import(measure: Callable[[preflights.Seconds, Path, str], float], trainer: str, place: Place) -> Any:
    took = measure(seconds_of, place.folder, trainer)
    return took, cold_import(place.folder, *preflights.libraries(trainer))


def _everyone(place: Place) -> Iterable[str]:
    took = preflights.everyone(seconds_of, place.folder)
    yield row("make preflight, all trainers: seconds ÷ five minutes", 1, (took, FIVE_MINUTES))


def _chats(place: Place) -> Iterable[str]:
    validated = chats.validation(place.folder)
    yield row("seconds for 20,000 chat rows, validated ÷ json.loads alone", 1 / 0.3, validated)
    yield rate("chat rows validated per second", chats.ROWS / validated[0])


def _queues(place: Place) -> Iterable[str]:
    for what, seconds in queues.lengths(place.folder).items():
        yield row(f"queue, {what}: seconds at 10,000 files ÷ at 100", 3, seconds)


def _kills(place: Place) -> Iterable[str]:
    left = queues.kills(place.folder)
    what = f"queue killed {left.kills} times: lost, trained twice of {left.files} files"
    met = "met" if not (left.lost or left.twice or left.untrained) else "MISSED"
    yield f"{what:<{WIDTH}} {left.lost:>8} {left.twice:>8} {'':>7} {'0, 0':>7}  {met}"


def _hard_file(place: Place) -> Iterable[str]:
    return hard_file.table(hard_file.train(place.folder / "hard"))


def _rivals(place: Place) -> Iterable[str]:
    return rivals.table() if find_spec("accelerate") else ["skipped: GPU memory by others' means (no accelerate)"]


def parts() -> dict[str, Part]:
    """Everything that is measured, by name, in the order of the table."""
    found = ratio("start-up of pytest with the plugin ÷ without", 1.05, lambda place: start_up(place.folder))
    found[WARM] = _warm
    found |= ratio("seconds per step, recorded ÷ not", 1.03, lambda place: recorder(place.pad, place.folder))
    for trainer in preflights.PROGRAMS:
        what = f"whole catalogue, {trainer}, -n 2 ÷ cold import of its libraries"
        found |= ratio(what, 10, partial(_against_import, preflights.whole, trainer))
        what = f"--fast, {trainer} ÷ cold import of its libraries"
        found |= ratio(what, 3, partial(_against_import, preflights.fast, trainer))
    found["make preflight, all trainers"] = _everyone
    for program in (transformer, gnn):
        what = f"seconds per step, {program.__name__} ÷ a bare loop"
        found |= ratio(what, 1 / 0.95, lambda place, it=program: programs.seconds_per_step(place.folder, it))
    for program in (transformer, gnn):
        what = f"peak MiB, {program.__name__}, 100,000 rows ÷ 1,000"
        found |= ratio(what, 1.2, lambda place, it=program.__name__: programs.peak_memory(place.folder, it))
    what = "functions prepared per second"
    found[what] = lambda place: [rate(what, programs.preparation(place.folder))]
    found["chat rows validated"] = _chats
    found["queue, long ÷ short"] = _queues
    found["queue killed over and over"] = _kills
    found["queue, 20,000 hard syllogisms"] = _hard_file
    found["GPU memory, others' means"] = _rivals
    return found


def chosen(only: list[str]) -> dict[str, Part]:
    """The parts whose names hold one of the texts, upper and lower case alike; all where none is given.

    Raises:
        ValueError: a text is in no name.
    """
    everything = parts()
    for text in only:
        if not any(text.lower() in name.lower() for name in everything):
            raise ValueError(f"--only {text}: no such part; there are:\n  " + "\n  ".join(everything))
    return {name: part for name, part in everything.items() if not only or any(t.lower() in name.lower() for t in only)}


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="only parts with this in the name")
    parser.add_argument("--list", action="store_true", help="print the names of the parts and measure nothing")
    told = parser.parse_args(arguments)
    try:
        measured = chosen(told.only)
    except ValueError as error:
        parser.error(str(error))
    if told.list:
        print("\n".join(measured))
        return 0
    print(f"{'measured':<{WIDTH}} {'this':>8} {'÷':>8} {'ratio':>7} {'goal':>7}")
    with tempfile.TemporaryDirectory() as name:
        place = Place(Path(name))
        try:
            for part in measured.values():
                for line in part(place):
                    print(line, flush=True)
        finally:
            place.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
