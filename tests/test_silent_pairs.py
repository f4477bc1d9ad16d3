"""What two runs that were looked at closely say where they are held against each other: by made-up recordings."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import dropout

from pytest_trainguard import NotApplicable, Trainer
from pytest_trainguard.casework.silent import accumulation, reports, rows, seeds, traces
from pytest_trainguard.casework.silent.look import Look
from pytest_trainguard.faults.turned_rows import reorder
from pytest_trainguard.launch.protocol import RunRequest
from pytest_trainguard.recorder.timeline import Recording
from pytest_trainguard.subject.launchpad import Launchpad

STATES = {"weights": "w", "data": "d", "torch": "t"}


def look_at(*events, losses=(1.0, 1.0, 1.0, 1.0), states=STATES, norm=0.5):
    """A run of some optimizer steps, one training pass each, with other events besides."""
    made = []
    for number, loss in enumerate(losses):
        made += [event for event in events if event["step"] == number]
        made += [a_pass(number, gradients=True, rows=["a", "b"])] if not any(e.get("gradients") for e in events) else []
        made += [{"event": "look backwards", "step": number, "starts": [0.0]}] if not events else []
        batches = [len(e["rows"]) for e in made if e["event"] == "look pass" and e["gradients"] and e["step"] == number]
        made += [{"event": "step", "number": number + 1, **_step(loss), "batches": batches, "states": states}]
        made += [{"event": "look step", "step": number + 1, "place": "t.py:9", "norms": {"0": norm}}]
    return Look(Recording(made))


def _step(loss):
    listed = {"losses": [loss], "lr": [0.1], "batches": [2], "cuda": None}
    plain = ("grad_norm", "moved", "length", "eval_forwards", "seconds", "rss", "children", "time")
    return {
        **dict.fromkeys(plain, 0),
        "loss": loss,
        **listed,
        "training": True,
        "dtype": "torch.float32",
        "autocast": None,
    }


def a_pass(step, **values):
    usual = {"number": 0, "gradients": False, "training": False, "modes": {}, "rows": ["x", "y"], "place": "t.py:3"}
    return {"event": "look pass", "step": step, **usual, **values}


def between(step, **values):
    return {"event": "look between", "step": step, "since": step, "moved": {}, "state": False, **values}


def test_an_evaluation_that_moves_weights():
    moved = between(2, moved={"a.weight": 1e5})
    (problem,) = traces.find_traces(look_at(a_pass(2), moved), look_at())
    assert (
        "evaluation (t.py:3) changes what is trained: step 3 begins with other weights than step 2 left: a.weight"
        in (problem.said)
    )
    assert problem.grade == "misleads"
    # What is exchanged by arithmetic, what moves without an evaluation, and where there was none.
    assert traces.find_traces(look_at(a_pass(2), between(2, moved={"a.weight": 30})), look_at()) == []
    assert traces.find_traces(look_at(a_pass(2), moved), look_at(moved)) == []
    assert traces.find_traces(look_at(a_pass(1), moved), look_at()) == []


def test_an_evaluation_that_moves_statistics():
    drift = {"event": "look drift", "step": 2, "names": ["1.running_mean"]}
    (problem,) = traces.find_traces(look_at(a_pass(2, training=True), drift), look_at())
    assert "moves the running statistics of norms: 1.running_mean is at step 3" in problem.said
    taken_anew = a_pass(2, training=True, rows=["b", "a"])
    assert traces.find_traces(look_at(taken_anew, drift), look_at()) == []


def test_an_evaluation_that_leaves_gradients_or_another_momentum():
    def backwards(step, *starts):
        return {"event": "look backwards", "step": step, "starts": list(starts)}

    (problem,) = traces.find_traces(look_at(a_pass(2), backwards(2, 0.0, 0.5)), look_at())
    assert "the backward pass of step 3 begins with a norm of 0.5" in problem.said
    assert traces.find_traces(look_at(a_pass(2), backwards(2, 0.5, 0.0)), look_at()) == []
    (problem,) = traces.find_traces(look_at(a_pass(2), between(2, state=True)), look_at())
    assert "changes the optimizer's state" in problem.said


def test_a_loss_that_is_another_after_an_evaluation():
    after, without = (1.0, 1.0, 0.5, 0.4), (1.0, 1.0, 0.7, 0.6)
    (problem,) = traces.find_traces(look_at(a_pass(2), losses=after), look_at(losses=without))
    assert (problem.grade, "the loss of step 3 is 0.5 after it and 0.7 without it" in problem.said) == ("unclear", True)
    drawn = {**STATES, "torch": "u"}
    # They part before the evaluation; or at it, and the evaluation drew random numbers.
    assert traces.find_traces(look_at(a_pass(3), losses=after), look_at(losses=without)) == []
    parted = look_at(a_pass(2), losses=after)
    object.__setattr__(parted.recording.steps[2], "states", drawn)
    assert traces.find_traces(parted, look_at(losses=without)) == []


def test_no_evaluation_that_is_left_out():
    with pytest.raises(NotApplicable, match="no evaluation between its steps"):
        traces.find_traces(look_at(a_pass(2)), look_at(a_pass(2)))


def one_each(*rows, **values):
    """A pass of two epochs over these rows, with a loss of one target each."""
    scored = {"event": "look loss", "step": 0, "learns": True, "target": [len(rows)], "place": "t.py:7"}
    return [scored, *(a_pass(0, gradients=True, rows=list(rows), **values) for _ in range(2))]


def test_labels_that_do_not_count():
    same = look_at(*one_each(*"abcd"))
    (problem,) = seeds.find_unlabelled(same, look_at(), 4)
    assert "the labels do not count (t.py:7): each of 4 losses is what it was (1, ..., 1)" in problem.said
    others = (1.0, 1.0, 1.0, 0.9)  # a model that begins at 0 has the same loss for every label at first
    assert seeds.find_unlabelled(same, look_at(*one_each(*"dcba"), losses=others), 4) == []
    with pytest.raises(NotApplicable, match="the loss of 0 steps is seen"):
        seeds.find_unlabelled(same, look_at(losses=()), 4)


def test_inputs_that_tell_the_label():
    plain, told = look_at(*one_each(*"abcd")), look_at(*one_each(*"efgh"), losses=(0.5,) * 4)
    assert "4 rows that were not there before go in" in seeds.find_unlabelled(plain, told, 4)[0].said
    # Of more rows it may not have come to all; what is changed as it is read is new each time; targets of a decoder.
    assert seeds.find_unlabelled(plain, told, 8) == []
    changed = look_at(*one_each(*"abcd"), *one_each(*"wxyz"))
    assert seeds.find_unlabelled(changed, told, 4) == []
    decoder = one_each(*"abcd")
    decoder[0]["target"] = [4, 7]
    assert seeds.find_unlabelled(look_at(*decoder), told, 4) == []


def test_a_seed_that_is_fixed():
    drops = a_pass(0, gradients=True, modes={"2": True})
    (problem,) = seeds.find_fixed(look_at(drops), look_at())
    assert (problem.grade, problem.said.startswith("the seed does not count")) == ("unclear", True)
    assert seeds.find_fixed(look_at(), look_at()) == []  # nothing is drawn
    assert seeds.find_fixed(look_at(drops), look_at(states={**STATES, "torch": "u"})) == []


def dealt_out(parts, *rows, factor=1.0, norms=(2.0, 0.5, 1e-9)):
    """The first step over these rows, in so many parts, with these norms of its gradient."""
    share = len(rows) // parts
    passes = [a_pass(0, gradients=True, rows=list(rows[at : at + share])) for at in range(0, len(rows), share)]
    known = {f"a.{n}": norm * factor for n, norm in enumerate(norms)}
    return look_at({"event": "look gradient", "step": 0, "norms": known, "place": "t.py:8"}, *passes)


def test_parts_that_do_not_add_up_to_the_whole():
    whole = dealt_out(1, *"abcd")
    assert accumulation.find_other_sum(dealt_out(2, *"badc"), whole) == []
    (problem,) = accumulation.find_other_sum(dealt_out(2, *"abcd", factor=2.001), whole)
    assert "in 2 parts (t.py:8) is 2 times that of the same rows at once (norms: a.0 4.002 and 2, a.1" in problem.said
    assert "is 0.25 times" in accumulation.find_other_sum(dealt_out(4, *"abcd", factor=0.25), whole)[0].said
    for other, told in (
        (dealt_out(2, *"abcd", factor=1.7), "is 1.7 to 1.7 times that of the same rows at once, which is no factor"),
        (dealt_out(2, *"abcd", norms=(4.0, 0.5, 1.0)), "is 1 to 2 times"),
        (dealt_out(2, *"ab"), "2 forward passes over 2 rows in parts, and 1 over 4 at once"),
        (dealt_out(1, *"abcd"), "1 forward passes over 4 rows in parts, and 1 over 4 at once"),
        (dealt_out(2, *"abcd", factor=0.0), "no gradient other than 0"),
    ):
        with pytest.raises(NotApplicable, match=told):
            accumulation.find_other_sum(other, whole)


def test_parts_that_are_lost():
    def begins(*starts, **values):
        events = ({"event": "look backwards", "step": n, "starts": list(starts)} for n in (1, 2))
        return look_at(*events, **values)

    (problem,) = accumulation.find_lost_parts(begins(0.0, 0.0, 0.0), begins(0.0))
    assert "each of the 3 backward passes of step 2 (t.py:9) begins with gradients of 0" in problem.said
    assert "2 of 3 parts are lost, in each of 2 steps" in problem.said
    assert accumulation.find_lost_parts(begins(0.0, 0.5, 0.7), begins(0.0)) == []
    assert accumulation.find_lost_parts(begins(0.0, 0.0, 0.0, norm=0.0), begins(0.0)) == []  # nothing is lost of 0
    assert accumulation.find_lost_parts(begins(0.0, 0.0), begins(0.0, 0.0)) == []  # two networks, one after the other


class Drops(Trainer):
    """Goes through each kind of torch's dropout, and tells what comes out of it."""

    def train(self, run):
        torch.manual_seed(run.seed)
        x, functional = torch.ones(4, 3, 8), torch.nn.functional
        net = torch.nn.LSTM(8, 8, num_layers=2, dropout=0.9, batch_first=True)
        made = [
            torch.nn.Dropout(0.9)(x), torch.nn.AlphaDropout(0.9)(x), functional.dropout1d(x, 0.9), dropout(x, p=0.9),
            functional.scaled_dot_product_attention(x, x, x, None, 0.9),
            functional.scaled_dot_product_attention(x, x, x, dropout_p=0.9),
        ]  # fmt: skip
        print([bool(torch.allclose(one, x)) for one in made], torch.equal(net(x)[0], net(x)[0]), net.training)


def test_no_dropout_is_at_work(tmp_path):
    root = Path(__file__).parent.parent
    pad = Launchpad(root, tmp_path, [str(root)], 60.0)
    try:
        subject = pad.subject("Drops", "tests.test_silent_pairs:Drops")
        still, usual = (subject.start(RunRequest("tried", still=one)).outcome() for one in (True, False))
    finally:
        pad.close()
    assert still.output == f"{[True] * 6} True True\n"
    assert usual.output == f"{[False] * 6} False True\n"


def test_losses_that_a_program_tells_of():
    text = (
        "step 1 | loss: 0.6931, lr 0.01\rstep 2 loss=7e-1 val_loss 0.5\nepoch 1 loss 0.25\n"
        '{"train/loss": 1.5e-3, "steps_lost": 0.5}\nsmoothed loss 0.7\nvalidation loss: 0.9 closs 3\n'
    )
    assert reports.find_losses(text) == {
        "loss": [0.6931, 0.7, 0.25], "val_loss": [0.5], "train/loss": [0.0015], "smoothed loss": [0.7],
        "validation loss": [0.9],
    }  # fmt: skip


def told(parts, *values, shared=True):
    """A run of as many steps as there are losses, in so many backward passes each; parts have their share of them."""
    look = look_at(losses=values)
    for step, value in zip(look.recording.steps, values, strict=True):
        object.__setattr__(step, "losses", tuple([value / (parts if shared else 1)] * parts))
    return look


def test_a_loss_that_is_reported_otherwise_of_parts():
    losses = (0.8, 0.6, 0.5)
    parts, whole, right = told(4, *losses), told(1, *losses), {"its output, loss": losses}

    def find(*values, of=right, one=parts, other=whole):
        return reports.find_factor(one, other, {"its output, loss": values}, of)

    assert find(*losses) == []
    (problem,) = find(3.2, 2.4, 2.0)
    assert "the loss that it reports (its output, loss) is 4 times the loss" in problem.said
    assert "it says 3.2, 2.4, 2 and 0.8, 0.6, 0.5" in problem.said
    assert "is 0.25 times the loss" in find(0.2, 0.15, 0.125)[0].said
    assert find(*(value for value in losses for _ in range(4))) == []  # a line for each part
    uneven = told(2, *losses)
    for step, loss in zip(uneven.recording.steps, losses, strict=True):
        object.__setattr__(step, "losses", (loss * 0.7, loss * 0.3))
    assert "is that of the last of 2 parts, after it was divided by 2" in find(0.24, 0.18, 0.15, one=uneven)[0].said
    assert find(0.9, 0.7, 0.4) == []  # the loss of the last part, as it is
    for values, of in ((losses[:2], right), ((3.2, 2.4, 2.0), {"its output, loss": (0.9, 0.9, 0.9)}), (losses, {})):
        with pytest.raises(NotApplicable, match="no loss is seen in its output or its logs"):
            find(*values, of=of)
    with pytest.raises(NotApplicable, match="one backward pass"):
        find(*losses, one=whole)


def means(*values, rows=(7, 1), targets=(7, 1), steps=(2, 4)):
    """Evaluations after these steps, in batches of so many rows with these losses."""
    return look_at(*(
        {"event": "look mean", "step": step, "value": value, "rows": count, "targets": counted, "place": "t.py:4"}
        for step in steps for value, count, counted in zip(values, rows, targets, strict=True)
    ), losses=(1.0,) * 5)  # fmt: skip


def test_a_validation_loss_that_is_the_mean_of_means():
    def find(value, look):
        return reports.find_mean_of_means(look, {"its output, val_loss": (value, value), "its output, loss": (1, 2, 3)})

    (problem,) = find(0.6, means(0.4, 0.8))
    assert problem.grade == "unclear"
    assert (
        "(its output, val_loss) is the mean of its batches' means (t.py:4), 0.6, and that of all 8 rows is 0.45: the"
        in (problem.said)
    )
    assert find(0.45, means(0.4, 0.8)) == []
    assert find(0.5, means(0.4, 0.8)) == []  # it is something else
    assert find(0.6, means(0.4, 0.8, targets=(9, 9))) == []  # by targets
    assert find(0.4001, means(0.4, 0.4002)) == []  # too close
    for even in (means(0.4, 0.8, rows=(8, 8)), look_at()):
        with pytest.raises(NotApplicable, match="batches of unequal size"):
            find(0.6, even)


def test_rows_in_another_order():
    x, y, texts = torch.arange(8.0)[:, None].repeat(1, 3), torch.arange(8), list("abcdefgh")
    assert reorder([x, {"y": y, "texts": texts, "scale": 2.0, "none": None}], {8}) == 8
    assert sorted(y.tolist()) == list(range(8)) != y.tolist()
    assert x[:, 1].tolist() == y.tolist()
    assert "".join(texts) == "".join("abcdefgh"[row] for row in y)
    pictures = [torch.arange(7.0)[:, None].repeat(1, 4), torch.arange(7.0)[:, None].repeat(1, 3)]
    assert reorder(pictures, set()) == 0
    assert reorder(pictures, set(), stacked=True) == 7
    assert pictures[0][:, 0].tolist() == pictures[1][:, 0].tolist() != sorted(pictures[0][:, 0].tolist())


@pytest.mark.parametrize(
    ("batch", "sizes"),
    [
        ([torch.zeros(8, 3), torch.zeros(4)], {8}),  # nodes of a graph, and what is one for each graph
        ([torch.zeros(8, 8), torch.zeros(8)], {8}),  # which dimension is the rows'?
        ([torch.zeros(5, 8), torch.zeros(5, 8)], {8}),  # time first
        ([torch.zeros(5, 8), torch.zeros(5, 8)], set()),
        ([torch.zeros(8, 3), object()], {8}),
        ([torch.zeros(2, 3), torch.zeros(2)], {2}),
        ((torch.zeros(8),) * 2, {8}),  # one in two places would be put back
        ([], {8}),
    ],
)
def test_batches_that_are_left_as_they_are(batch, sizes):
    before = [part.clone() for part in batch if isinstance(part, torch.Tensor)]
    assert reorder(batch, sizes) == 0
    assert all(map(torch.equal, before, [part for part in batch if isinstance(part, torch.Tensor)]))


def ordered(*rows, loss=0.5, norm=1.0, target=(4,), **values):
    """A first step over these rows, with one loss of torch's."""
    seen = dict.fromkeys(("drawn", "square", "routes"), False)
    event = {"event": "look gradient", "step": 0, "norms": {"a": norm, "b": 1e-5}, **seen}
    scored = {"event": "look loss", "step": 0, "learns": True, "input": [len(rows), 2], "target": list(target)}
    turned = {"event": "look turned", "step": 0, "rows": len(rows)}
    passes = a_pass(0, gradients=True, rows=list(rows))
    return look_at({**event, "place": "t.py:8", **values}, scored, turned, passes, losses=(loss,) * 3)


def test_an_order_within_a_batch_that_counts():
    plain = ordered(*"abcd")
    assert rows.find_ordered(plain, ordered(*"bdac", loss=0.500001)) == []
    (problem,) = rows.find_ordered(plain, ordered(*"bdac", loss=0.51))
    assert "the order of the 4 rows of a batch counts (t.py:8)" in problem.said
    assert "at the first step a loss of 0.51 and not of 0.5; rows are mixed" in problem.said
    assert "the gradient of a: 1.1 and 1;" in rows.find_ordered(plain, ordered(*"bdac", norm=1.1))[0].said
    other = ordered(*"bdac", loss=0.51)
    for one, told in (
        (ordered(*"abcd", drawn=True), "draws random numbers"),
        (ordered(*"abcd", square=True), "something is of 4 x 4"),
        (ordered(*"abcd", target=(2,)), "targets are not one for each of 4 rows"),
        (ordered(*"abcd", routes=True), "chooses among its tokens"),
        (ordered(*"bdac"), "not seen to go into its model in another order"),
        (ordered(*"abce"), "not seen to go into its model in another order"),
    ):
        with pytest.raises(NotApplicable, match=told):
            rows.find_ordered(one, other)
    with pytest.raises(NotApplicable, match="do not come from a torch data loader"):
        rows.find_ordered(plain, look_at(losses=(0.5,) * 3))
