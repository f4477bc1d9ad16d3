"""Silent errors of rows, targets, dtypes and saves, judged by made-up recordings; and what writes these down."""

import random

import numpy as np
import pytest
import torch

from pytest_trainguard import CannotJudge, NotApplicable
from pytest_trainguard.casework.silent import averages, reading, rounding, saves, supervision, validation
from pytest_trainguard.casework.silent.look import Look
from pytest_trainguard.recorder.apart import try_apart
from pytest_trainguard.recorder.averages import _compare
from pytest_trainguard.recorder.rereading import read_again
from pytest_trainguard.recorder.saves import _is_named
from pytest_trainguard.recorder.timeline import Recording


def seen(kind, **values):
    return {"event": f"look {kind}", "step": 0, "place": "t.py:5", **values}


def look_at(*events):
    return Look(Recording(list(events)))


# --- 102: targets that count


def supervised(kept, total, loss=1.0, **values):
    return seen("supervised", function="nll_loss", kept=kept, total=total, alone=True, loss=loss, **values)


@pytest.mark.parametrize(
    ("events", "told"),
    [
        ([supervised(64, 64)] * 3, None),
        ([supervised(0, 64, 0.0)] * 3, "no target counts: in each of 3 backward passes nll_loss (t.py:5) ignores all"),
        ([supervised(32, 64), supervised(0, 64, 0.0)], "all of 64 targets of step 1 are ignored"),
        ([supervised(32, 64), supervised(0, 4, float("nan"))], "and the loss is nan"),
        ([supervised(1, 64), supervised(0, 64, 0.0)], None),  # masks that are drawn at random
        ([supervised(32, 64), supervised(0, 64, 0.7)], None),  # another loss is in it
        ([supervised(32, 64), supervised(0, 64, 0.0) | {"alone": False}], None),
    ],
)
def test_batches_in_which_no_target_counts(events, told):
    found = supervision.find_unsupervised(look_at(*events))
    assert [told in problem.said for problem in found] == ([True] if told else [])


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"bare": ["a", "b"], "filled": 2}, "none of the targets of 2 of 8 texts counts"),
        ({"bare": ["a", "b"], "filled": 0, "pieces": 3}, None),  # words that were drawn, or turns of a dialogue
        ({"bare": ["a", "b"], "filled": 0, "pieces": 3, "width": 400}, "none of the targets of 2 of 8 texts counts"),
        ({"bare": ["a", "a"], "filled": 2}, None),  # one text, twice
        ({"bare": ["a"] * 3 + ["b"] * 3, "filled": 6}, None),  # most: which of them are the odd ones?
    ],
)
def test_texts_in_which_no_target_counts(values, told):
    event = supervised(12, 160, rows=8, **{"width": 20, "pieces": 1, "fewest": 2} | values)
    found = supervision.find_unsupervised(look_at(event))
    assert [problem.said.startswith(told) for problem in found] == ([True] if told else [])
    assert all(problem.grade == "unclear" and ("fill the whole length" in problem.said) is bool(values["filled"])
               for problem in found)  # fmt: skip


def test_no_loss_over_classes():
    with pytest.raises(NotApplicable, match="no loss over classes"):
        supervision.find_unsupervised(look_at())


# --- 112: reading does not write


class Stored(torch.utils.data.Dataset):
    def __init__(self, give):
        self.x, self.own, self.cache, self.give = list(torch.ones(4, 2)), np.random.default_rng(0), {}, give

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.give(self, index)


@pytest.mark.parametrize(
    ("give", "same", "changed"),
    [
        (lambda data, index: data.x[index].mul_(2), False, ["Stored.x[0]", "Stored.x[1]"]),
        (lambda data, index: data.x[index] + torch.rand(2) + random.random() + np.random.rand(), True, []),
        (lambda data, index: data.x[index].float() + data.own.random(), True, []),
        (lambda data, index: data.cache.setdefault(index, torch.rand(2)), True, []),
        (lambda data, index: data.cache.setdefault(0, [0]).append(1) or data.x[index], True, ["Stored.cache[0]"]),
        (lambda data, index: data.x[index] + np.random.default_rng().random(), False, []),
    ],
)
def test_what_a_row_is_when_it_is_read_again(give, same, changed):
    told = read_again(torch.utils.data.DataLoader(Stored(give), 2))
    assert (told["rows"], told["same"], told["changed"]) == ([0, 1], same, changed)


def reread(**values):
    return seen("reread", data="Rows", stays=True, rows=[3], before="[1]", after="[2]", **values)


@pytest.mark.parametrize(
    ("event", "grade"),
    [
        (reread(same=False, changed=["Rows.x[3]"]), "misleads"),
        (reread(same=False, changed=["Rows.x[3]"]) | {"stays": False}, "unclear"),
        (reread(same=False, changed=[]), None),  # noise from elsewhere
        (reread(same=True, changed=["Rows.times"]), None),  # a count
    ],
)
def test_rows_that_change_as_they_are_read(event, grade):
    found = reading.find_written(look_at(event))
    assert [problem.grade for problem in found] == ([grade] if grade else [])
    assert all("rows 3 of Rows (t.py:5)" in p.said and "Rows.x[3] is [2], where it was [1]" in p.said for p in found)


def test_rows_that_cannot_be_read_again():
    with pytest.raises(CannotJudge, match="could not be read again"):
        reading.find_written(look_at(seen("reread", data="Rows", stays=True)))
    with pytest.raises(NotApplicable, match="no data set that has indices"):
        reading.find_written(look_at())


def test_what_is_tried_apart_changes_nothing_here(capfd):
    held = []
    assert try_apart(lambda: print("lost") or held.append(1) or {"a": held}) == {"a": [1]}
    assert try_apart(lambda: 1 / 0) is None
    assert held == []
    assert capfd.readouterr().out == ""


# --- 118: the step arrives in the dtype


def rounded(kept, lr=1e-5, **values):
    usual = {
        "optimizer": 0,
        "name": "AdamW",
        "full": 0.0,
        "elements": 100,
        "dtype": "bfloat16",
        "plain": True,
        "master": False,
    }
    return seen("rounded", kept=kept, lr=lr, **usual | values)


@pytest.mark.parametrize(
    ("events", "told"),
    [
        (
            [rounded(95)] * 5,
            "95% of the bfloat16 weights that get a gradient keep each of their bits in 5 steps of AdamW",
        ),
        ([rounded(85)] * 5, None),
        ([rounded(95, plain=False)] * 5, None),  # rounds at random
        ([rounded(100, plain=False)] * 5, "100% of"),
        ([rounded(95, master=True)] * 5, None),
        ([rounded(100, lr=1e-7)] * 3 + [rounded(10)] * 5, None),  # warms up
    ],
)
def test_steps_that_are_rounded_off(events, told):
    found = rounding.find_rounded_off(look_at(*events))
    assert [problem.said.startswith(told) for problem in found] == ([True] if told else [])


@pytest.mark.parametrize(
    ("counts", "kind", "told"),
    [
        (range(5), "float32", None),
        (range(5), "bfloat16", "is a bfloat16, which cannot count beyond 256"),
        ([1] * 5, "a number", "stands still: it is 1 after each of 5 steps"),
    ],
)
def test_counters_of_steps(counts, kind, told):
    events = [rounded(0, elements=0, counter=float(count), counted_in=kind) for count in counts]
    found = rounding.find_rounded_off(look_at(*events))
    assert [told in problem.said for problem in found] == ([True] if told else [])


@pytest.mark.parametrize(
    "events", [[], [rounded(100)] * 4, [rounded(100, full=1e-3)] * 9, [rounded(0, elements=0)] * 9]
)
def test_nothing_is_said_of_what_was_not_seen(events):
    with pytest.raises(NotApplicable, match="none of its optimizers counts its steps"):
        rounding.find_rounded_off(look_at(*events))


# --- 121: what is saved is what was trained


def stored(step, held, **values):
    usual = {"moved": [0, 1], "numbers": {"step": step, "epoch": 3}, "waits": False, "others": False, "step": step}
    return seen("stored", held=dict(zip("01", held, strict=False)), **usual | values)


@pytest.mark.parametrize(
    ("key", "name", "same"),
    [
        ("model.0.weight", "0.weight", True),
        ("0.weight", "net.0.weight", True),
        ("base.q.lora_A.weight", "base.q.lora_A.default.weight", True),
        ("10.weight", "0.weight", False),
        ("0.weight", "1.weight", False),
        ("0.bias", "0.weight", False),
    ],
)
def test_names_of_what_is_saved(key, name, same):
    assert _is_named(key, name) is same


NAMES = [seen("tensor", number=number, name=name, sort="parameter") for number, name in enumerate(("a", "b"))]


@pytest.mark.parametrize(
    ("events", "told"),
    [
        ([stored(4, (4, 4)), stored(9, (9, 9))], None),
        ([stored(4, (0, 0)), stored(9, (0, 0))], "after step 9 holds a, b as before the first step"),
        ([stored(4, (4, 0)), stored(9, (9, 0))], "after step 9 holds b as before the first step"),
        ([stored(4, (0, 0)), stored(9, (9, 9))], None),  # the weights of the start stand beside
        ([stored(9, (9, 0), moved=[0])], None),  # frozen
        ([stored(9, (0, 0), waits=True)], None),  # an average that has not begun
        ([stored(9, (0, -1))], "holds a as before the first step"),
        ([seen("pass", gradients=False), stored(9, (0, 0))], None),  # evaluated, and the best
        (
            [stored(4, (3, 3)), stored(8, (7, 7))],
            "each of 2 saves (t.py:5) says that it is of step 4, 8, ... and holds",
        ),
        (
            [stored(4, (3, 3), numbers={"global_step": 3}), stored(8, (7, 7), numbers={"global_step": 7})],
            None,
        ),  # saved later, by its name
        ([stored(4, (2, 2)), stored(8, (2, 2))], None),  # the best so far
        (
            [stored(step, (now, now), place=f"t.py:{now}") for step in (4, 8) for now in (0, step)],
            "each of 2 saves (t.py:0) holds a, b as before the first step",
        ),
        ([stored(4, (0, 0), place="t.py:0"), stored(8, (8, 8))], None),  # once
        ([stored(4, (3, 3)), stored(8, (5, 5))], None),
        ([stored(4, (3, 4)), stored(8, (7, 8))], None),
    ],
)
def test_what_is_saved(events, told):
    found = saves.find_other_saved(look_at(*NAMES, *events))
    assert [told in problem.said for problem in found] == ([True] if told else [])


ADAPTED = [
    seen("tensor", number=number, name=name, sort="parameter")
    for number, name in enumerate(("q.base_layer.weight", "q.lora_A.weight"))
]
LORA_LEARNS = [seen("step", moved=[1], holds=[1])] * 9


@pytest.mark.parametrize(
    ("events", "told"),
    [
        ([stored(9, (9,), moved=[])], "misleads nothing that it saves is what it trains: q.lora_A.weight moves"),
        ([stored(9, (9,), moved=[], others=True)], None),  # by another name, perhaps
        ([stored(4, (4, 4), moved=[1]), stored(9, (-1,), moved=[])], None),  # merged
        ([stored(4, (4, 4), moved=[1]), stored(9, (9,), moved=[])], "unclear the last that it saves"),
        ([stored(9, (9, 9), moved=[1]), stored(9, (9,), moved=[])], "unclear the last that it saves"),
        ([stored(9, (9, 9), moved=[1])] * 2 + [stored(9, (9,), moved=[])], None),  # its parts in two files
        ([stored(9, (9,), moved=[]), stored(9, (9, 9), moved=[1])], None),
        ([stored(9, (9, 9), moved=[1]), stored(9, (-1,), moved=[])], None),
    ],
)
def test_saves_without_what_learns(events, told):
    found = saves.find_other_saved(look_at(*ADAPTED, *LORA_LEARNS, *events))
    assert [told in f"{problem.grade} {problem.said}" for problem in found] == ([True] if told else [])


def test_a_head_in_a_file_of_its_own_is_no_adapter():
    names = [
        seen("tensor", number=number, name=name, sort="parameter") for number, name in enumerate(("body.0.w", "head.w"))
    ]
    events = [stored(9, (9, 9), moved=[1]), stored(9, (9,), moved=[])]
    assert saves.find_other_saved(look_at(*names, *LORA_LEARNS, *events)) == []


@pytest.mark.parametrize(
    ("events", "told"), [([], "nothing that it saves"), ([stored(9, (-1, -1))], "values that its parameters never had")]
)
def test_what_is_saved_and_not_told_apart(events, told):
    with pytest.raises(NotApplicable, match=told):
        saves.find_other_saved(look_at(*NAMES, *events))


# --- 124: validation is not augmented


def evaluations(*windows, targets="abababab", whole=False, **values):
    """Eight rows after every second step; each step is taken with gradients, too."""
    found = [seen("step", step=number) for number in range(9)]
    usual = {"square": False, "restores": False, "shapes": ["(4,)"]}
    found.append(seen("pass", number=0, gradients=True, rows=[]))
    for number, rows in enumerate(windows):
        at = {"step": 2 * number + 2}
        found.append(seen("pass", number=0, gradients=False, rows=list(rows), **at))
        mine = targets if isinstance(targets, str) else targets[number]
        found.append(seen("measured", targets=list(mine), **at | usual | values))
        found += [seen("loader", rows=8, sampler="", **at)] * whole
    return look_at(*found)


FRESH = "abcdefgh", "ijklmnop", "qrstuvwx"


@pytest.mark.parametrize(
    ("look", "told"),
    [
        (
            evaluations(*FRESH),
            "of the 8 rows that it evaluates on (t.py:5) after step 2, 0 are among those after step 4",
        ),
        (evaluations("abcdefgh", "hgfedcba", "abcdefgh"), None),
        (evaluations("abcdefgh", "ijklmnop", "abcdefgh"), None),  # two files
        (evaluations("abcdefgh", "abcdijkl", "abcdmnop"), None),  # some of a larger file
        (evaluations("abcdefgh", "abcdijkl", "abcdmnop", whole=True), "after step 2, 4 are among those after step 4"),
        (evaluations("abcdefgh", "ijklmnop"), None),
        (evaluations("abcdefgh", "ijklmnop", whole=True), "0 are among"),
    ],
)
def test_rows_of_evaluations(look, told):
    found = validation.find_augmented(look)
    assert [told in problem.said for problem in found] == ([True] if told else [])


@pytest.mark.parametrize(
    ("look", "told"),
    [
        (evaluations(), "no two evaluations of the same number of rows, 8 at least"),
        (evaluations("abcdefgh"), "no two evaluations"),
        (evaluations("aaaaaaaa", "bbbbbbbb", "cccccccc"), "no two evaluations"),
        (evaluations(*FRESH, targets=["abababab", "aaaaaaaa", "bbbbbbbb"]), "has other targets"),
        (evaluations(*FRESH, targets="ab"), "no loss of torch's with a target for each row"),  # a mean of several
        (evaluations(*FRESH, square=True), "drawn from the rows themselves"),
        (evaluations(*FRESH, restores=True), "drawn from the rows themselves"),
        (evaluations(*FRESH, shapes=["(4,)", "(5,)"]), "padded to those beside them"),
    ],
)
def test_evaluations_that_are_not_held_against_each_other(look, told):
    with pytest.raises(NotApplicable, match=told):
        validation.find_augmented(look)


# --- 123: averaged weights live


def follows(outside, moved=10):
    return seen("follows", moved=moved, outside=outside, name="a.weight", values=[1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("events", "grade", "told"),
    [
        ([follows(0)] * 3, None, ""),
        ([follows(9)] * 3, "misleads", "a value of a.weight went from 1 to 3, where the model's is 2"),
        ([follows(9), follows(0), follows(9)], None, ""),
        ([seen("averaged", step=4, times=0, written=False)], "misleads", "update_parameters stands nowhere"),
        ([seen("averaged", step=4, times=0, written=True)], "unclear", "where it begins later"),
        ([seen("averaged", step=n, times=n // 8, written=True) for n in (4, 8)], None, ""),
    ],
)
def test_averages(events, grade, told):
    found = averages.find_astray(look_at(*events))
    assert [(problem.grade, told in problem.said) for problem in found] == ([(grade, True)] if grade else [])


def evaluated(step, *, as_begun=True, **values):
    return seen("evaluated", step=step, as_begun=as_begun, own=True, other=True, late=False, place="t.py:3") | values


STEPS = [seen("step", step=number) for number in range(1, 10)]


@pytest.mark.parametrize(
    ("events", "grade", "told"),
    [
        ([evaluated(4), evaluated(8)], "misleads", "each of 2 evaluations (t.py:3) from step 4 on is of the weights"),
        ([evaluated(4, own=False), evaluated(8, own=False)], "misleads", "a copy of it, which alone is evaluated"),
        ([evaluated(4), evaluated(8, late=True)], "unclear", "where it begins later"),
        ([evaluated(4), evaluated(8, as_begun=False)], None, ""),
        ([evaluated(4), evaluated(4, as_begun=False, other=False), evaluated(8)], None, ""),  # both are evaluated
        ([evaluated(step) for step in range(3, 9)], None, ""),  # a reference, that belongs to each step
        ([evaluated(2), evaluated(8)], None, ""),
    ],
)
def test_weights_of_the_start_are_evaluated(events, grade, told):
    found = averages.find_astray(look_at(*STEPS, *events))
    assert [(problem.grade, told in problem.said) for problem in found] == ([(grade, True)] if grade else [])


@pytest.mark.parametrize("events", [[], [follows(9)] * 2, [seen("averaged", step=2, times=0, written=False)]])
def test_nothing_follows_the_model(events):
    with pytest.raises(NotApplicable, match="no average of its weights is evaluated"):
        averages.find_astray(look_at(*events))


@pytest.mark.parametrize(
    ("now", "outside"), [([0.1, 0.9], 0), ([1.0, 1.0], 0), ([-0.1, 1.1], 2), ([0.0, 0.5], 0), ([1.0000001, 0.5], 0)]
)
def test_what_lies_between(now, outside):
    before, leader = torch.zeros(2), torch.ones(2)
    went, astray = _compare(before, torch.tensor(now), before, leader)
    assert int(astray.sum()) == outside
    assert went.tolist() == [value != 0 for value in now]
