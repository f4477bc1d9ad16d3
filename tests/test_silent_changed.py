"""Batches that are padded further, packed documents that are replaced, and what is made of it: cases 114 and 116."""

import pytest
import torch

from pytest_trainguard import CannotJudge, NotApplicable
from pytest_trainguard.casework.silent import packs, padding
from pytest_trainguard.casework.silent.look import Look
from pytest_trainguard.faults.other_documents import replace_first_documents
from pytest_trainguard.faults.padded_rows import COLUMNS, Padder
from pytest_trainguard.recorder.first_steps import FirstSteps
from pytest_trainguard.recorder.timeline import Recording
from tests.saboteurs.silent_pairs_sound import Experts
from tests.saboteurs.sound import Settings, Sound

# --- batches that are padded


def filled(*lengths, width=None):
    """Rows of so many tokens from 5 on, filled up with 0, and the mask of them."""
    width = width or max(lengths)
    ids = torch.tensor([[5 + (row + at) % 7 if at < n else 0 for at in range(width)] for row, n in enumerate(lengths)])
    return ids, (ids != 0).long()


def padder(*batches):
    made = Padder()
    for batch in batches:
        made.see(batch)
    return made


def test_a_batch_is_padded_as_its_mask_says():
    ids, mask = filled(3, 5)
    labels, positions = ids.masked_fill(mask == 0, -100), torch.arange(5).repeat(2, 1)
    batch = {"ids": ids, "mask": mask, "labels": labels, "positions": positions, "y": torch.tensor([0, 1])}
    done = padder(batch).pad(batch, 1)
    assert (done.columns, done.masked, done.why) == (COLUMNS, True, "")
    assert ids.tolist()[0] == [5, 6, 7, 0, 0, 0, 0, 0, 0]
    assert mask.sum(1).tolist() == [3, 5]
    assert labels[:, 5:].tolist() == [[-100] * 4] * 2
    assert positions[1].tolist() == list(range(9))
    assert batch["y"].shape == (2,)


def test_what_is_filled_up_far_has_padding_taken_away():
    ids, mask = filled(3, 5, width=30)
    other = mask == 0  # as attention of torch's takes it
    batch = [ids, other, torch.zeros(2, 30, 6)]
    done = padder(batch).pad(batch, 2)
    assert (done.columns, ids.shape, other.shape) == (-2 * COLUMNS, (2, 22), (2, 22))
    assert ids.count_nonzero() == 8


def test_a_value_that_fills_the_ends_of_rows_is_padding():
    batches = [[filled(*lengths)[0]] for lengths in ((3, 5), (6, 4, 3), (2, 7))]
    done = padder(*batches).pad(batches[2], 1)
    assert (done.columns, done.masked) == (COLUMNS, False)
    assert batches[2][0][1].tolist() == [6, 7, 8, 9, 10, 11, 5, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("batches", "why"),
    [
        ([[filled(3, 5, width=8)[0]], [filled(2, 4, width=8)[0]]], "no padding is recognised"),  # always of one width
        ([[filled(5, 5)[0]], [filled(4, 4)[0]]], "no padding is recognised"),
        ([[filled(3, 5)[0]]], "no padding is recognised"),  # seen once
        ([[torch.zeros(2, 3), torch.tensor([[1, 0], [1, 0]])]], "no padding is recognised"),  # classes, not a mask
        ([[filled(3, 5)[0], filled(5, 3)[0], filled(3, 5)[1]]], "not the same at each padded position"),
        ([[*filled(3, 5), torch.ones(2, 5, 5)]], "positions by positions"),
        ([[*filled(3, 5), object()]], "beside tensors"),
        ([[torch.rand(4, 6)]], "no padding is recognised"),
    ],
)
def test_batches_that_are_not_padded(batches, why):
    before = [part.clone() for part in batches[-1] if isinstance(part, torch.Tensor)]
    done = padder(*batches).pad(batches[-1], 1)
    assert done.columns == 0
    assert why in done.why
    assert all(map(torch.equal, before, [part for part in batches[-1] if isinstance(part, torch.Tensor)]))


# --- documents that are replaced

PACKED = [[1, 7, 8, 9, 2, 1, 9, 7, 8, 8, 2, 0], [1, 8, 9, 7, 7, 9, 2, 1, 7, 8, 9, 2]]
PLACES = [[*range(5), *range(6), 0], [*range(7), *range(5)]]
NUMBERS = [[1] * 4 + [2] * 4 + [3] * 4, [1] * 5 + [2] * 7]
SPANS = [(0, 0, 5), (1, 0, 7)], [(0, 5, 10), (1, 7, 11)]


def masks(spans):
    made = torch.zeros(len(spans), 12, 12, dtype=torch.bool)
    for row, parts in enumerate(spans):
        for start, stop in parts:
            made[row, start:stop, start:stop] = torch.ones(stop - start, stop - start).tril().bool()
    return made


@pytest.mark.parametrize(
    "told",
    [
        torch.tensor(PLACES),
        masks([[(0, 5), (5, 11)], [(0, 7), (7, 12)]]),
        ~masks([[(0, 5), (5, 11)], [(0, 7), (7, 12)]]),
    ],
    ids=["places", "mask", "mask of what is not seen"],
)
def test_the_first_document_of_a_row_is_replaced(told):
    ids = torch.tensor(PACKED)
    done = replace_first_documents({"ids": ids, "told": told})
    assert (done.other, done.kept) == SPANS
    assert (done.rows, done.width, done.why) == (2, 12, "")
    assert ids[0].tolist() == [1, 8, 9, 7, 2, *PACKED[0][5:]]
    assert ids[1, 7:].tolist() == PACKED[1][7:]


def test_documents_by_their_numbers_and_by_lengths():
    ids = torch.tensor([[1, 7, 8, 2, 1, 8, 9, 2, 1, 9, 7, 2], [1, 8, 9, 7, 2, 1, 8, 9, 8, 7, 9, 2]])
    done = replace_first_documents([ids, torch.tensor(NUMBERS)])
    assert (done.told, done.kept) == ("numbers of documents", [(0, 4, 7), (0, 8, 11)])
    flat = torch.tensor([*PACKED[0][:11], *PACKED[1]])
    done = replace_first_documents([flat[None], torch.tensor([0, 5, 11, 18, 23], dtype=torch.int32)])
    assert (done.told, done.rows, done.width) == ("lengths that are added up", 1, 23)
    assert done.kept == [(0, 5, 10), (0, 11, 17), (0, 18, 22)]


@pytest.mark.parametrize(
    "told",
    [
        [],
        [torch.tensor([[0] * 6 + [1] * 6] * 2)],  # two segments of one text
        [torch.tensor([[1] * 6 + [2] * 5 + [0]] * 2)],
        [torch.arange(12).repeat(2, 1)],
        [torch.zeros(2, 12, dtype=torch.long)],
        [torch.ones(12, 12).tril().bool().expand(2, 12, 12)],
        [torch.ones(2, 12, dtype=torch.long)],
    ],
)
def test_rows_in_which_no_document_begins(told):
    ids = torch.tensor(PACKED)
    assert "no batch says where one document" in replace_first_documents([ids, *told]).why
    assert ids.tolist() == PACKED


# --- what is made of them


def run(*events, losses=(0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1), inputs=None, **values):
    """A run of nine undone steps, with what its batches and gradients were."""
    step = {
        **dict.fromkeys(("grad_norm", "moved", "length", "eval_forwards", "seconds", "rss", "children", "time"), 0),
        "lr": [0.1], "batches": [2], "cuda": None, "training": True, "dtype": "torch.float32", "autocast": None,
    }  # fmt: skip
    plain = dict.fromkeys(("drawn", "square", "across", "convolves", "routes"), False)
    made = []
    for number, loss in enumerate(losses):
        shown = (inputs or {}).get(number, [[[2, 5], "d"]])
        gradient = {"event": "look gradient", "step": number, "norms": {"a": 10 * loss}, "place": "t.py:8", **plain}
        made += [{**gradient, "inputs": shown, **values}, *(event for event in events if event["step"] == number)]
        made += [{"event": "step", "number": number + 1, "loss": loss, "losses": [loss], **step}]
        made += [{"event": "look step", "step": number + 1, "place": "t.py:9"}]
    return Look(Recording(made))


WIDE = {4: [[[2, 9], "d"]], 6: [[[2, 13], "d"]]}
LOSSES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


def padded(masked=True, beside=0.5, further=0.3, **values):
    events = [
        {"event": "look padded", "step": number, "columns": columns, "masked": masked, "why": ""}
        for number, columns in ((4, 4), (6, 8))
    ]
    losses = (*LOSSES[:4], beside, 0.4, further, *LOSSES[7:])
    return run(*events, losses=losses, inputs=WIDE, **values)


def unpadded(**values):
    return run(inputs={6: [[[2, 9], "d"]]}, **values)


def test_padding_that_counts():
    assert padding.find_counted(unpadded(), padded()) == []
    (problem,) = padding.find_counted(unpadded(), padded(beside=0.51))
    assert "padding counts (t.py:8): with rows of nothing but 4 tokens of padding longer, the same rows" in problem.said
    assert "have at step 5 a loss of 0.51 and not of 0.5; norm of the gradient of a: 5.1 and 5;" in problem.said
    (problem,) = padding.find_counted(unpadded(), padded(further=0.2))
    assert "have at step 7 a loss of 0.2 and not of 0.3" in problem.said
    assert "where each row ends" in padding.find_counted(unpadded(), padded(False, further=0.2))[0].said


def test_padding_that_may_count():
    # The first of it ends a text; a convolution reaches into it.
    assert padding.find_counted(unpadded(), padded(False, beside=0.51)) == []
    assert padding.find_counted(unpadded(convolves=True), padded(beside=0.51)) == []
    assert padding.find_counted(unpadded(across=True), padded()) == []
    for one, other, told in (
        (unpadded(across=True), padded(beside=0.51), "a norm over the rows"),
        (unpadded(routes=True), padded(beside=0.51), "a mixture of experts"),
        (unpadded(drawn=True), padded(), "draws random numbers"),
        (run(), padded(), "not seen to go into its model"),
        (unpadded(losses=(*LOSSES[:2], 0.1, *LOSSES[3:])), padded(), "depends on the batches before"),
        (unpadded(losses=(0.7,) * 9), padded(), "the same for each batch"),
        (unpadded(), run({"event": "look padded", "step": 4, "columns": 0, "masked": False, "why": "none"}), "^none$"),
        (unpadded(), run(), "do not come from a torch data loader"),
    ):
        with pytest.raises(NotApplicable, match=told):
            padding.find_counted(one, other)


def packed(losses, targets=(5, 6, 7, 8, 9, 5, 6, 7), **values):
    """One row of two documents, of four tokens each."""
    event = {
        "event": "look replaced", "step": 8, "rows": 1, "width": 8, "other": [[0, 0, 4]], "kept": [[0, 4, 7]],
        "told": "positions that begin at 0 again", "ids": "e", "why": "",
    }  # fmt: skip
    told = {"event": "look targets", "step": 8, "losses": list(losses), "targets": list(targets), "place": "t.py:7"}
    return run(event, told, **values)


def test_a_document_that_reads_its_neighbour():
    plain = packed((1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0))
    apart = packed((1.5, 1.2, 1.1, 1.0, 2.0, 2.0, 2.0, 2.0))
    assert packs.find_leaks(plain, apart) == []
    leaks = packed((1.5, 1.2, 1.1, 1.0, 2.0, 2.1, 2.0, 2.0))
    (problem,) = packs.find_leaks(plain, leaks)
    assert (
        "a document in a pack reads its neighbour (t.py:7): documents are told apart by positions that begin at 0"
        in problem.said
    )
    assert "the target at position 6, of a later one, has at step 9 a loss of 2.1 and not of 2" in problem.said
    assert "and so have 1 of 3 targets" in problem.said
    others = packed((1.5, 1.2, 1.1, 1.0, 2.0, 2.1, 2.0, 2.0), targets=(5, 6, 7, 8, 9, 9, 9, 9))
    for one, other, told in (
        (packed((1.0,) * 8, across=True), leaks, "a norm over rows or positions"),
        (packed((1.0,) * 8, routes=True), leaks, "chooses among its tokens"),
        (packed((1.0,) * 8, drawn=True), leaks, "draws random numbers"),
        (run(), leaks, "0 calls of torch's cross entropy"),
        (plain, others, "targets are not one for each token"),
        (packed((1.0,) * 5, (5,) * 5), packed((1.0,) * 5, (5,) * 5), "targets are not one for each token"),
        (run(), run(), "do not come from a torch data loader"),
    ):
        with pytest.raises(NotApplicable, match=told):
            packs.find_leaks(one, other)
    with pytest.raises(CannotJudge, match="not even the targets of the documents that were replaced"):
        packs.find_leaks(plain, plain)


@pytest.mark.parametrize(("sizes", "routes"), [((3, 5), True), ((4, 4), False), ((8,), False)])
def test_experts_are_known_by_what_goes_into_each(sizes, routes):
    told = []
    watch = FirstSteps(lambda kind, **values: told.append(values), 1)
    model = Experts(4, 8)
    watch.forward(model, outermost=True)
    for expert, size in zip(model.experts, sizes, strict=False):
        watch.forwarded(expert, (torch.zeros(size, 4),), None, outermost=False)
    watch.forwarded(model, (torch.zeros(8, 4),), None, outermost=True)
    watch.stepping(None)
    assert [values["routes"] for values in told] == [routes]


# --- how many runs all of it takes


class Reads(Sound):
    """With every setting that a run is made for."""

    def make_model(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(1)
        torch.save(self.build(Settings()).state_dict(), folder / "base.pt")
        return folder


MOST_RUNS = 9  # beside the plain one


@pytest.fixture
def trainer():
    return Reads


def test_all_silent_errors_take_nine_runs_beside_the_plain_one(close_look, monkeypatch):
    made = []
    subject = type(close_look.guard.subject)
    start = subject.start
    monkeypatch.setattr(subject, "start", lambda self, request: [made.append(request), start(self, request)][1])
    close_look.plain()
    made.clear()
    for runs in (
        close_look.accumulated, close_look.in_parts_and_whole, close_look.with_workers,
        close_look.with_and_without_evaluations, close_look.with_changed_batches, close_look.with_another_seed,
        close_look.with_other_labels, close_look.with_base_models,
    ):  # fmt: skip
        runs()
        runs()
    assert len(made) == MOST_RUNS, [request.did for request in made]
    assert len({request.did for request in made}) == len(made)
