"""A run that is looked at closely trains as any other, and what was seen is judged by the recording alone."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from pytest_trainguard import NotApplicable, Trainer
from pytest_trainguard.casework.silent import gradients, losses, modes, movement, order, schedules
from pytest_trainguard.casework.silent.look import Look
from pytest_trainguard.contract.settings import fields_of, role
from pytest_trainguard.damage.weights import digests_of, turn_weights
from pytest_trainguard.launch.protocol import RunRequest
from pytest_trainguard.probes.close_look import CloseLook
from pytest_trainguard.recorder import close_look as observer
from pytest_trainguard.recorder.close_look import rows_of
from pytest_trainguard.recorder.states import digest
from pytest_trainguard.recorder.timeline import Recording
from pytest_trainguard.subject.launchpad import Launchpad
from tests.projects import Project

ROOT = Path(__file__).parent.parent
X = torch.arange(32.0).reshape(8, 4) / 32
JUDGES = (
    movement.find_unmoved, losses.find_detached, losses.find_probabilities, gradients.find_left_over,
    modes.find_wrong_modes, movement.find_thawed, order.find_same_order, schedules.find_out_of_step,
    gradients.find_unclipped,
)  # fmt: skip


class Everything(Trainer):
    """Goes through each door: dropout, a norm, a loader, a schedule, clipping, losses of torch's, an evaluation."""

    def train(self, run):
        torch.manual_seed(run.seed)
        layers = torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2)
        model = torch.nn.Sequential(*layers)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, run.max_steps)
        data = torch.utils.data.TensorDataset(X, torch.arange(8) % 2)
        for _ in range(run.max_steps // 2):
            for x, y in torch.utils.data.DataLoader(data, 4, shuffle=True):
                optimizer.zero_grad()
                loss = torch.nn.functional.cross_entropy(model(x), y)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
                optimizer.step()
                schedule.step()
            with torch.no_grad():
                model.eval()(X)
                model.train()
        print(float(torch.rand(())).hex(), float(sum(p.detach().double().sum() for p in model.parameters())).hex())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    pad = Launchpad(ROOT, tmp_path_factory.mktemp("pad"), [str(ROOT)], 60.0)

    def run(name, *, closely, **settings):
        subject = pad.subject(name.rpartition(":")[2], name)
        return subject.start(RunRequest("tried", steps=4, closely=closely, settings=settings)).outcome()

    yield run
    pad.close()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("tests.test_close_look:Everything", {}),
        ("tests.test_states:Adversaries", {}),
        ("tests.test_states:Closes", {}),
        ("tests.test_states:Compiled", {"in_place": False}),
        ("tests.test_states:MakesItsOptimizerLate", {}),
        ("tests.test_states:HasNoDigests", {}),
        ("tests.test_states:Recurs", {}),
    ],
)
def test_a_closer_look_changes_nothing(run, name, settings):
    plain, looked = (run(name, closely=closely, **settings) for closely in (False, True))
    assert looked.exit == plain.exit == 0, looked.output
    assert looked.losses == plain.losses
    assert looked.output == plain.output
    assert [step.moved for step in looked.recording.steps] == [step.moved for step in plain.recording.steps]
    assert not [event for event in plain.recording.events if event["event"].startswith("look")]
    assert len(Look(looked.recording).steps) == len(plain.recording.steps)


def test_what_is_seen(run):
    recording = run("tests.test_close_look:Everything", closely=True).recording
    look = Look(recording)
    assert [step["step"] for step in look.steps] == [1, 2, 3, 4]
    assert look.steps[0]["lr"] == [0.1]
    assert {event["name"] for event in look.parameters} == {
        "0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias"
    }  # fmt: skip
    assert [event["modes"] for event in look.of("pass")][:3] == [{"1": True, "2": True}] * 2 + [
        {"1": False, "2": False}
    ]
    assert all(event["place"].startswith("tests/test_close_look.py:") for event in look.of("pass"))
    assert [len(event["rows"]) for event in look.of("pass")] == [4, 4, 8] * 2
    loss = look.of("loss")[0]
    assert (loss["function"], loss["maker"], loss["input"]) == ("cross_entropy", "Addmm", [4, 2])
    assert {event["sampler"] for event in look.of("loader")} == {"RandomSampler"}
    assert len(look.of("planned")) == 1
    assert len(look.of("scheduled")) == 4
    for judge in JUDGES[:5]:
        assert judge(look) == []


# --- judged by made-up recordings


def look_at(*events, steps=4):
    """Of a run in which two tensors of one module are stepped, with other events before."""
    parameters = [_event("tensor", number=n, name=f"a.{name}") for n, name in enumerate(("weight", "bias"))]
    return Look(Recording([*parameters, *events, *(_event("step", step=n) for n in range(1, steps + 1))]))


def _event(kind, **values):
    usual = {
        "tensor": {
            "sort": "parameter", "shape": [2], "trains": True, "floats": True, "owner": "", "simple": True,
            "zero": False,
        },
        "pass": {
            "number": 0, "gradients": True, "training": True, "modes": {}, "rows": [], "constant": False,
            "module": "M", "place": "t.py:1",
        },
        "step": {
            "optimizer": 0, "holds": [0, 1], "lr": [0.1], "norms": {"0": 1.0, "1": 1.0}, "reached": [0, 1],
            "stale": [], "moved": [0, 1], "by_step": [0, 1], "frozen": [], "ran": ["a"], "clips": [],
            "place": "t.py:9",
        },
    }  # fmt: skip
    return {"event": f"look {kind}", "step": 0, "place": "t.py:5", **usual.get(kind, {}), **values}


def passes(*batches, **values):
    return [_event("pass", rows=list(batch), **values) for batch in batches]


def test_what_is_sound_is_not_blamed():
    look = look_at(*passes("ab", "cd", "ef", "ac", "be", "df"))
    assert movement.find_unmoved(look) == order.find_same_order(look) == schedules.find_out_of_step(look) == []


@pytest.mark.parametrize(
    ("batches", "found"),
    [
        (("ab", "cd", "ef") * 2, True),
        (("ab", "cd", "ef", "ba", "dc", "fe"), True),  # in another order, and the same rows
        (("ab", "cd") * 3, False),  # two batches come in one order every second time
        (("ab", "cd", "ef", "ab", "ce", "df"), False),
        (("aa", "aa", "aa") * 2, False),  # rows that nobody tells apart
    ],
)
def test_epochs_that_are_alike(batches, found):
    assert bool(order.find_same_order(look_at(*passes(*batches)))) is found


def test_an_order_that_is_the_files_own_is_advice():
    loaders = [_event("loader", sampler=name, rows=6) for name in ("SequentialSampler",)]
    (problem,) = order.find_same_order(look_at(*loaders, *passes(*["ab", "cd", "ef"] * 2)))
    assert problem.grade == "unclear"


def test_rows_that_are_evaluated_and_trained_on():
    rows = "abcdefgh"
    evaluation = passes(rows, gradients=False, step=2)
    look = look_at(*passes(rows), *evaluation)
    assert [order.find_shared_rows(look, held_out=held)[0].grade for held in (True, False)] == ["misleads", "unclear"]
    assert order.find_shared_rows(look_at(*passes("abcdefg"), *evaluation), held_out=True) == []
    with pytest.raises(NotApplicable, match="no evaluation of at least 8 rows"):
        order.find_shared_rows(look_at(*passes(rows)), held_out=True)


def test_rows_that_come_twice_with_workers():
    alone, shared, doubled = (look_at(*passes(*batches)) for batches in (
        ("abcd", "efgh", "abcd"), ("aceg", "bdfh", "aceg"), ("abcd", "abcd", "efgh")
    ))  # fmt: skip
    assert order.find_doubled(alone, shared) == []
    assert "of the first 8 rows that it trains on (t.py:1), 4 came before" in order.find_doubled(alone, doubled)[0].said
    with pytest.raises(NotApplicable, match="no row of the run without worker processes is recognised"):
        order.find_doubled(alone, look_at(*passes("wxyz")))


def test_rows_are_recognised_whatever_they_are_padded_to():
    ids = torch.tensor([5, 0, 7])
    padded = [torch.nn.functional.pad(ids, pad) for pad in ((0, 0), (0, 1), (0, 4), (3, 0))]
    other = torch.tensor([5, 7, 0])
    assert len(set(rows_of((torch.nn.utils.rnn.pad_sequence(padded[:3], batch_first=True),)))) == 1
    assert {row for one in padded[1:] for row in rows_of((one[None],))} & set(rows_of((other[None],))) == set()
    assert rows_of((padded[1][None],)) == rows_of((padded[2][None],))


def test_rows_are_recognised_by_their_mask_also_where_they_are_the_longest_of_a_batch():
    alone, beside, left = (torch.tensor(ids) for ids in ([[5, 7]], [[5, 7, 0], [6, 7, 8]], [[0, 5, 7], [6, 7, 8]]))
    masks = [torch.ones_like(alone), (beside != 0).long(), left != 0]
    first = rows_of((alone, masks[0]))
    assert first[0] == rows_of((beside, masks[1]))[0] == rows_of((left, masks[2]))[0]
    assert len({*rows_of((beside, masks[1]))}) == 2
    assert rows_of((beside,), 0)[0] == rows_of((alone,), 0)[0] == first[0]
    # The segments of a text hide nothing of it, and neither do scores or labels of another shape.
    segments = torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert rows_of((beside, segments)) == rows_of((beside,)) == rows_of((beside, torch.ones(2, 3, 1), torch.ones(2)))
    assert rows_of((beside, segments, masks[1])) == rows_of((beside, masks[1]))


def test_a_base_model_arrives_as_soon_as_one_parameter_is_its_own():
    def begins(*starts):
        return Look(Recording([_event("tensor", number=n, name=f"a.{n}", start=one) for n, one in enumerate(starts)]))

    assert movement.find_not_arrived(begins("a", "b"), begins("a", "c")) == []
    assert "all of 2 parameters (a.0, a.1" in movement.find_not_arrived(begins("a", "b"), begins("a", "b"))[0].said
    with pytest.raises(NotApplicable, match="no parameter of its model is seen"):
        movement.find_not_arrived(begins(), begins("a"))


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_weights_whose_signs_are_turned(tmp_path, name):
    path, weights = tmp_path / name, {"a": torch.tensor([1.0, 2.0, 3.0]), "zero": torch.zeros(2), "n": torch.arange(3)}
    torch.save(weights, path) if path.suffix == ".pt" else save_file(weights, path)
    assert turn_weights([str(path)]) == 1
    read = torch.load(path, weights_only=True) if path.suffix == ".pt" else load_file(path)
    assert read["a"].tolist() == [-1.0, 2.0, -3.0]
    assert torch.equal(read["n"], weights["n"])


def test_digests_of_weights_that_were_learnt(tmp_path):
    path = tmp_path / "weights.pt"
    learnt = torch.tensor([1.0, 2.0])
    torch.save({"a": learnt, "norm": torch.ones(3), "n": torch.arange(3), "none": torch.zeros(0)}, path)
    assert digests_of([str(path)]) == [digest(learnt)]


def test_a_stream_has_the_order_that_it_has():
    loader = _event("loader", sampler="_InfiniteConstantSampler", rows=None)
    with pytest.raises(NotApplicable, match="its data are a stream"):
        order.find_same_order(look_at(loader, *passes(*["ab", "cd", "ef"] * 2)))


def test_no_row_that_comes_again():
    with pytest.raises(NotApplicable, match="no row of its 3 training batches was seen twice"):
        order.find_same_order(look_at(*passes("ab", "cd", "ef")))


def test_what_is_computed_before_every_step_is_no_evaluation():
    asked = {"gradients": False, "modes": {"drop": True}}
    every = [event for n in range(4) for event in passes("ab", step=n, **asked) + passes("ab", step=n)]
    assert modes.find_wrong_modes(look_at(*every)) == []
    some = [event for n in range(4) for event in passes("ab", step=n)] + passes("xy", step=2, **asked)
    (problem,) = modes.find_wrong_modes(look_at(*some))
    assert "after step 2 without gradients and in training mode: drop is at work" in problem.said


def test_an_evaluation_that_builds_graphs_is_no_training():
    def seen(step, training):
        return passes("ab", step=step, modes={"drop": training}, training=training)

    trained = [event for step in range(4) for event in seen(step, True)]
    assert modes.find_wrong_modes(look_at(*trained[:2], *seen(2, False), *trained[2:], *seen(4, False))) == []
    (problem,) = modes.find_wrong_modes(look_at(*trained[:3], *seen(3, False)))
    assert "from step 4 on it trains (t.py:1) in evaluation mode: drop is off" in problem.said


@pytest.mark.parametrize(
    ("rates", "told"),
    [
        ([0.0, 0.1, 0.1, 0.1], None),  # warm-up
        ([0.1, 0.1, 0.1, 0.0], None),  # a cosine's end
        ([0.1, 0.1, 0.0, 0.0], "the learning rate is 0 from step 3 of 4 on"),
        ([0.0, 0.0, 0.0, 0.0], "the learning rate is 0 in all of 4 steps"),
    ],
)
def test_rates_of_zero(rates, told):
    steps = [_event("step", step=n, lr=[rate]) for n, rate in enumerate(rates, 1)]
    found = schedules.find_out_of_step(Look(Recording(steps)))
    assert [problem.said.startswith(told) for problem in found] == ([True] if told else [])


def test_too_few_steps_say_nothing():
    for judge in JUDGES:
        with pytest.raises(NotApplicable):
            judge(look_at(steps=2))


ENDLESS = """
import torch
import pytest_trainguard as trainguard

class Endless(trainguard.Trainer):
    def train(self, run):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Softmax(dim=1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(120):
            x = torch.randn(8, 4)
            loss = torch.nn.functional.cross_entropy(model(x), x.argmax(1) % 3)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
"""


def test_a_program_that_cannot_be_held_to_a_number_of_steps(tmp_path):
    """It is ended by the harness, and judged on what was seen until then; on nothing else."""
    project = Project(tmp_path / "project", ["endless:Endless"])
    project.write("endless.py", ENDLESS)
    done = project.pytest("-m", "preflight", "--edge-case", "24,101,104,106,115,long-run")
    verdicts = {case["slug"]: case["verdict"] for case in done.report["cases"]}
    assert verdicts["unmoved-parameter"] == verdicts["gradients-left-over"] == "passed", done.output
    assert verdicts["probabilities-as-logits"] == "failed"
    assert verdicts["long-run"] == "error"
    assert verdicts["order-in-a-batch-counts"] == "not_applicable"  # it has no data loader
    errors = [case["reason"] for case in done.report["cases"] if case["verdict"] == "error"]
    assert all("takes no notice of run.max_steps: 120 optimizer steps" in reason for reason in errors)
    told = " ".join(done.output.split())
    assert "ended after 40 optimizer steps: cross_entropy (endless.py:12)" in told


def test_what_is_in_two_optimizers_and_what_is_in_none():
    left_out = _event("tensor", number=2, name="b.weight")
    steps = [_event("step", step=n, reached=[0, 1, 2], optimizer=n % 2) for n in range(1, 5)]
    parameters = [_event("tensor", number=n, name=f"a.{name}") for n, name in enumerate(("weight", "bias"))]
    (problem,) = movement.find_unmoved(Look(Recording([*parameters, left_out, *steps])))
    assert problem.grade == "misleads"
    assert "b.weight gets a gradient and is in no optimizer (t.py:9), while a.weight, a.bias is in two" in problem.said
    steps = [{**step, "optimizer": 0} for step in steps]
    (problem,) = movement.find_unmoved(Look(Recording([*parameters, left_out, *steps])))
    assert problem.grade == "unclear"


def test_a_computed_weight_has_the_name_that_it_has_in_its_model():
    written = []
    look = observer.CloseLook(lambda kind, **values: written.append({"event": kind, **values}))
    model = torch.nn.Sequential(torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(2, 2)))
    weight = model[0].parametrizations.weight
    for module in (weight, model):  # the first as it is made, and wherever it is read
        look.forward(module, outermost=True)
        look.forwarded(
            module, (torch.zeros(1, 2),), module[0].weight if module is model else weight.original, outermost=True
        )
    assert [event["name"] for event in written if event["event"] == "look tensor"] == [
        "0.bias", "0.parametrizations.weight.original"
    ]  # fmt: skip
    assert [event["module"] for event in written if event["event"] == "look pass"] == ["Sequential"]


def test_gradients_of_two_losses():
    def found(**values):
        steps = [_event("step", step=n, optimizer=n % 2, backward="t.py:7", **values) for n in range(1, 9)]
        parameters = [_event("tensor", number=n, name=f"a.{name}") for n, name in enumerate(("weight", "bias"))]
        return gradients.find_left_over(Look(Recording([*parameters, *steps])))

    (problem,) = found(added_to={"1": "t.py:4"})
    assert problem.grade == "unclear"
    assert "those that the backward pass (t.py:4) left in a.bias" in problem.said
    assert "and its own (t.py:7); 4 of 4 steps" in problem.said
    assert found(added_to={}) == []


def test_which_gradients_another_optimizer_passes_over():
    written = []
    look = observer.CloseLook(lambda kind, **values: written.append({"event": kind, **values}))
    first, second = (torch.nn.Linear(1, 1, bias=False) for _ in range(2))
    optimizers = [torch.optim.SGD(one.parameters(), 0.1) for one in (first, second)]
    for one in (first, second):
        look.forward(one, outermost=True)

    def learn(by, line, monkeypatch):
        monkeypatch.setattr(observer, "find_caller", lambda: line)
        loss = second(first(torch.ones(1, 1))).sum()
        look.backward([loss])
        loss.backward()
        look.stepping(optimizers[by])
        optimizers[by].step()
        look.stepped(optimizers[by])
        return written[-1]["added_to"]

    with pytest.MonkeyPatch.context() as patch:
        assert learn(0, "t.py:1", patch) == {}
        assert learn(1, "t.py:1", patch) == {}  # the same loss: steps of one that are added up for the other
        assert learn(0, "t.py:1", patch) == {}
        assert learn(1, "t.py:2", patch) == {1: "t.py:1"}
        optimizers[0].zero_grad()
        assert learn(0, "t.py:3", patch) == {}


# --- what a run is given so that rows and shapes are told apart


def probe(tiny, *, rows_of_a_step=4):
    """A `CloseLook` of a trainer with these settings, of which nothing is run."""
    fields = fields_of(tiny)
    found = SimpleNamespace(
        role=lambda name: role(name, fields, {}), tiny=lambda field: tiny[field.path], fields=fields
    )
    subject = SimpleNamespace(settings=found, findings=SimpleNamespace(get=lambda kind, make: make()))
    return CloseLook(SimpleNamespace(subject=subject, reference=SimpleNamespace(rows_of_a_step=rows_of_a_step)))


@pytest.mark.parametrize(
    ("tiny", "share"),
    [
        ({"val_fraction": 0.1}, {"val_fraction": 0.425}),  # 8 of 20 rows, rounded up or down
        ({"val_fraction": 0.45}, {}),  # it holds out enough
        ({"val_fraction": 0}, {}),
        ({"val_fraction": None}, {}),
        ({}, {}),
    ],
)
def test_as_many_rows_are_held_out_as_are_told_apart(tiny, share):
    assert probe(tiny)._held_out(1) == share


def test_a_batch_is_as_large_as_nothing_else():
    assert probe({"batch_size": 16})._odd_batch() == {"batch_size": 7}
    assert probe({"batch_size": 3})._odd_batch() == {"batch_size": 5}
    assert probe({"batch_size": 2})._odd_batch() == probe({"rows": 8})._odd_batch() == {}


@pytest.mark.parametrize(
    ("of", "size", "input_", "found"),
    [
        ([8, 3, 2], 3, [24, 2], True),  # over the positions, and not over the classes
        ([8, 3, 2], 2, [24, 2], False),
        ([8, 3, 2], 3, [16, 3], False),  # put into another order
        ([8, 5], 5, [8, 4], False),  # one class was left out
    ],
)
def test_a_softmax_over_what_are_no_classes(of, size, input_, found):
    call = {"function": "nll_loss", "learns": True, "maker": "LogSoftmax", "dim": 1, "sums_to_one": False}
    event = _event("loss", **call, size=size, of=of, input=input_)
    told = [problem.said for problem in losses.find_probabilities(look_at(event))]
    assert [
        f"a softmax over dimension 1 of shape {of}, of {size}, and not over the {input_[1]}" in one for one in told
    ] == ([True] if found else [])


def test_logits_come_from_no_softmax():
    call = {"function": "cross_entropy", "learns": True, "maker": "Addmm", "sums_to_one": False}
    assert losses.find_probabilities(look_at(_event("loss", **call, input=[8, 2]))) == []
