"""Which target a row or a token is held against: by made-up recordings, and what writes these down."""

from types import SimpleNamespace

import pytest
import torch

from pytest_trainguard.casework.silent import pairing, supervision
from pytest_trainguard.casework.silent.look import Look
from pytest_trainguard.recorder.pairing import Pairing
from pytest_trainguard.recorder.timeline import Recording

ROWS = "abcdefghijkl"


def paired(rows, targets, **values):
    usual = {
        "function": "nll_loss",
        "place": "t.py:5",
        "square": False,
        "writes": False,
        "ahead": [[0, 0]] * 3,
        "ends": [],
    }
    return {"event": "look paired", "step": 0, "rows": list(rows), "targets": list(targets), **usual, **values}


def epochs(*targets, **values):
    """Epochs over the same rows, in two batches each."""
    halves = (slice(6), slice(6, None))
    return Look(Recording([paired(ROWS[half], one[half], **values) for one in targets for half in halves]))


@pytest.mark.parametrize(
    ("targets", "told"),
    [
        (("010101010101",) * 3, ""),
        (("010101010101", "101010010101", "010101010101"), "6 of 12 rows are held against another target (t.py:5)"),
        (("123456123456", "213456123456"), "2 of 12 rows"),
        (("010101010101", "101010010101"), ""),  # two kinds, in two epochs: alike by chance
        (("123456123456", "223456123456"), ""),  # one was drawn anew
        (("123456123456", "213456123455"), ""),
        (("123456123456",), ""),
    ],
)
def test_targets_that_are_dealt_out_anew(targets, told):
    found = [problem.said for problem in pairing.find_other_targets(epochs(*targets))]
    assert [told in one for one in found] == ([True] if told else [])


def test_rows_that_are_held_against_each_other_have_no_target_of_their_own():
    assert pairing.find_other_targets(epochs("123456123456", "213456123456", square=True)) == []
    twice = "abcdefghijaa"  # one row stands there three times, with two targets
    seen = [
        {"event": "look loader", "step": 0, "rows": 12},
        *(paired(twice, one) for one in ("012345678901", "112345678900")),
    ]
    assert pairing.find_other_targets(Look(Recording(seen))) == []
    seen[-1] = paired(twice, "021345678901")
    (problem,) = pairing.find_other_targets(Look(Recording(seen)))
    assert "2 of 10 rows are held against another target" in problem.said
    padded = [paired(ROWS, "123456123456"), paired("ABcdefghijkl", "124356123456")]  # two have another digest there
    (problem,) = pairing.find_other_targets(Look(Recording([{**seen[0]}, *padded])))
    assert "2 of 12 rows are held against another target" in problem.said
    uneven = Look(Recording([paired("abcdefgh", "12345678"), paired("abcdefga", "21345678")]))
    assert pairing.find_other_targets(uneven) == []


@pytest.mark.parametrize(
    ("ahead", "grade"),
    [
        ([[1, 40], [40, 40], [2, 38]], None),
        ([[1, 40], [3, 40], [38, 38]], "misleads"),
        ([[40, 40], [3, 40], [2, 38]], "unclear"),
        ([[40, 40], [30, 40], [38, 38]], None),  # one token, again and again
        ([[9, 40], [3, 40], [2, 38]], None),  # tags
        ([[1, 20], [3, 20], [20, 20]], None),
    ],
)
def test_tokens_that_are_said(ahead, grade):
    look = Look(Recording([paired("a", "1", ahead=ahead)]))
    assert [problem.grade for problem in pairing.find_other_tokens(look)] == ([grade] if grade else [])


def test_a_model_that_is_known_to_write_on():
    look = Look(Recording([paired("a", "1", ahead=[[40, 40], [3, 40], [2, 38]], writes=True)]))
    assert [problem.grade for problem in pairing.find_other_tokens(look)] == ["misleads"]


def test_what_is_said_besides_is_not_held_against_it():
    following, after_next = ([[0, 40], [40, 40], [0, 40]], [[0, 40], [0, 40], [40, 40]])
    events = [paired("a", "1", ahead=following), paired("a", "1", ahead=after_next, place="t.py:6")]
    assert pairing.find_other_tokens(Look(Recording(events))) == []


class Written:
    """In the place of `CloseLook`: keeps what is written."""

    def __init__(self):
        self.events = []

    def write(self, kind, **values):
        self.events.append(values)


def test_what_is_written_down():
    written, scores = Written(), torch.zeros(8, 9, requires_grad=True)
    tokens, ignored = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 0, 0]]), -100
    targets = torch.tensor([[2, 3, 4, 5], [7, 8, ignored, ignored]])
    observer = Pairing(written)
    labels = torch.nn.functional.pad(targets, (1, 0))  # go in as well, and are no tokens that are read
    observer.forward(torch.nn.Identity(), outermost=True)
    observer.forwarded(torch.nn.Embedding(9, 2), (tokens,), scores, outermost=False)
    observer.forwarded(torch.nn.Identity(), (tokens, labels), scores, outermost=True)
    observer.scored("cross_entropy", {"input": scores, "target": targets.flatten()})
    (event,) = written.events
    assert event["ahead"] == [[0, 6], [6, 6], [0, 5]]
    assert len(set(event["targets"])) == len(set(event["rows"])) == 2
    observer.scored("mse_loss", {"input": scores, "target": targets.flatten().float()})
    observer.scored("cross_entropy", {"input": scores.detach(), "target": targets.flatten()})
    observer.scored("cross_entropy", {"input": scores, "target": torch.zeros(7, dtype=torch.int64)})
    assert len(written.events) == 1


def test_ends_of_texts_that_are_written_down():
    written, scores, ignored = Written(), torch.zeros(12, 9, requires_grad=True), -100
    tokens = torch.tensor([[3, 4, 5, 1, 0, 0], [3, 4, 5, 6, 7, 1]])
    labels = torch.tensor([[ignored, 4, 5, ignored, ignored, ignored], [ignored, 4, 5, ignored, 7, ignored]])
    observer, model = Pairing(written), torch.nn.Identity()
    model.config = SimpleNamespace(eos_token_id=[1, 8])
    for targets in (labels, torch.where(tokens == 1, 1, labels)):
        shifted = torch.nn.functional.pad(targets, (0, 1), value=ignored)[:, 1:]  # as transformers does it
        observer.forward(model, outermost=True)
        observer.forwarded(torch.nn.Embedding(9, 2), (tokens,), scores, outermost=False)
        observer.forwarded(model, (tokens,), scores, outermost=True)
        observer.scored("cross_entropy", {"input": scores, "target": shifted.flatten()})
    assert [event["ends"] for event in written.events] == [[1, 8]] * 2
    assert [event["closed"] for event in written.events] == [[3, 2, 0], [2, 0, 2]]


FOLLOWING = [[0, 40], [40, 40], [0, 40]]


@pytest.mark.parametrize(
    ("closed", "ahead", "told"),
    [
        ([9, 9, 0], FOLLOWING, "9 of 9 pieces of text that nll_loss (t.py:5) learns are followed by the end of a text"),
        ([9, 5, 0], FOLLOWING, "5 of 9 pieces"),
        ([9, 4, 0], FOLLOWING, ""),
        ([7, 7, 0], FOLLOWING, ""),
        ([9, 9, 1], FOLLOWING, ""),
        ([9, 9, 0], [[40, 40], [0, 40], [0, 40]], ""),  # words that were masked
    ],
)
def test_an_end_that_is_never_learnt(closed, ahead, told):
    found = supervision.find_endless(Look(Recording([paired("a", "1", ahead=ahead, ends=[1], closed=closed)])))
    assert [told in problem.said and problem.grade == "unclear" for problem in found] == ([True] if told else [])


def test_a_row_is_all_that_goes_in_of_it_but_its_target():
    written, scores, y = Written(), torch.zeros(3, 2, requires_grad=True), torch.tensor([0, 1, 1])
    anchors, others = torch.eye(3), torch.arange(3.0)
    observer = Pairing(written)
    for second in (others, others.flip(0)):
        observer.forwarded(torch.nn.Identity(), (anchors, second, y), scores, outermost=True)
        observer.scored("cross_entropy", {"input": scores, "target": y})
    observer.forwarded(torch.nn.Identity(), (anchors, others, 1 - y), scores, outermost=True)
    observer.scored("cross_entropy", {"input": scores, "target": 1 - y})
    first, turned, relabelled = (event["rows"] for event in written.events)
    assert len(set(first)) == 3
    assert first != turned
    assert first == relabelled
