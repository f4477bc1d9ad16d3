"""Cases 102 to 124: silent errors of rows, targets, dtypes and what is saved."""

import random

import torch

from tests.saboteurs.sound import Sound

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
