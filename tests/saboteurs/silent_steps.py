"""Cases 110 to 122: silent errors of order, schedules and clipping."""

import random
from pathlib import Path

import torch

from tests.saboteurs.sound import Rows, Sound


class Epochs(Sound):
    """Goes over its rows epoch by epoch, each in another order."""

    only = (111, 113, 117)

    def batches(self, rows, settings, start, stop):
        data, per_epoch = Rows(rows, settings.max_length), -(-len(rows) // settings.batch_size)
        for number in range(start, stop):
            if number == start or number % per_epoch == 0:
                loader = iter(self.loader(data, settings, number // per_epoch))
                for _ in range(number % per_epoch):
                    next(loader)
            yield next(loader)

    def loader(self, data, settings, epoch):
        own = torch.Generator().manual_seed(epoch)
        return torch.utils.data.DataLoader(data, settings.batch_size, shuffle=True, generator=own)


class BeginsItsOrderAnew(Epochs):
    """The generator is seeded with the run's seed, in each epoch."""

    case = 111
    grade = "misleads"
    says = r"its epochs are all alike \(\S+:\d+\): batch 4 has the rows of batch 1 .*; what shuffles them begins anew"

    def loader(self, data, settings, epoch):
        return super().loader(data, settings, 0)


class NeverTellsTheEpoch(Epochs):
    """A distributed sampler has to be told the epoch."""

    case = 111
    grade = "misleads"
    says = "its epochs are all alike"

    def loader(self, data, settings, epoch):
        sampler = torch.utils.data.DistributedSampler(data, num_replicas=1, rank=0)
        return torch.utils.data.DataLoader(data, settings.batch_size, sampler=sampler)


class BatchesMadeOnce(Epochs):
    """Groups rows of one label into batches, once, and shuffles within them."""

    case = 111
    grade = "misleads"
    says = "its epochs are all alike"

    def loader(self, data, settings, epoch):
        order = sorted(range(len(data)), key=lambda row: int(data[row][1]))
        groups = [order[at : at + settings.batch_size] for at in range(0, len(order), settings.batch_size)]
        shuffled = [random.Random(epoch).sample(group, len(group)) for group in groups]
        return torch.utils.data.DataLoader(data, batch_sampler=shuffled)


class ValidatesOnItsTrainingFile(Sound):
    """The same path in both places."""

    case = 110
    grade = "misleads"
    says = r"each of the 24 rows that it evaluates on \(\S+:\d+\) is one that it trains on, though it was given others"

    def fit(self, settings, rows, *rest):
        self.validation = rows
        super().fit(settings, rows, *rest)


class SplitsTwice(Sound):
    """Holds the last rows out of an order of its own, and trains on all that it was given."""

    case = 110
    grade = "misleads"
    says = "each of the 8 rows that it evaluates on"

    def fit(self, settings, rows, *rest):
        order = random.Random(0).sample(range(len(rows)), len(rows))
        self.validation = [rows[row] for row in order[-8:]]
        super().fit(settings, rows, *rest)


class TrainsOnBoth(Sound):
    """Puts training and validation rows together for the final model, and goes on validating."""

    case = 110
    grade = "misleads"
    says = "each of the 16 rows that it evaluates on"

    def fit(self, settings, rows, *rest):
        self.validation = [self.validation[row] for row in range(min(16, len(self.validation)))]
        super().fit(settings, [*self.validation, *(rows[row] for row in range(8))], *rest)


class HasNoOtherRows(ValidatesOnItsTrainingFile):
    """There is no setting for other rows, and none are held out: that may be meant."""

    fields = {"validation_data": ""}
    grade = "unclear"
    says = "what is measured is how much was learnt by heart"


class Stream(torch.utils.data.IterableDataset):
    """Rows one after the other, as from a socket; `share` says which of two workers gets one."""

    def __init__(self, rows, share=None):
        self.rows, self.share = rows, share

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        for number in self.order():
            if self.share is None or worker is None or self.share(number, worker):
                yield self.rows[number]

    def order(self):
        return range(len(self.rows))


class ReadsAStream(Epochs):
    """Each worker takes its share of a stream."""

    only = (111, 113)
    exempt = (111,)

    def loader(self, data, settings, epoch):
        stream = Stream(data, lambda number, worker: number % worker.num_workers == worker.id)
        return torch.utils.data.DataLoader(stream, settings.batch_size, num_workers=settings.num_workers)

    def batches(self, rows, settings, start, stop):
        data = Rows(rows, settings.max_length)
        batches = (batch for epoch in range(10**6) for batch in self.loader(data, settings, epoch))
        for number in range(stop):
            batch = next(batches)
            if number >= start:
                yield batch


class EachReadsAll(ReadsAStream):
    """No worker knows that there are others."""

    case = 113
    grade = "misleads"
    says = r"of the first 24 rows that it trains on \(\S+:\d+\), \d+ came before: each of the processes reads all"

    def loader(self, data, settings, epoch):
        return torch.utils.data.DataLoader(Stream(data), settings.batch_size, num_workers=settings.num_workers)


class SharesByTheWrongNumber(ReadsAStream):
    """Takes its share by rank: of one rank, each worker's share is all."""

    case = 113
    grade = "misleads"
    says = "each of the processes reads all"
    rank, world = 0, 1

    def loader(self, data, settings, epoch):
        stream = Stream(data, lambda number, worker: number % self.world == self.rank)
        return torch.utils.data.DataLoader(stream, settings.batch_size, num_workers=settings.num_workers)


class Shuffled(Stream):
    """Each with an order of its own, by its own seed."""

    def order(self):
        worker = torch.utils.data.get_worker_info()
        return random.Random(worker.id if worker else 0).sample(range(len(self.rows)), len(self.rows))


class EachShufflesAll(ReadsAStream):
    """Two workers go through all rows, each in another order."""

    case = 113
    grade = "misleads"
    says = "each of the processes reads all"

    def loader(self, data, settings, epoch):
        return torch.utils.data.DataLoader(Shuffled(data), settings.batch_size, num_workers=settings.num_workers)


class NeverShuffles(Epochs):
    """`shuffle` is False where nobody says otherwise."""

    case = 111
    grade = "unclear"
    says = "the rows are taken as they stand"

    def loader(self, data, settings, epoch):
        return torch.utils.data.DataLoader(data, settings.batch_size)


class Scheduled(Epochs):
    """A cosine that comes to 0 with the last step."""

    def fit(self, settings, rows, output_dir, max_steps, *rest):
        self.total = max_steps
        super().fit(settings, rows, output_dir, max_steps, *rest)

    def optimizer(self, model, settings):
        optimizer = super().optimizer(model, settings)
        self.schedule = self.plan(optimizer)
        return optimizer

    def plan(self, optimizer):
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.total)

    def step(self, *args):
        super().step(*args)
        self.schedule.step()


class StepsWithEachPart(Scheduled):
    """Stepped after each backward pass, of which there are several for one step."""

    case = 117
    grade = "misleads"
    says = r"trained with gradient_accumulation = 4.*CosineAnnealingLR is stepped \(\S+\) 36 times in 9 optimizer steps"

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        optimizer.zero_grad()
        for x, y in zip(*(part.chunk(settings.gradient_accumulation) for part in batch), strict=True):
            loss = self.loss(model(x), y) / settings.gradient_accumulation
            self.check_loss(loss, number)
            loss.backward()
            if number <= self.total:
                self.schedule.step()
        self.check_gradient(model, number)
        optimizer.step()


class NeverStepsIt(Scheduled):
    """Made, saved, restored, and never stepped."""

    case = 117
    grade = "misleads"
    says = r"CosineAnnealingLR is made \(\S+:\d+\) and never stepped: the learning rate is 0.01 in all of 9 steps"

    def step(self, *args):
        Epochs.step(self, *args)


class SchedulesAnother(Scheduled):
    """The optimizer is made anew for the model as it is after loading; the schedule keeps the first."""

    case = 117
    grade = "misleads"
    says = r"is stepped 9 times, and its optimizer never: the one that trains \(\S+:\d+\) is another"

    def optimizer(self, model, settings):
        super().optimizer(model, settings)
        return Sound.optimizer(self, model, settings)


class StepsItFirst(Scheduled):
    """The schedule at the head of the step, as it was done before PyTorch 1.1."""

    case = 117
    grade = "unclear"
    says = (
        r"CosineAnnealingLR is stepped \(tests/\S+:\d+\) before the optimizer steps \(tests/\S+:\d+\) for the first "
        r"time: the schedule's first learning rate, 0\.01, is never used"
    )

    def step(self, *args):
        self.schedule.step()
        Epochs.step(self, *args)


class CountsEpochsAsSteps(Scheduled):
    """Falls to 0 in as many steps as an epoch has."""

    case = 117
    grade = "misleads"
    says = r"the learning rate is 0 from step 5 of 9 on"

    def plan(self, optimizer):
        return torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=4)


class Clips(Sound):
    """Clips to a norm that every gradient exceeds."""

    LIMIT = 0.01
    only = (119,)

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        optimizer.zero_grad()
        loss = self.loss(model(batch[0]), batch[1])
        self.check_loss(loss, number)
        self.learn(loss, model, optimizer)

    def learn(self, loss, model, optimizer):
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), self.LIMIT)
        optimizer.step()


class ClipsBeforeTheBackwardPass(Clips):
    """There is nothing yet to be clipped."""

    case = 119
    grade = "misleads"
    says = r"is taken with a gradient of norm \S+, though it was clipped to 0.01"

    def learn(self, loss, model, optimizer):
        torch.nn.utils.clip_grad_norm_(model.parameters(), self.LIMIT)
        loss.backward()
        optimizer.step()


class ClipsAfterTheStep(Clips):
    """The step is over."""

    case = 119
    grade = "misleads"
    says = r"is taken with a gradient of norm \S+, though it was clipped"

    def learn(self, loss, model, optimizer):
        loss.backward()
        optimizer.step()
        torch.nn.utils.clip_grad_norm_(model.parameters(), self.LIMIT)


class ClipsWithAnIterator(Clips):
    """`model.parameters()` is an iterator: in the first step it is gone through."""

    case = 119
    grade = "misleads"
    says = r"clip_grad_norm_ \(\S+:\d+\) is given no parameter at step 2"

    def learn(self, loss, model, optimizer):
        loss.backward()
        self.parameters = getattr(self, "parameters", None) or model.parameters()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.LIMIT)
        optimizer.step()


class ClipsWhatIsScaled(Sound):
    """Clips before the scaler has taken its factor out of the gradients."""

    case = 119
    grade = "misleads"
    says = r"while the gradient scaler has them multiplied by 1024.* call scaler\.unscale_"
    tiny = {"precision": "fp16"}

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        optimizer.zero_grad()
        with torch.autocast(device, torch.float16, enabled=settings.precision == "fp16"):
            output = model(batch[0])
        scaler.scale(self.loss(output, batch[1])).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()


class LoadsLeniently(Sound):
    """The names in the file have no prefix, those of the model have one; `strict=False` says nothing of that."""

    case = 122
    grade = "misleads"
    says = r"nothing of the base model arrives: all of 4 parameters \(0\.bias, 0\.weight"

    def build(self, settings):
        model = super().build(settings.model_copy(update={"base_model": None}))
        if settings.base_model is not None:
            self.fill(model, self.load_base(Path(settings.base_model) / "base.pt"))
        return model

    def fill(self, model, weights):
        torch.nn.ModuleDict({"model": model}).load_state_dict(weights, strict=False)


class LoadsTheWrapper(LoadsLeniently):
    """Takes the file's outermost dictionary for the weights."""

    def fill(self, model, weights):
        model.load_state_dict({"state_dict": weights}, strict=False)


class PicksWhatFits(LoadsLeniently):
    """Keeps what has the same name and shape, and does not count what that is."""

    def fill(self, model, weights):
        own = model.state_dict()
        own.update({name: tensor for name, tensor in weights.items() if f"module.{name}" in own})
        model.load_state_dict(own)


class MakesItAnew(LoadsLeniently):
    """From the configuration alone; the small model to try it with was made from the same, and by the same seed."""

    def build(self, settings):
        torch.manual_seed(1)
        return Sound.build(self, settings.model_copy(update={"base_model": None}))


class InitialisesAfterwards(LoadsLeniently):
    """Loads, and then initialises all layers."""

    def fill(self, model, weights):
        model.load_state_dict(weights)
        for layer in model:
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
