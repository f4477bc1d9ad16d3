"""Sound programs that look as if they erred in silence: cases 101 to 122 must pass them."""

import copy
import hashlib
from pathlib import Path

import torch

from tests.saboteurs.silent import NN, Adapted, Backbone, F
from tests.saboteurs.silent_steps import Clips, Epochs, Scheduled
from tests.saboteurs.sound import Reject, Sound


class LowRank(Sound):
    """An adapter whose second half begins at 0: in the first step the first half has a gradient of 0."""

    only = (101, 109)

    def build(self, settings):
        model = super().build(settings)
        model[0] = Adapted(model[0])
        return model


class UsesOneHead(Sound):
    """Two heads of which one is for another task, a table of which few rows are used, and a token that never is."""

    only = (101, 103)

    class Model(NN.Module):
        def __init__(self, layers):
            super().__init__()
            self.mask_token = NN.Parameter(torch.zeros(1, 4))
            self.layers, self.other, self.table = layers, NN.Linear(2, 2), NN.Embedding(64, 2)

        def forward(self, x):
            return self.layers(x) + self.table(torch.zeros(len(x), dtype=torch.long))

        def __getitem__(self, place):
            return self.layers[place]

    def build(self, settings):
        return self.Model(super().build(settings))


class BeginsAtZero(Sound):
    """Its last layer is 0 at first, with a bias of a half each: in the first step every row gets 0.5 and 0.5."""

    only = (101, 103, 104)

    def build(self, settings):
        model = super().build(settings)
        NN.init.zeros_(model[3].weight)
        NN.init.constant_(model[3].bias, 0.5)
        return model


class RanksPairs(Sound):
    """Each row's score against that of every other row."""

    only = (103, 104)
    exempt = (104,)

    def build(self, settings):
        return NN.Sequential(*super().build(settings)[:3], NN.Linear(settings.hidden, 1))

    def loss(self, output, y):
        scores = output.float()
        return F.softplus(-(scores - scores.t())[y[:, None] > y]).sum() / len(y)

    def validate(self, model, step, output_dir):
        return False


class LogSoftmaxTwice(Sound):
    """The logarithm of a softmax is the same after another softmax; and targets may be distributions."""

    only = (104,)

    def loss(self, output, y):
        targets = F.one_hot(y, 2).float() * 0.8 + 0.1
        return F.cross_entropy(F.log_softmax(output.float(), dim=1), targets)


class LogOfASoftmax(Sound):
    """The logarithm is taken where the loss wants it."""

    only = (104,)

    def loss(self, output, y):
        return F.nll_loss(torch.log(torch.softmax(output.float(), dim=-1)), y)


class ZeroesWhenItHasStepped(Sound):
    """Sets gradients to zero after the step, in place."""

    only = (106, 109)
    exempt = (109,)

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        parts = list(zip(*(part.chunk(min(settings.gradient_accumulation, len(part))) for part in batch), strict=True))
        for x, y in parts:
            loss = self.loss(model(x), y) / len(parts)
            self.check_loss(loss, number)
            loss.backward()
        self.check_gradient(model, number)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)


class ManyDrawsOfDropout(Sound):
    """Evaluates with dropout on, on purpose: how far the answers differ is what it wants to know."""

    only = (107,)

    def validate(self, model, step, output_dir):
        rows = torch.stack([torch.tensor(row["x"]) for row in self.validation])
        model.eval()
        for module in model.modules():
            module.train(isinstance(module, NN.Dropout))
        with torch.no_grad(), torch.random.fork_rng():
            draws = torch.stack([model(F.pad(rows, (0, self.max_length - 4))) for _ in range(4)])
        print("spread", float(draws.std(0).mean()))
        model.train()
        return False


class LearnsFromItself(Sound):
    """Before each step the model itself, in training mode, says without gradients what the noisy rows are to be."""

    only = (103, 107)

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        with torch.no_grad():
            self.wanted = model(batch[0]).softmax(1)
        super().step(model, optimizer, scaler, batch, settings, number, device)

    def loss(self, output, y):
        wanted = self.wanted if len(self.wanted) == len(output) else self.wanted[: len(output)]
        return F.cross_entropy(output.float(), y) + 0.1 * F.cross_entropy(output.float(), wanted)


class KeepsItsBackboneStill(Backbone):
    """The frozen backbone stays in evaluation mode, whatever the whole is put into."""

    only = (101, 107, 109)

    def step(self, model, *rest):
        model[0].eval()
        super().step(model, *rest)


class HasATeacher(Sound):
    """A frozen copy with a norm is the average of the model, moved by hand, and asked in each step."""

    only = (101, 106, 107, 109)

    def build(self, settings):
        model = super().build(settings)
        model.insert(1, NN.BatchNorm1d(settings.hidden))
        self.teacher = copy.deepcopy(model).requires_grad_(False)
        return model

    def step(self, model, optimizer, scaler, batch, *rest):
        with torch.no_grad():
            self.teacher(batch[0])
        super().step(model, optimizer, scaler, batch, *rest)
        with torch.no_grad():
            for mine, its in zip(model.parameters(), self.teacher.parameters(), strict=True):
                its.lerp_(mine, 0.1)


class LooksAtBoth(Sound):
    """Validates on rows that were held out, and on some that it trains on, to see how far apart they are."""

    only = (107, 110)

    def fit(self, settings, rows, *rest):
        if self.validation:
            both = [self.validation, rows]
            self.validation = [part[row] for part in both for row in range(min(16, len(part)))]
        super().fit(settings, rows, *rest)


class DrawsByWeight(Epochs):
    """Rows are drawn with weights, some twice and some not at all."""

    only = (111,)

    def loader(self, data, settings, epoch):
        own = torch.Generator().manual_seed(epoch)
        weights = [1.0 + row % 3 for row in range(len(data))]
        sampler = torch.utils.data.WeightedRandomSampler(weights, len(data), generator=own)
        return torch.utils.data.DataLoader(data, settings.batch_size, sampler=sampler)


class TellsTheEpoch(Epochs):
    """A distributed sampler that is told the epoch; the last batch, if it is not full, is dropped."""

    only = (111,)

    def loader(self, data, settings, epoch):
        sampler = torch.utils.data.DistributedSampler(data, num_replicas=1, rank=0)
        sampler.set_epoch(epoch)
        return torch.utils.data.DataLoader(data, settings.batch_size, sampler=sampler, drop_last=len(data) % 8 == 0)


class WarmsUpThenFalls(Scheduled):
    """One schedule after the other, both inside of a third."""

    only = (117,)

    def plan(self, optimizer):
        kinds = torch.optim.lr_scheduler
        up = kinds.LinearLR(optimizer, 1e-8, 1.0, total_iters=2)
        return kinds.SequentialLR(optimizer, [up, kinds.CosineAnnealingLR(optimizer, self.total)], [2])


class WaitsForAPlateau(Scheduled):
    """Stepped with the loss, and keeps its learning rate as long as that falls."""

    only = (117,)

    def plan(self, optimizer):
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=50)

    def step(self, *args):
        Epochs.step(self, *args)
        self.schedule.step(1.0)


class FallsWithEachEpoch(Scheduled):
    """Stepped once an epoch."""

    only = (117,)

    def plan(self, optimizer):
        return torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

    def step(self, *args):
        Epochs.step(self, *args)

    def loader(self, data, settings, epoch):
        if epoch:
            self.schedule.step()
        return super().loader(data, settings, epoch)


class ClipsUnscaled(Sound):
    """With a gradient scaler, and in order."""

    only = (101, 106, 117, 119)
    tiny = {"precision": "fp16"}


class MeasuresWithoutALimit(Clips):
    """Clips to infinity, to know the norm; and then each layer by itself."""

    only = (119,)

    def learn(self, loss, model, optimizer):
        loss.backward()
        print("norm", float(torch.nn.utils.clip_grad_norm_(model.parameters(), float("inf"))))
        for parameter in model.parameters():
            torch.nn.utils.clip_grad_norm_(parameter, self.LIMIT)
        optimizer.step()


class LoadsItsBody(Sound):
    """Begins with the base model's first layer, and with a head of its own."""

    only = (122,)

    def build(self, settings):
        model = super().build(settings.model_copy(update={"base_model": None}))
        if settings.base_model is not None:
            weights = self.load_base(Path(settings.base_model) / "base.pt")
            body = {name: tensor for name, tensor in weights.items() if name.startswith("0.")}
            told = model.load_state_dict(body, strict=False)
            print("new:", told.missing_keys)
        return model


class ChecksItsBaseModel(Sound):
    """Holds the base model against the checksum that was written beside it."""

    only = (122,)

    def make_model(self, folder):
        model = super().make_model(folder)
        (model / "base.sha256").write_text(hashlib.sha256((model / "base.pt").read_bytes()).hexdigest())
        return model

    def check_base_model(self, settings):
        super().check_base_model(settings)
        if settings.base_model is not None:
            model = Path(settings.base_model)
            if hashlib.sha256((model / "base.pt").read_bytes()).hexdigest() != (model / "base.sha256").read_text():
                raise Reject(f"base_model: {model / 'base.pt'} is not what was saved")


class FreezesItsBody(LoadsItsBody):
    """The first layer is the base model's and stays so."""

    only = (109, 122)

    def build(self, settings):
        model = super().build(settings)
        model[0].requires_grad_(False)
        return model
