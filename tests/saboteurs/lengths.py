"""Case 29: programs whose batches change their length with every step. And cases 21 and 23, on a GPU only."""

import torch

from tests.saboteurs.sound import Sound


class Reader(torch.nn.Module):
    """Reads numbers [rows, length] place by place, so that memory follows the length.

    Attributes:
        read: its states [rows, length, hidden] of the last forward pass, as a program sees them that looks.
    """

    def __init__(self, hidden):
        super().__init__()
        self.embed, self.mix = torch.nn.Linear(1, hidden), torch.nn.Linear(hidden, hidden)
        self.head = torch.nn.Linear(hidden, 2)

    def forward(self, x):
        self.read = torch.nn.functional.gelu(self.mix(torch.nn.functional.gelu(self.embed(x[..., None]))))
        return self.head(self.read.mean(1))


class ReadsByLength(Sound):
    """Pads a batch to its longest text: hardly two batches are of one size, and memory comes to rest all the same.

    A mask is kept for each length: small ones, and no more of them than there are lengths.
    """

    only = (29,)

    def check_row(self, row, path, number):
        checked = super().check_row(row, path, number)
        return {**checked, "length": max(4, min(len(row["text"].split()), self.max_length))}

    def batches(self, rows, settings, start, stop):
        for chosen in super().batches(rows, settings, start, stop).batch_sampler:
            yield self.batch([rows[index] for index in chosen])

    def batch(self, rows):
        length = max(row["length"] for row in rows)
        x = torch.zeros(len(rows), length)
        for place, row in enumerate(rows):
            x[place, :4] = torch.tensor(row["x"])
        return x, torch.tensor([row["y"] for row in rows])

    def build(self, settings):
        self.masks = {}
        self.model = Reader(settings.hidden)
        return self.model

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        length = batch[0].shape[1]
        if length not in self.masks:
            self.masks[length] = torch.ones(length, device=device)
        super().step(model, optimizer, scaler, batch, settings, number, device)
        self.look(batch[0].shape, device)

    def look(self, shape, device):
        """After each step."""


class BoundedBuffer(ReadsByLength):
    """Room for the longest states is taken once, and used for all."""

    def build(self, settings):
        self.buffer = None
        return super().build(settings)

    def look(self, shape, device):
        if self.buffer is None:
            self.buffer = torch.empty(shape[0], self.max_length, self.model.read.shape[2], device=device)
        self.buffer[:, : shape[1]] = self.model.read.detach()


class KeepsAllLengths(ReadsByLength):
    """A cache with the length as its key, as for masks; but of states, and a length seldom comes again."""

    case = 29
    grade = "wastes"
    says = "what is in use after a step grows: by .* within 18 steps; what stays: .* tensors? of aten::"

    def build(self, settings):
        self.cache = {}
        return super().build(settings)

    def look(self, shape, device):
        self.cache[tuple(shape), len(self.cache)] = self.model.read.detach()


class JoinsItsOutputs(ReadsByLength):
    """`states = torch.cat([states, new])`, for a metric at the end of the epoch."""

    case = 29
    grade = "wastes"
    says = "what is in use after a step grows: by .*; what stays: 1 tensor of aten::cat"

    def build(self, settings):
        self.all = None
        return super().build(settings)

    def look(self, shape, device):
        new = self.model.read.detach().flatten()
        self.all = new if self.all is None else torch.cat([self.all, new])


class MoreRoomEachTime(ReadsByLength):
    """A buffer that grows by a little each time: none that was given back is large enough for the next."""

    case = 29
    grade = "wastes"
    says = "what the allocator holds goes on growing where no more is in use: .* take buffers once"

    def build(self, settings):
        self.buffer, self.room = None, 0
        return super().build(settings)

    def look(self, shape, device):
        self.room += 1
        self.buffer = torch.empty(8 * 64 + self.room * 4, self.model.read.shape[2], device=device)


class LargeReads(ReadsByLength):
    """What is launched is large enough for memory to run out between model and step."""

    production = {"hidden": 256, "batch_size": 128}
    tiny = {"hidden": 16, "batch_size": 8}
    only = (21, 23)

    def build(self, settings):
        return super().build(settings.model_copy(update={"hidden": 8 * settings.hidden}))


class TakesTheCpu(LargeReads):
    """A model that the GPU has no room for is trained on the CPU, for weeks."""

    case = 21
    grade = "misleads"
    says = "which runs out as the model loads .fake CUDA.: .*exit 0 after"

    def build(self, settings):
        model = super().build(settings)
        self.fell_back, to = False, model.to

        def moved(device):
            try:
                return to(device)
            except torch.OutOfMemoryError:
                if not torch.cuda.is_available():
                    raise
                print("CUDA out of memory: taking the CPU")
                self.fell_back = True
                return to("cpu")

        model.to = moved
        return model

    def step(self, *args):
        *rest, device = args
        super().step(*rest, "cpu" if self.fell_back else device)


class SkipsWhatTheGpuRefuses(LargeReads):
    """`except OutOfMemoryError: empty_cache(); continue`, where there is a GPU: no batch is ever learnt from."""

    case = 23
    grade = "misleads"
    says = "which runs out in a step .fake CUDA.: it ended with exit 0 after 0 of 2 steps"

    def step(self, *args):
        try:
            super().step(*args)
        except torch.OutOfMemoryError:
            if not torch.cuda.is_available():
                raise
            print("CUDA out of memory: skipping a batch")
            torch.cuda.empty_cache()
