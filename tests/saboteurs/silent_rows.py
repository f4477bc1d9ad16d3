"""Cases 102 to 124: silent errors of rows, targets, dtypes and what is saved."""

import itertools
import random

import numpy as np
import torch

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
