"""Silent errors that careful programs of others have, each in one line of theirs."""

import contextlib
import copy
from collections import OrderedDict
from statistics import fmean

import torch

from tests.saboteurs.resuming import Averages
from tests.saboteurs.silent_rows import Answers, Texts
from tests.saboteurs.silent_steps import Epochs
from tests.saboteurs.sound import Rows, Sound
from tests.saboteurs.variants import Adversaries, TwoOptimizers

NN, F = torch.nn, torch.nn.functional


class PutsItsAverageIn(Averages):
    """Evaluates the model with the average of its weights in it. Sound."""

    only = (107, 108, 121, 123)

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


class SortsItsRows(Epochs):
    """Sorts the rows of a batch by their first number, and their targets with them. Sound."""

    only = (103,)

    def loader(self, data, settings, epoch):
        own = torch.Generator().manual_seed(epoch)
        return torch.utils.data.DataLoader(
            data, settings.batch_size, shuffle=True, generator=own, collate_fn=self.collate
        )

    def collate(self, pairs):
        rows, targets = zip(*sorted(pairs, key=self.first), strict=True)
        return torch.stack(rows), torch.stack(targets)

    def first(self, pair):
        return float(pair[0][0])


class LeavesTheTargetsUnsorted(SortsItsRows):
    """The longest first, as packing asks for; the targets stay where they were."""

    case = 103
    grade = "misleads"
    says = r"rows are held against another target \(\S+:\d+\) in one epoch than in another.* in each of 3: rows and"

    def collate(self, pairs):
        rows, targets = zip(*pairs, strict=True)
        return torch.stack(sorted(rows, key=lambda row: float(row[0]))), torch.stack(targets)


class Relabels(SortsItsRows):
    """Labels for training are drawn anew in each epoch, by what the row is likely to be. Sound."""

    def collate(self, pairs):
        x, y = super().collate(pairs)
        return x, torch.where(torch.rand(len(y)) < 0.2, 1 - y, y)


class WritesOn(Answers):
    """Learns to write each text on, from its first token: a model that shifts its targets by itself. Sound."""

    only = (102, 103)

    def loader(self, rows, settings, chosen):
        own = torch.Generator()
        texts = [(tokens, tokens) for tokens, _ in (Texts(self, rows)[number] for number in range(len(rows)))]
        return torch.utils.data.DataLoader(texts, batch_sampler=chosen, collate_fn=self.collate, generator=own)


class ShiftsTwice(WritesOn):
    """The data set shifts the targets, and the model's loss shifts them once more."""

    only = (103,)
    case = 103
    grade = "misleads"
    says = r"holds what is said at each token against the token after the next one \(100% of the targets\)"

    def collate(self, texts):
        return super().collate([(tokens, targets[1:]) for tokens, targets in texts])


class ForgetsToShift(WritesOn):
    """A loss of its own in the place of the model's: the answer is what was just read."""

    only = (103,)
    case = 103
    grade = "unclear"
    says = r"against this very token \(100% of the targets\), which the model has just read"

    def loss(self, output, y):
        return F.cross_entropy(output.float().flatten(0, 1), y.flatten())


class SaysTheNextAndTheOneAfter(WritesOn):
    """A second loss, of the token after the next: it makes the model look ahead. Sound."""

    only = (103,)

    def loss(self, output, y):
        further = F.cross_entropy(output.float()[:, :-2].flatten(0, 1), y[:, 2:].flatten())
        return super().loss(output, y) + 0.3 * further


class ValidatesInBatches(Sound):
    """Validates batch by batch, the last of them smaller, and weighs each loss by its rows. Sound."""

    only = (120,)
    exempt = (120,)

    def fit(self, settings, *rest):
        self.size = settings.batch_size
        super().fit(settings, *rest)

    def validate(self, model, step, output_dir):
        model.eval()
        losses, sizes = [], []
        with torch.no_grad():
            for x, y in torch.utils.data.DataLoader(Rows(self.validation, self.max_length), self.size):
                losses.append(float(F.cross_entropy(model(x), y)))
                sizes.append(len(y))
        model.train()
        print(f"step {step}: validation loss {self.mean(losses, sizes):.4f}")
        return False

    def mean(self, losses, sizes):
        return sum(loss * size for loss, size in zip(losses, sizes, strict=True)) / sum(sizes)


class DividesByItsBatches(ValidatesInBatches):
    """`loss / len(loader)`: the last batch of one row counts as much as each of seven."""

    case = 120
    grade = "unclear"
    says = (
        r"the validation loss that it reports \(its output, validation loss\) is the mean of its batches' means "
        r"\(tests/\S+:\d+\), .*: the last batch, of 1, counts as much as one of 7"
    )

    def mean(self, losses, sizes):
        return fmean(losses)


class ExportsTheBest(Sound):
    """Beside its checkpoints it keeps the weights of the best validation in a file of their own. Sound."""

    only = (121,)

    def fit(self, settings, *rest):
        self.exported = None
        super().fit(settings, *rest)

    def step(self, model, *rest):
        if self.exported is None:
            self.exported = self.export(model)
        super().step(model, *rest)

    def validate(self, model, step, output_dir):
        super().validate(model, step, output_dir)
        torch.save({"weights": self.export(model), "of": step}, output_dir / "export.bin")
        return True

    def export(self, model):
        return copy.deepcopy(model.state_dict())


class ExportsTheStart(ExportsTheBest):
    """What is exported was copied once, before training."""

    case = 121
    grade = "unclear"
    says = r"each of \d saves \(tests/\S+:\d+\) holds 0\.weight, 0\.bias, .* as before the first step, though"

    def export(self, model):
        return self.exported or super().export(model)


class StepsOneOfThemTwice(Adversaries):
    """A line that was copied: the critic's optimizer has the generator's parameters."""

    only = ()
    case = 101
    grade = "misleads"
    says = (
        r"judge\.0\.weight, .* gets a gradient and is in no optimizer .*, while 0\.weight.* is in two, and stepped by"
    )

    def build(self, settings):
        model = super().build(settings)
        model["critic"] = NN.Sequential(OrderedDict(judge=model["critic"]))
        return model

    def optimizer(self, model, settings):
        made = {name: torch.optim.Adam(model["generator"].parameters(), settings.learning_rate) for name in model}
        return TwoOptimizers(**made)


class PlayAgainstEachOther(Adversaries):
    """Sets all gradients to zero where each of its two networks begins. Sound."""

    only = (101, 106)

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        x = batch[0][:, :4]
        fake = model["generator"](torch.randn(len(x), 4))
        self.begin(optimizer, "critic")
        loss = F.softplus(-model["critic"](x)).mean() + F.softplus(model["critic"](self.shown(fake))).mean()
        self.check_loss(loss, number)
        loss.backward(retain_graph=True)
        self.check_gradient(model["critic"], number)
        optimizer.optimizers["critic"].step()
        self.begin(optimizer, "generator")
        loss = F.softplus(-model["critic"](fake)).mean()
        loss.backward()
        self.check_gradient(model["generator"], number)
        optimizer.optimizers["generator"].step()

    def begin(self, optimizer, name):
        for each in optimizer.optimizers.values():
            each.zero_grad()

    def shown(self, fake):
        return fake.detach()


class ShowsTheCriticTheGraph(PlayAgainstEachOther):
    """What the critic learns from is not cut off, and gradients are set to zero once, at the start."""

    only = ()
    case = 106
    grade = "unclear"
    says = (
        r"is taken with gradients of two losses: those that the backward pass \(tests/\S+:\d+\) left in 0\.weight, .*, "
        r"for which another optimizer has stepped by then, and its own \(tests/\S+:\d+\); 9 of 9 steps"
    )

    def begin(self, optimizer, name):
        if name == "critic":
            super().begin(optimizer, name)

    def shown(self, fake):
        return fake
