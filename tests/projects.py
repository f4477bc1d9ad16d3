"""A user's project in a folder of its own, and pytest run in it as a user runs it: in a process of its own."""

import atexit
import json
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tests.warm_start import Nursery

ROWS = [{"x": [float((i * 7 + j * 3) % 11) for j in range(8)], "y": i % 2} for i in range(100)]

# A sound loop over rows {"x": [8 numbers], "y": 0 or 1}; what most of the projects here train with.
LOOP = """
import json
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass
class TrainConfig:
    hidden: int = 64
    lr: float = 0.01
    save_every: int = 100


def main(config, data, output_dir, max_steps, resume_from=None):
    rows = [json.loads(line) for line in Path(data).read_text().splitlines()]
    x, y = torch.tensor([row["x"] for row in rows]), torch.tensor([row["y"] for row in rows])
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, config.hidden), torch.nn.ReLU(), torch.nn.Linear(config.hidden, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr)
    step = 0
    if resume_from:
        state = torch.load(resume_from, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    while step < max_steps:
        loss = torch.nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step % config.save_every == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            torch.save(state, Path(output_dir) / f".tmp-{step}.pt")
            (Path(output_dir) / f".tmp-{step}.pt").rename(Path(output_dir) / f"checkpoint-{step}.pt")
"""

# The five lines of the README.
ADOPTED = """
import pytest_trainguard as trainguard
from program import TrainConfig, main

class Classifier(trainguard.Trainer):
    config = TrainConfig
    tiny = {"hidden": 8}
    sample = "train.jsonl"

    def train(self, run):
        main(run.config, data=run.data, output_dir=run.output_dir, max_steps=run.max_steps, resume_from=run.resume_from)
"""


NURSERY = Nursery()
atexit.register(NURSERY.close)


@dataclass(frozen=True)
class Result:
    """What one run of pytest came to."""

    code: int
    output: str
    report: dict
    junit: dict  # test name → its properties

    def verdicts(self, trainer):
        """Of one trainer: case number → verdict."""
        return {case["number"]: case["verdict"] for case in self.report["cases"] if case["trainer"] == trainer}

    def case(self, trainer, number):
        return next(c for c in self.report["cases"] if (c["trainer"], c["number"]) == (trainer, number))


# A shell that starts the tests in the background has them ignore SIGINT, and what they start does so too.
AS_IN_A_TERMINAL = f"""
import runpy, signal, sys
sys.path.append({str(Path(__file__).parent)!r})  # of this process alone: its plugin `warm_start`
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("pytest", run_name="__main__", alter_sys=True)
"""


class Project:
    """A folder with its own pyproject.toml."""

    def __init__(self, folder, trainers=(), *, toml="", warm=True):
        """`warm`: its sessions' base servers are forked from one that has torch loaded (see `tests/warm_start.py`)."""
        self.folder, self.warm = Path(folder), warm
        self.folder.mkdir(parents=True, exist_ok=True)
        named = json.dumps(list(trainers))
        self.write("pyproject.toml", f"[tool.pytest.ini_options]\ntrainguard_trainers = {named}\n{toml}")
        self.write("train.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS))

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def start(self, *args, **options):
        """Start `pytest ARGS` and do not wait."""
        own = ("PYTEST_", "COV_CORE")
        env = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        env |= NURSERY.environment if self.warm else {}
        return subprocess.Popen(
            [sys.executable, "-c", AS_IN_A_TERMINAL, f"--basetemp={self.folder / 'tmp'}", *args],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**env, **options.pop("env", {})},
            **options,
        )

    def pytest(self, *args, time_limit=180, **options):
        """Run `pytest ARGS` to its end, which takes `time_limit` seconds at most."""
        files = self.folder / "report.json", self.folder / "junit.xml"
        for file in files:
            file.unlink(missing_ok=True)
        process = self.start(f"--preflight-report={files[0]}", f"--junitxml={files[1]}", *args, **options)
        output, _ = process.communicate(timeout=time_limit)
        assert "INTERNALERROR" not in output, output
        return Result(
            process.returncode,
            output,
            json.loads(files[0].read_text()) if files[0].exists() else {},
            _properties(files[1]) if files[1].exists() else {},
        )


def _properties(junit):
    cases = ElementTree.parse(junit).iter("testcase")
    return {c.get("name"): {p.get("name"): p.get("value") for p in c.iter("property")} for c in cases}
