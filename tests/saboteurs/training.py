"""Cases 61 to 70."""

import math
import sys
import time

import torch

from tests.saboteurs.sound import Sound


class TrainsOn(Sound):
    """Counts steps from zero in each start, so that a finished run is trained again."""

    case = 63
    says = "it trained on"

    def fit(self, settings, rows, output_dir, max_steps, resume_from, seed):
        super().fit(settings, rows, output_dir, max_steps + 2 if resume_from else max_steps, resume_from, seed)


class SavesAgainAtTheEnd(Sound):
    """Writes its last checkpoint anew, with whatever it holds by then."""

    case = 63
    says = "it changed its checkpoints"

    def fit(self, settings, rows, output_dir, max_steps, resume_from, seed):
        super().fit(settings, rows, output_dir, max_steps, resume_from, seed)
        for folder in output_dir.glob("checkpoint-*"):
            state = torch.load(folder / "state.pt", weights_only=True)
            torch.save({**state, "ended": time.time()}, folder / "state.pt")

    def whole(self, checkpoint):
        return torch.load(checkpoint / "state.pt", weights_only=True)


class FailsWhenDone(Sound):
    """Divides by the number of steps that it took."""

    case = 63
    says = "did not end well"

    def fit(self, settings, rows, output_dir, max_steps, resume_from, seed):
        started = self.load(resume_from)["step"] if resume_from else 0
        super().fit(settings, rows, output_dir, max_steps, resume_from, seed)
        print(1 / (max_steps - started))


class NeverLooks(Sound):
    """Checks neither loss nor gradient: the run ends well, and every weight is NaN."""

    case = 64
    says = "exit 0"

    def check_loss(self, loss, step):
        pass

    def check_gradient(self, model, step):
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)


class LooksAtTheLossOnly(Sound):
    """The loss is finite, the gradient is not: the weights are gone before the next loss shows it, and saved."""

    case = 64
    says = "(?s)gradient.*no good|no good"

    def check_gradient(self, model, step):
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)


class StopsWithoutAWord(Sound):
    """Stops, and leaves it to the reader to find out why."""

    case = 64
    says = "does not name"

    def check_loss(self, loss, step):
        if not torch.isfinite(loss):
            sys.exit(1)


class LooksForNanOnly(Sound):
    """`math.isnan(loss)`: infinity passes, and what comes of it is found steps later, if at all."""

    case = 65
    says = "exit 0|went on|no good"

    def check_loss(self, loss, step):
        if math.isnan(float(loss)):
            super().check_loss(loss, step)

    def check_gradient(self, model, step):
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)


class StopsWhereTheScalerWouldSkip(Sound):
    """Checks the loss before the scaler can do its work: every overflow ends the run."""

    case = 65
    says = "did not survive"

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
    says = "the loss went from"

    def step(self, model, optimizer, scaler, batch, *rest):
        x, y = batch
        super().step(model, optimizer, scaler, [x, y[torch.randperm(len(y))]], *rest)


class HasNoLimit(Sound):
    """The setting is there; nothing reads it."""

    case = 70
    says = "hung"

    def watch(self, seconds):
        pass


class StopsWithoutItsStack(Sound):
    """An alarm that ends the process and shows nothing."""

    case = 70
    says = "no stack"

    def watch(self, seconds):
        import os
        import signal

        signal.signal(signal.SIGALRM, lambda *_: (print("no progress"), os._exit(1)))
        signal.setitimer(signal.ITIMER_REAL, seconds)
