"""What the harness costs, as ratios measured in one run; each is printed beside its goal.

    python -m benchmarks.bench

Two things that take turns are measured alternately, so that a busy machine slows both; the median counts.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from benchmarks import chats, programs, queues
from benchmarks.memory import rivals
from pytest_trainguard.subject import Launchpad, Request
from trainers import fusion, gnn, transformer

PROJECT = Path(__file__).parent.parent
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
        outcome = subject.start(Request("timed", steps=20)).outcome()
        assert outcome.exit == 0, outcome.output
        return time.perf_counter() - began

    warm = median([run() for _ in range(WARM_RUNS + 2)][2:])
    return warm, cold_import(folder, "torch", "transformers", "peft", "torch_geometric")


def recorder(pad: Launchpad, folder: Path) -> tuple[float, float]:
    """Seconds per step of a small transformer, recorded and not."""
    subject = pad.subject("Timed", "timed:Timed")

    def step(recorder: bool) -> float:
        outcome = subject.start(Request("timed", steps=STEPS, recorder=recorder)).outcome()
        assert outcome.exit == 0, outcome.output
        return float(outcome.output)

    return in_turns(PAIRS, lambda: step(True), lambda: step(False))


def preflight(pad: Launchpad, folder: Path) -> tuple[float, float]:
    """The whole preflight of one of the repository's own trainers, and a cold import of its libraries."""
    libraries = [name for name in fusion.PRELOAD if not name.startswith("trainers.")]
    cold = cold_import(folder, *libraries)
    cache = f"cache_dir={folder / 'cache'}"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-n",
        "2",
        "-m",
        "preflight",
        "-o",
        cache,
        "edge_cases",
        "--trainer",
        "Fusion",
    ]
    seconds_of(command, folder, cwd=PROJECT)  # set-up: from here on the trainer's libraries are known
    return seconds_of(command, folder, cwd=PROJECT), cold


def main() -> int:
    """Measure, and print a line for each."""
    print(f"{'measured':<62} {'this':>8} {'÷':>8} {'ratio':>7} {'goal':>7}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "timed.py").write_text(TRAINERS)
        (folder / "pad").mkdir()
        pad = Launchpad(folder, folder / "pad", [str(folder)], 120.0)
        try:
            show("start-up of pytest with the plugin ÷ without", 1.05, start_up(folder))
            if find_spec("peft") and find_spec("torch_geometric"):
                show("warm run ÷ cold import of torch, transformers, peft, PyG", 1 / 25, warm_run(pad, folder))
            else:
                print("skipped: warm run ÷ cold import (peft and torch_geometric are not installed)")
            show("seconds per step, recorded ÷ not", 1.03, recorder(pad, folder))
            show("make preflight ÷ cold import of its trainer's libraries", 6, preflight(pad, folder))
        finally:
            pad.close()
        for program in (transformer, gnn):
            name = program.__name__
            show(f"seconds per step, {name} ÷ a bare loop", 1 / 0.95, programs.seconds_per_step(folder, program))
        for program in (transformer, gnn):
            name = program.__name__
            show(f"peak MiB, {name}, 100,000 rows ÷ 1,000", 1.2, programs.peak_memory(folder, name))
        print(f"{'functions prepared per second':<62} {programs.preparation(folder):>8.0f}")
        validated = chats.validation(folder)
        show("seconds for 20,000 chat rows, validated ÷ json.loads alone", 1 / 0.3, validated)
        print(f"{'chat rows validated per second':<62} {chats.ROWS / validated[0]:>8.0f}")
        for what, seconds in queues.lengths(folder).items():
            show(f"queue, {what}: seconds at 10,000 files ÷ at 100", 3, seconds)
        left = queues.kills(folder)
        what = f"queue killed {left.kills} times: lost, trained twice of {left.files} files"
        met = "met" if not (left.lost or left.twice or left.untrained) else "MISSED"
        print(f"{what:<62} {left.lost:>8} {left.twice:>8} {'':>7} {'0, 0':>7}  {met}")
    if find_spec("accelerate"):
        print("\n".join(rivals.table()))
    return 0


def show(what: str, goal: float, measured: tuple[float, float]) -> None:
    """One line of the table."""
    ours, theirs = measured
    met = "met" if ours / theirs <= goal else "MISSED"
    print(f"{what:<62} {ours:>8.3f} {theirs:>8.3f} {ours / theirs:>7.3f} {goal:>7.3f}  {met}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
