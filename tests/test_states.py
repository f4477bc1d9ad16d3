"""Digests of a program's states: whatever it is made of, it trains as it does without them."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from pytest_trainguard import Trainer
from pytest_trainguard.launch.protocol import RunRequest
from pytest_trainguard.recorder.states import WHOLE, digest
from pytest_trainguard.subject.launchpad import Launchpad

ROOT = Path(__file__).parent.parent
X = torch.arange(32.0).reshape(8, 4) / 32
ALWAYS = {"weights", "optimizer", "lr", "python", "numpy", "torch"}


def network(inputs, outputs, norm=False):
    inner = torch.nn.BatchNorm1d(8) if norm else torch.nn.Tanh()
    return torch.nn.Sequential(torch.nn.Linear(inputs, 8), inner, torch.nn.Linear(8, outputs))


def begin(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class Adversaries(Trainer):
    """Two networks and an optimizer each; the generator's output goes into the critic, with its graph and without."""

    def train(self, run):
        begin(run.seed)
        generator, critic = network(2, 4, norm=True), network(4, 1)
        optimizers = [torch.optim.Adam(part.parameters(), lr=0.01) for part in (critic, generator)]
        if run.settings.get("other_weights"):
            torch.nn.init.ones_(generator[0].weight)
        for step in range(run.max_steps):
            fake = generator(X[:, step % 2 : step % 2 + 2])
            (critic(fake.detach()) - critic(X)).mean().backward()
            optimizers[0].step()
            optimizers[0].zero_grad()
            critic(fake).mean().neg().backward()
            optimizers[1].step()
            optimizers[1].zero_grad()


class Accumulates(Trainer):
    def train(self, run):
        begin(run.seed)
        model, loss = network(4, 2, norm=True), torch.nn.CrossEntropyLoss()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(run.max_steps):
            for part in X.chunk(2):
                loss(model(part), torch.zeros(4, dtype=torch.long)).backward()
            with torch.no_grad():
                model.eval()(X)
                model.train()
            optimizer.step()
            optimizer.zero_grad()


class Closes(Trainer):
    """LBFGS calls the program back in its step, several times."""

    def train(self, run):
        begin(run.seed)
        model = network(4, 1)
        optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)

        def closure():
            optimizer.zero_grad()
            loss = model(X).square().mean()
            loss.backward()
            return loss

        for _ in range(run.max_steps):
            optimizer.step(closure)


class Compiled(Trainer):
    def train(self, run):
        begin(run.seed)
        model = network(4, 1, norm=True)
        if run.settings["in_place"]:
            model.compile(backend="eager")
        else:
            model = torch.compile(model, backend="eager")
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        for _ in range(run.max_steps):
            model(X).mean().backward()
            optimizer.step()
            optimizer.zero_grad()


class MakesItsOptimizerLate(Trainer):
    """Lazy modules, an optimizer that is made after the first forward pass and gets a group more, then another one."""

    def train(self, run):
        begin(run.seed)
        model, more = (
            torch.nn.Sequential(torch.nn.LazyLinear(8), torch.nn.Tanh(), torch.nn.LazyLinear(1)),
            network(4, 1),
        )
        optimizer = None
        for step in range(run.max_steps):
            loss = (model(X) + more(X)).square().mean()
            if optimizer is None:
                optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.01))
            if step == 2:
                optimizer.add_param_group({"params": list(more.parameters()), "lr": 0.5})
            if step == 3:
                optimizer = torch.optim.Adagrad(model.parameters(), lr=0.01)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()


class HasNoDigests(Trainer):
    """Sparse gradients, a parameter without a dimension, an optimizer whose state is what it likes."""

    def train(self, run):
        begin(run.seed)

        class Odd(torch.optim.SGD):
            def step(self, closure=None):
                for group in self.param_groups:
                    for parameter in group["params"]:
                        self.state[parameter].update({"object": object(), None: 1, "nested": {"a": [X, None, "b"]}})
                        parameter.grad = parameter.grad.to_dense()
                return super().step(closure)

        model = torch.nn.Embedding(4, 2, sparse=True)
        model.scale = torch.nn.Parameter(torch.tensor(2.0))
        model.register_buffer("graph", torch.eye(3).to_sparse())
        optimizer = Odd(model.parameters(), lr=0.1)
        for _ in range(run.max_steps):
            (model(torch.arange(3)) * model.scale).mean().backward()
            optimizer.step()
            optimizer.zero_grad()


class Recurs(Trainer):
    """The state of one step is the input of the next, without its graph."""

    def train(self, run):
        begin(run.seed)
        cell = torch.nn.GRUCell(4, 4)
        optimizer = torch.optim.SGD(cell.parameters(), lr=run.settings.get("rate", 0.1))
        state = torch.zeros(8, 4)
        for _ in range(run.max_steps):
            state = cell(X, state)
            state.square().mean().backward()
            state = state.detach()
            optimizer.step()
            optimizer.zero_grad()


@pytest.fixture(scope="module")
def pad(tmp_path_factory):
    pad = Launchpad(ROOT, tmp_path_factory.mktemp("pad"), [str(ROOT)], 60.0)
    yield pad
    pad.close()


@pytest.fixture
def steps(pad):
    def steps(name, *, states=True, **settings):
        subject = pad.subject(name, f"{__name__}:{name}")
        outcome = subject.start(RunRequest("tried", steps=4, states=states, settings=settings)).outcome()
        assert outcome.exit == 0, outcome.output
        return outcome.recording.steps

    return steps


PROGRAMS = {
    "Adversaries": ({}, ALWAYS | {"buffers", "data"}),
    "Accumulates": ({}, ALWAYS | {"buffers", "data"}),
    "Closes": ({}, ALWAYS | {"data"}),
    "Compiled": ({"in_place": False}, ALWAYS | {"buffers", "data"}),
    "Compiled in place": ({"in_place": True}, ALWAYS),
    "MakesItsOptimizerLate": ({}, ALWAYS | {"data"}),
    "HasNoDigests": ({}, ALWAYS | {"data"}),
    "Recurs": ({}, ALWAYS | {"data"}),
}


@pytest.mark.parametrize(("program", "settings", "states"), [(n, *of) for n, of in PROGRAMS.items()], ids=PROGRAMS)
def test_programs_of_every_kind(steps, program, settings, states):
    name = program.split()[0]
    first, second, without = (steps(name, states=asked, **settings) for asked in (True, True, False))
    assert [step.loss for step in first] == [step.loss for step in without]
    assert [step.states for step in first] == [step.states for step in second]
    assert set(first[0].states) == states
    assert len({step.states["weights"] for step in first}) == len(first)


def test_the_loss_of_a_critic_is_of_the_generators_weights_too(steps):
    ours, theirs = steps("Adversaries")[0], steps("Adversaries", other_weights=True)[0]
    differing = {name for name in ours.states if ours.states[name] != theirs.states[name]}
    assert differing == {"weights"}, "what the generator made is no data"


def test_a_state_that_is_handed_on_is_no_data(steps):
    assert [step.states["data"] for step in steps("Recurs")][1:] == [
        step.states["data"] for step in steps("Recurs", rate=0.2)
    ][1:]


def test_data_is_of_every_forward_pass(steps):
    data = [step.states["data"] for step in steps("Accumulates")]
    assert {len(each) for each in data} == {4 * 16}, "two of the model, two of the loss, none of the evaluation"
    assert len(set(data)) == 1


# --- the digest itself


def test_equal_values_have_equal_digests():
    several = [1, 2.5, "a", X, None, {"step": 3, "b": [X.t()]}, np.arange(3)]
    again = [1.0, 2.5, "a", X.clone(), None, {"b": [X.t().contiguous()], "step": torch.tensor(3.0)}, np.arange(3)]
    assert digest(several) == digest(again)
    assert digest({"momentum": None}) == digest({})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (X, X + 1e-7),
        (X, X.double()),
        (X, X.reshape(4, 8)),
        (X, X.flip(0)),
        ([X, X[:0]], [X[:0], X]),
        ([[1], 2], [1, [2]]),
        ([1, 2], [12]),
        ({"a": 1}, {"b": 1}),
        (torch.tensor(1.0), torch.tensor(2.0)),
        (X.bfloat16(), -X.bfloat16()),
        (X > 0.5, X > 0.4),
        (np.arange(3), np.arange(1, 4)),
        (float("nan"), 0.0),
    ],
)
def test_other_values_have_others(one, other):
    assert digest(one) != digest(other)


def test_of_a_large_tensor_every_value_counts():
    large = torch.zeros(WHOLE)
    before = digest(large)
    for place in (1, 12345, WHOLE - 1):
        large[place] = 1e-30
        assert digest(large) != before
        large[place] = 0
    assert digest(large) == before


def test_a_tensor_that_has_no_values_has_no_digest():
    with pytest.raises(Exception):  # noqa: B017, PT011 (torch's own, of several kinds)
        digest(torch.empty(3, device="meta"))
