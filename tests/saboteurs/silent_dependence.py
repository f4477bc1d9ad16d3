"""Cases 103 and 115: tokens that read what they are to say, rows that read each other; and what looks like either."""

import torch

from tests.saboteurs.silent_padding import WORDS
from tests.saboteurs.sound import Sound

NN, F = torch.nn, torch.nn.functional
LENGTH = 12  # tokens of a text


class Texts(torch.utils.data.Dataset):
    """Rows as token ids, the first of them 1; of some a few tokens at the end are padding."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        row = self.rows[index]
        words = [4 + round(100 * abs(value) + 7 * place) % 50 for place, value in enumerate(row["x"] * 3)]
        return torch.tensor([1, *words[: LENGTH - 1 - index % 3], *[0] * (index % 3)])


class Writes(Sound):
    """A language model of one layer that says the next token."""

    only = (103,)

    def loader(self, rows, settings, chosen):
        return torch.utils.data.DataLoader(Texts(rows), batch_sampler=chosen, generator=torch.Generator())

    def build(self, settings):
        return self.Model(settings.hidden)

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        optimizer.zero_grad()
        loss = self.said(model, batch)
        self.check_loss(loss, number)
        loss.backward()
        self.check_gradient(model, number)
        optimizer.step()

    def said(self, model, batch):
        output = model(batch[:, :-1])
        return F.cross_entropy(output.flatten(0, 1), batch[:, 1:].flatten(), ignore_index=0)

    def validate(self, model, step, output_dir):
        return False

    class Model(NN.Module):
        def __init__(self, hidden):
            super().__init__()
            self.words, self.places = NN.Embedding(WORDS, hidden), NN.Embedding(LENGTH, hidden)
            self.layer = NN.TransformerEncoderLayer(hidden, 2, 2 * hidden, batch_first=True)
            self.head = NN.Linear(hidden, WORDS)

        def forward(self, ids):
            read = self.words(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
            return self.head(self.layer(read, src_mask=self.mask(ids)))

        def mask(self, ids):
            """True where one may not look."""
            return torch.ones(ids.shape[1], ids.shape[1]).tril() == 0


class ForgetsItsMask(Writes):
    """The mask is made, and not handed on: the loss was down to nothing in an afternoon."""

    case = 103
    grade = "misleads"
    says = (
        r"what Model \(tests/saboteurs/\S+:\d+\) says at \d+ of \d+ tokens changes with the tokens that come behind "
        "them, and the target of each is the very next token"
    )

    class Model(Writes.Model):
        def mask(self, ids):
            return None


class TurnsItsMaskRound(Writes):
    """True is "may look" to one function of torch's, and "may not" to another."""

    case = 103
    grade = "misleads"
    says = "the model reads what it is to say"

    class Model(Writes.Model):
        def mask(self, ids):
            return (torch.ones(ids.shape[1], ids.shape[1]).tril(-1) == 1) | (torch.zeros(ids.shape[1], 1) == 1)


class ReadsFromBothEnds(Writes):
    """A bidirectional network, as the classifier beside it has one."""

    case = 103
    grade = "misleads"
    says = "the model reads what it is to say"

    class Model(NN.Module):
        def __init__(self, hidden):
            super().__init__()
            self.words = NN.Embedding(WORDS, hidden)
            self.net = NN.GRU(hidden, hidden, batch_first=True, bidirectional=True)
            self.head = NN.Linear(2 * hidden, WORDS)

        def forward(self, ids):
            return self.head(self.net(self.words(ids))[0])


class SaysItsPrompts(Writes):
    """The first half of a text is a prompt, which is read as a whole and is no target. Sound."""

    class Model(Writes.Model):
        def mask(self, ids):
            allowed = torch.ones(ids.shape[1], ids.shape[1]).tril() == 1
            allowed[:, : LENGTH // 2] = True
            return ~allowed

    def said(self, model, batch):
        output = model(batch[:, :-1])
        targets = batch[:, 1:].clone()
        targets[:, : LENGTH // 2 - 1] = 0
        return F.cross_entropy(output.flatten(0, 1), targets.flatten(), ignore_index=0)


class GivesItBack(Writes):
    """Reads a whole text, and then says it, one token after the other. Sound."""

    class Model(Writes.Model):
        def __init__(self, hidden):
            super().__init__(hidden)
            self.reader = NN.GRU(hidden, hidden, batch_first=True)
            self.writer = NN.GRU(hidden, hidden, batch_first=True)

        def forward(self, source, ids):
            state = self.reader(self.words(source))[1]
            return self.head(self.writer(self.words(ids), state)[0])

    def said(self, model, batch):
        output = model(batch.clone(), batch[:, :-1])
        return F.cross_entropy(output.flatten(0, 1), batch[:, 1:].flatten(), ignore_index=0)


class GoesOverTime(Writes):
    """Texts stand in columns, as torch's recurrent networks take them: what is behind a row is time. Sound."""

    only = (103, 115)
    exempt = (115,)

    def loader(self, rows, settings, chosen):
        own = torch.Generator()
        return torch.utils.data.DataLoader(
            Texts(rows), batch_sampler=chosen, collate_fn=lambda texts: torch.stack(texts, 1), generator=own
        )

    def said(self, model, batch):
        output = model(batch[:-1])
        return F.cross_entropy(output.flatten(0, 1), batch[1:].flatten(), ignore_index=0)

    class Model(NN.Module):
        def __init__(self, hidden):
            super().__init__()
            self.words, self.net = NN.Embedding(WORDS, hidden), NN.GRU(hidden, hidden)
            self.head = NN.Linear(hidden, WORDS)

        def forward(self, ids):
            return self.head(self.net(self.words(ids))[0])


class Attends(NN.Module):
    """The four numbers of a row as tokens that look at each other."""

    def __init__(self, hidden, batch_first):
        super().__init__()
        self.embed = NN.Linear(1, hidden)
        self.layer = NN.TransformerEncoderLayer(hidden, 2, 2 * hidden, batch_first=batch_first)

    def forward(self, x):
        return self.layer(self.embed(x.unsqueeze(-1))).mean(1)


class AttendsInARow(Sound):
    """Attention as it is meant. Sound."""

    only = (115,)
    batch_first = True

    def build(self, settings):
        *_, last = super().build(settings)
        return NN.Sequential(Attends(settings.hidden, self.batch_first), last)


class AttendsOverRows(AttendsInARow):
    """`batch_first` is False where nobody says otherwise: each row looks at all others, in whatever order they come."""

    case = 115
    grade = "misleads"
    says = r"with the first of the 7 rows of a batch replaced by another one, the output of 6 of the 6 others changes"
    batch_first = False


class Centred(NN.Module):
    """What is left of a batch without its mean."""

    def forward(self, x):
        return x - x.mean(0)


class CentresItsBatch(Sound):
    """A norm by hand, over the rows: what a row scores hangs on what is beside it, in evaluation too."""

    case = 115
    grade = "misleads"
    says = "mixes its rows"

    def build(self, settings):
        return NN.Sequential(*super().build(settings), Centred())


class SharesItsAttention(Sound):
    """A softmax over the rows gives each a weight, which was to be one over its own numbers."""

    case = 115
    grade = "misleads"
    says = "mixes its rows"

    def build(self, settings):
        class Weighs(NN.Module):
            def forward(self, x):
                return x * x.softmax(0)

        return NN.Sequential(Weighs(), *super().build(settings))


class TakesTheBatchsStatistics(AttendsInARow):
    """A batch norm that keeps no statistics looks at the batch by intent, when it evaluates as well. Sound."""

    def build(self, settings):
        first, *rest = super().build(settings)
        return NN.Sequential(first, NN.BatchNorm1d(settings.hidden, track_running_stats=False), *rest)


class NormsByTheBatch(AttendsInARow):
    """A batch norm looks at all rows as it trains, and at its own statistics as it evaluates. Sound."""

    def build(self, settings):
        first, *rest = super().build(settings)
        return NN.Sequential(first, NN.BatchNorm1d(settings.hidden), *rest)
