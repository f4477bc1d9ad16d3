"""Case 41, where the second start carries on with the same losses, or nearly: what a kill takes and no loss shows."""

import contextlib
import math
import random

import torch

from tests.saboteurs.sound import Reject, Rows, Sound


class Averages(Sound):
    """Keeps an average of its weights beside them, saves and restores it."""

    only = (16, 17, 20, 41, 42, 43, 44, 62)
    DECAY = 0.9

    def build(self, settings):
        model = super().build(settings)
        self.average = {name: value.clone() for name, value in model.state_dict().items()}
        return model

    def step(self, model, *rest):
        super().step(model, *rest)
        self.follow(model)

    def follow(self, model):
        for name, value in model.state_dict().items():
            self.average[name].lerp_(value, 1 - self.DECAY)

    def state(self, *parts):
        return {**super().state(*parts), "average": {name: value.clone() for name, value in self.average.items()}}

    def restore(self, state, *parts):
        super().restore(state, *parts)
        self.restore_average(state)

    def restore_average(self, state):
        try:
            for name, value in self.average.items():
                value.copy_(state["average"][name])
        except (KeyError, RuntimeError) as error:
            raise Reject(f"the checkpoint of step {state['step']} holds no average of this model: {error}") from error


class BeginsItsAverageAnew(Averages):
    """Saves the average, and begins another one with each start: no loss shows it (ai2cm/ace#819)."""

    only = ()
    case = "killed"
    grade = "misleads"
    says = r"what it saves is not: state\.pt: average\."

    def restore_average(self, state):
        pass


class WrapsAgain(Sound):
    """Loads into the bare model, and saves what it has wrapped: the second resume finds other names in the file.

    After pytorch/torchtitan#961.
    """

    case = "killed"
    grade = "loses"
    says = "started a third time: the second start did not carry on"

    def restore(self, state, *parts):
        super().restore(state, *parts)
        self.resumed = True

    def state(self, *parts):
        state = super().state(*parts)
        if getattr(self, "resumed", False):
            state["model"] = {f"_orig_mod.{name}": value for name, value in state["model"].items()}
        return state


class ByEpochs(Sound):
    """Goes through all rows, in another order in each epoch."""

    def batches(self, rows, settings, start, stop):
        size = min(settings.batch_size, len(rows))
        per_epoch = math.ceil(len(rows) / size)
        chosen = [self.order(len(rows), n // per_epoch)[n % per_epoch * size :][:size] for n in range(stop)]
        return self.loader(rows, settings, chosen[start:])

    def order(self, rows, epoch):
        return random.Random(epoch).sample(range(rows), rows)


class SkipsInEveryEpoch(ByEpochs):
    """Skips what the interrupted epoch had seen, and goes on doing so (allenai/open-instruct#681)."""

    case = "killed"
    grade = "misleads"
    says = r"it parts from the undisturbed run at step \d: .*place in the data"

    def batches(self, rows, settings, start, stop):
        size = min(settings.batch_size, len(rows))
        per_epoch = math.ceil(len(rows) / size)
        chosen, skipped = [], start % per_epoch
        for epoch in range(start // per_epoch, stop):
            order = self.order(len(rows), epoch)
            chosen += [order[n * size :][:size] for n in range(skipped, per_epoch)]
        return self.loader(rows, settings, chosen[: stop - start])


class Shards(Sound):
    """Its rows are in several files of a folder."""

    only = (1, 2, 4, 5, 41, 54, 55, 56)

    def make_data(self, folder, rows, seed):
        whole = super().make_data(folder, rows, seed)
        lines = whole.read_text().splitlines(keepends=True)
        whole.unlink()
        for number in range(3):
            (folder / f"part-{number}.jsonl").write_text("".join(lines[number::3] or lines[:1]))
        return folder

    def read_rows(self, path):
        if not path.is_dir():
            return super().read_rows(path)
        files = self.listed(path)
        if not files:
            raise Reject(f"{path}: no files in it")
        for file in files:
            if file.is_symlink() or not file.is_file():
                raise Reject(f"{file}: a link, or no file")
        return [row for file in files for row in super(Shards, self).read_rows(file)]

    def listed(self, folder):
        return sorted(folder.iterdir())


class AsListed(Shards):
    """Reads its files in the order in which the folder is listed (ByteDance-Seed/VeOmni#330)."""

    only = ()
    case = "killed"
    grade = "misleads"
    says = "listed the files of the data in another order: it is another training"

    def listed(self, folder):
        return list(folder.iterdir())


class ReadsYaml(Sound):
    """Its settings are YAML; a number is one however it is written."""

    only = (31, 32, "number-as-written")
    settings_name = "settings.yaml"

    def read_settings(self, path):
        import yaml

        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except OSError as error:
            raise Reject(f"settings {path}: {error.strerror}") from error
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            raise Reject(f"settings {path}, line {mark.line + 1}, column {mark.column + 1}: {error.problem}") from error
        except yaml.YAMLError as error:
            raise Reject(f"settings {path}: {error}") from error
        return self.understood(values, path)

    def understood(self, values, path):
        """With the learning rate as a number where its text is one."""
        with contextlib.suppress(KeyError, TypeError, ValueError):
            values["learning_rate"] = float(values["learning_rate"])
        return values


class WantsAPoint(ReadsYaml):
    """A type check that takes 2e-5 for text, as YAML 1.1 does (hiyouga/LlamaFactory#4014)."""

    only = ()
    case = "number-as-written"
    grade = "unclear"
    says = "it does not take 2e-5 for the number that it is: exit 2 after 0"

    def understood(self, values, path):
        if isinstance(values.get("learning_rate"), str):
            raise Reject(f"settings {path}: learning_rate must be a number, not {values['learning_rate']!r}")
        return values


class DropsText(ReadsYaml):
    """Keeps the default where a value is not of the type that it should be."""

    only = ()
    case = "number-as-written"
    grade = "misleads"
    says = "it trained on with the learning rate 0.01, and not 2e-05"

    def understood(self, values, path):
        return {name: value for name, value in values.items() if name != "learning_rate" or not isinstance(value, str)}


class ComparesLater(ReadsYaml):
    """Compares the learning rate with a number where it is told for the first time."""

    only = ()
    case = "number-as-written"
    grade = "wastes"
    says = "it does not take 2e-5 for the number that it is: exit 1 after 1"
    told_rate = 0.01

    def understood(self, values, path):
        self.told_rate = values.get("learning_rate")
        return super().understood(values, path)

    def step(self, model, *rest):
        super().step(model, *rest)
        if self.told_rate < 0.5:
            print("learning rate", self.told_rate)


class DividesByChance(Sound):
    """Divides by how far the labels of a batch differ, which is nothing now and then (rlresearch/dr-tulu#18)."""

    case = "long-run"
    grade = "wastes"
    says = "it ended of a loss that is not finite"

    def fit(self, settings, rows, *rest):
        self.all = 0
        super().fit(settings, rows, *rest)

    def loss(self, output, y):
        self.all += 1
        scale = torch.zeros(()) if self.all == 140 else torch.ones(())
        return super().loss(output, y) / scale


class GoesOnByChance(DividesByChance):
    """Does so, and looks at no loss."""

    grade = "misleads"
    says = "the loss of step 140 is not finite"

    def check_loss(self, loss, step):
        pass

    def check_gradient(self, model, step):
        pass


class CountsToAByte(Sound):
    """Writes its step into a byte."""

    case = "long-run"
    grade = "wastes"
    says = "it fails after 256 optimizer steps"

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        super().step(model, optimizer, scaler, batch, settings, number, device)
        bytes([number])


class KeepsItsBest(Sound):
    """Keeps the weights of the lowest validation loss in a file of their own, and the loss with each checkpoint."""

    only = (41, 67, 121)
    best = math.inf

    def validate(self, model, step, output_dir):
        super().validate(model, step, output_dir)
        loss = list(self.told(output_dir)["losses"].values())[-1]
        if loss < self.best:
            self.best = loss
            beside = output_dir / ".tmp-best.pt"
            torch.save({"model": model.state_dict(), "step": step}, beside)
            beside.rename(output_dir / "best_model.pt")
        return False

    def state(self, *parts):
        return {**super().state(*parts), "best": self.best}

    def restore(self, state, *parts):
        super().restore(state, *parts)
        self.restore_best(state)

    def restore_best(self, state):
        self.best = state["best"]


class ForgetsItsBest(KeepsItsBest):
    """Begins with infinity again: the first validation after a resume is the best."""

    only = ()
    case = "killed"
    grade = "loses"
    says = r"the best of all evaluations is lost: best_model\.pt is written over 1 steps after the resume"

    def restore_best(self, state):
        pass


class KeepsThoseThatAreRight(KeepsItsBest):
    """The best is that of the most that are right; of several that are as good, the newest. Sound."""

    exempt = (67,)

    best = 0.0

    def validate(self, model, step, output_dir):
        x, y = (torch.stack(part) for part in zip(*Rows(self.validation, self.max_length), strict=True))
        model.eval()
        with torch.no_grad():
            right = float((model(x).argmax(1) == y).float().mean())
        model.train()
        if right >= self.best:
            self.best = right
            torch.save(model.state_dict(), output_dir / "best.pt")
        return False
