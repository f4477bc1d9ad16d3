"""Where faults come about: in what trains, and in the gradient that a step is taken with."""

import math

import pytest

from pytest_trainguard import faults
from pytest_trainguard.launch.protocol import RunRequest
from pytest_trainguard.subject.launchpad import Launchpad

PROGRAMS = '''
import contextlib
import multiprocessing
import signal
import sys
import time

import torch
from torch.autograd import grad

from pytest_trainguard import Trainer

X = torch.arange(32.0).reshape(8, 4) / 32
Y = torch.arange(8) % 2
SETS = torch.utils.data.TensorDataset(X, Y)


def finite(tensor, what):
    if not torch.isfinite(tensor).all():
        sys.exit(f"{what} is not finite")


def net(*sizes):
    return torch.nn.Sequential(*[torch.nn.Linear(*pair) for pair in zip(sizes, sizes[1:])])


class Validates(Trainer):
    """Validates after every step, and notes down after that that the step is saved."""

    def train(self, run):
        model, how = net(4, 8, 2), run.settings
        criterion = torch.nn.CrossEntropyLoss()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(1, run.max_steps + 1):
            model.train(how["trains"] == "in training mode")
            for x, y in torch.utils.data.DataLoader(SETS, batch_size=8):
                loss = criterion(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if how["validates"] != "without a graph alone":
                model.eval()
            graph = how["validates"] == "in evaluation mode alone"
            inside = how["validates"] == "without a graph alone"
            with torch.set_grad_enabled(graph or inside):
                for x, y in torch.utils.data.DataLoader(SETS, batch_size=8):
                    with torch.no_grad() if inside else contextlib.nullcontext():
                        if step < 3:
                            finite(criterion(model(x), y), "the validation")
            (run.output_dir / f"saved-{step}").touch()


class Adversaries(Trainer):
    """The generator's loss has a gradient in the critic, too, that is thrown away."""

    def train(self, run):
        parts = {"critic": net(4, 8, 1), "generator": net(3, 8, 4)}
        optimizers = {name: torch.optim.SGD(part.parameters(), lr=0.1) for name, part in parts.items()}
        for _ in range(run.max_steps):
            fake = parts["generator"](torch.randn(8, 3))
            for name in parts:
                scores = parts["critic"](fake.detach() if name == "critic" else fake)
                loss = scores.mean() - parts["critic"](X).mean() if name == "critic" else -scores.mean()
                optimizers[name].zero_grad()
                loss.backward()
                for parameter in parts[name].parameters():
                    finite(parameter.grad, f"a gradient of the {name}")
                optimizers[name].step()


class Attacks(Trainer):
    """Takes a backward pass for its inputs alone before the one that it learns from."""

    def train(self, run):
        model = net(4, 8, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(run.max_steps):
            x = X.clone().requires_grad_()
            torch.nn.functional.cross_entropy(model(x), Y).backward()
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(X + 0.01 * x.grad.sign()), Y).backward()
            for parameter in model.parameters():
                finite(parameter.grad, "a gradient")
            optimizer.step()


class ByHand(Trainer):
    """Has its gradients from torch.autograd.grad, with a penalty; its validation differentiates nothing."""

    def train(self, run):
        model = net(4, 8, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(run.max_steps):
            x = X.clone().requires_grad_()
            output = model(x)
            (slope,) = grad(output.sum(), x, create_graph=True)
            loss = torch.nn.functional.cross_entropy(output, Y) + slope.pow(2).mean()
            print(loss.item().hex())
            for parameter, gradient in zip(model.parameters(), grad(loss, list(model.parameters()))):
                parameter.grad = gradient
                finite(gradient, "a gradient")
            optimizer.step()


class HasHelpers(Trainer):
    """One helper dies late of SIGTERM, another ignores it; says at the signal which of them are there."""

    def train(self, run):
        context, model = multiprocessing.get_context("fork"), net(4, 8, 2)
        helpers = [context.Process(target=helps, args=(late,), daemon=True) for late in (True, False)]
        for helper in helpers:
            helper.start()
            time.sleep(0.5)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(str([helper.is_alive() for helper in helpers])))
        for _ in range(run.max_steps):
            torch.nn.functional.cross_entropy(model(X), Y).backward()


def helps(late):
    signal.signal(signal.SIGTERM, (lambda *_: time.sleep(0.5) or sys.exit()) if late else signal.SIG_IGN)
    time.sleep(3)


class Penalised(Trainer):
    """Takes a backward pass, and torch.autograd.grad for a penalty in its loss."""

    def train(self, run):
        model = net(4, 8, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(run.max_steps):
            x = X.clone().requires_grad_()
            output = model(x)
            (slope,) = torch.autograd.grad(output.sum(), x, create_graph=True)
            loss = torch.nn.functional.cross_entropy(output, Y) + slope.pow(2).mean()
            print(loss.item().hex())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
'''
SAVES = """
import os
import shutil
import tempfile
from pathlib import Path

import torch

from pytest_trainguard import Trainer


class Moves(Trainer):
    def train(self, run):
        model = torch.nn.Linear(2, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(1, run.max_steps + 1):
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
            made = Path(tempfile.mkdtemp()) / "made.pt"
            torch.save(model.state_dict(), made)
            shutil.move(made, run.output_dir / f"checkpoint-{step}.pt")
            os.rename(run.output_dir / f"checkpoint-{step}.pt", run.output_dir / "ckpt.pt")
"""
TRAINS = ("in training mode", "in evaluation mode")
VALIDATES = ("in evaluation mode without a graph", "in evaluation mode alone", "without a graph alone")
# What validates with a graph is not told from what trains in evaluation mode.
WAYS = [(TRAINS[0], validates) for validates in VALIDATES] + [(TRAINS[1], VALIDATES[0]), (TRAINS[1], VALIDATES[2])]


@pytest.fixture(scope="module")
def pad(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    (root / "faulty.py").write_text(PROGRAMS)
    (root / "saves.py").write_text(SAVES)
    pad = Launchpad(root, tmp_path_factory.mktemp("pad"), [str(root)], 60.0)
    yield pad
    pad.close()


@pytest.fixture
def run(pad):
    def run(name, fault=None, **options):
        request = RunRequest("tried", **{"steps": 5, **options}, fault=fault)
        return pad.subject(name, f"faulty:{name}").start(request).outcome()

    return run


def ways(trains, validates):
    return {"trains": trains, "validates": validates}


@pytest.mark.parametrize(("trains", "validates"), WAYS)
def test_a_fault_in_a_step_waits_for_what_trains(run, trains, validates):
    outcome = run("Validates", faults.kill(3), settings=ways(trains, validates))
    assert outcome.exit == -9
    assert sorted(outcome.after) == ["saved-1", "saved-2"], "step 2 was validated and saved"


@pytest.mark.parametrize("where", ["batch", "activation", "loss", "gradient"])
@pytest.mark.parametrize(("trains", "validates"), WAYS)
def test_a_number_is_put_into_what_trains(run, trains, validates, where):
    outcome = run("Validates", faults.nan(where, 3), settings=ways(trains, validates))
    assert "the validation is not finite" not in outcome.output
    assert outcome.exit == 0, outcome.output
    assert [math.isfinite(loss) for loss in outcome.losses] == [True, True, where == "gradient", False, False]


@pytest.mark.parametrize(("step", "named"), [(3, "critic"), (4, "generator")])
def test_a_gradient_is_spoilt_that_is_not_thrown_away(run, step, named):
    outcome = run("Adversaries", faults.nan("gradient", step))
    assert outcome.output == f"a gradient of the {named} is not finite\n"
    assert len(outcome.recording.steps) == step - 1


@pytest.mark.parametrize("name", ["Attacks", "ByHand"])
def test_a_gradient_is_spoilt_wherever_it_comes_from(run, name):
    outcome = run(name, faults.nan("gradient", 3))
    assert outcome.output.splitlines()[-1] == "a gradient is not finite"
    assert 2 <= len(outcome.recording.steps) <= 3


def test_a_fault_in_the_backward_pass_of_a_program_without_one(run):
    outcome = run("ByHand", faults.raises(ValueError, "backward", 3, "on purpose"))
    assert "ValueError: on purpose" in outcome.output
    assert len(outcome.recording.steps) == 2


@pytest.mark.parametrize("name", ["ByHand", "Penalised"])
def test_losses_are_those_that_are_stepped_on(run, name):
    outcome = run(name)
    assert outcome.exit == 0, outcome.output
    assert outcome.losses == [float.fromhex(line) for line in outcome.output.split()]
    assert [len(step.losses) for step in outcome.recording.steps] == [1] * 5


def test_undone_steps(run):
    settings = ways("in training mode", "in evaluation mode without a graph")
    outcome = run("Validates", faults.undo_steps(), settings=settings)
    assert outcome.exit == 0, outcome.output
    assert len(set(outcome.losses)) == 1
    assert outcome.recording.fault_fired


def test_a_disk_fails_where_a_file_made_elsewhere_is_moved_to(pad):
    request = RunRequest("tried", steps=3, fault=faults.io_error("save", 2))
    outcome = pad.subject("Moves", "saves:Moves").start(request).outcome()
    moved = [event["step"] for event in outcome.recording.of("write") if event["how"] == "move"]
    assert (outcome.exit, moved) == (1, [1, 2]), outcome.output
    assert "checkpoint-2.pt" in outcome.last_words.splitlines()[-1]
    assert sorted(outcome.after) == ["ckpt.pt"]


def test_what_dies_of_sigterm_is_dead_before_the_run_gets_it(run):
    outcome = run("HasHelpers", faults.terminate("forward"))
    assert (outcome.exit, outcome.output) == (1, "[False, True]\n")
