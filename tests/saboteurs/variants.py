"""Sound programs that look unsound: every case that applies must pass them."""

import contextlib
import csv
import hashlib
import itertools
import json
import math
import threading
import time
from copy import deepcopy

import torch

from pytest_trainguard import Trainer
from tests.saboteurs.sound import FORMAT, Reject, Sound


class WarmsUp(Sound):
    """The first step's learning rate is 0, so it moves nothing; labels are smoothed, so the loss never comes near 0.

    Every fifth row is held out.
    """

    EVERY = 5
    fields = {"validation_data": ""}  # no setting is one

    def held_out(self, data):
        return [row for row in range(len(self.read_rows(data))) if row % self.EVERY == self.EVERY - 1]

    def fit(self, settings, rows, *rest):
        self.validation = [rows[row] for row in range(self.EVERY - 1, len(rows), self.EVERY)]
        kept = [rows[row] for row in range(len(rows)) if row % self.EVERY != self.EVERY - 1]
        super().fit(settings, kept, *rest)

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * min(1.0, (number - 1) / 4)
        super().step(model, optimizer, scaler, batch, settings, number, device)

    def loss(self, output, y):
        return torch.nn.functional.cross_entropy(output.float(), y, label_smoothing=0.02)


class FrozenAndNormalised(Sound):
    """An embedding is frozen on purpose; batch normalisation keeps state that no optimizer moves."""

    overfit = {**Sound.overfit, "batch_size": 32}

    def build(self, settings):
        length = settings.max_length
        embedding = torch.nn.Linear(length, length).requires_grad_(False)
        return torch.nn.Sequential(embedding, torch.nn.BatchNorm1d(length), *super().build(settings))

    def optimizer(self, model, settings):
        return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=settings.learning_rate)

    def fit(self, settings, rows, *rest):
        parts = settings.gradient_accumulation
        if min(len(rows), settings.batch_size) < 2 * parts:
            told = f"{len(rows)} rows, batch size {settings.batch_size}, gradient_accumulation {parts}"
            raise Reject(f"{told}: batch normalisation needs two rows in each forward pass")
        super().fit(settings, rows, *rest)


class HandedCheckpoints(Sound):
    """Has very few rows, blank lines between them, and a note on some; is handed the checkpoint to carry on from."""

    rows = 6

    def make_data(self, folder, rows, seed):
        path = super().make_data(folder, rows, seed)
        lines = path.read_text().splitlines()
        lines[0] = json.dumps({**json.loads(lines[0]), "note": "seen twice"})
        path.write_text("".join(f"{line}\n\n" for line in lines))
        return path

    def resume_from(self, output_dir):
        return Trainer.resume_from(self, output_dir)

    def load(self, resume_from):
        state = self.whole(resume_from)
        if state is None:
            raise Reject(f"{resume_from}: no whole checkpoint")
        self.check_state(state, resume_from)
        return state


class ReadsCsv(Sound):
    """Rows in a table; a column that nobody needs is in it."""

    COLUMNS = ("a", "b", "c", "d", "y")
    DIALECT = {}  # for Python's csv module
    SOURCE = "a web page,\nin two lines"

    def make_data(self, folder, rows, seed):
        path = super().make_data(folder, rows, seed)
        table = path.with_name("rows.csv")
        with table.open("w", newline="") as out:
            writer = csv.writer(out, **self.DIALECT)
            writer.writerow([*self.COLUMNS, "source"])
            for line in path.read_text().splitlines():
                row = json.loads(line)
                writer.writerow([*row["x"], row["y"], self.SOURCE])
        path.unlink()
        return table

    def read_rows(self, path):
        rows = []
        with self.open_data(path) as lines:
            number = 1
            try:
                reader = csv.reader((line.decode("utf-8") for line in lines), **self.DIALECT)
                names = [name.removeprefix("\ufeff") for name in next(reader, [])]
                for name in self.COLUMNS:
                    if name not in names:
                        raise Reject(f"{path}: column {name!r} is missing")
                number = reader.line_num + 1
                for cells in reader:
                    rows.append(self.row(dict(zip(names, cells, strict=True))))
                    number = reader.line_num + 1
            except (ValueError, csv.Error) as error:
                raise Reject(f"{path}, line {number}: {error}") from error
        if not rows:
            raise Reject(f"{path}: no rows to train on")
        return rows

    def open_data(self, path):
        try:
            path = path.resolve(strict=True)
        except (OSError, RuntimeError) as error:
            raise Reject(f"{path}: {getattr(error, 'strerror', None) or error}") from error
        if path.suffix != ".csv":
            raise Reject(f"{path}: not a .csv file")
        return path.open("rb")

    def row(self, cells):
        numbers = {name: self.number(name, cells[name]) for name in self.COLUMNS}
        if numbers["y"] not in (0, 1):
            raise ValueError(f"column 'y' is {cells['y']}, not 0 or 1")
        return {"x": [numbers[name] for name in "abcd"], "y": int(numbers["y"])}

    def number(self, name, cell):
        try:
            return float(cell)
        except ValueError as error:
            raise ValueError(f"column {name!r} is {cell!r}, not a number") from error


class Chats(Sound):
    """Rows of messages, `{"messages": [{"role", "content"}, ...], "x", "y"}`; skips a chat in which nothing is said."""

    ROLES = {"system": 0, "user": 1, "assistant": 2}

    def make_data(self, folder, rows, seed):
        path = super().make_data(folder, rows, seed)
        made = []
        for line in path.read_text().splitlines():
            row = json.loads(line)
            question, _, answer = row.pop("text").partition(" ")
            told = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            made.append(json.dumps({"messages": told, **row}) + "\n")
        path.write_text("".join(made))
        return path

    def read_rows(self, path):
        self.skipped = 0
        rows = super().read_rows(path)
        if self.skipped:
            print(f"{self.skipped} chats skipped, nothing is said in them")
        return rows

    def check_row(self, row, path, number):
        where = f"{path}, line {number}"
        if not isinstance(row, dict) or "messages" not in row:
            raise Reject(f"{where}: field 'messages' is missing")
        messages = row["messages"]
        if not isinstance(messages, list) or not messages:
            raise Reject(f"{where}: field 'messages' is {messages!r}, not a list of messages")
        said = []
        for message in messages:
            for name in ("role", "content"):
                if not isinstance(message, dict) or not isinstance(message.get(name), str):
                    raise Reject(f"{where}: {name!r} of a message is missing or no text: {message!r}")
            said.append(message["content"] + "~" * self.check_role(message["role"], path, number))
        if not all(message["content"].strip() for message in messages):
            self.skipped += 1
            return None
        return super().check_row({**row, "text": "".join(said)}, path, number)

    def check_role(self, role, path, number):
        if role not in self.ROLES:
            raise Reject(f"{path}, line {number}: role {role!r} is not one of {', '.join(self.ROLES)}")
        return self.ROLES[role]


class Houses(Sound):
    """A row has a number of rooms, which is one more number to learn from: any finite one will do, halves too."""

    only = (4, 5, 7, 8)

    def make_data(self, folder, rows, seed):
        path = super().make_data(folder, rows, seed)
        lines = enumerate(path.read_text().splitlines())
        path.write_text("".join(json.dumps({**json.loads(line), "rooms": 1 + n % 6}) + "\n" for n, line in lines))
        return path

    def check_row(self, row, path, number):
        checked = super().check_row(row, path, number)
        if "rooms" not in row:
            raise Reject(f"{path}, line {number}: field 'rooms' is missing")
        if type(row["rooms"]) not in (int, float):
            raise Reject(f"{path}, line {number}: field 'rooms' is {row['rooms']!r}, not a number")
        x = checked["x"]
        return {**checked, "x": [x[0] + self.weigh(row["rooms"]), *x[1:]]}

    def weigh(self, rooms):
        return math.log1p(abs(rooms)) / 10


class Species(Sound):
    """What is to be learnt is a name, and so is where it was found: any other name is refused."""

    only = (3, 9)
    exempt = (3, 9)
    labels = "species"
    NAMES = ("heron", "stork")
    PLACES = ("lake", "marsh", "river")

    def make_data(self, folder, rows, seed):
        path = super().make_data(folder, rows, seed)
        made = []
        for number, line in enumerate(path.read_text().splitlines()):
            row = json.loads(line)
            named = {"species": self.NAMES[row["y"]], "place": self.PLACES[number % 3]}
            made.append(json.dumps({"x": row["x"], **named}) + "\n")
        path.write_text("".join(made))
        return path

    def check_row(self, row, path, number):
        for name, known in (("species", self.NAMES), ("place", self.PLACES)):
            if not isinstance(row, dict) or row.get(name) not in known:
                told = row.get(name) if isinstance(row, dict) else row
                raise Reject(f"{path}, line {number}: field {name!r} is {told!r}, not one of {', '.join(known)}")
        row = {**row, "text": row["place"], "y": self.NAMES.index(row["species"])}
        return super().check_row(row, path, number)


class Graphs(Sound):
    """Each of a row's numbers is given its neighbours'; a graph without edges is a graph."""

    only = (5, 6, 8)

    def make_data(self, folder, rows, seed):
        path = super().make_data(folder, rows, seed)
        made = []
        for number, line in enumerate(path.read_text().splitlines()):
            edges = [[start, (start + 1) % 4] for start in range(1 + number % 3)]
            made.append(json.dumps({**json.loads(line), "edges": edges}) + "\n")
        path.write_text("".join(made))
        return path

    def check_row(self, row, path, number):
        checked = super().check_row(row, path, number)
        edges = row.get("edges")
        if not isinstance(edges, list) or not all(isinstance(edge, list) and len(edge) == 2 for edge in edges):
            raise Reject(f"{path}, line {number}: field 'edges' is {edges!r}, not a list of pairs")
        x = list(checked["x"])
        for start, end in edges:
            x[end] += checked["x"][start]
        return {**checked, "x": x, "edges": edges}


class GraphsWithSomeEdges(Graphs):
    """A graph without edges is a graph; a file without one edge is of something else."""

    only = (6,)

    def read_rows(self, path):
        rows = super().read_rows(path)
        if not any(rows[number]["edges"] for number in range(len(rows))):
            raise Reject(f"{path}: not one edge in {len(rows)} rows")
        return rows


class ReadsAsManyAsItNeeds(Sound):
    """Takes the first rows of a large file, and reads no further: of what stands behind them it knows nothing."""

    only = (4, 5, 6, 7, 8, 9)

    @contextlib.contextmanager
    def open_data(self, path):
        with super().open_data(path) as lines:
            yield itertools.islice(lines, 16)


class Checksummed(Sound):
    """A checkpoint of several files; its manifest holds the size and SHA-256 of each, of `version.json` too.

    A changed file is found by its checksum. One that was saved so is found by what stands in it.
    """

    only = (16, 17, 18, 19, 20, 62)
    PARTS = ("model", "optimizer", "scaler", "rng")

    def write_state(self, folder, state):
        for part in self.PARTS:
            torch.save(state[part], folder / f"{part}.pt")
        (folder / "trainer_state.json").write_text(json.dumps({"step": state["step"]}))
        (folder / "version.json").write_text(json.dumps({"format_version": FORMAT}))
        files = {path.name: self.entry(path) for path in sorted(folder.iterdir())}
        (folder / "manifest.json").write_text(json.dumps({"files": files}))
        for path in folder.iterdir():
            self.sync(path)

    def entry(self, path):
        content = path.read_bytes()
        return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}

    def whole(self, checkpoint):
        try:
            listed = json.loads((checkpoint / "manifest.json").read_bytes())["files"]
            if any(self.entry(checkpoint / name) != entry for name, entry in listed.items()):
                return None
            version = json.loads((checkpoint / "version.json").read_bytes())["format_version"]
            self.check_version(version, checkpoint)
            return {"step": self.step_in(checkpoint), **self.parts_in(checkpoint)}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def step_in(self, checkpoint):
        step = json.loads((checkpoint / "trainer_state.json").read_bytes())["step"]
        if type(step) is not int:
            raise TypeError(f"step is {step!r}")
        return step

    def parts_in(self, checkpoint):
        return {part: torch.load(checkpoint / f"{part}.pt", weights_only=True) for part in self.PARTS}


class ValidatesThenSaves(Sound):
    """Validates before each save, every third step, as nobody can set; of its last step there is none."""

    only = (18, 25, 41, 42, 43, 44, 63, 64)
    exempt = (63,)
    fields = {"save_every": ""}  # no setting is one

    def fit(self, settings, *rest):
        super().fit(settings.model_copy(update={"save_every": 3}), *rest)

    def state(self, model, *rest):
        model.eval()
        with torch.no_grad():
            print("mean score", float(model(torch.zeros(2, self.max_length)).mean()))
        model.train()
        return super().state(model, *rest)

    def save(self, output_dir, state):
        if state["step"] % 3 == 0:
            super().save(output_dir, state)


class HalfWantsAGpu(Sound):
    """As accelerate has it: no fp16 on a CPU."""

    only = (65,)

    def fit(self, settings, *rest):
        if settings.precision == "fp16":
            raise ValueError("fp16 mixed precision requires a GPU (not 'cpu').")
        super().fit(settings, *rest)


class SavesEverySix(Sound):
    """Once in a short run, and as nobody can set."""

    only = (42,)
    exempt = (42,)
    fields = {"save_every": ""}  # no setting is one

    def save(self, output_dir, state):
        if state["step"] % 6 == 0:
            super().save(output_dir, state)


class TwoOptimizers:
    """One object for both."""

    def __init__(self, **optimizers):
        self.optimizers = optimizers

    def state_dict(self):
        return {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}

    def load_state_dict(self, state):
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[name])


class Adversaries(Sound):
    """Two networks against each other, each with an optimizer of its own: neither loss has a floor."""

    only = (25, 41, 42, 43, 44, 63, 64, 66)
    labels = None
    overfit = {"learning_rate": 0.01, "hidden": 32}

    def build(self, settings):
        def network(inputs, outputs):
            layers = (torch.nn.Linear(inputs, settings.hidden), torch.nn.LeakyReLU(0.2))
            return torch.nn.Sequential(*layers, torch.nn.Linear(settings.hidden, outputs))

        return torch.nn.ModuleDict({"generator": network(4, 4), "critic": network(4, 1)})

    def optimizer(self, model, settings):
        made = {name: torch.optim.Adam(part.parameters(), settings.learning_rate) for name, part in model.items()}
        return TwoOptimizers(**made)

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        x = batch[0][:, :4]
        fake = model["generator"](torch.randn(len(x), 4))
        against = torch.nn.functional.softplus
        for name in ("critic", "generator"):
            if name == "critic":
                loss = against(-model["critic"](x)).mean() + against(model["critic"](fake.detach())).mean()
            else:
                loss = against(-model["critic"](fake)).mean()
            self.check_loss(loss, number)
            optimizer.optimizers[name].zero_grad()
            loss.backward()
            self.check_gradient(model[name], number)
            optimizer.optimizers[name].step()


class Density(Sound):
    """A negative log-likelihood, far below 0 where it is learnt."""

    only = (64, 66)
    overfit = {"learning_rate": 0.02, "dropout": 0.0, "hidden": 64, "batch_size": 32}

    def loss(self, output, y):
        mean, log_width = output.float().unbind(1)
        return (log_width + 0.5 * ((y / 100 - mean) / log_width.exp()) ** 2).mean()


class Regression(Sound):
    """Numbers with a spread of their own: the loss falls far, and not below a half."""

    only = (66,)

    def loss(self, output, y):
        return torch.nn.functional.mse_loss(output.float()[:, 0], 40.0 * y)


class Denoises(Sound):
    """Tells the noise in its rows: new noise in each step, so that there is a floor."""

    only = (66,)
    labels = None
    overfit = {"learning_rate": 0.02, "dropout": 0.0, "hidden": 64, "batch_size": 32}

    def step(self, model, optimizer, scaler, batch, *rest):
        x, _ = batch
        self.noise = torch.randn(len(x), 2)
        noisy = torch.cat([x[:, :2] + self.noise, x[:, 2:]], 1)
        super().step(model, optimizer, scaler, [noisy, self.noise], *rest)

    def loss(self, output, y):
        return torch.nn.functional.mse_loss(output.float(), y)


class HasAGoalOfItsOwn(Density):
    """States what its loss must come below."""

    overfit_below = -2.0


class GradientsByHand(Sound):
    """Takes no backward pass: its gradients are those of `torch.autograd.grad`."""

    only = (25, 41, 64, 66)

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        x, y = batch
        loss = self.loss(model(x), y)
        self.check_loss(loss, number)
        parameters = list(model.parameters())
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        self.check_gradient(model, number)
        optimizer.step()


class SavesInAThread(Sound):
    """The save of a step goes on in a thread while the next ones are taken."""

    only = (48,)

    def save(self, output_dir, state):
        def later():
            time.sleep(0.3)
            Sound.save(self, output_dir, copy)

        copy = deepcopy(state)
        self.thread = threading.Thread(target=later)
        self.thread.start()

    def fit(self, settings, *rest):
        super().fit(settings, *rest)
        self.thread.join()


class TwoSteps(Sound):
    """One backward pass, then the steps of two optimizers, as where matrices have one of their own."""

    only = (25, 41, 42, 43, 63, 64, 66)

    def optimizer(self, model, settings):
        parameters = list(model.parameters())
        matrices = torch.optim.AdamW([p for p in parameters if p.dim() > 1], settings.learning_rate)
        others = torch.optim.AdamW([p for p in parameters if p.dim() == 1], settings.learning_rate)
        return TwoOptimizers(matrices=matrices, others=others)

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        x, y = batch
        model.zero_grad()
        loss = self.loss(model(x), y)
        self.check_loss(loss, number)
        loss.backward()
        self.check_gradient(model, number)
        for one in optimizer.optimizers.values():
            one.step()


class HoldsInfinities(Sound):
    """Infinite in its checkpoints: the best score of a callback that has seen none yet, and a mask that is a buffer."""

    only = (64,)

    def build(self, settings):
        model = super().build(settings)
        model.register_buffer("mask", torch.full((2, 2), -math.inf).triu(1))
        return model

    def state(self, *args):
        return {**super().state(*args), "callbacks": {"kth_value": torch.tensor(math.inf)}}


class FewEpochs(Sound):
    """Two epochs, as its settings say: of 32 rows they are over after 8 steps, where case 66 wants 50."""

    only = (66,)
    tiny = {"max_epochs": 2}


class AsksTwice(Sound):
    """A name is assigned where a question is answered with yes, and used where the same one is asked again."""

    only = (71,)

    def fit(self, settings, rows, *rest):
        if settings.num_workers:
            started = time.monotonic()
        super().fit(settings, rows, *rest)
        if settings.num_workers and rows:
            print(f"{time.monotonic() - started:.0f} s")


class WritesNothing(Sound):
    """Tells what it comes to, and has nothing to keep: any folder will do, and any number of them beside each other."""

    only = (14, 46, 48, 63)
    exempt = (14, 63, 48)

    def lock(self, output_dir):
        return None

    def unlock(self, output_dir, file):
        pass

    def save(self, output_dir, state):
        pass

    def save_adapter(self, output_dir, *rest):
        pass


class NotesItsStep(Sound):
    """A note in each checkpoint tells people its step; the one that it carries on from stands elsewhere."""

    only = (16, 17, 62)
    exempt = (62,)

    def write_state(self, folder, state):
        (folder / "note.json").write_text(json.dumps({"step": state["step"]}))
        self.sync(folder / "note.json")
        super().write_state(folder, {**state, "step": None, "done": state["step"]})

    def whole(self, checkpoint):
        state = super().whole(checkpoint)
        return state and {**state, "step": state["done"]}
