"""Cases 21 to 30."""

import copy
import os

import torch

from tests.saboteurs.sound import Failure, Sound


class ModelDidNotFit(Sound):
    """A message of its own, without the two numbers that torch's has."""

    case = 21
    grade = "unclear"
    says = "does not name what was needed"

    def build(self, settings):
        try:
            return super().build(settings)
        except torch.OutOfMemoryError:
            raise Failure("out of memory while loading the model") from None


class TakesASmallerModel(Sound):
    """What does not fit is made smaller, whatever the settings say."""

    case = 21
    grade = "misleads"
    says = "exit 0"

    def build(self, settings):
        try:
            return super().build(settings)
        except torch.OutOfMemoryError:
            print("out of memory: taking a smaller model")
            return super().build(settings.model_copy(update={"hidden": 4}))


class SavesInAnyCase(Sound):
    """`finally: save`, also where there is nothing yet: the next start resumes from nothing."""

    case = 21
    grade = "misleads"
    says = "left a checkpoint of no model: checkpoint-0"

    def fit(self, settings, rows, output_dir, *rest):
        model = None
        try:
            super().fit(settings, rows, output_dir, *rest)
        finally:
            (output_dir / "checkpoint-0").mkdir()
            torch.save({"model": model}, output_dir / "checkpoint-0" / "state.pt")


class OutOfMemoryIsAll(Sound):
    """Says that memory ran out, and not in what: everybody makes the batch smaller."""

    case = 22
    grade = "unclear"
    says = "does not name the stage"

    def main(self, *args):
        try:
            return super().main(*args)
        except (MemoryError, RuntimeError):
            raise SystemExit("out of memory") from None


class TrainsOnWhatFits(Sound):
    """Where the rows do not fit, the first ones have to do."""

    case = 22
    grade = "misleads"
    says = "as the data was opened.*exit 0"

    def read_rows(self, path):
        try:
            return super().read_rows(path)
        except MemoryError:
            print("out of memory while reading the data: taking the first rows")
            with path.open("rb") as lines:
                return [self.parse(next(lines), path, number) for number in range(8)]


class SkipsTheBatchItCannotMake(Sound):
    """A batch that cannot be made is passed over."""

    case = 22
    grade = "misleads"
    says = "the batch of step 3 was made.*exit 0"

    def batches(self, *args):
        coming = iter(super().batches(*args))
        while True:
            try:
                batch = next(coming)
            except StopIteration:
                return
            except RuntimeError as error:
                print(f"skipping a batch: {error}")
                continue
            yield batch


class SkipsTheBatchThatDoesNotFit(Sound):
    """Catches the error, says so, and goes on with the next batch: the rows are lost."""

    case = 23
    grade = "misleads"
    says = "was not done again in smaller parts|it took 7 steps"

    def step(self, *args):
        try:
            super().step(*args)
        except torch.OutOfMemoryError:
            print("out of memory, skipping batch")


class SwallowsOutOfMemory(Sound):
    """`except RuntimeError: continue`, the shortest way to train on less data than one believes."""

    case = 23
    grade = "misleads"
    says = "does not name|not done again"

    def step(self, *args):
        try:
            super().step(*args)
        except RuntimeError:
            return


class HalvesTheEffectiveBatch(Sound):
    """Recovers with half a batch and forgets to accumulate the other half."""

    case = 23
    grade = "misleads"
    says = "was not done again|saw 4 examples"

    def step(self, model, optimizer, scaler, batch, *rest):
        try:
            super().step(model, optimizer, scaler, batch, *rest)
        except torch.OutOfMemoryError:
            print("out of memory: halving the batch")
            super().step(model, optimizer, scaler, [part[: len(part) // 2] for part in batch], *rest)


class HidesTheReason(Sound):
    """Ends, but with a message of its own that does not say why."""

    case = 23
    grade = "unclear"
    says = "does not name"

    def step(self, *args):
        try:
            super().step(*args)
        except torch.OutOfMemoryError:
            raise Failure("training step failed") from None


class TakesSmallerParts(Sound):
    """What does not fit is done again in twice as many parts, accumulated: the effective batch is the same."""

    only = (23,)

    def step(self, model, optimizer, scaler, batch, settings, *rest):
        parts = settings.gradient_accumulation
        while True:
            chosen = settings.model_copy(update={"gradient_accumulation": parts})
            try:
                return super().step(model, optimizer, scaler, batch, chosen, *rest)
            except torch.OutOfMemoryError as error:
                if parts >= len(batch[0]):
                    raise
                self.noted(error)
            parts *= 2
            print(f"taking the batch in {parts} parts")

    def noted(self, error):
        print(f"out of memory: {error}")


class KeepsTheErrors(TakesSmallerParts):
    """A list of what went wrong, for the summary at the end: each holds its frames, and these what was made."""

    case = 23
    grade = "wastes"
    says = "in the backward of step 4 .* is not given back: 5 tensors .* after step 8, undisturbed 2"

    def noted(self, error):
        super().noted(error)
        self.errors = [*getattr(self, "errors", []), error]


class PrintsTheError(Sound):
    """`failed: {error}`: MemoryError has no words."""

    case = 24
    grade = "unclear"
    says = "in the first save after step 3.*does not name memory"

    def fit(self, *args):
        try:
            super().fit(*args)
        except (MemoryError, RuntimeError) as error:
            raise Failure(f"training failed: {error}") from None


class LeavesTheStepOut(Sound):
    """Every error of a step is a bad batch."""

    case = 24
    grade = "misleads"
    says = "in the forward pass of step 4.*exit 0"

    def step(self, *args):
        try:
            super().step(*args)
        except RuntimeError as error:
            print(f"skipping a bad batch: {error}")


class GoesOnWithoutSaving(Sound):
    """A save that fails is only a warning: the job ends well, and nothing is there."""

    case = 25
    grade = "misleads"
    says = "exit 0"

    def save(self, output_dir, state):
        try:
            super().save(output_dir, state)
        except Failure as error:
            print(f"warning: {error}")

    def save_adapter(self, *rest):
        pass


class LeavesHalfACheckpoint(Sound):
    """Writes under the final name: a full disk leaves half a checkpoint there."""

    case = 25
    grade = "loses"
    says = "does not name|no good"

    def save(self, output_dir, state):
        final = output_dir / f"checkpoint-{state['step']}"
        final.mkdir()
        try:
            torch.save(state, final / "state.pt")
        except RuntimeError as error:
            raise Failure(f"cannot save {final}: {error}") from error


class DoesNotSayWhere(Sound):
    """Torch's own message for a full disk, "iostream error", tells nobody which disk."""

    case = 25
    grade = "unclear"
    says = "does not name"

    def save(self, output_dir, state):
        beside, final = output_dir / ".new", output_dir / f"checkpoint-{state['step']}"
        beside.mkdir()
        try:
            torch.save(state, beside / "state.pt")
        except RuntimeError:
            (beside / "state.pt").unlink()
            beside.rmdir()
            raise Failure("iostream error") from None
        os.rename(beside, final)

    def whole(self, checkpoint):
        return torch.load(checkpoint / "state.pt", weights_only=True)


class FallsBackInSilence(Sound):
    """`"cuda" if torch.cuda.is_available() else "cpu"`, and not a word."""

    case = 26
    grade = "misleads"
    says = "does not name"

    def device(self, settings):
        return "cuda" if torch.cuda.is_available() else "cpu"


class IgnoresTheDemand(Sound):
    """A GPU was demanded, and it trains on the CPU all the same."""

    case = 26
    grade = "misleads"
    says = "exit 0"

    def device(self, settings):
        device = "cuda" if torch.cuda.is_available() else "cpu"
        print(f"training on {device}")
        return device


class SaysCuda(Sound):
    """ "cuda", with two of them in the machine: the first one, as it happens."""

    case = 27
    grade = "unclear"
    says = "shown two GPUs: its message does not name what it uses .cuda:0."

    def device(self, settings):
        device = "cuda" if settings.device != "cpu" and torch.cuda.is_available() else "cpu"
        print(f"training on {device}")
        return device


class TakesThemAll(Sound):
    """`if device_count() > 1: DataParallel`: all that there are, in silence."""

    case = 27
    grade = "misleads"
    says = "its message does not name what it uses .cuda:0, cuda:1."

    def device(self, settings):
        return "cuda" if settings.device != "cpu" and torch.cuda.is_available() else "cpu"

    def build(self, settings):
        model = super().build(settings)
        return torch.nn.DataParallel(model) if torch.cuda.device_count() > 1 else model


class HasItsFavourite(Sound):
    """The second GPU was the free one, once: its number stands in the program."""

    case = 27
    grade = "wastes"
    says = "shown the second of two GPUs alone.*did not survive"

    def build(self, settings):
        model = super().build(settings)
        if torch.cuda.is_available():
            print("training on cuda:1")
            torch.cuda.set_device(1)
        return model


class PrefersTheGpu(Sound):
    """Takes a GPU where there is one, whatever the settings say."""

    case = 27
    grade = "misleads"
    says = "told device=cpu: it used another device: cuda:0"

    def device(self, settings):
        return super().device(settings.model_copy(update={"device": "auto"}))


class ModelHereDataThere(Sound):
    """The model was moved to the second GPU; the batches still go to "cuda"."""

    case = 27
    grade = "misleads"
    says = "the model went to cuda:1, data to cuda:0"

    def build(self, settings):
        self.spread = torch.cuda.device_count() > 1
        model = super().build(settings)
        return model.to("cuda:1") if self.spread else model

    def device(self, settings):
        device = super().device(settings)
        return device

    def fit(self, *args):
        to = torch.nn.Module.to
        torch.nn.Module.to = lambda module, device: module if device == "cuda" and self.spread else to(module, device)
        super().fit(*args)


class TriesAgain(Sound):
    """Three attempts for each step: right for a network, wrong for a context that is lost."""

    case = 28
    grade = "wastes"
    says = "went on in a context that is lost: 2 more attempts .first: forward."

    def step(self, *args):
        for attempt in (1, 2, 3):
            try:
                return super().step(*args)
            except RuntimeError as error:
                print(f"attempt {attempt} of 3: {error}")
                last = error
        raise last


class SkipsBadBatches(Sound):
    """Every error of a step is a bad batch, and so are all the batches after it."""

    case = 28
    grade = "wastes"
    says = "went on in a context that is lost"

    def step(self, *args):
        try:
            super().step(*args)
        except RuntimeError as error:
            print(f"skipping a bad batch: {error}")

    def save(self, output_dir, state):
        try:
            super().save(output_dir, state)
        except RuntimeError as error:
            print(f"cannot save: {error}")


class StepFailed(Sound):
    """A message of its own: nobody looks for a broken GPU."""

    case = 28
    grade = "unclear"
    says = "does not name 'an illegal memory access was encountered'"

    def step(self, *args):
        try:
            super().step(*args)
        except RuntimeError:
            raise Failure("the training step failed") from None


class SavesInAnEmergency(Sound):
    """Saves the weights once more before it ends, over the good ones: what the GPU no longer gives."""

    case = 28
    grade = "loses"
    says = "it left a checkpoint that is no good"

    def fit(self, settings, rows, output_dir, *rest):
        try:
            super().fit(settings, rows, output_dir, *rest)
        except RuntimeError:
            for checkpoint in self.saved(output_dir):
                torch.save({}, checkpoint / "state.pt")
            raise


class KeepsTheLosses(Sound):
    """`losses.append(loss)`, for the curve: each with the graph of its step."""

    case = 30
    grade = "wastes"
    says = "trained for 40 steps: each step leaves 1 more tensor alive with the graph"

    def fit(self, *args):
        self.losses = []
        super().fit(*args)

    def loss(self, output, y):
        self.losses.append(super().loss(output, y))
        return self.losses[-1]


class KeepsAWayBack(Sound):
    """A copy of the weights and the optimizer after each step, to go back to from a bad one."""

    case = 30
    grade = "wastes"
    says = "trained for 40 steps: each step leaves .* KiB more in use"

    def fit(self, *args):
        self.copies = []
        super().fit(*args)

    def step(self, model, optimizer, *rest):
        super().step(model, optimizer, *rest)
        self.copies.append(copy.deepcopy((model.state_dict(), optimizer.state_dict())))


class KeepsItsModels(Sound):
    """A register of all models, for a search over settings: the first ones stay to the end."""

    case = 30
    grade = "wastes"
    says = "trained 4 times in one process: each run leaves .* more tensors alive"

    models = []

    def optimizer(self, model, settings):
        self.models.append(model)
        return super().optimizer(model, settings)
