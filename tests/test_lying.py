"""Which way a picture lies beside its target: by tensors, and by made-up recordings."""

import pytest
import torch

from pytest_trainguard.casework.silent import pairing
from pytest_trainguard.casework.silent.look import Look
from pytest_trainguard.recorder.lying import WAYS, Lying, lie
from pytest_trainguard.recorder.timeline import Recording

PICTURE = torch.arange(64.0).reshape(1, 8, 8)
MASK = (PICTURE[0] ** 2 % 11 > 5).long()


def test_whatever_is_done_to_both_they_lie_alike():
    assert lie(PICTURE, MASK)
    assert len({tuple(lie(way(PICTURE), way(MASK))) for way in WAYS}) == 1
    assert len({tuple(lie(way(PICTURE), way(MASK[None].float()))) for way in WAYS}) == 1
    wide = PICTURE[..., :6], MASK[..., :6]
    assert len({tuple(lie(*(way(one) for one in wide))) for way in WAYS[:4]}) == 1


def test_what_is_done_to_one_of_them_shows_in_nothing_else():
    told = [lie(way(PICTURE), MASK) for way in WAYS]
    assert len({beside for _, _, beside in told}) == len(WAYS)
    assert len({(picture, mask) for picture, mask, _ in told}) == 1


@pytest.mark.parametrize(
    ("picture", "mask"),
    [
        (PICTURE, torch.zeros(8, 8)),  # symmetric
        (torch.ones(1, 8, 8), MASK),
        (MASK[None].float(), MASK),  # of few values
        (PICTURE, PICTURE.flip(-1)),  # what is to be given back is the picture
    ],
)
def test_what_cannot_be_told(picture, mask):
    assert lie(picture, mask) == []


class Written(list):
    """Keeps what is written."""

    def write(self, kind, **values):
        self.append({"event": f"look {kind}", "step": 0, **values})


def watched(*passes):
    """The recording of losses of pairs of pictures and masks, each a batch."""
    look = Written()
    lying, model = Lying(look), torch.nn.Conv2d(1, 1, 1)
    for picture, mask in passes:
        lying.forwarded(model, (picture,), None, outermost=True)
        output = torch.zeros(mask.shape, requires_grad=True)
        lying.scored("mse_loss", {"input": output, "target": mask})
    return Look(Recording(look))


PICTURES = torch.stack([PICTURE + number * PICTURE.sin() for number in range(4)])
MASKS = (PICTURES.sin() > 0.3).float()


def test_a_picture_that_is_flipped_by_itself():
    (problem,) = pairing.find_turned_apart(watched((PICTURES, MASKS), (PICTURES.flip(-1), MASKS)))
    assert problem.grade == "misleads"
    assert "4 of 4 pictures lie beside their targets" in problem.said
    assert "draw once" in problem.said


@pytest.mark.parametrize(
    "second",
    [
        (PICTURES.flip(-1), MASKS.flip(-1)),
        (PICTURES.flip(-1) + 0.1, MASKS),  # not the same pictures, as far as that can be told
        (PICTURES.flip(-1), MASKS[[1, 2, 3, 0]]),
        (torch.cat([PICTURES[:1].flip(-1), PICTURES[1:]]), MASKS),  # one alone
        (PICTURES.flip(-1).requires_grad_(), MASKS),  # made by a model
        (PICTURES.flip(-1)[:2], MASKS),
    ],
)
def test_a_sound_second_epoch(second):
    assert pairing.find_turned_apart(watched((PICTURES, MASKS), second)) == []
