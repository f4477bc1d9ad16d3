"""Case 114: padding that counts; and sound programs that look as if it did."""

import torch

from tests.saboteurs.sound import Sound

NN, F = torch.nn, torch.nn.functional
WORDS, PAD = 64, 0


class Sentences(torch.utils.data.Dataset):
    """Rows as token ids of unequal length, and what they are about."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        row = self.rows[index]
        words = [3 + round(100 * abs(number)) % 50 for number in row["x"]]
        return (words * 4)[: 3 + words[0] % 11], row["y"]


class Pools(NN.Module):
    """The mean of what the words of a text mean, each by itself."""

    def __init__(self, hidden):
        super().__init__()
        self.words, self.mix, self.head = NN.Embedding(WORDS, hidden), NN.Linear(hidden, hidden), NN.Linear(hidden, 2)

    def forward(self, ids, mask):
        return self.head(self.pool(self.mix(self.words(ids)).relu(), mask))

    def pool(self, read, mask):
        weights = mask.float()[..., None]
        return (read * weights).sum(1) / weights.sum(1)


class ReadsTexts(Sound):
    """A batch is as wide as its longest text, and comes with a mask of what is none of its padding."""

    only = (114, 115)
    model = Pools

    def loader(self, rows, settings, chosen):
        own = torch.Generator()
        return torch.utils.data.DataLoader(
            Sentences(rows), batch_sampler=chosen, collate_fn=self.collate, generator=own
        )

    def collate(self, texts):
        longest = max(len(words) for words, _ in texts)
        ids = torch.tensor([words + [PAD] * (longest - len(words)) for words, _ in texts])
        mask = torch.tensor([[1] * len(words) + [0] * (longest - len(words)) for words, _ in texts])
        return {"ids": ids, "mask": mask, "y": torch.tensor([y for _, y in texts])}

    def build(self, settings):
        return self.model(settings.hidden)

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        optimizer.zero_grad()
        loss = self.score(model, batch)
        self.check_loss(loss, number)
        loss.backward()
        self.check_gradient(model, number)
        optimizer.step()

    def score(self, model, batch):
        return self.loss(model(batch["ids"], batch["mask"]), batch["y"])

    def validate(self, model, step, output_dir):
        return False


class PoolsAll(Pools):
    def pool(self, read, mask):
        return read.mean(1)


class TakesTheMeanOfAll(ReadsTexts):
    """The mask is handed on, and `mean(1)` is what stands in every tutorial."""

    case = 114
    grade = "misleads"
    says = (
        r"padding counts \(tests/saboteurs/\S+:\d+\): with rows of nothing but 4 tokens of padding longer, the same "
        r"rows have at step 5 a loss of \S+ and not of \S+; norm of the gradient of \S+: .* no notice of the mask"
    )
    model = PoolsAll


class Recurs(NN.Module):
    """Reads from left to right."""

    def __init__(self, hidden):
        super().__init__()
        self.words, self.net = NN.Embedding(WORDS, hidden, padding_idx=PAD), NN.LSTM(hidden, hidden, batch_first=True)
        self.head = NN.Linear(hidden, 2)

    def forward(self, ids):
        return self.head(self.net(self.words(ids))[1][0][-1])


class KeepsNoLengths(ReadsTexts):
    """The padded embedding is 0, and the last state still goes on from it; there is no mask at all."""

    case = 114
    grade = "misleads"
    says = r"padding counts \(\S+:\d+\): .* 4 tokens of padding longer, .* takes no notice of where each row ends"
    model = Recurs

    def collate(self, texts):
        batch = super().collate(texts)
        return batch["ids"], batch["y"]

    def score(self, model, batch):
        ids, y = batch
        return self.loss(model(ids), y)


class Attends(NN.Module):
    """One layer of attention, with places; the text is what its first word has come to."""

    def __init__(self, hidden):
        super().__init__()
        self.words, self.places = NN.Embedding(WORDS, hidden), NN.Parameter(torch.randn(64, hidden) / 4)
        self.layer = NN.TransformerEncoderLayer(hidden, 2, 2 * hidden, batch_first=True)
        self.head = NN.Linear(hidden, 2)

    def forward(self, ids, mask):
        read = self.words(ids) + self.places[: ids.shape[1]]
        return self.head(self.attend(read, mask)[:, 0])

    def attend(self, read, mask):
        return self.layer(read, src_key_padding_mask=mask == 0)


class AttendsToAll(Attends):
    def attend(self, read, mask):
        return self.layer(read)


class ForgetsItsMask(ReadsTexts):
    """`forward` takes the mask, and does not hand it on."""

    case = 114
    grade = "misleads"
    says = "padding counts"
    model = AttendsToAll


class LastOfAll(Attends):
    def forward(self, ids, mask):
        ahead = NN.Transformer.generate_square_subsequent_mask(ids.shape[1])
        read = self.layer(self.words(ids) + self.places[: ids.shape[1]], src_mask=ahead)
        return self.head(read[torch.arange(len(ids)), self.last(mask)])

    def last(self, mask):
        return -1


class TakesTheLastPlace(ReadsTexts):
    """A decoder's last word says it all; of all but the longest text that is padding."""

    case = 114
    grade = "misleads"
    says = "padding counts"
    model = LastOfAll


class Tags(NN.Module):
    """Scores for each word."""

    def __init__(self, hidden):
        super().__init__()
        self.words, self.head = NN.Embedding(WORDS, hidden), NN.Linear(hidden, 2)

    def forward(self, ids):
        return self.head(self.words(ids).relu())


class TagsWords(ReadsTexts):
    """Whether a word has an odd number; targets of padding are -100."""

    model = Tags

    def collate(self, texts):
        batch = super().collate(texts)
        return {**batch, "y": (batch["ids"] % 2).masked_fill(batch["mask"] == 0, -100)}

    def score(self, model, batch):
        return F.cross_entropy(model(batch["ids"]).flatten(0, 1), batch["y"].flatten())


class DividesByAllPlaces(TagsWords):
    """Sums up what counts, and divides by what does not as well."""

    case = 114
    grade = "misleads"
    says = "padding counts"

    def score(self, model, batch):
        scores = model(batch["ids"]).flatten(0, 1)
        return F.cross_entropy(scores, batch["y"].flatten(), reduction="sum") / batch["ids"].numel()


class PadsWithAWord(TagsWords):
    """Targets of padding are 0, which is a class like any other."""

    case = 114
    grade = "misleads"
    says = "padding counts"

    def collate(self, texts):
        batch = super().collate(texts)
        return {**batch, "y": batch["y"].clamp(0)}


class TakesTheFirstPlace(ReadsTexts):
    """What stands at padded places is computed, and nobody reads it. Sound."""

    model = Attends


class TakesTheLastWord(ReadsTexts):
    """The last word that the mask counts; causal, so that none of its words sees the padding. Sound."""

    class Last(LastOfAll):
        def last(self, mask):
            return mask.sum(1) - 1

    model = Last


class PacksForItsNetwork(ReadsTexts):
    """Packs its rows for the recurrent network, so that each ends in its own last state. Sound."""

    class Packed(Recurs):
        def forward(self, ids, mask):
            lengths = mask.sum(1).cpu()
            packed = NN.utils.rnn.pack_padded_sequence(self.words(ids), lengths, batch_first=True, enforce_sorted=False)
            return self.head(self.net(packed)[1][0][-1])

    model = Packed


class NormsAllPlaces(ReadsTexts):
    """A norm over all positions of a batch: padded ones are among them, as everybody knows. Sound."""

    exempt = (114,)

    class Normed(Pools):
        def __init__(self, hidden):
            super().__init__(hidden)
            self.norm = NN.BatchNorm1d(hidden)

        def pool(self, read, mask):
            return super().pool(self.norm(read.transpose(1, 2)).transpose(1, 2), mask)

    model = Normed


class LooksAtThreeWords(ReadsTexts):
    """A convolution at the end of a text reads padding, or nothing at all in the longest one. Sound."""

    class Convolved(Pools):
        def __init__(self, hidden):
            super().__init__(hidden)
            self.three = NN.Conv1d(hidden, hidden, 3, padding=1)

        def pool(self, read, mask):
            return super().pool(self.three(read.transpose(1, 2)).transpose(1, 2), mask)

    model = Convolved


class LearnsWhereItEnds(ReadsTexts):
    """Its padding is the word that ends a text: the first of it counts, and no other. Sound."""

    model = Tags

    def collate(self, texts):
        batch = super().collate(texts)
        return [batch["ids"]]

    def score(self, model, batch):
        (ids,) = batch
        counts = (ids == PAD).cumsum(1) <= 1
        losses = F.cross_entropy(model(ids).flatten(0, 1), (ids == PAD).long().flatten(), reduction="none")
        return (losses * counts.flatten()).sum() / counts.sum()


class AlwaysOfOneWidth(ReadsTexts):
    """Every row is filled up to one width, in production as well, and nothing says that this is no text. Sound."""

    exempt = (114,)

    model = PoolsAll

    def collate(self, texts):
        ids = torch.tensor([words + [PAD] * (16 - len(words)) for words, _ in texts])
        return ids, torch.tensor([y for _, y in texts])

    def score(self, model, batch):
        ids, y = batch
        return self.loss(model(ids, None), y)


class FullWidthWithAMask(ReadsTexts):
    """Every row is filled up to the width that there are places for, and the mask says with what. Sound."""

    model = Attends

    def collate(self, texts):
        batch = super().collate(texts)
        fill = 64 - batch["ids"].shape[1]
        return {**batch, **{name: F.pad(batch[name], (0, fill)) for name in ("ids", "mask")}}
