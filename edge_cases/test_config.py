"""Cases 31 to 40: the settings."""

from __future__ import annotations

import math
import re

from pytest_trainguard import Guard, edge_case, stops, survives
from pytest_trainguard.expect import Wording
from pytest_trainguard.probes.budget import GpuBudget
from pytest_trainguard.probes.fuzz import ConfigFuzz
from pytest_trainguard.subject import STEPS

FAR_TOO_HIGH = 10.0
DIVERGED = Wording("what diverged (the loss, a gradient)", re.compile(r"loss|grad|diverg|finite|\bnan\b|\binf", re.I))


@edge_case(
    34,
    "max_length too large for the GPU",
    verdict="survives",
    severity="critical",
    brought_about="two steps at the production settings, on rows of full length, traced and held against --gpu-budget",
    expects="fits; where it does not, the largest length that fits is named",
)
def test_34_max_length_too_large(gpu_budget: GpuBudget) -> None:
    """The sample's rows were short; the first batch of long ones came in the third hour, and did not fit."""
    gpu_budget.fits("max_length")


@edge_case(
    35,
    "batch size 0",
    verdict="rejects",
    severity="major",
    brought_about="0, negative, fraction, text, NaN; whatever the stated range leaves out",
    expects="rejects, naming field and range, before a model is built",
)
def test_35_batch_size_0(config_fuzz: ConfigFuzz) -> None:
    """An unchecked batch size fails deep in the loader, after the model was loaded, or is cut to a whole number."""
    config_fuzz.rejects("batch_size", 0, -1, 2.5, "many", math.nan)


@edge_case(
    36,
    "batch size too large for the GPU",
    verdict="survives",
    severity="critical",
    brought_about="two steps at the production settings, on rows of full length, traced and held against --gpu-budget",
    expects="fits; where it does not, the largest batch that fits is named",
)
def test_36_batch_size_too_large(gpu_budget: GpuBudget) -> None:
    """What had fitted 80 GiB was launched on a card with 40; the second step, with the optimizer's state, failed."""
    gpu_budget.fits("batch_size")


@edge_case(
    37,
    "learning rate 0",
    verdict="rejects",
    severity="critical",
    brought_about="0, negative, NaN, infinity; whatever the stated range leaves out",
    expects="rejects, naming field and range, before a model is built",
)
def test_37_learning_rate_0(config_fuzz: ConfigFuzz) -> None:
    """With a learning rate of 0 a run looks healthy for days and learns nothing; `lr < 0` is False for NaN."""
    config_fuzz.rejects("learning_rate", 0.0, -0.001, math.nan, math.inf)


@edge_case(
    38,
    "learning rate far too high",
    verdict="rejects/stops",
    severity="major",
    brought_about="10, and just above the stated range; the highest that is allowed",
    expects="rejects, naming field and range; inside the range a diverging loss stops the run",
)
def test_38_learning_rate_far_too_high(config_fuzz: ConfigFuzz, guard: Guard) -> None:
    """A slipped exponent, `1e1` for `1e-1`: the loss is NaN after two steps, and the GPU is paid for until morning."""
    field = guard.needs("learning_rate")
    high = field.bounds.get("le", field.bounds.get("lt"))
    highest = FAR_TOO_HIGH
    if high is not None:
        config_fuzz.rejects(field.path, *(rate for rate in (FAR_TOO_HIGH, high * 1.01) if rate > high))
        highest = high if "le" in field.bounds else high * 0.99
    outcome = guard.run(
        f"trained with {field.path} = {highest:g}, the highest that is allowed"
        if high is not None
        else f"trained with {field.path} = {highest:g}; its settings state no upper bound",
        settings={field.path: highest},
        steps=3 * STEPS,
    )
    if outcome.exit == 0:
        survives(outcome)
    else:
        stops(outcome, DIVERGED)
