"""Sound programs that look as if they erred in silence where two runs are held against each other."""

import torch

from tests.saboteurs.silent_pairs import NN, Accumulates, Averages, F, Normed, Reports, Sorted
from tests.saboteurs.sound import Rows, Sound


class ExchangesByArithmetic(Averages):
    """Moves its weights to the average and back again along the line between them, which is not exact."""

    def validate(self, model, *rest):
        with torch.no_grad():
            pairs = list(zip(model.parameters(), self.average.parameters(), strict=True))
            for now, mean in pairs:
                now.lerp_(mean, 0.5)
            best = Sound.validate(self, model, *rest)
            for now, mean in pairs:
                now.lerp_(mean, 1 - 1 / 0.5)
        return best


class TakesItsStatisticsAnew(Normed):
    """Takes the norms' statistics anew before it validates, of rows that it trains on."""

    def fit(self, settings, rows, *rest):
        self.rows = rows
        super().fit(settings, rows, *rest)

    def validate(self, model, *rest):
        x = torch.stack([x for x, _ in Rows(self.rows, self.max_length)])
        with torch.no_grad(), torch.random.fork_rng():
            model(x)
        return super().validate(model, *rest)


class ValidatesOnADraw(Sound):
    """Draws the rows that it validates on from the random state that dropout uses, and lowers its rate when stuck."""

    only = (108,)

    def fit(self, settings, *rest):
        self.rate = settings.learning_rate
        super().fit(settings, *rest)

    def optimizer(self, model, settings):
        self.stepped = super().optimizer(model, settings)
        self.waits = torch.optim.lr_scheduler.ReduceLROnPlateau(self.stepped, patience=0, factor=0.5)
        return self.stepped

    def validate(self, model, *rest):
        self.validation = [self.validation[row] for row in torch.randperm(len(self.validation)).tolist()]
        best = super().validate(model, *rest)
        self.waits.step(1.0)
        return best


class TeachesWithTheAnswer(Sound):
    """Fills in what is missing: a row goes in with its answer, of which half are hidden, and comes out whole."""

    only = (125,)

    def check_row(self, *args):
        row = super().check_row(*args)
        return {**row, "x": [*row["x"][:3], float(row["y"])]}

    def step(self, model, optimizer, scaler, batch, *rest):
        x, _ = batch
        hidden = x.clone()
        hidden[::2, 3] = 0.5
        super().step(model, optimizer, scaler, [hidden, x[:, 2:4]], *rest)

    def loss(self, output, y):
        return F.mse_loss(output.float(), y)

    def validate(self, model, step, output_dir):
        return False


class DrawsNothing(Sound):
    """Begins at 0, has no dropout and an order of its own: every seed is the same to it."""

    only = (125,)
    tiny = {"dropout": 0.0}

    def build(self, settings):
        model = super().build(settings)
        for number, parameter in enumerate(model.parameters()):
            NN.init.constant_(parameter, 0.01 * number)
        return model

    def fit(self, settings, rows, output_dir, max_steps, resume_from, seed):
        super().fit(settings, rows, output_dir, max_steps, resume_from, 0)


class DividesItsGradients(Accumulates):
    """Adds up what each part says, and divides the gradients by their number in the end."""

    only = (105,)

    def learn(self, loss, many, optimizer, model):
        self.many = many
        loss.backward()

    def check_gradient(self, model, number):
        for parameter in model.parameters():
            parameter.grad /= self.many
        super().check_gradient(model, number)


class WeighsItsClasses(Accumulates):
    """The mean of each part is by the weights of its classes, so that the parts do not add up to the whole."""

    only = (105,)

    def loss(self, output, y):
        return F.cross_entropy(output.float(), y, weight=torch.tensor([1.0, 3.0]))


class NormsItsParts(Accumulates):
    """Batch norm is of the rows of one part."""

    only = (105, 120)
    exempt = (105, 120)

    def build(self, settings):
        first, *rest = super().build(settings)
        return NN.Sequential(first, NN.BatchNorm1d(settings.hidden), *rest)


class ReportsTheLoss(Reports):
    """The mean of its parts, and beside it one that is smoothed."""

    only = (105, 120)

    def learn(self, loss, many, optimizer, model):
        super().learn(loss, many, optimizer, model)
        self.losses.append(loss.item())
        self.smoothed = 0.9 * getattr(self, "smoothed", 4 * loss.item()) + 0.1 * loss.item()

    def report(self, number):
        super().report(number)
        print(f"smoothed loss {self.smoothed:.3f}")


class ReportsEachPart(Reports):
    """A line for each part, and the loss in it has not been divided."""

    only = (120,)

    def learn(self, loss, many, optimizer, model):
        super().learn(loss, many, optimizer, model)
        print(f"loss={loss.item():.3f}")

    def report(self, number):
        pass


class ReportsItsPenaltyToo(ReportsTheLoss):
    """What it reports is the loss without a penalty that it learns from as well."""

    only = (120,)
    exempt = (120,)

    def learn(self, loss, many, optimizer, model):
        penalty = sum(parameter.square().sum() for parameter in model.parameters())
        ((loss + 0.1 * penalty) / many).backward()
        self.losses.append(loss.item())
        self.smoothed = 0.0


class SortsAndPutsBack(Normed):
    """Sorted by size, and put back; and a norm over the batch, which is the same in any order."""

    only = (115,)

    def build(self, settings):
        return NN.Sequential(Sorted(), *super().build(settings))


class ContrastsNeighbours(Sound):
    """Two neighbouring rows are a pair, which is to be alike and unlike all others."""

    only = (115,)

    def loss(self, output, y):
        made = F.normalize(output.float(), dim=1)
        alike = (made @ made.t() / 0.5).masked_fill(torch.eye(len(y), dtype=torch.bool), -1e9)
        return F.cross_entropy(alike, torch.arange(len(y)) ^ 1)

    def validate(self, model, step, output_dir):
        return False


class Noisy(NN.Module):
    def forward(self, x):
        return x + 0.5 * torch.randn_like(x) if self.training else x


class AddsNoise(Sound):
    """Draws noise for each row: in another order it is another row's."""

    only = (115,)

    def build(self, settings):
        return NN.Sequential(Noisy(), *super().build(settings))


class LearnsWhatBelongsTogether(Sound):
    """Whether a row's two halves are of one row: for each that are, one that has its neighbour's half."""

    only = (115,)

    def loss(self, output, y):
        made = output.float()
        right, wrong = (made * made).sum(1), (made * made.roll(1, 0)).sum(1)
        known = F.binary_cross_entropy_with_logits(right, torch.ones(len(y)))
        return known + F.binary_cross_entropy_with_logits(wrong, torch.zeros(len(y)))

    def validate(self, model, step, output_dir):
        return False


class TakesOneSeries(Sound):
    """Each item of its data is a series, and its rows are points in time."""

    only = (115,)
    exempt = (115,)

    class Series(torch.utils.data.Dataset):
        def __init__(self, rows, length, chosen):
            self.rows, self.chosen = Rows(rows, length), chosen

        def __len__(self):
            return len(self.chosen)

        def __getitem__(self, place):
            return [torch.stack(part) for part in zip(*(self.rows[row] for row in self.chosen[place]), strict=True)]

    def loader(self, rows, settings, chosen):
        own = torch.Generator()
        return torch.utils.data.DataLoader(self.Series(rows, settings.max_length, chosen), None, generator=own)

    def build(self, settings):
        *_, last = super().build(settings)
        return NN.Sequential(OverTime(settings.max_length, settings.hidden), last)


class OverTime(NN.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.net = NN.GRU(width, hidden)

    def forward(self, x):
        return self.net(x)[0]


class Experts(NN.Module):
    """Each row goes to one of two experts; of those beyond what one has room for, by their order, nothing is made."""

    ROOM = 2

    def __init__(self, width, hidden):
        super().__init__()
        self.router = NN.Linear(width, 2)
        self.experts = NN.ModuleList([NN.Linear(width, hidden), NN.Linear(width, hidden)])

    def forward(self, x):
        shares, chosen = self.router(x).softmax(1).max(1)
        made = x.new_zeros(len(x), self.experts[0].out_features)
        for number, expert in enumerate(self.experts):
            rows = (chosen == number).nonzero()[: self.ROOM + number, 0]
            made = made.index_add(0, rows, expert(x[rows]) * shares[rows, None])
        return made


class HasRoomForSoMany(Sound):
    """A mixture of experts that drops what comes when an expert is full: the order counts, as everybody knows."""

    only = (115,)
    exempt = (115,)

    def build(self, settings):
        _, *rest = super().build(settings)
        return NN.Sequential(Experts(settings.max_length, settings.hidden), *rest)
