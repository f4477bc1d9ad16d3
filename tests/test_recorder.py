"""The recorder: what it writes is what torch did, and what torch did is the same without it."""

import json
import math
from pathlib import Path

import pytest

from pytest_trainguard.launch.protocol import RunRequest
from pytest_trainguard.recorder.timeline import Recording
from pytest_trainguard.subject.launchpad import Launchpad

PROGRAMS = '''
import json
import math
import os
import signal

import torch

from pytest_trainguard import Trainer

X = torch.arange(32.0).reshape(8, 4) / 32
Y = torch.arange(8) % 2


def dropout_model():
    return torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Dropout(0.3), torch.nn.ReLU(), torch.nn.Linear(16, 2))


class Loss(Trainer):
    """Writes its losses and weights down, for a comparison to the bit."""

    def train(self, run):
        torch.manual_seed(0)
        model = dropout_model()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        with open(run.output_dir / "losses.txt", "w") as out:
            for _ in range(run.max_steps):
                loss = torch.nn.functional.cross_entropy(model(X), Y)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
                optimizer.step()
                weights = float(sum(p.detach().double().sum() for p in model.parameters()))
                print(loss.item().hex(), weights.hex(), file=out)
                print(float(torch.rand(())).hex(), file=out)


class Accumulates(Trainer):
    def train(self, run):
        model = torch.nn.Linear(4, 2)
        optimizer = torch.optim.SGD([{"params": [model.weight], "lr": 0.5}, {"params": [model.bias], "lr": 0.25}])
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
        for _ in range(run.max_steps):
            for part in range(3):
                loss = torch.nn.functional.cross_entropy(model(X), Y)
                loss.backward()
            with torch.no_grad():
                model.eval()
                for _ in range(2):
                    model(X)
                model.train()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()


class Shares(Trainer):
    """Divides the loss of each micro-batch by their number, or gives it its share of the rows."""

    def train(self, run):
        model = torch.nn.Linear(4, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(run.max_steps):
            optimizer.zero_grad()
            for part in range(4):
                loss = torch.nn.functional.cross_entropy(model(X), Y)
                print(loss.item().hex())
                share = {"divided": loss / 4, "weighted": loss * (2 / 8), "as it is": loss}[run.settings["loss"]]
                share.backward()
            optimizer.step()


class Guesses(Trainer):
    """Its prediction for a row is the row's largest number."""

    def train(self, run):
        learns = torch.nn.Linear(4, 1)
        optimizer = torch.optim.SGD(learns.parameters(), lr=0.1)
        model = torch.nn.Sequential(torch.nn.Identity())
        for step in range(run.max_steps):
            learns(X).mean().backward()
            optimizer.step()
            model(X)  # in training mode: nothing that was predicted
            model.eval()
            for rows in (torch.eye(3)[[step, step]], torch.eye(3)[[2]]):
                model({"ids": torch.ones(2, 3, dtype=torch.long), "scores": rows} if step else rows)
            model.train()


class ByHand(Trainer):
    """One weight, gradients known: the loss is w * x, with x = 1, 2, 3, ...; w moves by lr * x."""

    def train(self, run):
        weight = torch.nn.Parameter(torch.tensor([10.0, 10.0]))
        optimizer = torch.optim.SGD([weight], lr=0.5)
        for step in range(1, run.max_steps + 1):
            optimizer.zero_grad()
            (weight * torch.tensor([3.0, 4.0]) * step).sum().backward()
            optimizer.step()


class Scaled(Trainer):
    """A loss scaler's losses are recorded as they were before it; a step that it leaves out is none."""

    def train(self, run):
        torch.manual_seed(0)
        model = dropout_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        scaler = torch.amp.GradScaler("cpu", init_scale=512.0)
        with open(run.output_dir / "losses.txt", "w") as out:
            for step in range(run.max_steps):
                with torch.autocast("cpu", torch.bfloat16):
                    loss = torch.nn.functional.cross_entropy(model(X).float(), Y)
                print(loss.item().hex(), file=out)
                optimizer.zero_grad()
                scaler.scale(loss * (math.inf if step == 2 else 1)).backward()
                scaler.step(optimizer)
                scaler.update()


class Killed(Trainer):
    def train(self, run):
        model = torch.nn.Linear(4, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(run.max_steps):
            torch.nn.functional.cross_entropy(model(X), Y).backward()
            optimizer.step()
        os.kill(os.getpid(), signal.SIGKILL)


class ClosesAll(Trainer):
    """Closes descriptors that are not its own, and opens a file: it may get the recording's number."""

    def train(self, run):
        model = torch.nn.Linear(4, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        files = []
        for step in range(run.max_steps):
            torch.nn.functional.cross_entropy(model(X), Y).backward()
            optimizer.step()
            if step == 2:
                os.closerange(3, 1024)
                files = [open(run.output_dir.parent / f"{number}.txt", "w") for number in range(20)]
        for file in files:
            file.write("mine")
            file.close()


class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 16

    def __getitem__(self, index):
        inner = torch.nn.Linear(4, 4)  # a worker may use modules and optimizers of its own
        output = inner(torch.full((4,), float(index)))
        output.sum().backward()
        torch.optim.SGD(inner.parameters(), lr=0.1).step()
        return output.detach(), index % 2


class Loads(Trainer):
    def train(self, run):
        model = torch.nn.Linear(4, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for x, y in torch.utils.data.DataLoader(Numbers(), batch_size=4, num_workers=2):
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()


class Checkpointed(Trainer):
    """Activation checkpointing computes the forward pass again in the backward pass."""

    def train(self, run):
        from torch.utils.checkpoint import checkpoint

        inner = torch.nn.Linear(4, 2)

        class Model(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = inner

            def forward(self, x):
                return checkpoint(self.inner, x, use_reentrant=run.settings["reentrant"])

        model = Model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        x = X.clone().requires_grad_()
        for _ in range(run.max_steps):
            torch.nn.functional.cross_entropy(model(x), Y).backward()
            optimizer.step()
            optimizer.zero_grad()


class Raises(Trainer):
    """A forward pass that raises leaves the count of nested modules as it was."""

    def train(self, run):
        class Fails(torch.nn.Module):
            def forward(self, x):
                raise ValueError("no")

        model = torch.nn.Linear(4, 2)
        failing = torch.nn.Sequential(torch.nn.Identity(), Fails())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(run.max_steps):
            try:
                failing(X)
            except ValueError:
                pass
            torch.nn.functional.cross_entropy(model(X), Y).backward()
            optimizer.step()


class Closure(Trainer):
    def train(self, run):
        model = torch.nn.Linear(4, 2)
        optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)

        def closure():
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(X), Y)
            loss.backward()
            return loss

        for _ in range(run.max_steps):
            optimizer.step(closure)


class Saves(Trainer):
    def train(self, run):
        model = torch.nn.Linear(4, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(1, run.max_steps + 1):
            torch.nn.functional.cross_entropy(model(X), Y).backward()
            optimizer.step()
            beside = run.output_dir / ".tmp.pt"
            torch.save(model.state_dict(), beside)
            fd = os.open(beside, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
            os.rename(beside, run.output_dir / f"checkpoint-{step}.pt")
        (run.output_dir / "metrics.json").write_text("{}")
        (run.output_dir / "metrics.json").read_text()
        os.remove(run.output_dir / "checkpoint-1.pt")
'''


@pytest.fixture(scope="module")
def pad(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    (root / "recorded.py").write_text(PROGRAMS)
    pad = Launchpad(root, tmp_path_factory.mktemp("pad"), [str(root)], 60.0)
    yield pad
    pad.close()


@pytest.fixture
def run(pad):
    def run(name, **options):
        started = pad.subject(name, f"recorded:{name}").start(RunRequest("tried", **{"steps": 5, **options}))
        return started.outcome()

    return run


@pytest.fixture
def steps(run):
    def steps(name, **options):
        outcome = run(name, **options)
        assert outcome.exit == 0, outcome.output
        return outcome.recording.steps

    return steps


def test_it_changes_no_result(run):
    seen, unseen = run("Loss", steps=20), run("Loss", steps=20, recorder=False)
    assert unseen.recording.events == []
    written = (seen.output_dir / "losses.txt").read_text()
    assert written == (unseen.output_dir / "losses.txt").read_text()
    assert seen.losses == [float.fromhex(line.split()[0]) for line in written.splitlines()[::2]]
    assert len(set(seen.losses)) == 20


def test_accumulation_evaluation_and_learning_rates(steps):
    found = steps("Accumulates", steps=4)
    assert [len(step.losses) for step in found] == [3, 3, 3, 3]
    assert [step.examples for step in found] == [24, 24, 24, 24]
    assert [step.length for step in found] == [4, 4, 4, 4]
    assert [step.eval_forwards for step in found] == [2, 2, 2, 2]
    assert [step.lr for step in found] == [(0.5 / n, 0.25 / n) for n in (1, 2, 3, 4)]
    assert found[0].loss == pytest.approx(sum(found[0].losses) / 3)
    assert found[0].dtype == "torch.float32"
    assert found[0].autocast is None
    assert found[0].cuda is None


@pytest.mark.parametrize("loss", ["divided", "weighted", "as it is"])
def test_a_loss_is_quoted_as_the_program_reports_it(run, loss):
    outcome = run("Shares", steps=2, settings={"loss": loss})
    told = [float.fromhex(line) for line in outcome.output.split()]
    assert outcome.losses == pytest.approx([told[0], told[4]])
    assert outcome.recording.steps[0].losses[0] == pytest.approx(told[0] * (1 if loss == "as it is" else 0.25))


def test_predictions(run):
    outcome = run("Guesses", steps=2)
    assert outcome.exit == 0, outcome.output
    assert outcome.recording.predictions == {1: {"0": 2, "2": 1}, 2: {"1": 2, "2": 1}}


def test_gradient_norm_and_movement_against_hand_computation(steps):
    found = steps("ByHand", steps=3, states=True)
    assert [step.grad_norm for step in found] == pytest.approx([5, 10, 15])
    assert [step.moved for step in found] == pytest.approx([2.5, 5, 7.5])
    assert [step.loss for step in found] == pytest.approx([70, 2 * (70 - 0.5 * 25), 3 * (70 - 1.5 * 25)])


def test_the_norm_of_the_gradients_is_taken_only_where_states_are(steps):
    assert all(math.isnan(step.grad_norm) for step in steps("ByHand", steps=2))


def test_a_gradient_scaler(run):
    outcome = run("Scaled", steps=5, states=True)
    written = [float.fromhex(line) for line in (outcome.output_dir / "losses.txt").read_text().split()]
    recording = outcome.recording
    assert len(recording.steps) == 4, "the step with infinite gradients was left out by the scaler"
    assert [loss for step in recording.steps for loss in step.losses] == [*written[:2], math.inf, *written[3:]]
    assert recording.scales == [512, 512, 256, 256, 256]
    assert not recording.finite
    assert {step.autocast for step in recording.steps} == {"torch.bfloat16"}
    assert all(step.grad_norm < 10 for step in recording.steps), "unscaled"


def test_it_outlives_sigkill(run):
    outcome = run("Killed", steps=50)
    assert outcome.exit == -9
    assert [step.number for step in outcome.recording.steps] == list(range(1, 51))


def test_it_outlives_a_program_that_closes_its_descriptors(run):
    outcome = run("ClosesAll", steps=6)
    assert outcome.exit == 0, outcome.output
    assert [step.number for step in outcome.recording.steps] == [1, 2, 3, 4, 5, 6]
    for number in range(20):
        assert (outcome.output_dir.parent / f"{number}.txt").read_text() == "mine"


def test_workers_do_not_write_into_it(run):
    outcome = run("Loads")
    assert outcome.exit == 0, outcome.output
    assert len(outcome.recording.steps) == 4
    assert {step.examples for step in outcome.recording.steps} == {4}
    assert len(outcome.recording.of("start")) == 1
    assert max(step.children for step in outcome.recording.steps) >= 2


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_is_no_new_forward_pass(steps, reentrant):
    found = steps("Checkpointed", settings={"reentrant": reentrant})
    assert [len(step.losses) for step in found] == [1] * 5
    assert [step.examples for step in found] == [8] * 5


def test_a_forward_pass_that_raises(steps):
    assert [step.examples for step in steps("Raises")] == [8] * 5


def test_a_closure(steps):
    found = steps("Closure", steps=2)
    assert len(found) == 2
    assert all(1 <= len(step.losses) <= 4 for step in found)


def test_writes_to_the_output_folder(run):
    recording = run("Saves", steps=2).recording
    told = [(event["step"], Path(event["path"]).name, event["how"]) for event in recording.of("write")]
    assert told == [
        (1, ".tmp.pt", "open"),
        (1, "checkpoint-1.pt", "rename"),
        (2, ".tmp.pt", "open"),
        (2, "checkpoint-2.pt", "rename"),
        (2, "metrics.json", "open"),
        (2, "checkpoint-1.pt", "remove"),
    ]
    assert [(event["step"], Path(event["path"]).name) for event in recording.of("fsync")] == [
        (1, ".tmp.pt"),
        (2, ".tmp.pt"),
    ]


# --- reading


def write(folder, name, *events, end="\n"):
    text = "".join(json.dumps(event) + "\n" for event in events[:-1]) + json.dumps(events[-1]) + end
    (folder / name).write_text(text)


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    (tmp_path / "recording-5-0000.jsonl").write_text('{"event": "start"}\n{"event": "model", "modu')
    assert Recording.read(tmp_path).events == [{"event": "start"}]


def test_of_several_processes_the_one_that_trained(tmp_path):
    write(tmp_path, "recording-5-0000.jsonl", {"event": "start", "rank": 0})
    write(tmp_path, "recording-6-0000.jsonl", {"event": "start", "rank": 1}, {"event": "step", "number": 1})
    write(tmp_path, "recording-7-0000.jsonl", {"event": "start", "rank": 0}, {"event": "step", "number": 1})
    write(tmp_path, "recording-7-0001.jsonl", {"event": "fault", "step": 1})
    recording = Recording.read(tmp_path)
    assert [event["event"] for event in recording.events] == ["start", "step", "fault"]
    assert recording.events[0]["rank"] == 0
    assert recording.steps_before_fault == 1


def test_of_processes_without_a_step_the_one_that_was_about_to_train(tmp_path):
    write(tmp_path, "recording-5-0000.jsonl", {"event": "start", "pid": 5}, {"event": "reach"})  # a launcher's
    write(tmp_path, "recording-6-0000.jsonl", {"event": "start", "pid": 6}, {"event": "model"})
    assert Recording.read(tmp_path).pid == 6
    write(tmp_path, "recording-7-0000.jsonl", {"event": "start", "pid": 7}, {"event": "fault", "step": 0})
    assert Recording.read(tmp_path).pid == 7


def test_an_empty_recording(tmp_path):
    recording = Recording.read(tmp_path)
    assert (recording.steps, recording.finite, recording.built_model, recording.fault_fired) == ([], True, False, False)
