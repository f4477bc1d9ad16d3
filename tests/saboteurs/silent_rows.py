"""Cases 102 to 124: silent errors of rows, targets, dtypes and what is saved."""

import copy
import itertools
import random
import types

import numpy as np
import torch
from safetensors.torch import save_file

from tests.saboteurs.silent import Adapted
from tests.saboteurs.silent_steps import Epochs, Scheduled
from tests.saboteurs.sound import Rows, Sound

NN, F = torch.nn, torch.nn.functional


class Texts(torch.utils.data.Dataset):
    """Texts as token ids, with targets of which only those of the answer count."""

    def __init__(self, program, rows):
        self.program, self.rows = program, rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        row = self.rows[index]
        prompt = [3 + round(100 * abs(number)) % 50 for number in row["x"]] * (1 + index % 4)
        return self.program.encode(prompt, [60 + row["y"], 1])


class Answers(Sound):
    """A language model that learns the answers to prompts; 0 is padding, 1 ends an answer, 2 a word that is masked."""

    LENGTH = 20  # of a text, in tokens, that the model takes
    only = (102,)
    tiny = {"dropout": 0.0}

    def build(self, settings):
        return NN.Sequential(NN.Embedding(64, settings.hidden), NN.Linear(settings.hidden, 64))

    def encode(self, prompt, answer):
        """Tokens, and the target that belongs to each."""
        tokens = (prompt + answer)[-self.LENGTH :]
        return tokens, [-100] * (len(tokens) - len(answer)) + answer

    def loader(self, rows, settings, chosen):
        own = torch.Generator()
        return torch.utils.data.DataLoader(
            Texts(self, rows), batch_sampler=chosen, collate_fn=self.collate, generator=own
        )

    def collate(self, texts):
        longest = max(len(tokens) for tokens, _ in texts)
        padded = [
            (tokens + [0] * (longest - len(tokens)), targets + [-100] * (longest - len(targets)))
            for tokens, targets in texts
        ]
        x, y = (torch.tensor(part) for part in zip(*padded, strict=True))
        return x, y

    def loss(self, output, y):
        """Each position says the next token: a sum over those that count, by their number."""
        scores, targets = output.float()[:, :-1].flatten(0, 1), y[:, 1:].flatten()
        return F.cross_entropy(scores, targets, reduction="sum") / (targets != -100).sum().clamp(1)

    def validate(self, model, step, output_dir):
        return False


class NeverFindsItsTemplate(Answers):
    """What begins an answer is another token in the middle of a text than at its start: everything is the prompt."""

    case = 102
    grade = "misleads"
    says = r"no target counts: in each of 9 backward passes cross_entropy \(\S+:\d+\) ignores all of its targets"

    def encode(self, prompt, answer):
        tokens, _ = super().encode(prompt, answer)
        begin = tokens.index(2) if 2 in tokens else len(tokens)
        return tokens, [-100] * begin + tokens[begin:]


class CutsAnswersOff(Answers):
    """Texts are cut at their end, where the answer stands."""

    LENGTH = 14
    case = 102
    grade = "unclear"
    says = r"none of the targets of \d+ of 72 texts counts in cross_entropy .*; \d+ of them fill the whole length"

    def encode(self, prompt, answer):
        tokens = (prompt + answer)[: self.LENGTH]
        return tokens, ([-100] * len(prompt) + answer)[: self.LENGTH]


class CutsWholeBatchesOff(CutsAnswersOff):
    """The same, with batches of texts of one length, as is quick."""

    grade = "misleads"
    says = r"targets of step \d are ignored by cross_entropy \(\S+\), and the loss is 0, where in other batches"

    def batches(self, rows, settings, start, stop):
        groups = [[row for row in range(len(rows)) if row % 4 == kind] for kind in range(4)]
        chosen = [(groups[step % 4] * 8)[: settings.batch_size] for step in range(start, stop)]
        return self.loader(rows, settings, chosen)


class MasksByTheLongestPrompt(Answers):
    """Masks as many tokens as the longest prompt of the batch has, in every text."""

    case = 102
    grade = "unclear"
    says = r"none of the targets of \d+ of 72 texts counts"

    def collate(self, texts):
        x, y = super().collate(texts)
        y[:, : int((y == -100).sum(1).min()) if len(y) == 1 else self.longest(texts)] = -100
        return x, y

    def longest(self, texts):
        """Of the prompts of all but the longest few, as somebody thought that it would do."""
        return sorted(len(tokens) - 2 for tokens, _ in texts)[len(texts) // 3]


class MasksWords(Answers):
    """Masks a word here and there, and learns these: a short text has none now and then. Sound."""

    def collate(self, texts):
        x, _ = super().collate(texts)
        own = random.Random(int(x.sum()))
        chosen = torch.tensor([[own.random() < 0.15 and int(token) > 0 for token in row] for row in x])
        return x.masked_fill(chosen, 2), x.masked_fill(~chosen, -100)


class KnowsItsEnd(Answers):
    """Its configuration says which token ends a text, as those of transformers do. Sound."""

    END = 1

    def build(self, settings):
        model = super().build(settings)
        model.config = types.SimpleNamespace(eos_token_id=self.END)
        return model


class NeverLearnsToStop(KnowsItsEnd):
    """Padding is the end of a text, as many a model has no other token for it, and is ignored by its number."""

    case = 102
    grade = "unclear"
    says = r"72 of 72 pieces of text that cross_entropy \(\S+\) learns are followed by the end of a text"

    def collate(self, texts):
        x, y = super().collate(texts)
        x = x.masked_fill(x == 0, self.END)
        return x, y.masked_fill(x == self.END, -100)


class PadsWithItsEnd(KnowsItsEnd):
    """The same, and padding is ignored by its place. Sound."""

    def collate(self, texts):
        x, y = super().collate(texts)
        return x.masked_fill(x == 0, self.END), y


class MasksWordsBeforeItsEnd(MasksWords, KnowsItsEnd):
    """Says which words were masked; the end of a text is never one. Sound."""


class LearnsOneTaskABatch(Sound):
    """Two heads: a batch has labels for one of them, and all of the other's are ignored. Sound."""

    only = (102,)
    number = 0

    def loss(self, output, y):
        self.number += 1
        first, second = y, torch.full_like(y, -100)
        tasks = (first, second) if self.number % 2 else (second, first)
        return sum(F.cross_entropy(output.float(), task, reduction="sum") for task in tasks) / len(y)


class LearnsTheWholeText(Answers):
    """Every token of a text counts, as in pre-training. Sound."""

    def encode(self, prompt, answer):
        tokens, _ = super().encode(prompt, answer)
        return tokens, tokens


class Kept(torch.utils.data.Dataset):
    """Rows that are read once and stay in memory; `give` makes of one of them what is learnt from."""

    def __init__(self, rows, give):
        self.x, self.y, self.give = [x for x, _ in rows], [y for _, y in rows], give
        self.arrays = np.stack([x.numpy() for x in self.x])
        self.own, self.filled, self.buffer = np.random.default_rng(0), {}, torch.zeros(len(self.x[0]))

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.give(self, index), self.y[index]


class KeepsItsRows(Epochs):
    """Each row is a new tensor, with noise from torch's generator."""

    only = (112,)

    def batches(self, rows, *rest):
        self.kept = Kept(list(Rows(rows, self.max_length)), self.give)
        return super().batches(rows, *rest)

    def loader(self, data, settings, epoch):
        own = torch.Generator().manual_seed(epoch)
        return torch.utils.data.DataLoader(
            self.kept, settings.batch_size, shuffle=True, generator=own, collate_fn=self.collate
        )

    def collate(self, rows):
        return torch.utils.data.default_collate(rows)

    def give(self, data, index):
        return data.x[index] + 0.01 * torch.randn(self.max_length)


class ScalesInPlace(KeepsItsRows):
    """`/=` writes to what is stored."""

    case = 112
    grade = "misleads"
    says = r"rows \d+, .* of Kept \(\S+:\d+\), read again .* are others, and Kept\.x\[\d+\] is \[\S+, .*where it was \["

    def give(self, data, index):
        x = data.x[index]
        x -= 0.1
        x /= 2.0
        return x


class AddsNoiseToItsArray(KeepsItsRows):
    """The tensor shares the array's memory: the noise of all epochs adds up."""

    case = 112
    grade = "misleads"
    says = r"reading changes what is stored: .* Kept\.arrays is \["

    def give(self, data, index):
        x = torch.from_numpy(data.arrays[index])
        return x.add_(torch.randn(len(x)), alpha=0.01)


class MixesInItsCollator(KeepsItsRows):
    """Mixes each row of a batch with its neighbour, in the rows themselves."""

    case = 112
    grade = "misleads"
    says = r"reading changes what is stored: .* Kept\.x\[\d+\] is \["

    def collate(self, rows):
        for (x, _), (other, _) in itertools.pairwise(rows):
            x.lerp_(other, 0.2)
        return super().collate(rows)

    def give(self, data, index):
        return data.x[index]


class AppendsAnEndEachTime(Answers):
    """Puts the end mark behind the list that is kept, and not behind a new one."""

    case = 112
    grade = "misleads"
    says = r"reading changes what is stored: .* Texts\.program\.kept\[\d+\]\[0\] is \["

    def batches(self, *args):
        self.kept = {}
        return super().batches(*args)

    def encode(self, prompt, answer):
        tokens, targets = self.kept.setdefault(prompt[0], super().encode(prompt, answer))
        tokens.append(1)
        targets.append(1)
        return tokens, targets


class FillsACache(KeepsItsRows):
    """The first reading of a row makes it, and the ones after find it. Sound."""

    def give(self, data, index):
        return data.filled.setdefault(index, data.x[index] / 2)


class HasAGeneratorOfItsOwn(KeepsItsRows):
    """Noise comes from the data set's own generator, and the row from a buffer that is used again. Sound."""

    def give(self, data, index):
        data.buffer.copy_(data.x[index])
        noise = data.own.normal(size=len(data.buffer)).astype(np.float32)
        return data.buffer.clone() + 0.01 * torch.from_numpy(noise)


class CountsItsReadings(KeepsItsRows):
    """How often each row was read is kept beside the rows. Sound."""

    def give(self, data, index):
        data.filled[index] = [data.filled.get(index, [0])[0] + 1]
        return data.x[index] + 0.01 * torch.randn(self.max_length)


class Short(NN.Sequential):
    """Layers in 16 bits, whatever goes in."""

    def forward(self, x):
        return super().forward(x.to(next(self.parameters()).dtype))


class InBfloat16(Sound):
    """Weights of 16 bits, at a rate that they can hold."""

    only = (118,)
    dtype = torch.bfloat16

    def build(self, settings):
        return Short(*super().build(settings)).to(self.dtype)


class StepsTooLittle(InBfloat16):
    """The learning rate of a fine-tuning in float32."""

    tiny = {"learning_rate": 1e-5}
    case = 118
    grade = "misleads"
    says = r"\d+% of the bfloat16 weights that get a gradient keep each of their bits in 9 steps of AdamW \(\S+:\d+\)"


class StepsTooLittleInHalf(InBfloat16):
    """`model.half()`, without a gradient scaler and without weights in float32."""

    dtype = torch.float16
    tiny = {"learning_rate": 1e-5}
    case = 118
    grade = "misleads"
    says = r"of the float16 weights that get a gradient keep each of their bits in 9 steps of SGD"

    def optimizer(self, model, settings):
        return torch.optim.SGD(model.parameters(), lr=settings.learning_rate)


class AdaptsInBfloat16(StepsTooLittle):
    """The base is frozen in bfloat16, and the adapter was cast with it."""

    def build(self, settings):
        model = super().build(settings)
        model[0] = Adapted(model[0]).to(self.dtype)
        NN.init.normal_(model[0].up.weight)
        model[3].requires_grad_(False)
        return model

    def optimizer(self, model, settings):
        return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=settings.learning_rate)


class SignSteps(torch.optim.Optimizer):
    """Steps of one size, the longer it trains the smaller; keeps count as it is told."""

    def __init__(self, parameters, lr, count=lambda step: step + 1, arrive=None):
        super().__init__(parameters, {"lr": lr})
        self.count, self.arrive = count, arrive or (lambda p, update, state: p.add_(update.to(p.dtype)))

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                state = self.state[p]
                state["step"] = self.count(state.get("step", 0))
                self.arrive(p, -group["lr"] * p.grad.float().sign(), state)


class CountsInTheWeightsDtype(InBfloat16):
    """`torch.zeros_like` for the counter, too."""

    case = 118
    grade = "misleads"
    says = r"the counter of SignSteps \(\S+\) is a bfloat16, which cannot count beyond 256"

    def optimizer(self, model, settings):
        return SignSteps(model.parameters(), settings.learning_rate, lambda step: torch.tensor(step + 1).to(self.dtype))


class NeverCounts(Sound):
    """Looks its counter up, adds one, and does not put it back."""

    case = 118
    grade = "misleads"
    says = r"the counter of SignSteps \(\S+\) stands still: it is 1 after each of 9 steps"

    def optimizer(self, model, settings):
        return SignSteps(model.parameters(), settings.learning_rate, lambda step: 1)


class KeepsMasters(StepsTooLittle):
    """The optimizer keeps each weight in float32 as well, and rounds the sum of all steps. Sound."""

    case = ""

    def optimizer(self, model, settings):
        def arrive(p, update, state):
            state["master"] = state.get("master", p.float()) + update
            p.copy_(state["master"])

        return SignSteps(model.parameters(), settings.learning_rate, arrive=arrive)


class RoundsAtRandom(StepsTooLittle):
    """Rounds up or down by chance, so that the sum of many steps is right. Sound."""

    case = ""

    def optimizer(self, model, settings):
        def arrive(p, update, state):
            bits = (p.float() + update).view(torch.int32)
            own = torch.Generator().manual_seed(int(state["step"]))
            p.copy_(
                ((bits + torch.randint(0, 1 << 16, p.shape, generator=own, dtype=torch.int32)) & -65536).view(
                    torch.float32
                )
            )

        return SignSteps(model.parameters(), settings.learning_rate, arrive=arrive)


class WarmsUpInBfloat16(InBfloat16, Scheduled):
    """At first the rate is as good as 0; where it is full, the steps arrive. Sound."""

    only = (118,)

    def plan(self, optimizer):
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1e-4 if step < 3 else 1.0)


class Saves(Sound):
    """Saves every other step what `weights` gives."""

    only = (121,)
    tiny = {"save_every": 2}

    def state(self, model, optimizer, scaler, step):
        state = super().state(model, optimizer, scaler, step)
        return {**state, "model": self.weights(model)}

    def weights(self, model):
        return model.state_dict()


class ExportsACopyFromTheStart(Saves):
    """A clean copy of the model, without what a framework wraps around it, made before training."""

    case = 121
    grade = "misleads"
    says = r"what is saved \(\S+:\d+\) after step 9 holds 0\.weight, .* as before the first step.*4 of 4 parameters"

    def build(self, settings):
        model = super().build(settings)
        self.clean = copy.deepcopy(model)
        return model

    def weights(self, model):
        return self.clean.state_dict()


class SavesTheHeadOfTheStart(Saves):
    """Puts the base model's tensors, kept on the CPU from the start, over all that has their name: its head, too."""

    case = 121
    grade = "misleads"
    says = r"holds 3\.weight, 3\.bias as before the first step.*2 of 4 parameters"

    def build(self, settings):
        model = super().build(settings)
        self.kept = {name: tensor.clone() for name, tensor in model[3].state_dict(prefix="3.").items()}
        return model

    def weights(self, model):
        return {**model.state_dict(), **self.kept}


class SavesWhatItCopiedOnce(Saves):
    """The copies on the CPU are made when they are first needed, and then they are there; written by Safetensors."""

    case = 121
    grade = "misleads"
    says = r"holds 0\.weight, .* as before the first step"

    def step(self, model, *rest):
        if not hasattr(self, "copies"):
            self.copies = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        super().step(model, *rest)

    def write_state(self, folder, state):
        save_file(self.copies, folder / "model.safetensors")
        super().write_state(folder, {**state, "model": self.copies})


class SavesTheStepBefore(Saves):
    """Keeps the weights before each step, to go back where it fails, and saves these."""

    case = 121
    grade = "misleads"
    says = r"each of \d saves \(\S+\) says that it is of step 2, 4, \.\.\. and holds the weights of step 1, 3, \.\.\."

    def step(self, model, *rest):
        self.before = copy.deepcopy(model.state_dict())
        super().step(model, *rest)

    def weights(self, model):
        return self.before


class SavesTheBestSoFar(Saves):
    """Beside the current weights stand those of the best step, which may be any. Sound."""

    def validate(self, model, step, output_dir):
        best = super().validate(model, step, output_dir)
        if best or not hasattr(self, "best"):
            self.best = copy.deepcopy(model.state_dict())
        return False

    def write_state(self, folder, state):
        torch.save({"step": state["step"], "model": getattr(self, "best", state["model"])}, folder / "best.pt")
        super().write_state(folder, state)


class SavesAnAverage(Saves):
    """What is saved is the average of the weights, rounded to 16 bits, and what it goes on from. Sound."""

    def step(self, model, *rest):
        super().step(model, *rest)
        now = copy.deepcopy(model.state_dict())
        mean = getattr(self, "mean", now)
        self.mean = {name: mean[name].lerp(tensor, 0.5) for name, tensor in now.items()}

    def write_state(self, folder, state):
        rounded = {name: tensor.half() for name, tensor in self.mean.items()}
        save_file(rounded, folder / "average.safetensors")
        super().write_state(folder, state)


class SavesLate(Saves):
    """A copy of the weights of one step is saved, and named by it, after the next one. Sound."""

    def state(self, model, optimizer, scaler, step):
        late = getattr(self, "late", None)
        self.late = copy.deepcopy(super().state(model, optimizer, scaler, step))
        if late is not None:
            torch.save(late, self.folder / "late.pt")
        return self.late

    def fit(self, settings, rows, output_dir, *rest):
        self.folder = output_dir
        super().fit(settings, rows, output_dir, *rest)


class SavesAdapters(Saves):
    """Only an adapter of the first layer learns; whole checkpoints, and at the end a file of each part. Sound."""

    LEARNS = ("up", "down")

    class Adapted(Adapted):
        """By the names that PEFT has for them."""

        def __init__(self, layer):
            super().__init__(layer)
            self.base_layer = self._modules.pop("layer")

        def forward(self, x):
            return self.base_layer(x) + self.up(self.down(x))

    def build(self, settings):
        model = super().build(settings)
        model[0] = self.Adapted(model[0])
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.split(".")[-2] in self.LEARNS)
        return model

    def optimizer(self, model, settings):
        return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=settings.learning_rate)

    def adapters(self, model):
        return {name: tensor for name, tensor in model.state_dict().items() if ".up." in name or ".down." in name}

    def save_adapter(self, output_dir, model, *rest):
        super().save_adapter(output_dir, model, *rest)
        self.export(model, output_dir)

    def export(self, model, folder):
        save_file(self.without(model), folder / "base.safetensors")
        save_file(self.adapters(model), folder / "adapters.safetensors")

    def without(self, model):
        return {name: tensor for name, tensor in model.state_dict().items() if name not in self.adapters(model)}


class MergesItsAdapters(SavesAdapters):
    """The model that is saved at the end has what was learnt in its own weights. Sound."""

    def export(self, model, folder):
        low = model[0]
        merged = {**self.without(model), "0.base_layer.weight": low.base_layer.weight + low.up.weight @ low.down.weight}
        save_file({name: tensor.detach() for name, tensor in merged.items()}, folder / "model.safetensors")


class UnloadsItsAdapters(SavesAdapters):
    """Takes the adapters off, and saves what is left: they were meant to be merged."""

    case = 121
    grade = "unclear"
    says = r"the last that it saves \(\S+\) after step 9, .*never moves, and what learnt in the very same modules, 0\."

    def export(self, model, folder):
        save_file(self.without(model), folder / "model.safetensors")


class FreezesItsAdapters(SavesAdapters):
    """Thaws everything but the adapters, and saves these alone."""

    LEARNS = ("base_layer", "0", "3")
    case = 121
    grade = "misleads"
    says = r"nothing that it saves is what it trains: 0\.base_layer\.weight.* moves, and is in none of \d+ saves"

    def weights(self, model):
        return self.adapters(model)

    def export(self, model, folder):
        save_file(self.adapters(model), folder / "adapters.safetensors")


class Validates(Sound):
    """Evaluates on all rows that were held out, through a loader."""

    only = (124,)

    def validate(self, model, step, output_dir):
        data = Rows(self.validation, self.max_length)
        model.eval()
        with torch.no_grad():
            losses = [self.measure(model, x, y, step) for x, y in self.held_out(data)]
        model.train()
        print(f"step {step}: validation loss {float(sum(losses)):.4f}")
        return False

    def held_out(self, data):
        return torch.utils.data.DataLoader(data, 16, generator=torch.Generator())

    def measure(self, model, x, y, step):
        return F.cross_entropy(model(x).float(), y)


class AddsNoiseInValidation(Validates):
    """The transform that training has."""

    case = 124
    grade = "misleads"
    says = (
        r"of the \d+ rows that it evaluates on \(\S+:\d+\) after step 2, 0 are among those after step 4, though their"
    )

    def measure(self, model, x, y, step):
        return super().measure(model, x + 0.01 * torch.randn(x.shape), y, step)


class Flips(torch.utils.data.Dataset):
    """Every second row is turned round, by chance; what `random_split` makes of it has the same transform."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        x, y = self.rows[index]
        return (-x if random.random() < 0.5 else x), y


class FlipsInValidation(Validates):
    """Half of the rows are as they were: a subset of one data set for both."""

    case = 124
    grade = "misleads"
    says = r"of the \d+ rows that it evaluates on .* rows are changed at random in validation, too"

    def held_out(self, data):
        return super().held_out(torch.utils.data.Subset(Flips(data), range(len(data))))


class DropsWordsInValidation(Validates):
    """Texts lose a word here and there, as in training, in the collator that both have."""

    case = 124
    grade = "misleads"
    says = r"rows are changed at random in validation, too"

    def build(self, settings):
        return NN.Sequential(NN.EmbeddingBag(64, settings.hidden), NN.Linear(settings.hidden, 2))

    def step(self, model, optimizer, scaler, batch, *rest):
        super().step(model, optimizer, scaler, [self.words(batch[0]), batch[1]], *rest)

    def measure(self, model, x, y, step):
        return super().measure(model, self.words(x), y, step)

    def words(self, x):
        ids = (20 * x[:, :4] + 30).long()
        return ids.masked_fill(torch.rand(ids.shape) < 0.2, 0)


class DrawsItsValidation(Validates):
    """Evaluates on some of the rows, other ones each time. Sound."""

    exempt = (124,)

    def held_out(self, data):
        chosen = random.Random(len(self.told_of)).sample(range(len(data)), 12) if len(data) > 12 else range(len(data))
        self.told_of.append(1)
        return super().held_out(torch.utils.data.Subset(data, chosen))

    def fit(self, *args):
        self.told_of = []
        super().fit(*args)


class AsksSeveralTimes(Validates):
    """The mean of what is said to four noisy copies of a row. Sound."""

    exempt = (124,)

    def measure(self, model, x, y, step):
        said = [model(x + 0.01 * torch.randn(x.shape)).float() for _ in range(4)]
        return F.cross_entropy(torch.stack(said).mean(0), y)


class ComparesTwoViews(Validates):
    """Two noisy views of a row are to find each other among those of all rows. Sound."""

    exempt = (124,)

    def held_out(self, data):
        return torch.utils.data.DataLoader(data, 64, generator=torch.Generator())

    def measure(self, model, x, y, step):
        one, other = (model(x + 0.01 * torch.randn(x.shape)).float() for _ in range(2))
        return F.cross_entropy(one @ other.t(), torch.arange(len(x)))


class MasksWordsInValidation(MasksWords):
    """Which words are masked is drawn anew in each validation, and so is what is to be found. Sound."""

    only = (124,)
    exempt = (124,)

    def validate(self, model, step, output_dir):
        data = Texts(self, self.validation)
        x, _ = Answers.collate(self, [data[row] for row in range(len(data))])
        chosen = (torch.rand(x.shape) < 0.15) & (x > 0)
        model.eval()
        with torch.no_grad():
            loss = self.loss(model(x.masked_fill(chosen, 2)), x.masked_fill(~chosen, -100))
        model.train()
        print(f"step {step}: validation loss {float(loss):.4f}")
        return False


class Averages(Sound):
    """Keeps an average of its weights, by hand, and evaluates it."""

    only = (101, 121, 123)
    DECAY = 0.9

    def build(self, settings):
        model = super().build(settings)
        self.average = copy.deepcopy(model).requires_grad_(False)
        return model

    def step(self, model, optimizer, scaler, batch, *rest):
        with torch.no_grad():
            self.average(batch[0])
        super().step(model, optimizer, scaler, batch, *rest)
        with torch.no_grad():
            for its, mine in zip(self.average.parameters(), model.parameters(), strict=True):
                self.follow(its, mine)

    def follow(self, its, mine):
        its.mul_(self.DECAY).add_(mine, alpha=1 - self.DECAY)


class ForgetsTheOtherShare(Averages):
    """`add_` without its `alpha`: the average grows to ten times the model."""

    only = (123,)
    case = 123
    grade = "misleads"
    says = r"moves with it, and away from it: by step 2 a value of 0\.weight went from \S+ to \S+, where the model's is"

    def follow(self, its, mine):
        its.mul_(self.DECAY).add_(mine)


class AddsTheDifferenceTheWrongWay(Averages):
    """The average minus the model, and not the model minus the average."""

    only = (123,)
    case = 123
    grade = "misleads"
    says = r"moves with it, and away from it"

    def follow(self, its, mine):
        its.add_(its - mine, alpha=1 - self.DECAY)


class EvaluatesTheAverage(Sound):
    """An average of torch's, that is evaluated in place of the model. Sound."""

    only = (107, 121, 123)

    def build(self, settings):
        model = super().build(settings)
        self.average = torch.optim.swa_utils.AveragedModel(model)
        return model

    def step(self, model, *rest):
        super().step(model, *rest)
        self.average.update_parameters(model)

    def validate(self, model, step, output_dir):
        return super().validate(self.average, step, output_dir)


class BeginsToAverageLate(EvaluatesTheAverage):
    """Updates the average from step 100 on, and evaluates it from the start."""

    only = (123,)
    case = 123
    grade = "unclear"
    says = r"the AveragedModel that is evaluated \(\S+:\d+\) after step 8 was not updated once.*where it begins later"

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        Sound.step(self, model, optimizer, scaler, batch, settings, number, device)
        if number >= 100:
            self.average.update_parameters(model)


class CopiesItsTarget(Averages):
    """Every third step the copy becomes what the model is. Sound."""

    def follow(self, its, mine):
        self.times = getattr(self, "times", 0) + 1
        if self.times % 12 < 4:
            its.copy_(mine)
