"""What has no effect under the name that it was given, draws that repeat, and averages that are evaluated.

Cases 107, 109, 110, 111, 117, 123 and 125.
"""

import copy

import torch

from tests.saboteurs.silent_rows import EvaluatesTheAverage
from tests.saboteurs.silent_steps import Epochs
from tests.saboteurs.sound import Sound

NN = torch.nn


class FreezesByAWordNearby(Sound):
    """`require_grad` is an attribute like any other: what was to stay moves with the rest."""

    case = 109
    grade = "misleads"
    says = (
        r"0\.weight, 0\.bias was to be frozen, and trains \(\S+:\d+\): require_grad = False is set on it, which torch "
        "does not know; write requires_grad"
    )

    def build(self, settings):
        model = super().build(settings)
        for parameter in model[0].parameters():
            parameter.require_grad = False
        return model


class FreezesTheModule(Sound):
    """A module has no `requires_grad`: it is set, and nobody reads it."""

    case = 109
    grade = "misleads"
    says = r"0 was to be frozen, and trains \(\S+:\d+\): requires_grad = False is set on the module itself"

    def build(self, settings):
        model = super().build(settings)
        model[0].requires_grad = False
        return model


class FreezesAsItSays(Sound):
    """Freezes its first layer, and notes on the module that it did. Sound."""

    only = (109,)

    def build(self, settings):
        model = super().build(settings)
        model[0].requires_grad_(False)
        model[0].requires_grad = False
        return model


class SetsARateOfItsOwn(Sound):
    """A warm-up by hand, which writes into a key that no optimizer reads."""

    case = 117
    grade = "unclear"
    says = (
        r"param_groups\[0\] of an optimizer has 'learning_rate' \(\S+:\d+\).* where 'lr' was meant, it stays as it was"
    )

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        for group in optimizer.param_groups:
            group["learning_rate"] = settings.learning_rate * min(1, number / 4)
        super().step(model, optimizer, scaler, batch, settings, number, device)


class NamesItsGroups(Sound):
    """Groups with keys of the program's own. Sound."""

    only = (117,)

    def optimizer(self, model, settings):
        groups = [{"params": list(part.parameters()), "name": name, "lr_scale": 1.0} for name, part in (
            ("first", model[0]), ("last", model[3]),
        )]  # fmt: skip
        return torch.optim.AdamW(groups, lr=settings.learning_rate)


class WeighsItsClasses(Epochs):
    """Two weights, one for each class, where the sampler takes one for each row: it trains on the first two rows."""

    case = 111
    grade = "misleads"
    says = r"WeightedRandomSampler \(\S+:\d+\) has 2 weights for a data set of 24 rows, and draws none of the others"

    def weights(self, rows):
        return [1.0, 2.0]

    def loader(self, data, settings, epoch):
        own = torch.Generator().manual_seed(epoch)
        drawn = torch.utils.data.WeightedRandomSampler(self.weights(data.rows), len(data), generator=own)
        return torch.utils.data.DataLoader(data, settings.batch_size, sampler=drawn)


class WeighsItsRows(WeighsItsClasses):
    """One for each row. Sound."""

    case = ""
    only = (111,)

    def weights(self, rows):
        return [1.0 + row["y"] for row in rows]


class SeedsEachStep(Sound):
    """So that a step can be repeated: and dropout leaves out the same values for ever."""

    case = 125
    grade = "misleads"
    says = r"each of 9 steps draws the same random numbers \(\S+:\d+\): torch's random state is the same whenever"

    def step(self, model, optimizer, *rest):
        torch.manual_seed(7)
        super().step(model, optimizer, *rest)


class SeedsEachStepByItsNumber(Sound):
    """The same, with the number of the step in it. Sound."""

    only = (125,)

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        torch.manual_seed(number)
        super().step(model, optimizer, scaler, batch, settings, number, device)


class MeasuresItsAverageInTraining(EvaluatesTheAverage):
    """The model is put into evaluation mode, and its average, which is what is evaluated, is not."""

    only = ("none",)
    case = 107
    grade = "misleads"
    says = r"evaluated \(\S+:\d+\) after step \d without gradients and in training mode"

    def validate(self, model, step, output_dir):
        class Average(NN.Module):
            """Stays in the mode that it is in."""

            def __init__(self, module):
                super().__init__()
                self.module = module

            def forward(self, x):
                return self.module(x)

            def eval(self):
                return self

        return Sound.validate(self, Average(self.average.module.train()), step, output_dir)


class MeasuresItsAverageOnTrainingRows(EvaluatesTheAverage):
    """The average is evaluated, on the rows that the model is trained on."""

    only = ("none",)
    case = 110
    grade = "misleads"
    says = r"each of the 24 rows that it evaluates on \(\S+:\d+\) is one that it trains on"

    def fit(self, settings, rows, *rest):
        self.validation = rows
        super().fit(settings, rows, *rest)


class Normed(Sound):
    """An average of a model with batch norm, by hand, with its statistics. Sound."""

    only = (107, 123)

    def build(self, settings):
        first, *rest = super().build(settings)
        model = NN.Sequential(first, NN.BatchNorm1d(settings.hidden), *rest)
        self.average = copy.deepcopy(model).requires_grad_(False)
        return model

    def step(self, model, *rest):
        super().step(model, *rest)
        with torch.no_grad():
            for its, mine in zip(self.average.parameters(), model.parameters(), strict=True):
                its.lerp_(mine, 0.1)
            self.follow(model)

    def follow(self, model):
        for its, mine in zip(self.average.buffers(), model.buffers(), strict=True):
            its.copy_(mine)

    def validate(self, model, step, output_dir):
        return super().validate(self.average, step, output_dir)


class AsksItsReference(Normed):
    """A copy of the start, in evaluation mode, is asked before each step, and nothing of it is to move. Sound."""

    def step(self, model, optimizer, scaler, batch, *rest):
        with torch.no_grad():
            self.average.eval()(batch[0])
        Sound.step(self, model, optimizer, scaler, batch, *rest)

    def validate(self, model, *rest):
        return Sound.validate(self, model, *rest)


class ForgetsItsStatistics(Normed):
    """`parameters()` are all that is averaged: the mean of each batch is held against 0."""

    only = ("none",)
    case = 123
    grade = "misleads"
    says = r"each of \d evaluations \(\S+:\d+\) of a copy of the model is by statistics of batch norm that are still"

    def follow(self, model):
        pass


class LetsTorchAverage(Normed):
    """torch's own average, which copies the statistics where it does not average them. Sound."""

    def build(self, settings):
        model = super().build(settings)
        self.average = torch.optim.swa_utils.AveragedModel(model)
        return model

    def step(self, model, *rest):
        Sound.step(self, model, *rest)
        self.average.update_parameters(model)
