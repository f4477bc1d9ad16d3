"""What every program of this folder is told, whatever its model."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from trainers.common.settings import Strict, TrainingSettings

DATA_HELP = (
    'a .jsonl of {"code": str, "label": 0|1}, a folder of Python, or of prepared data; default: the standard library'
)
"""What ``--help`` says of ``--data``."""


INSTALLED = "installed"
"""As ``more_code``: the packages that are installed beside this Python."""


class DataSettings(Strict):
    """What decides which rows there are, and which of them are held out."""

    data_seed: int = Field(
        42,
        ge=0,
        le=2**32 - 1,
        description="seed of the split and of rows made from Python source: runs of several seeds share their rows",
    )
    validation_fraction: float = Field(0.1, ge=0, lt=1, description="share of the data held out for validation")
    longest_function: int = Field(
        200,
        ge=40,
        le=1_000_000,
        description="characters of a function; longer ones are left out (rows made from Python source only)",
    )
    twins: int = Field(
        8,
        ge=1,
        le=1000,
        description="rows with a wrong variable made of each training function (from Python source only)",
    )
    more_code: str | None = Field(
        None,
        description=f"a folder of Python whose functions are trained on as well, none of them held out; {INSTALLED}: "
        "that of the packages beside this Python (rows made from Python source only)",
    )


class RunSettings(DataSettings, TrainingSettings):
    """What every training program is told, whatever its model. Steps are optimizer steps, times seconds."""

    batch_size: int = Field(
        32, ge=1, le=65_536, description="rows in one forward pass, shared among the processes that torchrun starts"
    )
    gradient_accumulation: int = Field(1, ge=1, le=4096, description="forward passes in one optimizer step")
    learning_rate: float = Field(1e-3, gt=0, le=0.1, description="highest learning rate, reached after the warm-up")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="number type of the forward pass")
    max_skipped_steps: int = Field(
        10, ge=1, le=1000, description="stop when the gradient scaler skips this many steps in a row"
    )
    find_learning_rate: bool = Field(
        False, description="search for the learning rate before training (Smith 2017) instead of taking learning_rate"
    )
    found_rate_min: float = Field(1e-5, gt=0, le=0.1, description="a found learning rate is raised to this")
    found_rate_max: float = Field(5e-5, gt=0, le=0.1, description="a found learning rate is lowered to this")
    fallback_rate: float = Field(2.5e-5, gt=0, le=0.1, description="learning rate where the search finds none")
    rate_cache: str | None = Field(
        None, description="file that keeps found learning rates; left out: learning_rates.json in the output folder"
    )
    adapt_batch_size: bool = Field(
        False, description="halve batch_size until a step fits the GPU, at the same effective batch size"
    )
    class_balance: Literal["none", "weights", "sampler"] = Field(
        "weights", description="for unequal classes: weigh the loss, or draw rows so that classes are equal"
    )
    class_weight_cap: float = Field(1.2, ge=1, le=1000, description="largest weight of a class")
    focal_gamma: float = Field(0.0, ge=0, le=10, description="focal loss's gamma (Lin et al. 2017); 0: cross-entropy")
    best_by: Literal["loss", "f1"] = Field(
        "loss", description="validation metric that the best checkpoint is chosen by"
    )
    collapse_grace: int = Field(
        500, ge=0, le=100_000_000, description="steps in which constant predictions or one class are no collapse yet"
    )

    @model_validator(mode="after")
    def _found_rates_are_a_range(self) -> RunSettings:
        if not self.found_rate_min <= self.fallback_rate <= self.found_rate_max:
            raise ValueError(
                f"found_rate_min = {self.found_rate_min}, fallback_rate = {self.fallback_rate} and "
                f"found_rate_max = {self.found_rate_max} must be in this order"
            )
        return self

    def described(self) -> dict[str, Any]:
        """What makes saved weights fit or not."""
        return {}
