"""Settings that change nothing (`setting-without-effect`), and sound programs in which some rightly do not."""

import random
from typing import Annotated, Literal

import torch
from pydantic import Field

from tests.saboteurs.sound import Settings, Sound


class More(Settings):
    """What many programs can be told beside."""

    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    schedule: Literal["linear", "constant"] = "linear"


class UsesThemAll(Sound):
    """Clips, decays, warms up and lets the rate fall, as it is told."""

    config = More
    only = ("setting-without-effect",)

    def optimizer(self, model, settings):
        self.limit = settings.max_grad_norm
        return torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)

    def settings(self, values):
        return More(**values)

    def check_gradient(self, model, step):
        torch.nn.utils.clip_grad_norm_(model.parameters(), self.limit)

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        for group in optimizer.param_groups:
            group["lr"] = self.rate(settings, number)
        super().step(model, optimizer, scaler, batch, settings, number, device)

    def rate(self, settings, number):
        if settings.schedule == "constant":
            return settings.learning_rate
        warmed = min(1.0, number / (settings.warmup_steps + 1))
        return settings.learning_rate * warmed * (1 - number / 100)


class Constant(UsesThemAll):
    """A constant rate is one from the beginning: a warm-up belongs to the schedule that falls."""

    only = ("setting-without-effect",)
    tiny = {"schedule": "constant", "warmup_steps": 3}


class WithoutRandomNumbers(Sound):
    """A linear model from zero on rows in their order: a seed is for those who add dropout one day."""

    only = ("setting-without-effect",)

    def build(self, settings):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(settings.max_length, 2))
        torch.nn.init.zeros_(model[0].weight)
        torch.nn.init.zeros_(model[0].bias)
        return model

    def fit(self, settings, rows, output_dir, max_steps, resume_from, seed):
        super().fit(settings, rows, output_dir, max_steps, resume_from, 0)


class FewerRowsThanABatch(Sound):
    """All of its rows are one batch, whatever size was asked for."""

    only = ("setting-without-effect",)
    rows = 6


class SeedsWithAConstant(Sound):
    """Somebody's favourite number, from the day on which a bug had to be found again."""

    case = "setting-without-effect"
    grade = "misleads"
    says = "the run's seed has no effect: with 1 in the place of 0"

    def fit(self, settings, rows, output_dir, max_steps, resume_from, seed):
        random.seed(42)
        super().fit(settings, rows, output_dir, max_steps, resume_from, 42)


class ClipsAtOne(UsesThemAll):
    """The limit is written where the clipping is."""

    case = "setting-without-effect"
    grade = "misleads"
    says = "max_grad_norm has no effect: with 1e-06 in the place of 1.0"

    def optimizer(self, model, settings):
        made = super().optimizer(model, settings)
        self.limit = 1.0
        return made


class DefaultRate(Sound):
    """`AdamW(model.parameters())`, with the rate of its own."""

    case = "setting-without-effect"
    grade = "misleads"
    says = "learning_rate has no effect"

    def optimizer(self, model, settings):
        return torch.optim.AdamW(model.parameters())


class DecaysByDefault(UsesThemAll):
    """The setting came later than the optimizer."""

    case = "setting-without-effect"
    grade = "misleads"
    says = "weight_decay has no effect: with 10.0 in the place of 0.01"

    def optimizer(self, model, settings):
        return super().optimizer(model, settings.model_copy(update={"weight_decay": 0.01}))


class NeverWarmsUp(UsesThemAll):
    """A schedule of one's own replaced that of the library, which could warm up."""

    case = "setting-without-effect"
    grade = "misleads"
    says = "warmup_steps has no effect: with 6 in the place of 0"

    def rate(self, settings, number):
        return settings.learning_rate * (1 - number / 100)


class NeverAccumulates(Sound):
    """What was accumulated over before is one batch since the larger cards came."""

    case = "setting-without-effect"
    grade = "misleads"
    says = "gradient_accumulation has no effect"

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        whole = settings.model_copy(update={"gradient_accumulation": 1})
        super().step(model, optimizer, scaler, batch, whole, number, device)


class EightAtATime(Sound):
    """The loader was made by hand once, in a notebook."""

    case = "setting-without-effect"
    grade = "misleads"
    says = "batch_size has no effect: with 4 in the place of 8"

    def batches(self, rows, settings, start, stop):
        return super().batches(rows, settings.model_copy(update={"batch_size": 8}), start, stop)


class Weighing(Settings):
    """With a second term of the loss, and a third."""

    calm_weight: Annotated[float, Field(ge=0)] = 0.1
    floor_coef: Annotated[float, Field(ge=0)] = 0.1


class WeighsItsTerms(Sound):
    """Keeps its scores small, and its weights too as soon as they are large, which they are not yet. Sound."""

    config = Weighing
    only = ("setting-without-effect",)

    def settings(self, values):
        self.weights = Weighing(**values)
        return self.weights

    def loss(self, output, y):
        floor = output.square().mean().clamp(min=100.0)
        return super().loss(output, y) + self.weights.calm_weight * self.calm(output) + self.weights.floor_coef * floor

    def calm(self, output):
        return output.float().square().mean()


class CutsATermOff(WeighsItsTerms):
    """The term was a number for a log at first."""

    only = ()
    case = "setting-without-effect"
    grade = "misleads"
    says = r"what calm_weight weighs is in the loss, and nothing is learnt from it"

    def calm(self, output):
        return super().calm(output.detach())


class Unread(Settings):
    """With one setting more."""

    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1


class SmoothsByAConstant(Sound):
    """A number stands where the setting should."""

    config = Unread
    case = "setting-without-effect"
    grade = "unclear"
    says = r"smoothing: taken, and read nowhere: in its sources \("

    def settings(self, values):
        return Unread(**values)

    def loss(self, output, y):
        return torch.nn.functional.cross_entropy(output.float(), y, label_smoothing=0.1)
