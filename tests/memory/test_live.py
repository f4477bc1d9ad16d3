"""Memory that runs out while a program is traced, and what programs do then."""

import re

import pytest
import torch

from pytest_trainguard.memory.answers.tracing import tracing
from pytest_trainguard.memory.replay.trace_replay import replay_trace
from pytest_trainguard.memory.traced.memory_limit import MemoryLimit
from tests.projects import Project

MIB = 2**20
PROGRAM = """
import torch

from pytest_trainguard import Trainer


class Plain(Trainer):
    '''A step of 64 rows, 4 MiB each for every layer's output.'''

    production = {"batch_size": 64}
    sample = "train.jsonl"
    smallest = 64

    def make_longest(self, folder, rows, length, seed):
        return self.make_data(folder, rows, seed)

    def train(self, run):
        model = torch.nn.Sequential(torch.nn.Linear(1024, 1024), torch.nn.GELU()).to("cuda")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        size = run.config["batch_size"]
        for _ in range(run.max_steps):
            while True:
                try:
                    optimizer.zero_grad()
                    for _ in range(run.config["batch_size"] // size):
                        model(torch.randn(size, 1024, 1024, device="cuda")).mean().backward()
                    break
                except torch.OutOfMemoryError as error:
                    if size <= self.smallest:
                        raise
                    size //= 2
                    print(f"CUDA out of memory: {error.args[0][:20]}; {size} rows at a time", flush=True)
            optimizer.step()


class Halves(Plain):
    smallest = 1


class TriesForEver(Plain):
    def train(self, run):
        while True:
            try:
                return super().train(run)
            except torch.OutOfMemoryError:
                pass
"""


def test_it_says_what_torch_says():
    limit = MemoryLimit(24 * MIB)
    limit.allocate(1, 3 * MIB // 2, 0, "build", 0)
    with pytest.raises(torch.OutOfMemoryError) as error:
        limit.allocate(2, 30 * MIB - 1, 0, "forward", 3)
    assert str(error.value) == (
        "CUDA out of memory. Tried to allocate 30.00 MiB. GPU 0 has a total capacity of 24.00 MiB of which 4.00 MiB is "
        "free. Including non-PyTorch memory, this process has 20.00 MiB memory in use. Of the allocated memory "
        "1.50 MiB is allocated by PyTorch, and 18.50 MiB is reserved by PyTorch but unallocated."
    )
    assert limit.ran_out == [("forward", 3)]
    limit.release(2)  # what was refused holds nothing
    limit.release(1)
    limit.allocate(3, 22 * MIB, 0, "forward", 3)  # what is cached is given back for it


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    made = Project(tmp_path_factory.mktemp("project"), ["halving:Plain"])
    made.write("halving.py", PROGRAM)
    return made


def test_one_without_a_recovery_ends_at_the_first_time(project):
    with tracing("halving:Plain", root=project.folder) as traced:
        peak = replay_trace(traced.trace()).peak_reserved
        capped = traced.run_capped(peak // 2)
        enough = traced.run_capped(peak)
    assert (capped.exit, capped.steps, capped.unknown) == (1, 0, None)
    assert capped.ran_out == (("forward", 0),)
    assert re.search(r"OutOfMemoryError: CUDA out of memory. Tried to allocate \d", capped.output)
    assert (enough.exit, enough.steps, enough.ran_out) == (0, 2, ())


def test_one_that_halves_its_batch_gets_through_with_memory_given_back(project):
    with tracing("halving:Halves", root=project.folder) as traced:
        peak = replay_trace(traced.trace()).peak_reserved
        capped = traced.run_capped(peak // 6)
    assert (capped.exit, capped.steps, capped.unknown) == (0, 2, None)
    # 32 rows do not fit either: it takes more than one error, as on a GPU.
    assert len(capped.ran_out) > 1
    assert {step for _, step in capped.ran_out} == {0}
    assert "rows at a time" in capped.output


def test_one_that_tries_for_ever_is_ended(project, monkeypatch):
    monkeypatch.setattr("pytest_trainguard.memory.answers.tracing.CAPPED_TIME_LIMIT", 10.0)
    with tracing("halving:TriesForEver", root=project.folder) as traced:
        capped = traced.run_capped(600 * MIB)
    assert capped.timed_out
