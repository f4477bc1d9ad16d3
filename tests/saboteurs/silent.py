"""Cases 101 to 109: silent errors of weights, losses, gradients and modes."""

import torch

from tests.saboteurs.sound import Sound

NN, F = torch.nn, torch.nn.functional


class MakesItsHeadAfterwards(Sound):
    """The optimizer is made, and then the head for this task: it steps the head that was there before."""

    case = 101
    grade = "misleads"
    says = r"holds 2 tensors that are in no module .* after 9 steps 3\.weight, 3\.bias are what they were"

    def optimizer(self, model, settings):
        optimizer = super().optimizer(model, settings)
        model[3] = NN.Linear(settings.hidden, 2)
        return optimizer


class StepsCopies(Sound):
    """Gives each parameter "a gradient" first, and so the optimizer a copy of it."""

    case = 101
    grade = "misleads"
    says = r"holds 4 tensors that are in no module"

    def optimizer(self, model, settings):
        copies = [p.detach().clone().requires_grad_() for p in model.parameters()]
        return torch.optim.AdamW(copies, lr=settings.learning_rate)


class LearnsFromANumber(Sound):
    """The loss is made a tensor anew, because there was an error without it: what it came from is gone."""

    case = 101
    grade = "misleads"
    says = r"no gradient ever comes to what the optimizer \(tests/saboteurs/\S+:\d+\) holds: after 9 steps 0\.weight"

    def loss(self, output, y):
        return torch.tensor(super().loss(output, y).item(), requires_grad=True)


class Adapted(NN.Module):
    """A layer with an adapter of low rank beside it."""

    def __init__(self, layer, rank=2):
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.down = NN.Linear(layer.in_features, rank, bias=False)
        self.up = NN.Linear(rank, layer.out_features, bias=False)
        NN.init.zeros_(self.up.weight)

    def forward(self, x):
        return self.layer(x) + self.up(self.down(x))


class BothHalvesZero(Sound):
    """Both halves of the adapter begin at 0: each one's gradient is a multiple of the other."""

    case = 101
    grade = "misleads"
    says = r"0\.down\.weight, 0\.up\.weight is in the optimizer .* no gradient other than 0"

    def build(self, settings):
        model = super().build(settings)
        model[0] = Adapted(model[0])
        NN.init.zeros_(model[0].down.weight)
        return model


class FreezesTheOtherHalf(BothHalvesZero):
    """All that learns is the first half of an adapter, and the second one is 0, and frozen: a name was too short."""

    says = r"every gradient of what the optimizer \(\S+\) holds, 0\.down\.weight, is 0 to the bit in each of 9 steps"

    def build(self, settings):
        model = Sound.build(self, settings).requires_grad_(False)
        model[0] = Adapted(model[0])
        model[0].up.requires_grad_(False)
        return model

    def optimizer(self, model, settings):
        return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=settings.learning_rate)


class Cut(NN.Module):
    def forward(self, x):
        return x.detach()


class CutsItsEncoderOff(Sound):
    """A `detach` that was there for a picture of the features."""

    case = 101
    grade = "misleads"
    says = r"0\.weight, 0\.bias is in the optimizer \(tests/saboteurs/\S+:\d+\) and its module runs"

    def build(self, settings):
        first, *rest = super().build(settings)
        return NN.Sequential(first, Cut(), *rest)


class ForgetsItsOtherGroup(Sound):
    """Weights decay and biases do not: two lists, of which one is handed over."""

    case = 101
    grade = "misleads"
    says = r"0\.bias, 3\.bias gets a gradient and is in no optimizer"

    def optimizer(self, model, settings):
        decayed = [p for p in model.parameters() if p.dim() > 1]
        return torch.optim.AdamW([{"params": decayed, "weight_decay": 0.01}], lr=settings.learning_rate)


class TrainsItsHeadAlone(Sound):
    """Whether the rest is to stay as it is nobody can tell."""

    case = 101
    grade = "unclear"
    says = r"0\.weight, 0\.bias gets a gradient and is in no optimizer .* requires_grad_\(False\)"

    def optimizer(self, model, settings):
        return torch.optim.AdamW(model[3].parameters(), lr=settings.learning_rate)


class Scores(Sound):
    """One score for each row, of shape [rows, 1]."""

    def build(self, settings):
        *layers, _ = super().build(settings)
        return NN.Sequential(*layers, NN.Linear(settings.hidden, 1))

    def loss(self, output, y):
        return F.mse_loss(output.float(), y.float()[:, None])

    def validate(self, model, step, output_dir):
        return False


Scores.only = (103,)


class MeetsEveryTarget(Scores):
    case = 103
    grade = "misleads"
    says = r"of 8 x 8 differences and not of 8: an output of shape \[8, 1\]"

    def loss(self, output, y):
        return ((output - y) ** 2).mean()


class MeetsEveryTargetInALoss(Scores):
    """Torch warns of that once, in a log of thousands of lines."""

    case = 103
    grade = "misleads"
    says = r"of 8 x 8 differences"

    def loss(self, output, y):
        return F.smooth_l1_loss(output, y.float())


class SqueezesItsScores(Scores):
    """The other way round: scores without a dimension, targets with one."""

    case = 103
    grade = "misleads"
    says = r"an output of shape \[8\] met"

    def build(self, settings):
        return NN.Sequential(*super().build(settings), NN.Flatten(0))

    def loss(self, output, y):
        return (output - y[:, None]).abs().mean()


class SoftmaxOfOneScore(Scores):
    """A softmax over one score is 1, whatever the score."""

    case = 103
    grade = "misleads"
    says = "gave every row the same output, though the rows differ"

    def build(self, settings):
        return NN.Sequential(*super().build(settings), NN.Softmax(dim=1))


class EndsInASoftmax(Sound):
    """The model ends in a softmax, and the loss begins with one."""

    case = 104
    grade = "misleads"
    says = r"cross_entropy \(\S+:\d+\) takes logits, and gets probabilities \(the output of softmax\)"

    def build(self, settings):
        return NN.Sequential(*super().build(settings), NN.Softmax(dim=1))


class SigmoidTwice(Sound):
    """A sigmoid before the loss that has one."""

    case = 104
    grade = "misleads"
    says = r"binary_cross_entropy_with_logits \(\S+:\d+\) takes logits, and gets probabilities"

    def loss(self, output, y):
        probability = torch.sigmoid(output.float()[:, 1]).squeeze(-1)
        return F.binary_cross_entropy_with_logits(probability, y.float())


class NoLogarithm(Sound):
    """The negative log-likelihood of what is no logarithm."""

    case = 104
    grade = "misleads"
    says = r"nll_loss \(\S+:\d+\) takes the logarithms of probabilities, and gets the probabilities"

    def loss(self, output, y):
        return NN.NLLLoss()(torch.softmax(output.float(), dim=-1), y)


class SoftmaxOverTheBatch(Sound):
    """Dimension 0 is right for one row."""

    case = 104
    grade = "misleads"
    says = r"a softmax over the rows of a batch \(dimension 0 of shape \[8, 2\]\)"

    def loss(self, output, y):
        return F.nll_loss(F.log_softmax(output.float(), dim=0), y)


class SoftmaxOfOneClass(Sound):
    """One output for two classes, and a softmax over it."""

    case = 104
    grade = "misleads"
    says = r"a softmax over a dimension of size 1 \(shape \[8, 1\]\)"

    def loss(self, output, y):
        return F.binary_cross_entropy(torch.softmax(output.float()[:, 1:], dim=1), y.float()[:, None])


class NeverZeroes(Sound):
    """No zero_grad at all."""

    case = 106
    grade = "misleads"
    says = r"step 2 \(\S+:\d+\) is taken with the sum of its own gradients and those of the step before.* 8 of 9 steps"

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        x, y = batch
        loss = self.loss(model(x), y)
        self.check_loss(loss, number)
        loss.backward()
        self.check_gradient(model, number)
        optimizer.step()


class ZeroesOnceAnEpoch(NeverZeroes):
    """The line stands one level too far to the left."""

    says = r"step 2 .* 6 of 9 steps"

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        if number % 3 == 1:
            optimizer.zero_grad()
        super().step(model, optimizer, scaler, batch, settings, number, device)


class ZeroesTheHeadOnly(NeverZeroes):
    """Two parts of a model, of which one is forgotten."""

    says = r"0\.weight, 0\.bias were not set to zero"

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        model[3].zero_grad()
        super().step(model, optimizer, scaler, batch, settings, number, device)


class EvaluatesInTrainingMode(Sound):
    """No eval() before the validation."""

    case = 107
    grade = "misleads"
    says = r"evaluated \(\S+:\d+\) after step 2 without gradients and in training mode: 2 is at work"

    def validate(self, model, step, output_dir):
        rows = torch.stack([torch.tensor(row["x"]) for row in self.validation])
        with torch.no_grad():
            scores = model(F.pad(rows, (0, self.max_length - 4)))
        print("mean score", float(scores.mean()))
        return False


class StaysInEvaluationMode(Sound):
    """No train() after the validation."""

    case = 107
    grade = "misleads"
    says = r"from step 3 on it trains \(\S+:\d+\) in evaluation mode: 2 is off, which was on before"

    def validate(self, model, step, output_dir):
        best = super().validate(model, step, output_dir)
        model.eval()
        return best


class PutsItBackAsItWas(Sound):
    """Notes the mode when it has changed it."""

    case = 107
    grade = "misleads"
    says = "from step 3 on it trains"

    def validate(self, model, step, output_dir):
        model.eval()
        before = model.training
        best = super().validate(model, step, output_dir)
        model.train(before)
        return best


class TrainsWithoutNoise(Sound):
    """In evaluation mode from the start, as a model that was loaded ready for use."""

    case = 107
    grade = "unclear"
    says = "it trains .* in evaluation mode from the first step on: 2 is never at work"

    def step(self, model, *rest):
        model.eval()
        super().step(model, *rest)


class Backbone(Sound):
    """A frozen layer with a norm, which is frozen too."""

    def build(self, settings):
        length = settings.max_length
        backbone = NN.Sequential(NN.Linear(length, length), NN.BatchNorm1d(length)).requires_grad_(False)
        return NN.Sequential(backbone, *super().build(settings))

    def optimizer(self, model, settings):
        return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=settings.learning_rate)


Backbone.only = ("none",)


class NormGoesOn(Backbone):
    """`requires_grad_(False)` says nothing to the statistics of a norm."""

    case = 109
    grade = "misleads"
    says = r"its statistics moved: 0\.1\.running_mean, 0\.1\.running_var, from step 1 on"


class EvaluationModeTooEarly(Backbone):
    """Puts the backbone into evaluation mode, before the whole model is put into training mode."""

    case = 109
    grade = "misleads"
    says = "its statistics moved"

    def build(self, settings):
        model = super().build(settings)
        model[0].eval()
        return model


class FreezesLate(Sound):
    """Freezes a layer after three steps; its gradient of zero is stepped with, and so is the momentum."""

    case = 109
    grade = "misleads"
    says = r"0\.weight, 0\.bias is frozen \(requires_grad is False\), and step 4 of the optimizer \(\S+\) moved it"

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        model[0].requires_grad_(number < 4)
        optimizer.zero_grad(set_to_none=False)
        loss = self.loss(model(batch[0]), batch[1])
        self.check_loss(loss, number)
        loss.backward()
        self.check_gradient(model, number)
        optimizer.step()
