"""Finds variable misuse in Python functions with a RoBERTa-type classifier.

    python -m trainers.code.transformer --output-dir runs/transformer

trains on the functions of Python's own standard library (`trainers.code.misuse` says what the task is). From top
to bottom: the settings, what is checked before torch is imported, the model, the run. The training loop is
`trainers.code.loop`'s, the command line `trainers.common.program`'s.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from trainers.code import learning_rate, loop, roberta, rows
from trainers.code.settings import DATA_HELP, RunSettings
from trainers.code.tokenizer import SMALLEST_VOCABULARY, require_length, tokenizer_for
from trainers.common import batches, pretrained
from trainers.common.checkpoint import Checkpoint
from trainers.common.optimization import parameter_groups
from trainers.common.process import Run
from trainers.common.program import Places, Program
from trainers.common.rows import Split

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PRELOAD = (
    "torch", "torch._dynamo", "torch.utils.data", "numpy", "tqdm", "tokenizers", "safetensors.torch",
    "sklearn.metrics", "transformers.models.auto.tokenization_auto", "transformers.models.auto.modeling_auto",
    "transformers.models.roberta.modeling_roberta",
)  # fmt: skip
"""What a run imports late. A server from which many runs are forked imports these once."""


class Settings(RunSettings):
    """Settings of this program, for two CPU cores and the functions of one library.

    RoBERTa-base is 768 / 12 / 12 at ``max_length`` 512; it, and ``model``, want ``dropout`` 0.1 and a tenth or
    less of ``learning_rate``.
    """

    model: str | None = Field(
        None, description="pretrained weights and tokenizer: a folder, or a name on the model hub"
    )
    hidden_size: int = Field(64, ge=8, le=16_384, description="width of the encoder (without --model)")
    layers: int = Field(3, ge=1, le=256, description="layers of the encoder (without --model)")
    heads: int = Field(4, ge=1, le=256, description="attention heads in a layer (without --model)")
    vocab_size: int = Field(
        4096,
        ge=SMALLEST_VOCABULARY,
        le=1_000_000,
        description="the tokenizer's largest vocabulary (without --model; prepared data brings its own tokenizer)",
    )
    max_length: int = Field(128, ge=8, le=32_768, description="tokens of a function that are read; the rest is cut off")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout in the encoder")
    pointing: float = Field(
        0.0,
        ge=0,
        le=100,
        description="weight of a second objective, to point at the wrong variable, in rows whose right one stands "
        "beside them (rows made from Python source; without --model); 0: none",
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> Settings:
        if self.model is None and self.hidden_size % self.heads:
            raise ValueError(f"heads = {self.heads} must divide hidden_size = {self.hidden_size}")
        if self.model is not None and self.pointing:
            raise ValueError(f"pointing = {self.pointing} is for a new encoder: without model")
        return self

    def described(self) -> dict[str, Any]:
        """What makes saved weights fit or not."""
        size = ["hidden_size", "layers", "heads", "vocab_size"] if self.model is None else []
        return {name: getattr(self, name) for name in ("model", "max_length", *size)}


def require_model(values: Mapping[str, Any]) -> None:
    """Reject a model path that is not there, before torch is imported."""
    if isinstance(values.get("model"), str):
        pretrained.require_local(values["model"])


def look_over(run: Run, chosen: Settings, found: Checkpoint | None) -> None:
    """Reject pretrained weights that are damaged, before torch is imported; a checkpoint needs none."""
    if chosen.model is not None and found is None:
        run.stage = "looking for the model"
        pretrained.require_sound(pretrained.locate(chosen.model))


def build(
    run: Run, chosen: Settings, found: Checkpoint | None, table: rows.Rows, split: Split
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Tokenizer and model: from the checkpoint, from pretrained weights, or new."""
    run.stage = "building the model"
    if found is not None:
        return roberta.resumed(found.path, chosen.dropout)
    shortest = rows.shortest(table, split.train)
    if chosen.model is not None:
        tokenizer, model = roberta.load_pretrained(pretrained.locate(chosen.model), chosen.dropout)
        require_length(tokenizer, shortest, chosen.max_length)
    else:
        run.stage = "making the tokenizer"
        tokenizer = tokenizer_for(table, split.train, chosen.vocab_size, chosen.max_length)
        require_length(tokenizer, shortest, chosen.max_length)
        run.stage = "building the model"
        model = roberta.new_model(
            tokenizer,
            hidden_size=chosen.hidden_size,
            layers=chosen.layers,
            heads=chosen.heads,
            max_length=chosen.max_length,
            dropout=chosen.dropout,
            points=chosen.pointing > 0,
        )
    pretrained.require_fit(tokenizer, model, chosen.max_length)
    return tokenizer, model


def train(run: Run, chosen: Settings, places: Places) -> None:
    """Everything from the data to the last checkpoint. The output folder's lock is held."""
    begun = loop.begin(run, chosen, places)
    if begun is None:
        return
    look_over(run, chosen, begun.found)
    ranks = loop.enter(run, chosen)
    tokenizer, model = build(run, chosen, begun.found, begun.table, begun.split)

    def forward(called: nn.Module, batch: roberta.Batch) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        if chosen.pointing and model.training:
            return roberta.pointed(called, model, batch, chosen.pointing)
        scores: torch.Tensor = called(**batch.inputs).logits
        return scores

    task = loop.Task(
        model=model,
        forward=forward,
        dataset=begun.table,
        collate=roberta.Collate(
            tokenizer,
            chosen.max_length,
            begun.table,
            numbers_names=roberta.numbers_names(model),
            points=chosen.pointing > 0,
        ),
        cut=batches.batched,
        groups=parameter_groups(model, chosen.weight_decay),
        save_others=lambda folder: roberta.save_others(folder, tokenizer, model),
        limit=f"max_length = {chosen.max_length}",
    )
    loop.fit(run, chosen, places, begun, ranks, task)


PROGRAM = Program(
    "trainers.code.transformer",
    (__doc__ or "").split("\n\n")[0],
    Settings,
    train,
    DATA_HELP,
    prechecks=(require_model, learning_rate.require_cache_place),
)

main, launch = PROGRAM.main, PROGRAM.launch

if __name__ == "__main__":
    sys.exit(main())
