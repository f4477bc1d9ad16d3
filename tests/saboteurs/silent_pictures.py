"""Case 103: pictures with a target for each pixel."""

import torch

from tests.saboteurs.silent_steps import Epochs

NN, F = torch.nn, torch.nn.functional
SIDE = 6


class Pictures(torch.utils.data.Dataset):
    """Of each row a picture [1, 6, 6], and which of its pixels are bright [6, 6]; both are flipped by one draw."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        x, y = self.rows[index]
        picture = torch.outer(torch.linspace(-1, 1, SIDE) + x[0], torch.linspace(0.1, 1, SIDE) + x[1]) + x[2] * y
        picture[0, 1] += x[3]  # not symmetric, whatever the rest is
        return self.change(picture[None], (picture + 0.1 * picture.roll(1, 0) > 0).long())

    def change(self, picture, mask):
        if torch.rand(()) < 0.5:
            picture, mask = picture.flip(-1), mask.flip(-1)
        turns = int(torch.randint(4, ()))
        return picture.rot90(turns, (-2, -1)), mask.rot90(turns, (-2, -1))


class FindsWhatIsBright(Epochs):
    """Learns a mask of a picture, which are flipped and turned together. Sound."""

    only = (103,)
    PICTURES = Pictures

    def build(self, settings):
        return NN.Sequential(
            NN.Conv2d(1, settings.hidden, 3, padding=1), NN.ReLU(), NN.Dropout(settings.dropout),
            NN.Conv2d(settings.hidden, 2, 1),
        )  # fmt: skip

    def last(self, model):
        return model[-1].weight

    def loader(self, data, settings, epoch):
        own = torch.Generator().manual_seed(epoch)
        return torch.utils.data.DataLoader(self.PICTURES(data), settings.batch_size, shuffle=True, generator=own)

    def validate(self, model, step, output_dir):
        return False


class FlippedApart(Pictures):
    """Each has a transform of its own, which draws by itself."""

    def change(self, picture, mask):
        return self.flip(picture), self.flip(mask)

    def flip(self, one):
        return one.flip(-1) if torch.rand(()) < 0.5 else one


class FlipsEachByItself(FindsWhatIsBright):
    """A random flip in the transform of the pictures, and the same in that of the masks."""

    case = 103
    grade = "misleads"
    says = r"\d+ of \d+ pictures lie beside their targets \(\S+:\d+\) now one way and now another, .* draw once"
    PICTURES = FlippedApart


class Halved(Pictures):
    """What is wide is not turned; the picture alone is flipped."""

    def change(self, picture, mask):
        picture, mask = picture[..., : SIDE - 2], mask[..., : SIDE - 2]
        return (picture.flip(-1) if torch.rand(()) < 0.5 else picture), mask


class FlipsThePictureAlone(FlipsEachByItself):
    """The masks were forgotten when flips were added."""

    PICTURES = Halved

    def loss(self, output, y):
        return F.binary_cross_entropy_with_logits(output[:, 1].float(), y.float())


class Noised(Pictures):
    """The picture is made darker or lighter by itself, and is its own target: what it was lies as it did."""

    def change(self, picture, mask):
        flipped = picture.flip(-1) if torch.rand(()) < 0.5 else picture
        return flipped + 0.1 * torch.rand(()), flipped


class TakesTheNoiseAway(FindsWhatIsBright):
    """Gives back a picture whose light was changed, and the picture alone. Sound."""

    PICTURES = Noised

    def loss(self, output, y):
        return F.mse_loss(output[:, :1].float(), y)


class Unturned(Pictures):
    """The picture is flipped, and is to be given back as it was."""

    def change(self, picture, mask):
        return (picture.flip(-1) if torch.rand(()) < 0.5 else picture), picture


class PutsPicturesUpright(TakesTheNoiseAway):
    """Learns which way a picture belongs, of what the picture itself shows. Sound."""

    PICTURES = Unturned
