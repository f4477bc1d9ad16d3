"""Silent errors that careful programs of others have, each in one line of theirs."""

import contextlib
import copy

import torch

from tests.saboteurs.sound import Sound

NN, F = torch.nn, torch.nn.functional


class PutsItsAverageIn(Sound):
    """Keeps an average of its weights in a dictionary, and evaluates the model with that in it. Sound."""

    only = (107, 108, 121, 123)
    DECAY = 0.9

    def build(self, settings):
        model = super().build(settings)
        self.average = {name: value.clone() for name, value in model.state_dict().items()}
        return model

    def step(self, model, *rest):
        super().step(model, *rest)
        self.follow(model)

    def follow(self, model):
        for name, value in model.state_dict().items():
            self.average[name].lerp_(value, 1 - self.DECAY)

    def validate(self, model, *rest):
        with self.averaged(model):
            return super().validate(model, *rest)

    @contextlib.contextmanager
    def averaged(self, model):
        own = copy.deepcopy(model.state_dict())
        model.load_state_dict(self.average)
        yield
        model.load_state_dict(own)


class NeverFollows(PutsItsAverageIn):
    """The call stood in the other loop, and was lost with it."""

    only = (123,)
    case = 123
    grade = "misleads"
    says = r"each of 3 evaluations \(tests/\S+:\d+\) from step 4 on is of the weights of the start.*into which others"

    def follow(self, model):
        pass


class EvaluatesTheCopyOfTheStart(Sound):
    """The copy that is evaluated was made once, before training."""

    case = 123
    grade = "misleads"
    says = "is of the weights of the start, .*: a copy of it, which alone is evaluated, holds an average"

    def build(self, settings):
        model = super().build(settings)
        self.smooth = copy.deepcopy(model)
        return model

    def validate(self, model, *rest):
        return super().validate(self.smooth, *rest)


class ComparesWithTheStart(EvaluatesTheCopyOfTheStart):
    """Evaluates the model of the start beside the trained one, to show how much was learnt. Sound."""

    only = (123,)
    case = ""
    says = grade = ""

    def validate(self, model, *rest):
        before = Sound.validate(self, self.smooth, *rest)
        return Sound.validate(self, model, *rest) or before


class ByTheHour(Sound):
    """Says of each of three hours which of two states it is in: scores [rows, hours, states]. Sound."""

    only = (104,)
    HOURS = 3

    def build(self, settings):
        first, *_ = super().build(settings)
        return NN.Sequential(first, NN.ReLU(), NN.Linear(settings.hidden, 2 * self.HOURS), NN.Unflatten(1, (-1, 2)))

    def loss(self, output, y):
        return F.nll_loss(self.logarithms(output.float()).flatten(0, 1), y.repeat_interleave(self.HOURS))

    def logarithms(self, scores):
        return F.log_softmax(scores, dim=-1)

    def validate(self, model, step, output_dir):
        return False


class DividesAmongTheHours(ByTheHour):
    """Of scores [rows, states] dimension 1 was right; of these it is the hours."""

    case = 104
    grade = "misleads"
    says = r"a softmax over dimension 1 of shape \[\d+, 3, 2\], of 3, and not over the 2 classes"

    def logarithms(self, scores):
        return F.log_softmax(scores, dim=1)
