"""Cases 61 to 70."""

import copy
import math
import shutil
import sys
import time
import warnings

import torch

from tests.saboteurs.sound import Failure, Rows, Sound
from tests.saboteurs.variants import Adversaries, Density, Regression


class NothingToDo(Sound):
    """A loop over no steps is over at once, and what was not trained is saved like any other."""

    case = 61
    grade = "misleads"
    says = "it does not say that nothing was trained, and saves weights all the same"

    def steps(self, settings, rows, max_steps):
        return max_steps


class NothingToSave(NothingToDo):
    """Does nothing, saves nothing, and says nothing."""

    grade = "unclear"
    says = "it does not say that nothing was trained$"

    def save_adapter(self, output_dir, model, first, settings):
        pass


class ZeroIsNoLimit(Sound):
    """`max_steps or epochs * steps`: 0 is nothing, and nothing is no limit."""

    case = 61
    grade = "misleads"
    says = "it took 24 of them: it reads 0 as no limit"

    def steps(self, settings, rows, max_steps):
        return max_steps or 3 * -(-len(rows) // settings.batch_size)


class MeanOfNothing(Sound):
    """Divides the sum of the losses by the number of steps."""

    case = 61
    grade = "unclear"
    says = "does not name the number of steps"

    def steps(self, settings, rows, max_steps):
        return max_steps

    def fit(self, settings, rows, output_dir, max_steps, *rest):
        super().fit(settings, rows, output_dir, max_steps, *rest)
        print(f"{100 / max_steps:.1f} % a step")


class NoEpochIsFine(Sound):
    """States that there is one epoch at least, and does not hold the setting against it."""

    case = 61
    grade = "misleads"
    says = "set max_epochs = 0: exit 0 without one optimizer step"

    def settings(self, values):
        settings = super().settings({name: value for name, value in values.items() if name != "max_epochs"})
        return settings.model_copy(update={"max_epochs": values.get("max_epochs", settings.max_epochs)})


class WholeWindowsOnly(Sound):
    """Steps in an epoch are `batches // accumulation`, as many a trainer has it."""

    case = 61
    grade = "misleads"
    says = "trained on 3 rows with gradient_accumulation = 64: exit 0 without one optimizer step"

    def steps(self, settings, rows, max_steps):
        windows = -(-len(rows) // settings.batch_size) // settings.gradient_accumulation
        return min(super().steps(settings, rows, max_steps), settings.max_epochs * windows)


class GoesOnFromBelowZero(Sound):
    """`range(step, max_steps)` has no objection."""

    case = 62
    grade = "misleads"
    says = "negative .-8., and those before it, then started again to resume: exit 0 after 16 optimizer steps"

    def check_state(self, state, checkpoint):
        pass


class AtLeastZero(Sound):
    """`max(0, step)`: trained weights at step 0, and not a word."""

    case = 62
    grade = "misleads"
    says = "exit 0 after 8 optimizer steps"

    def check_state(self, state, checkpoint):
        state["step"] = max(0, state["step"])


class FailsInItsSchedule(Sound):
    """A learning rate that falls with the root of the step fails on it, and names what a root may not be of."""

    case = 62
    grade = "unclear"
    says = "does not name 'negative' or '-2'"

    def check_state(self, state, checkpoint):
        print("learning rate", 0.1 / (1 + math.sqrt(state["step"])))


class LooksAfterTheStep(Sound):
    """Holds the counter against 0 where it has counted."""

    case = 62
    grade = "wastes"
    says = "it trained first"

    def check_state(self, state, checkpoint):
        pass

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        super().step(model, optimizer, scaler, batch, settings, number, device)
        if number < 0:
            raise Failure(f"step {number} is negative")


class TrainsOn(Sound):
    """Counts steps from zero in each start, so that a finished run is trained again."""

    case = 63
    grade = "misleads"
    says = "it trained on"

    def fit(self, settings, rows, output_dir, max_steps, resume_from, seed):
        super().fit(settings, rows, output_dir, max_steps + 2 if resume_from else max_steps, resume_from, seed)


class SavesAgainAtTheEnd(Sound):
    """Writes its last checkpoint anew, with whatever it holds by then."""

    case = 63
    grade = "loses"
    says = "it changed its checkpoints"

    def fit(self, settings, rows, output_dir, max_steps, resume_from, seed):
        super().fit(settings, rows, output_dir, max_steps, resume_from, seed)
        for folder in output_dir.glob("checkpoint-*"):
            state = torch.load(folder / "state.pt", weights_only=True)
            torch.save({**state, "ended": time.time()}, folder / "state.pt")

    def whole(self, checkpoint):
        return torch.load(checkpoint / "state.pt", weights_only=True)


class SavesAgainWhatItHas(SavesAgainAtTheEnd):
    """Puts its last checkpoint in its place once more as it ends: the same, in one step. Sound."""

    case = ""
    only = (63,)

    def fit(self, settings, rows, output_dir, max_steps, resume_from, seed):
        Sound.fit(self, settings, rows, output_dir, max_steps, resume_from, seed)
        for folder in output_dir.glob("checkpoint-*"):
            state = torch.load(folder / "state.pt", weights_only=True)
            torch.save(self.again(state), output_dir / ".tmp-state.pt")
            (output_dir / ".tmp-state.pt").rename(folder / "state.pt")

    def again(self, state):
        return dict(reversed(state.items()))


class ShrinksAsItEnds(SavesAgainWhatItHas):
    """Takes the noise of training out of the weights as it ends, in each start once more."""

    only = ()
    case = 63
    grade = "loses"

    def again(self, state):
        return {**state, "model": {name: 0.999 * weights for name, weights in state["model"].items()}}


class FailsWhenDone(Sound):
    """Divides by the number of steps that it took."""

    case = 63
    grade = "wastes"
    says = "did not end well"

    def fit(self, settings, rows, output_dir, max_steps, resume_from, seed):
        started = self.load(resume_from)["step"] if resume_from else 0
        super().fit(settings, rows, output_dir, max_steps, resume_from, seed)
        print(1 / (max_steps - started))


class NeverLooks(Sound):
    """Checks neither loss nor gradient: the run ends well, and every weight is NaN."""

    case = 64
    grade = "misleads"
    says = "exit 0"

    def check_loss(self, loss, step):
        pass

    def check_gradient(self, model, step):
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)


class LooksAtTheLossOnly(Sound):
    """The loss is finite, the gradient is not: the weights are gone before the next loss shows it, and saved."""

    case = 64
    grade = "misleads"
    says = "(?s)gradient.*no good|no good"

    def check_gradient(self, model, step):
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)


class StopsWithoutAWord(Sound):
    """Stops, and leaves it to the reader to find out why."""

    case = 64
    grade = "unclear"
    says = "does not name"

    def check_loss(self, loss, step):
        if not torch.isfinite(loss):
            sys.exit(1)


class LooksForNanOnly(Sound):
    """`math.isnan(loss)`: infinity passes, and what comes of it is found steps later, if at all."""

    case = 65
    grade = "misleads"
    says = "exit 0|went on|no good"

    def check_loss(self, loss, step):
        if math.isnan(float(loss)):
            super().check_loss(loss, step)

    def check_gradient(self, model, step):
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)


class StopsWhereTheScalerWouldSkip(Sound):
    """Checks the loss before the scaler can do its work: every overflow ends the run, which is safe."""

    only = (65,)

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        x, y = batch
        model.eval()
        with torch.no_grad():
            scores = model(x)
        model.train()
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        del scores
        self.check_loss(loss, number)
        scaler.scale(loss).backward()
        if not scaler.is_enabled():
            self.check_gradient(model, number)
        scaler.step(optimizer)
        scaler.update()


class TakesTheStepAnyway(Sound):
    """Scales the loss, then steps the optimizer by hand: the scaler never gets to skip."""

    case = 65
    grade = "misleads"
    says = "did not survive|no good|never became smaller"

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        if not scaler.is_enabled():
            return super().step(model, optimizer, scaler, batch, settings, number, device)
        x, y = batch
        optimizer.zero_grad()
        scaler.scale(torch.nn.functional.cross_entropy(model(x), y)).backward()
        optimizer.step()
        scaler.update(1024.0)
        return None


class CutsTheGradient(Sound):
    """The post-mortem's fusion trainer: features are detached, only the last bias learns."""

    case = 66
    grade = "misleads"
    says = "the loss went from"

    def build(self, settings):
        class Cut(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.bias = torch.nn.Parameter(torch.zeros(2))

            def forward(self, x):
                return x[:, :2].detach() * 0 + self.bias

        return Cut()


class ClearsTheGradient(Sound):
    """zero_grad stands between backward and step."""

    case = 66
    grade = "misleads"
    says = "the loss went from"

    def optimizer(self, model, settings):
        optimizer = super().optimizer(model, settings)
        plain = optimizer.step

        def step(*args, **kwargs):
            for parameter in model.parameters():
                parameter.grad.zero_()
            return plain(*args, **kwargs)

        optimizer.step = step
        return optimizer

    overfit = {**Sound.overfit, "batch_size": 8}


class ShufflesTheLabels(Sound):
    """Sorts inputs and labels apart from each other: there is nothing left to learn but noise."""

    case = 66
    grade = "misleads"
    says = "the loss went from"

    def step(self, model, optimizer, scaler, batch, *rest):
        x, y = batch
        super().step(model, optimizer, scaler, [x, y[torch.randperm(len(y))]], *rest)


class BroadcastsItsTargets(Regression):
    """`mse_loss` of [n, 1] and [n] is one of [n, n]: only the mean of all targets is learnt."""

    case = 66
    grade = "misleads"
    says = "the loss went from"

    def loss(self, output, y):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.nn.functional.mse_loss(output.float()[:, :1], 40.0 * y - 20.0)


class DensityAtRest(Density):
    """The learning rate is divided by the number of steps once too often."""

    case = 66
    grade = "misleads"
    says = "the loss went from .* with every optimizer step undone it stands at"

    def optimizer(self, model, settings):
        return torch.optim.AdamW(model.parameters(), lr=settings.learning_rate * 1e-6)


class AdversariesAtRest(Adversaries):
    """`deepcopy` of the model comes after its optimizers were made: they move what nobody calls."""

    case = 66
    grade = "misleads"
    says = "the loss went from .* with every optimizer step undone it stands at"

    def optimizer(self, model, settings):
        return super().optimizer(copy.deepcopy(model), settings)


class MissesItsGoal(Sound):
    """States what the loss must come below, and is far from it."""

    case = 66
    overfit_below = 1e-9
    grade = "misleads"
    says = "and is to come below 1e-09"


class LastIsBest(Sound):
    """`if loss > best` for a loss, as it was right for the accuracy before."""

    case = 67
    grade = "misleads"
    says = "rose from .*, and checkpoint-24, its best checkpoint, is of step 24"

    def is_best(self, losses):
        *before, last = losses.values()
        return last > max(before, default=-1)


class KeepsNoBest(Sound):
    """Logs the validation loss; which checkpoint to use is left to whoever reads the log."""

    case = 67
    grade = "unclear"
    says = "rose from .* it keeps no best checkpoint"

    def best_checkpoint(self, output_dir):
        return None


class PrunesTheBest(Sound):
    """Keeps the last three checkpoints, whatever they are worth."""

    case = 67
    grade = "misleads"
    says = "and checkpoint-4, its best checkpoint, is no longer there"

    def save(self, output_dir, state):
        super().save(output_dir, state)
        for old in self.saved(output_dir)[3:]:
            shutil.rmtree(old)


class NoCopy(Sound):
    """`best = model.state_dict()` is the weights as they are, not as they were."""

    case = 67
    grade = "misleads"
    says = "best.pt, its best checkpoint, holds the weights of the last step"

    def validate(self, model, step, output_dir):
        best = super().validate(model, step, output_dir)
        if best:
            self.best = {"step": step, "model": model.state_dict()}
        torch.save(self.best, output_dir / "best.pt")
        return best

    def best_checkpoint(self, output_dir):
        return output_dir / "best.pt"


class StopsInSilence(Sound):
    """Ends early, non-zero, and does not say what for."""

    case = 67
    grade = "unclear"
    says = "it stopped, and does not say that it is for the validation"

    def is_best(self, losses):
        *before, last = losses.values()
        if before and last > 1.1 * min(before):
            raise Failure("stopped")
        return super().is_best(losses)


class NobodyLooks(Sound):
    """Prints the numbers, and flags none of them."""

    case = 68
    grade = "unclear"
    says = "every validation row was given the same class, and it does not flag that"

    def flag(self, step, predictions, right):
        print("predicted:", {prediction: predictions.count(prediction) for prediction in set(predictions)})


class AccuracyIsEnough(Sound):
    """Flags an accuracy below that of a coin: at one half all is well."""

    case = 68
    grade = "unclear"
    says = "every validation row was given the same class"

    def flag(self, step, predictions, right):
        if right < 0.5:
            print(f"warning: step {step}: accuracy of {right:.0%} is worse than chance")


class StopsForIt(Sound):
    """Ends the run for it, with a number for a reason."""

    case = 68
    grade = "unclear"
    says = "every validation row was given the same class, and it does not flag that"

    def flag(self, step, predictions, right):
        if step > 20 and len(set(predictions)) == 1:
            raise Failure("quality gate 7 not passed")


class NeverCallsEval(Sound):
    """No eval() before the validation: dropout is at work in it, and nothing of it is seen in evaluation mode."""

    case = 68
    grade = "misleads"
    says = r"evaluated \(\S+:\d+\) after step \d+ without gradients and in training mode"

    def validate(self, model, step, output_dir):
        with torch.no_grad():
            scores = model(torch.stack([x for x, _ in Rows(self.validation, self.max_length)]))
        print("predicted:", scores.argmax(1).unique().tolist())
        return False


class CallsItOnACopy(NeverCallsEval):
    """`deepcopy(model).eval()`, and then the model."""

    case = 69

    def validate(self, model, step, output_dir):
        copy.deepcopy(model).eval()
        return super().validate(model, step, output_dir)


class TurnsItOnAgain(NeverCallsEval):
    """eval() before the loop over the batches, train() at the end of the first."""

    case = 69

    def validate(self, model, step, output_dir):
        model.eval()
        model.train()
        return super().validate(model, step, output_dir)


class JustANumber(Sound):
    """An accuracy of 0.000 in a row of numbers."""

    case = 69
    grade = "unclear"
    says = "no validation row was given its label, and it does not flag that"

    def flag(self, step, predictions, right):
        print(f"accuracy: {right:.3f}, classes predicted: {len(set(predictions))}")


class FlagsTheFalseThing(Sound):
    """Looks for one class only: that all of it is wrong is news too."""

    case = 69
    grade = "unclear"
    says = "no validation row was given its label"

    def flag(self, step, predictions, right):
        super().flag(step, predictions, max(right, 0.01))


class HasNoLimit(Sound):
    """The setting is there; nothing reads it."""

    case = 70
    grade = "wastes"
    says = "hung"

    def watch(self, seconds):
        pass


class StopsWithoutItsStack(Sound):
    """An alarm that ends the process and shows nothing."""

    case = 70
    grade = "unclear"
    says = "no stack"

    def watch(self, seconds):
        import os
        import signal

        signal.signal(signal.SIGALRM, lambda *_: (print("no progress"), os._exit(1)))
        signal.setitimer(signal.ITIMER_REAL, seconds)
