"""Silent errors of rows, targets, dtypes and saves, judged by made-up recordings; and what writes these down."""

import pytest

from pytest_trainguard import NotApplicable
from pytest_trainguard.casework.silent import supervision
from pytest_trainguard.casework.silent.look import Look
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
