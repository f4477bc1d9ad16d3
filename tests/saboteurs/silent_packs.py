"""Case 116: documents in a pack that read their neighbours; and sound programs that look as if they did."""

import torch

from tests.saboteurs.silent_padding import WORDS
from tests.saboteurs.sound import Sound

NN, F = torch.nn, torch.nn.functional
PER_ROW = 3  # documents


class Documents(torch.utils.data.Dataset):
    """Each row is several documents, one after the other, and where each of them begins."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        tokens, places, numbers = [], [], []
        for number in range(PER_ROW):
            row = self.rows[(index + 7 * number) % len(self.rows)]
            words = [4 + round(100 * abs(value) + 13 * number) % 50 for value in row["x"]] * 2
            tokens += [1, *words[: 5 + number], 2]
            places += range(7 + number)
            numbers += [number] * (7 + number)
        return {"ids": torch.tensor(tokens), "places": torch.tensor(places), "numbers": torch.tensor(numbers)}


class Decoder(NN.Module):
    """One layer of causal attention and a score for each next token."""

    def __init__(self, hidden):
        super().__init__()
        self.words, self.places = NN.Embedding(WORDS, hidden), NN.Embedding(64, hidden)
        self.layer = NN.TransformerEncoderLayer(hidden, 2, 2 * hidden, batch_first=True)
        self.head = NN.Linear(hidden, WORDS)

    def forward(self, ids, places, mask):
        """`mask`: [rows, positions, positions], true where one may see the other."""
        read = self.words(ids) + self.places(places)
        return self.head(self.layer(read, src_mask=(~mask).repeat_interleave(2, 0)))


class PacksDocuments(Sound):
    """Learns the next token; each document sees itself alone."""

    only = (116,)

    def loader(self, rows, settings, chosen):
        own = torch.Generator()
        return torch.utils.data.DataLoader(
            Documents(rows), batch_sampler=chosen, collate_fn=self.collate, generator=own
        )

    def collate(self, packs):
        batch = torch.utils.data.default_collate(packs)
        return {"ids": batch["ids"], "places": batch["places"]}

    def build(self, settings):
        return Decoder(settings.hidden)

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        optimizer.zero_grad()
        output = model(batch["ids"], self.places(batch), self.mask(batch))
        loss = F.cross_entropy(output[:, :-1].flatten(0, 1), batch["ids"][:, 1:].flatten())
        self.check_loss(loss, number)
        loss.backward()
        self.check_gradient(model, number)
        optimizer.step()

    def places(self, batch):
        return batch["places"]

    def mask(self, batch):
        numbers = self.numbers(batch)
        return torch.ones(numbers.shape[1], numbers.shape[1]).tril().bool() & (numbers[:, None] == numbers[..., None])

    def numbers(self, batch):
        return (batch["places"] == 0).cumsum(1)

    def validate(self, model, step, output_dir):
        return False


class AttendsOnward(PacksDocuments):
    """Positions begin anew, and the mask is causal only: nobody looked at it again when packing came."""

    case = 116
    grade = "misleads"
    says = (
        r"a document in a pack reads its neighbour \(tests/saboteurs/\S+:\d+\): documents are told apart by positions "
        r"that begin at 0 again; .* row \d, the target at position \d+, of a later one, has at step 9 a loss of \S+ "
        r"and not of \S+, and so have \d+ of \d+ targets"
    )

    def mask(self, batch):
        count = batch["ids"].shape[1]
        return torch.ones(count, count).tril().bool().expand(len(batch["ids"]), -1, -1)


class MasksBeforeOnly(PacksDocuments):
    """A mask of who may see whom, of which the half that counts was turned round."""

    case = 116
    grade = "misleads"
    says = "documents are told apart by numbers of documents"

    def collate(self, packs):
        batch = torch.utils.data.default_collate(packs)
        return batch["ids"], batch["numbers"]

    def step(self, model, optimizer, scaler, batch, *rest):
        ids, numbers = batch
        super().step(model, optimizer, scaler, {"ids": ids, "numbers": numbers}, *rest)

    def places(self, batch):
        return torch.arange(batch["ids"].shape[1]).expand_as(batch["ids"])

    def numbers(self, batch):
        return batch["numbers"]

    def mask(self, batch):
        numbers = batch["numbers"]
        return torch.ones(numbers.shape[1], numbers.shape[1]).tril().bool() & (numbers[:, None] <= numbers[..., None])


class CarriesItsState(NN.Module):
    """A recurrent network that goes through all the tokens of a batch, one document after the other."""

    def __init__(self, hidden):
        super().__init__()
        self.words, self.net, self.head = NN.Embedding(WORDS, hidden), NN.GRU(hidden, hidden), NN.Linear(hidden, WORDS)

    def forward(self, ids, ends):
        read = self.words(ids)
        return self.head(torch.cat([self.net(part)[0] for part in self.parts(read, ends)]))

    def parts(self, read, ends):
        return [read]


class GoesOnFromTheLastState(PacksDocuments):
    """All documents in one row, with the lengths added up; nothing begins anew at them."""

    case = 116
    grade = "misleads"
    says = "documents are told apart by lengths that are added up; with other tokens in the first one of row 1"
    model = CarriesItsState

    def collate(self, packs):
        ids = torch.cat([pack["ids"] for pack in packs])
        starts = torch.cat([pack["places"] for pack in packs]) == 0
        return {"ids": ids, "ends": torch.cat([starts.nonzero()[:, 0], torch.tensor([len(ids)])])}

    def build(self, settings):
        return self.model(settings.hidden)

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(batch["ids"], batch["ends"])[:-1], batch["ids"][1:])
        self.check_loss(loss, number)
        loss.backward()
        self.check_gradient(model, number)
        optimizer.step()


class BeginsAnewWithEach(GoesOnFromTheLastState):
    """Each document has a pass of its own, and the loss is of all at once. Sound."""

    case = ""

    class Model(CarriesItsState):
        def parts(self, read, ends):
            return read.split(ends.diff().tolist())

    model = Model


class HandsItsMaskOver(PacksDocuments):
    """The loader makes the mask. Sound."""

    def collate(self, packs):
        batch = torch.utils.data.default_collate(packs)
        return {**batch, "mask": super().mask(batch)}

    def mask(self, batch):
        return batch["mask"]


class AttendsAcrossOnPurpose(AttendsOnward):
    """Pre-training on a stream that is cut into rows: nothing begins anew inside one. Sound."""

    exempt = (116,)

    case = ""

    def collate(self, packs):
        return {"ids": torch.utils.data.default_collate(packs)["ids"]}

    def places(self, batch):
        return torch.arange(batch["ids"].shape[1]).expand_as(batch["ids"])


class HasTwoSegments(AttendsOnward):
    """A question and its answer, told apart by a type for each token: one is to be read by the other. Sound."""

    exempt = (116,)

    case = ""

    def collate(self, packs):
        batch = torch.utils.data.default_collate(packs)
        return {"ids": batch["ids"], "types": (batch["numbers"] > 0).long()}

    def places(self, batch):
        return torch.arange(batch["ids"].shape[1]).expand_as(batch["ids"])
