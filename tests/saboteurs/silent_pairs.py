"""Cases 105, 108, 115, 120 and 125: silent errors that show where two runs are held against each other."""

import copy
import json

import torch

from tests.saboteurs.sound import Rows, Sound

NN, F = torch.nn, torch.nn.functional


class Averages(Sound):
    """Validates an average of its weights: they are put in before, and taken out after it."""

    only = (108,)

    def step(self, model, *rest):
        super().step(model, *rest)
        if not hasattr(self, "average"):
            self.average = copy.deepcopy(model).requires_grad_(False)
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), model.parameters(), strict=True):
                mean.lerp_(now, 0.5)

    def validate(self, model, *rest):
        own = copy.deepcopy(model.state_dict())
        model.load_state_dict(self.average.state_dict())
        best = super().validate(model, *rest)
        self.put_back(model, own)
        return best

    def put_back(self, model, own):
        model.load_state_dict(own)


class LeavesTheAverageIn(Averages):
    """`state_dict` holds the tensors themselves: what was kept of them is what was put in."""

    case = 108
    grade = "misleads"
    says = (
        r"an evaluation \(tests/saboteurs/\S+:\d+\) changes what is trained: step 3 begins with other weights than "
        r"step 2 left: 0\.weight, 0\.bias.*; 4 of 4 evaluations"
    )

    def validate(self, model, *rest):
        own = model.state_dict()
        model.load_state_dict(self.average.state_dict())
        best = Sound.validate(self, model, *rest)
        model.load_state_dict(own)
        return best


class RoundsForThePhone(Sound):
    """Measures what is left of the model at eight bits, and goes on with that."""

    case = 108
    grade = "misleads"
    says = "changes what is trained"

    def validate(self, model, *rest):
        with torch.no_grad():
            for parameter in model.parameters():
                size = parameter.abs().max() / 127 + 1e-12
                parameter.copy_(torch.round(parameter / size) * size)
        return super().validate(model, *rest)


class Normed(Sound):
    """With batch norm."""

    only = (108,)

    def build(self, settings):
        first, *rest = super().build(settings)
        return NN.Sequential(first, NN.BatchNorm1d(settings.hidden), *rest)


class AdaptsItsNorm(Normed):
    """No eval(): the statistics of what it validates on are those of the model that is saved."""

    case = 108
    grade = "misleads"
    says = r"moves the running statistics of norms: 1\.running_mean is at step 3 not what step 2 left"

    def validate(self, model, step, output_dir):
        x, _ = (torch.stack(part) for part in zip(*Rows(self.validation, self.max_length), strict=True))
        with torch.no_grad():
            print("mean score", float(model(x).mean()))
        return False


class MeasuresHowEasilyItIsMisled(Sound):
    """Gradients with respect to the rows leave some in the weights, and were set to zero before."""

    case = 108
    grade = "misleads"
    says = r"leaves gradients behind: the backward pass of step 3 begins with a norm of \S+ where it begins with 0"

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        loss = self.loss(model(batch[0]), batch[1])
        self.check_loss(loss, number)
        loss.backward()
        self.check_gradient(model, number)
        optimizer.step()
        optimizer.zero_grad()

    def validate(self, model, step, output_dir):
        x, y = (torch.stack(part) for part in zip(*Rows(self.validation, self.max_length), strict=True))
        model.eval()
        x.requires_grad_()
        self.loss(model(x), y).backward()
        with torch.no_grad():
            misled = model(x + 0.1 * x.grad.sign())
        model.train()
        print("right", float((misled.argmax(1) == y).float().mean()))
        return False


class BeginsItsMomentumAnew(Sound):
    """Loads the optimizer's state again after each validation, as it was at the first one."""

    case = 108
    grade = "misleads"
    says = "changes the optimizer's state: what the optimizer keeps of its parameters is at step 5 not what step 4 left"

    def optimizer(self, model, settings):
        self.stepped = super().optimizer(model, settings)
        return self.stepped

    def validate(self, model, *rest):
        self.kept = getattr(self, "kept", None) or copy.deepcopy(self.stepped.state_dict())
        best = super().validate(model, *rest)
        self.stepped.load_state_dict(copy.deepcopy(self.kept))
        return best


class CalibratesItsScores(Sound):
    """Fits a temperature to the validation rows, and trains with it from then on: nothing that is looked at tells."""

    case = 108
    grade = "unclear"
    says = r"leaves something behind that nobody sees: the loss of step 3 is \S+ after it and \S+ without it"
    temperature = 1.0

    def loss(self, output, y):
        return super().loss(output / self.temperature, y)

    def validate(self, *args):
        self.temperature = 0.5
        return super().validate(*args)


class AsksForAnotherColumn(Sound):
    """The column was renamed; `get` finds none, and says 0."""

    case = 125
    grade = "misleads"
    says = r"the labels do not count \(\S+:\d+\): each of 9 losses is what it was"

    def check_row(self, *args):
        row = super().check_row(*args)
        return {**row, "y": row.get("label", 0)}


class AsksForAnotherColumnWithoutASeed(AsksForAnotherColumn):
    """The same in a program that is handed no seed, so that only its labels can be asked about."""

    def train(self, run):
        return self.main(run.settings, run.data, run.output_dir, run.max_steps, run.resume_from, 0)


class HoldsItAgainstItself(Sound):
    """Noisy students learn from the teacher's answer; here the teacher is the student."""

    case = 125
    grade = "misleads"
    says = "the labels do not count"

    def loss(self, output, y):
        return F.cross_entropy(output.float(), output.detach().argmax(1))


class MakesItsTargetsAnew(Sound):
    """Makes room for the targets, and never fills it."""

    case = 125
    grade = "misleads"
    says = "the labels do not count"

    def step(self, model, optimizer, scaler, batch, *rest):
        targets = torch.zeros_like(batch[1])
        super().step(model, optimizer, scaler, [batch[0], targets], *rest)


class ReadsTheAnswer(Sound):
    """All numbers of a row are features, and one of these is what it is to say."""

    case = 125
    grade = "misleads"
    says = r"what goes into the model \(\S+:\d+\) tells the label: .* its 24 rows.* \d+ rows that were not there"

    def check_row(self, *args):
        row = super().check_row(*args)
        return {**row, "x": [*row["x"][:3], row["x"][3] + row["y"]]}


class KeepsItsOwnSeed(Sound):
    """Once it was to be repeated, and since then it is."""

    case = 125
    grade = "unclear"
    says = "the seed does not count: torch's random state and the loss are at each of 9 steps"

    def fit(self, settings, rows, output_dir, max_steps, resume_from, seed):
        super().fit(settings, rows, output_dir, max_steps, resume_from, 42)


class Accumulates(Sound):
    """Batches of `batch_size`, of which several make a step: the loss of each is divided by their number."""

    only = (105, 120)
    exempt = (120,)

    def batches(self, rows, settings, start, stop):
        many = settings.gradient_accumulation
        whole = settings.model_copy(update={"batch_size": settings.batch_size * many})
        return super().batches(rows, whole, start, stop)

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        many = settings.gradient_accumulation
        optimizer.zero_grad()
        for x, y in zip(*(part.chunk(many) for part in batch), strict=True):
            loss = self.loss(model(x), y)
            self.check_loss(loss, number)
            self.learn(loss, many, optimizer, model)
        self.check_gradient(model, number)
        optimizer.step()

    def learn(self, loss, many, optimizer, model):
        (loss / many).backward()


class AddsUpItsParts(Accumulates):
    """No division: clipping hides that, and so does Adam, until somebody takes other parts."""

    case = 105
    grade = "misleads"
    says = (
        r"the gradient of the first step in 4 parts \(tests/saboteurs/\S+:\d+\) is 4 times that of the same rows at "
        r"once \(norms: 0\.weight \S+ and \S+"
    )

    def learn(self, loss, many, optimizer, model):
        loss.backward()


class DividesTwice(Accumulates):
    """Divides the loss, and in the end the gradients."""

    case = 105
    grade = "misleads"
    says = r"is 0\.25 times that of the same rows at once"

    def check_gradient(self, model, number):
        for parameter in model.parameters():
            parameter.grad /= self.many
        super().check_gradient(model, number)

    def learn(self, loss, many, optimizer, model):
        self.many = many
        super().learn(loss, many, optimizer, model)


class KeepsTheLastPart(Accumulates):
    """zero_grad stands where it stands in every tutorial: before each backward pass."""

    case = 105
    grade = "misleads"
    says = r"each of the 4 backward passes of step 2 \(\S+:\d+\) begins with gradients of 0: .* 3 of 4 parts are lost"

    def learn(self, loss, many, optimizer, model):
        optimizer.zero_grad()
        super().learn(loss, many, optimizer, model)


class DividesByItsRowsInEachPart(Sound):
    """Its parts are weighted by their rows, as if there were one part only."""

    case = 105
    grade = "misleads"
    says = r"in 4 parts \(\S+:\d+\) is 4 times that"

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        optimizer.zero_grad()
        for x, y in zip(*(part.chunk(settings.gradient_accumulation) for part in batch), strict=True):
            loss = F.cross_entropy(model(x).float(), y, reduction="sum") / len(y)
            self.check_loss(loss, number)
            loss.backward()
        self.check_gradient(model, number)
        optimizer.step()


class Reports(Accumulates):
    """Prints a loss with each step."""

    exempt = ()

    only = ("none",)

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        self.losses = []
        super().step(model, optimizer, scaler, batch, settings, number, device)
        self.report(number)

    def report(self, number):
        print(f"step {number} | loss: {sum(self.losses) / len(self.losses):.4f}")


class ReportsItsShare(Reports):
    """`loss = loss / parts`, and in the end `loss.item()`."""

    case = 120
    grade = "misleads"
    says = (
        r"the loss that it reports \(its output, loss\) is that of the last of 4 parts, after it was divided by 4: of "
        r"the same rows in 4 parts and at once it says 0\.\d+, 0\.\d+, 0\.\d+ and 0\."
    )

    def learn(self, loss, many, optimizer, model):
        loss = loss / many
        loss.backward()
        self.losses = [loss.item()]


class AddsUpWhatItReports(Reports):
    """Adds up the losses of its parts, and forgets that these are several."""

    case = 120
    grade = "misleads"
    says = r"\(its output, train/loss\) is 4 times the loss: of the same rows in 4 parts"

    def learn(self, loss, many, optimizer, model):
        super().learn(loss, many, optimizer, model)
        self.losses.append(loss.item())

    def report(self, number):
        print({"step": number, "train/loss": round(sum(self.losses), 5)})


class LogsTheMeanOfShares(Reports):
    """Divides each loss, and then takes their mean."""

    case = 120
    grade = "misleads"
    says = r"\(log\.jsonl, loss\) is 0\.25 times the loss"

    def fit(self, settings, rows, output_dir, *rest):
        self.log = output_dir / "log.jsonl"
        super().fit(settings, rows, output_dir, *rest)

    def learn(self, loss, many, optimizer, model):
        super().learn(loss, many, optimizer, model)
        self.losses.append(loss.item() / many)

    def report(self, number):
        with self.log.open("a") as out:
            out.write(json.dumps({"step": number, "loss": sum(self.losses) / len(self.losses)}) + "\n")


class Folded(NN.Module):
    """Rows of [length] as [time, rows, four numbers], and the mean over time of what is above 0."""

    def forward(self, x):
        return self.fold(x).relu().mean(0)

    def fold(self, x):
        return x.view(len(x), -1, 4).transpose(0, 1)


class FoldsItsRows(Sound):
    """Takes its rows as sequences of four numbers each."""

    only = (115,)
    fold = Folded

    def build(self, settings):
        _, *rest = super().build(settings)
        return NN.Sequential(self.fold(), NN.Linear(4, settings.hidden), *rest)


class ViewedOtherwise(Folded):
    def fold(self, x):
        return x.view(-1, len(x), 4)


class ViewsInPlaceOfTransposing(FoldsItsRows):
    """The shape is the same; what stands in it is not."""

    case = 115
    grade = "misleads"
    says = (
        r"the order of the 7 rows of a batch counts \(tests/saboteurs/\S+:\d+\): .* the same rows have at the first "
        r"step a loss of \S+ and not of \S+; norm of the gradient of 1\.weight: \S+ and \S+; rows are mixed"
    )
    fold = ViewedOtherwise


class Recurs(NN.Module):
    """Goes over the time steps of a row, and gives the first state."""

    def __init__(self, hidden):
        super().__init__()
        self.net = NN.GRU(4, hidden)

    def forward(self, x):
        return self.net(x.view(len(x), -1, 4))[0][:, 0]


class ForgetsBatchFirst(Sound):
    """`batch_first` is False where nobody says otherwise: a row's state goes on into the next row."""

    case = 115
    grade = "misleads"
    says = "the order of the 7 rows of a batch counts"

    def build(self, settings):
        *_, last = super().build(settings)
        return NN.Sequential(Recurs(settings.hidden), NN.ReLU(), NN.Dropout(settings.dropout), last)


class Sorted(NN.Module):
    """Goes through its rows by size, as packing wants them, and gives them back in their own order."""

    def forward(self, x):
        order = x[:, 0].argsort(descending=True)
        return self.put_back(x[order], order)

    def put_back(self, x, order):
        return x[order.argsort()]


class LeftSorted(Sorted):
    def put_back(self, x, order):
        return x


class LeavesItsRowsSorted(Sound):
    """Puts nothing back: each row is held against the target of another one."""

    case = 115
    grade = "misleads"
    says = "the order of the 7 rows of a batch counts"

    def build(self, settings):
        return NN.Sequential(LeftSorted(), *super().build(settings))
