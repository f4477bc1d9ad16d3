"""Evaluations that grow with the validation set (`evaluation-grows`), and sound ones that look like it."""

import torch

from tests.saboteurs.sound import Sound


class AllAtOnce(Sound):
    """The validation set is small: it always was."""

    case = "evaluation-grows"
    grade = "wastes"
    says = "one forward pass of its evaluation takes 2304 rows, of 2304 in all"

    def evaluate(self, model, x):
        return model(x)


class HalvesOnce(Sound):
    """It did not fit once, and was cut in two."""

    case = "evaluation-grows"
    grade = "wastes"
    says = "one forward pass of its evaluation takes 1152 rows, of 2304 in all"

    def evaluate(self, model, x):
        return torch.cat([model(part) for part in x.chunk(2)])


class Wide(Sound):
    """As many outputs as a vocabulary has words; keeps the best two of each row."""

    only = ("evaluation-grows",)
    WORDS = 4096

    def build(self, settings):
        return torch.nn.Sequential(*super().build(settings)[:-1], torch.nn.Linear(settings.hidden, self.WORDS))

    def evaluate(self, model, x):
        return torch.cat([model(part)[:, :2].clone() for part in x.split(self.EVALUATED)])


class KeepsEveryLogit(Wide):
    """A list of what the model said, joined when all of it is there."""

    only = ()
    case = "evaluation-grows"
    grade = "wastes"
    says = r"its evaluation holds .* MiB more after \d+ rows than after its first batch, 16384 bytes of each row"

    def evaluate(self, model, x):
        return torch.cat([model(part) for part in x.split(self.EVALUATED)])[:, :2]


class InLargeBatches(Sound):
    """Without gradients there is room for more."""

    only = ("evaluation-grows",)
    EVALUATED = 1024
