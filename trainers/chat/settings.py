"""The settings of the chat trainer, with the ranges that the post-mortem's team wished it had had."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from trainers.common.settings import TrainingSettings, with_default


class Settings(TrainingSettings):
    """Settings of the chat trainer, for two CPU cores and the model that it makes itself."""

    model: str | None = Field(
        None, description="base model with its tokenizer: a folder, or a name on the model hub; left out: a tiny Llama"
    )
    adapter: str | None = Field(
        None, description="folder of a LoRA adapter of this base, as peft saves it, to go on from"
    )
    hidden_size: int = Field(64, ge=8, le=16_384, description="width of the Llama (without --model)")
    layers: int = Field(2, ge=1, le=256, description="layers of the Llama (without --model)")
    heads: int = Field(4, ge=1, le=256, description="attention heads in a layer (without --model)")
    max_length: int = Field(256, ge=128, le=32_768, description="tokens of a conversation; the rest is cut off")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="number type of base model and forward pass")
    layout: Literal["padding", "packing"] = Field(
        "padding", description="how a batch's rows are laid out: one under the other, or behind each other"
    )
    quantization: Literal["none", "4bit"] = Field("none", description="4bit: QLoRA (needs bitsandbytes and CUDA)")
    gradient_checkpointing: bool = Field(False, description="compute activations twice instead of keeping them")
    lora_rank: int = Field(32, ge=1, le=1024, description="rank of the adapter's matrices")
    lora_alpha: int = Field(64, ge=1, le=4096, description="the adapter's weight is this divided by its rank")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="dropout before the adapter")
    target_modules: str = Field(
        "all-linear",
        min_length=1,
        description="modules with an adapter, their names with commas between; or all-linear",
    )
    batch_size: int = Field(16, ge=1, le=128, description="rows in one forward pass (the micro-batch)")
    gradient_accumulation: int = Field(1, ge=1, le=128, description="forward passes in one optimizer step")
    learning_rate: float = Field(2e-3, ge=1e-6, le=1e-2, description="highest learning rate, reached after the warm-up")
    warmup_steps: int = with_default(TrainingSettings, "warmup_steps", 20)
    max_epochs: int = with_default(TrainingSettings, "max_epochs", 1)
    weight_decay: float = with_default(TrainingSettings, "weight_decay", 0.0)
    eval_every: int = with_default(TrainingSettings, "eval_every", 250)
    save_every: int = with_default(TrainingSettings, "save_every", 250)
    exploding_norm: float = with_default(TrainingSettings, "exploding_norm", 1000.0)
    validation_fraction: float = Field(0.1, ge=0, lt=1, description="share of the rows (of the groups) held out")
    validated_rows: int = Field(512, ge=1, le=100_000_000, description="held-out rows that the validation loss is of")
    answered_rows: int = Field(128, ge=0, le=100_000, description="held-out rows answered at each validation; 0: none")
    answer_tokens: int = Field(32, ge=1, le=32_768, description="tokens of a generated answer at most")
    best_by: Literal["loss", "exact_match"] = Field(
        "loss", description="validation metric that the best checkpoint is chosen by"
    )
    merge: bool = Field(False, description="at the end write base and best adapter as one model into merged/")
    syllogism_level: Literal["easy", "hard"] = Field("easy", description="of the syllogisms (without --data)")
    syllogism_rows: int = Field(20_000, ge=1, le=10_000_000, description="how many syllogisms (without --data)")
    data_seed: int = Field(42, ge=0, le=2**32 - 1, description="seed of the syllogisms (without --data)")

    @model_validator(mode="after")
    def _fits_together(self) -> Settings:
        if self.model is None and self.hidden_size % (2 * self.heads):  # rotary positions turn pairs
            raise ValueError(f"hidden_size = {self.hidden_size} must be a multiple of twice heads = {self.heads}")
        if self.best_by == "exact_match" and not self.answered_rows:
            raise ValueError("best_by = exact_match needs answered_rows over 0")
        if self.merge and self.quantization != "none":
            raise ValueError("merge = true cannot be had with quantization = 4bit: the base has lost its precision")
        return self

    @property
    def effective_batch_size(self) -> int:
        """Rows of an optimizer step."""
        return self.batch_size * self.gradient_accumulation

    @property
    def targets(self) -> str | list[str]:
        """``target_modules`` as peft takes it."""
        names = [name.strip() for name in self.target_modules.split(",") if name.strip()]
        return names[0] if names == ["all-linear"] else names

    def described(self) -> dict[str, Any]:
        """What makes a saved adapter fit or not, beside its base."""
        names = ("lora_rank", "lora_alpha", "target_modules")
        return {name: getattr(self, name) for name in names}
