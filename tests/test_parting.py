"""Which states differ where a resumed run parts from the undisturbed one: the right words, and no others."""

import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pytest_trainguard import Trainer, faults
from pytest_trainguard.launch.protocol import RunRequest
from pytest_trainguard.recorder.timeline import Recording
from pytest_trainguard.subject.launchpad import Launchpad
from pytest_trainguard.verdicts.parting import find_differing_states

ROOT = Path(__file__).parent.parent
ROWS = torch.linspace(-1, 1, 128).reshape(32, 4).sin()
LABELS = torch.arange(32) // 2 % 2
HALF = 4  # steps before the restart


class Network(torch.nn.Module):
    """Its first layer computes in half precision, so that what a gradient scaler does is seen in the weights."""

    def __init__(self):
        super().__init__()
        self.first, self.last = torch.nn.Linear(4, 16), torch.nn.Linear(16, 2)
        self.norm, self.dropout = torch.nn.BatchNorm1d(16, momentum=0.5), torch.nn.Dropout(0.2)

    def forward(self, x):
        with torch.autocast("cpu", torch.float16):
            hidden = self.first(x)
        hidden = hidden.float() - 0.1 * self.norm.running_mean  # what was seen before counts in training, too
        return self.last(self.dropout(self.norm(hidden).relu()))


class Whole(Trainer):
    """Has every state that there is, and saves it at its end; a restart does not bring back what `forgets` names."""

    def train(self, run):
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        self.model, self.step = Network(), 0
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1 / (step + 1))
        self.scaler = torch.amp.GradScaler("cpu", init_scale=1.0, growth_interval=1)
        if run.settings.get("tries_its_shape"):
            self.model(torch.zeros(2, 4))
            torch.manual_seed(0)
        if run.resume_from:
            for name, value in torch.load(run.resume_from, weights_only=True).items():
                if name not in run.settings["forgets"]:
                    getattr(self, f"restore_{name}")(value)
        place = 0 if "data" in run.settings.get("forgets", ()) else self.step
        for number in range(self.step, run.max_steps):
            self.train_on(place + number - self.step)
        torch.save(self.state(run.max_steps), run.output_dir / f"checkpoint-{run.max_steps}.pt")

    def train_on(self, place):
        rows = [(7 * place + row) % len(ROWS) for row in range(8)]
        x = ROWS[rows] * random.uniform(0.9, 1.1) + torch.from_numpy(np.random.normal(0, 0.01, (8, 4))).float()
        loss = torch.nn.functional.cross_entropy(self.model(x), LABELS[rows])
        self.optimizer.zero_grad()
        self.scaler.scale(loss * 1e-5).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()

    def state(self, step):
        kind, key, *rest = np.random.get_state()
        return {
            "step": step,
            "weights": dict(self.model.named_parameters()),
            "buffers": dict(self.model.named_buffers()),
            "moments": self.optimizer.state_dict()["state"],
            "rate": self.optimizer.param_groups[0]["lr"],
            "schedule": self.scheduler.last_epoch,
            "scaler": self.scaler.state_dict(),
            "python": random.getstate(),
            "numpy": [kind, key.tolist(), *rest],
            "torch": torch.get_rng_state(),
        }

    def restore_step(self, step):
        self.step = step

    def restore_weights(self, values):
        self.model.load_state_dict(values, strict=False)

    restore_buffers = restore_weights

    def restore_moments(self, values):
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": values})

    def restore_rate(self, rate):
        self.optimizer.param_groups[0]["lr"] = rate

    def restore_schedule(self, step):
        self.scheduler.last_epoch = step

    def restore_scaler(self, values):
        self.scaler.load_state_dict(values)

    def restore_python(self, values):
        random.setstate(values)

    def restore_numpy(self, values):
        np.random.set_state(tuple(values))

    def restore_torch(self, values):
        torch.set_rng_state(values)


FORGOTTEN = {
    ("weights",): ["weights"],
    ("buffers",): ["buffers"],
    ("moments",): ["optimizer state"],
    ("rate",): ["learning rate"],
    ("schedule",): ["learning rate"],  # of the step after the first
    ("scaler",): ["gradient scaler"],
    ("data",): ["place in the data"],
    ("python",): ["place in the data", "random state of Python"],
    ("numpy",): ["place in the data", "random state of NumPy"],
    ("torch",): ["random state of torch"],
    ("moments", "rate", "schedule", "scaler", "python", "numpy", "torch", "data", "buffers"): [
        "buffers", "optimizer state", "learning rate", "gradient scaler", "place in the data", "random state of Python",
        "random state of NumPy", "random state of torch",
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def pad(tmp_path_factory):
    pad = Launchpad(ROOT, tmp_path_factory.mktemp("pad"), [str(ROOT)], 60.0)
    yield pad
    pad.close()


@pytest.fixture(scope="module")
def whole(pad):
    """The program, its undisturbed run, and the checkpoint of its first half."""
    subject = pad.subject("Whole", "tests.test_parting:Whole")
    reference, half = (
        subject.start(RunRequest("trained", steps=steps, states=True)).outcome() for steps in (2 * HALF, HALF)
    )
    assert (reference.exit, half.exit) == (0, 0), reference.output + half.output
    return subject, reference, half.output_dir / f"checkpoint-{HALF}.pt"


@pytest.fixture
def resume(whole):
    subject, _, checkpoint = whole

    def resume(**settings):
        request = RunRequest("resumed", steps=2 * HALF, resume_from=checkpoint, settings=settings)
        outcome = subject.start(request).outcome()
        assert (outcome.exit, len(outcome.losses)) == (0, HALF), outcome.output
        return outcome

    return resume


@pytest.mark.parametrize(("forgets", "words"), FORGOTTEN.items(), ids="-".join)
def test_what_was_forgotten_is_named(whole, resume, forgets, words):
    resumed = resume(forgets=forgets)
    assert resumed.losses != whole[1].losses[HALF:]
    assert find_differing_states(resumed, whole[1]) == words


def test_a_sound_restart_differs_in_nothing(whole, resume):
    resumed, reference = resume(forgets=()), whole[1]
    assert resumed.losses == reference.losses[HALF:]
    assert [step.states for step in resumed.recording.steps] == [
        step.states for step in reference.recording.steps[HALF:]
    ]
    assert set(reference.recording.steps[0].states) == {
        "weights", "buffers", "optimizer", "lr", "scaler", "data", "python", "numpy", "torch",
    }  # fmt: skip
    assert find_differing_states(resumed, reference) == []


def test_a_look_at_the_models_shape_is_no_step(whole, resume):
    resumed = resume(forgets=("moments",), tries_its_shape=True)
    assert find_differing_states(resumed, whole[1]) == ["optimizer state"]


SABOTEURS = {
    "ForgetsOptimizer": ["optimizer state"],
    "ForgetsGenerator": ["random state of torch"],
    "LosesItsPlaceInTheData": ["place in the data"],
}


@pytest.mark.parametrize(("name", "words"), SABOTEURS.items(), ids=SABOTEURS)
def test_saboteurs_of_the_catalogue(pad, name, words):
    subject = pad.subject(name, f"tests.saboteurs.process:{name}")
    reference = subject.start(RunRequest("trained", states=True)).outcome()
    killed = subject.start(RunRequest("killed", fault=faults.kill(5))).outcome()
    resumed = subject.start(RunRequest("resumed", output_dir=killed.output_dir, resume=True)).outcome()
    assert find_differing_states(resumed, reference) == words


def test_only_runs_that_are_held_against_each_other_have_digests(pad):
    subject = pad.subject("Whole", "tests.test_parting:Whole")
    plain = subject.start(RunRequest("trained", steps=2)).outcome()
    assert [step.states for step in plain.recording.steps] == [{}, {}]
    assert all("states" not in event for event in plain.recording.events)


# --- of recordings written by hand


def recorded(*steps):
    """An outcome whose steps have these states; each step's loss is the state `loss`, or as in every run."""
    blank = dict.fromkeys(
        ("grad_norm", "moved", "training", "dtype", "autocast", "length", "eval_forwards", "seconds", "rss", "cuda",
         "children", "time"), 0,
    )  # fmt: skip
    events = [
        {"event": "step", "number": number, "loss": states.pop("loss", 1.0), "losses": [], "lr": [], "batches": [],
         "states": states, **blank}
        for number, states in enumerate(map(dict, steps), 1)
    ]  # fmt: skip
    return SimpleNamespace(recording=Recording(events))


def of(**digests):
    return digests


RECORDINGS = {
    "first": ([of(weights="b", loss=2)], [of(weights="a")], ["weights"]),
    "in order": ([of(torch="b", lr="b", loss=2)], [of(torch="x", lr="x"), of(torch="a", lr="a")],
                 ["learning rate", "random state of torch"]),
    "a step later": ([of(lr="a"), of(lr="c", loss=2)], [of(lr="a"), of(lr="b")], ["learning rate"]),
    "what follows is not named": ([of(optimizer="b"), of(optimizer="d", weights="d", loss=2)],
                                  [of(optimizer="a", weights="b"), of(optimizer="c", weights="c")],
                                  ["optimizer state"]),
    "after the losses have parted": ([of(weights="a", loss=2), of(weights="c")],
                                     [of(weights="a"), of(weights="b")], []),
    "losses that do not part": ([of(optimizer="b")], [of(optimizer="a")], []),
    "a generator that is never used": ([of(torch="b", loss=2)], [of(torch="a"), of(torch="a")], []),
    "beside another state": ([of(torch="b", lr="b", loss=2)], [of(torch="a", lr="a")], ["learning rate"]),
    "one that is used for nothing that counts": (
        [of(torch="d", lr="a"), of(torch="e", lr="c", loss=2)], [of(torch="a", lr="a"), of(torch="b", lr="b")],
        ["learning rate", "random state of torch"],
    ),
    "one that moves the weights": (
        [of(torch="d", weights="a"), of(torch="e", weights="c", loss=2)],
        [of(torch="a", weights="a"), of(torch="b", weights="b")], ["random state of torch"],
    ),
    "recorded on one side": ([of(loss=2)], [of(weights="a")], []),
    "recorded from the second step on": ([of(), of(weights="b", loss=2)], [of(weights="a"), of(weights="a")],
                                         ["weights"]),
    "as many steps": ([of(weights="b", loss=2), of()], [of(weights="a"), of()], ["weights"]),
    "more steps": ([of(loss=2), of(weights="a"), of()], [of(weights="a")], []),
    "no step": ([], [of(weights="a")], []),
    "one forward pass more": ([of(data="0" * 16 + "a" * 16, loss=2)], [of(data="a" * 16)], []),
    "another forward pass": ([of(data="b" * 16, loss=2)], [of(data="a" * 16)], ["place in the data"]),
}  # fmt: skip


@pytest.mark.parametrize(("resumed", "reference", "words"), RECORDINGS.values(), ids=RECORDINGS)
def test_of_recordings(resumed, reference, words):
    assert find_differing_states(recorded(*resumed), recorded(*reference)) == words


def test_what_a_scaler_that_begins_anew_leaves_out():
    """Its scale is too high at first: the step that is left out for that is missing in the weights."""
    resumed = recorded(of(scaler="b", weights="b", optimizer="b", loss=2))
    reference = recorded(of(scaler="a", weights="a", optimizer="a"))
    words = ["weights", "optimizer state", "gradient scaler"]
    assert find_differing_states(resumed, reference) == words
    resumed.recording.events.insert(0, {"event": "scale", "step": 0, "scale": 2.0})
    assert find_differing_states(resumed, reference) == words[2:]
