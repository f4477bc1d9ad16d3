"""The text classifier: a RoBERTa of any size, new, pretrained or saved, and code as its tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trainers.code.names import MOST_NAMES, NameNumbers
from trainers.code.prepared import Prepared
from trainers.code.rows import Row, Rows
from trainers.code.tokenizer import token_count
from trainers.common import checkpoint
from trainers.common.errors import InputError, show
from trainers.common.pretrained import (
    CHARACTERS_PER_TOKEN,
    load_tokenizer,
    pad_with_something,
    quiet,
    require_sane,
)

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


UNKNOWN = -100
"""As cross-entropy ignores it."""
LONGEST_NAME = 12
"""Tokens of a name at most, for rows that differ in one."""


class Batch(NamedTuple):
    """Rows as tensors.

    Attributes:
        inputs: the model's keyword arguments, each of shape (rows, tokens).
        labels: int64 of shape (rows,).
        places: int64 of shape (rows,): the token at which a row differs from the right one before it, 0 (the first,
            which is of no name) in that one; `UNKNOWN` in a row of no such pair, and where nobody asks.
        truncated: how many of the rows were longer than ``max_length``.
        unparsed: none: text of any kind has tokens.
    """

    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor
    places: torch.Tensor
    truncated: int
    unparsed: int = 0

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        inputs = {name: tensor.to(device, non_blocking=True) for name, tensor in self.inputs.items()}
        labels, places = (tensor.to(device, non_blocking=True) for tensor in (self.labels, self.places))
        return self._replace(inputs=inputs, labels=labels, places=places)

    def pin_memory(self) -> Batch:
        """For torch's loader: page-locked memory, from which a GPU copies faster."""
        inputs = {name: tensor.pin_memory() for name, tensor in self.inputs.items()}
        return self._replace(inputs=inputs, labels=self.labels.pin_memory(), places=self.places.pin_memory())


class Collate:
    """Turns rows into a `Batch`, padded to its longest row and cut at ``max_length`` tokens."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        table: Rows,
        *,
        numbers_names: bool = False,
        points: bool = False,
    ) -> None:
        """Collate rows of ``table`` with this tokenizer, to at most ``max_length`` tokens a row.

        Args:
            tokenizer: of the model.
            max_length: tokens of a row, special ones included.
            table: where the rows are from.
            numbers_names: whether the model is told which name each token is of (`numbers_names`).
            points: whether it is told where a row differs from the one before it (`pointed`).
        """
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._names = NameNumbers(tokenizer) if numbers_names else None
        self._points = points
        self._prepared = isinstance(table, Prepared) and table.made_with(tokenizer)
        tokenizer.deprecation_warnings["Asking-to-pad-a-fast-tokenizer"] = True  # else it advises against `pad`

    def __call__(self, rows: Sequence[Row]) -> Batch:
        """The rows as one batch."""
        import torch

        labels = torch.tensor([row.label for row in rows])
        ready = [row.tokens for row in rows if row.tokens is not None and len(row.tokens) <= self._max_length]
        if self._prepared and len(ready) == len(rows):
            return self._batch(self._tokenizer.pad({"input_ids": ready}, return_tensors="pt"), labels, 0)
        most = self._max_length * CHARACTERS_PER_TOKEN
        codes = [row.code[:most] for row in rows]
        encoded = self._tokenizer(
            codes, truncation=True, max_length=self._max_length, padding=True, return_tensors="pt"
        )
        full = (encoded["attention_mask"].sum(dim=1) == self._max_length).tolist()
        truncated = sum(
            len(row.code) > most or token_count(self._tokenizer, code) > self._max_length
            for row, code, fills in zip(rows, codes, full, strict=True)
            if fills
        )
        return self._batch(encoded, labels, truncated)

    def _batch(self, encoded: Mapping[str, torch.Tensor], labels: torch.Tensor, truncated: int) -> Batch:
        """With the numbers of names, if the model is told them."""
        import torch

        inputs = dict(encoded)
        if self._names is not None:
            inputs["token_type_ids"] = torch.tensor([self._names(ids) for ids in inputs["input_ids"].tolist()])
        places = [UNKNOWN] * len(labels)
        if self._points:
            lengths = inputs["attention_mask"].sum(dim=1).tolist()
            ids = [row[:length] for row, length in zip(inputs["input_ids"].tolist(), lengths, strict=True)]
            places = _places(ids, labels.tolist())
        return Batch(inputs, labels, torch.tensor(places), truncated)


def _places(ids: list[list[int]], labels: list[int]) -> list[int]:
    """See `Batch`; ``ids`` without padding. A row of class 1 may belong to the row of class 0 before it."""
    places = [UNKNOWN] * len(ids)
    for index in range(1, len(ids)):
        if labels[index - 1 : index + 1] == [0, 1]:
            place = _where_another_name_stands(ids[index - 1], ids[index])
            if place is not None:
                places[index - 1 : index + 1] = [0, place]
    return places


def _where_another_name_stands(right: list[int], wrong: list[int]) -> int | None:
    """The first token at which two rows differ; None where they differ in more than a name, or not at all."""
    shorter = min(len(right), len(wrong))
    first = next((index for index in range(shorter) if right[index] != wrong[index]), shorter)
    after = next((index for index in range(shorter - first) if right[-1 - index] != wrong[-1 - index]), shorter - first)
    inside = max(len(right), len(wrong)) - first - after
    return first if 0 < inside <= LONGEST_NAME else None


def new_model(
    tokenizer: PreTrainedTokenizerBase,
    *,
    hidden_size: int,
    layers: int,
    heads: int,
    max_length: int,
    dropout: float,
    points: bool = False,
) -> PreTrainedModel:
    """A RoBERTa sequence classifier of two classes with random weights, which is told which name each token is of.

    With ``points`` it has a second head, for `pointed`.
    """
    from transformers import RobertaConfig, RobertaForSequenceClassification

    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden_size,
        max_position_embeddings=max_length + 2,  # RoBERTa counts positions from its padding index 1 on
        type_vocab_size=MOST_NAMES + 1,
        numbers_names=True,
        points=points,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        # RoBERTa's 0.02 is that of width 768. Narrower, it leaves attention nearly uniform for a long time.
        initializer_range=0.02 * math.sqrt(768 / hidden_size),
        num_labels=2,
    )
    return with_pointer(RobertaForSequenceClassification(config))


def with_pointer(model: PreTrainedModel) -> PreTrainedModel:
    """The model, with a head that gives each token a score where its configuration says so."""
    from torch import nn

    if getattr(model.config, "points", False):
        model.pointer = nn.Linear(model.config.hidden_size, 1)
    return model


def remove_pointer(model: PreTrainedModel) -> None:
    """A model that goes on without the second objective has no use for its head."""
    if getattr(model.config, "points", False):
        del model.pointer
        model.config.points = False


def pointed(
    called: nn.Module, model: PreTrainedModel, batch: Batch, weight: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and the loss of pointing at what is wrong: at the misused variable, or at the first token for nothing.

    To find the place as well teaches more than to say whether there is one (Vasic et al. 2019,
    https://arxiv.org/abs/1904.01720).

    Args:
        called: the model as it is called.
        model: itself.
        batch: on its device.
        weight: of that loss.

    Returns:
        of shape (rows, 2), and of shape (rows,), 0 where the place is not known.
    """
    from torch.nn.functional import cross_entropy

    seen = called(**batch.inputs, output_hidden_states=True)
    scores = model.pointer(seen.hidden_states[-1])[..., 0].float()
    scores = scores.masked_fill(batch.inputs["attention_mask"] == 0, float("-inf"))
    return seen.logits, weight * cross_entropy(scores, batch.places, ignore_index=UNKNOWN, reduction="none")


def numbers_names(model: PreTrainedModel) -> bool:
    """Whether a model is told, by its token types, which name each token is of: those of `new_model` are."""
    return bool(getattr(model.config, "numbers_names", False))


def save_others(folder: Path, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """What `saved` needs."""
    tokenizer.save_pretrained(folder)
    model.config.save_pretrained(folder)


def saved(folder: Path, dropout: float) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Tokenizer and model as `save_others` left them, the weights random.

    The tokenizer is as it was trained, never trained again.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    tokenizer = load_tokenizer(folder)
    with quiet():
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        set_dropout(config, dropout)
        model: PreTrainedModel = with_pointer(AutoModelForSequenceClassification.from_config(config))
    return tokenizer, model


def resumed(folder: Path, dropout: float) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Tokenizer and model of a checkpoint."""
    tokenizer, model = saved(folder, dropout)
    checkpoint.load_weights(folder / checkpoint.WEIGHTS, model)
    return tokenizer, model


def set_dropout(config: Any, dropout: float) -> None:
    """Put the setting into a model's configuration, where that has such fields."""
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        if hasattr(config, name):
            setattr(config, name, dropout)


def load_pretrained(folder: Path, dropout: float) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Tokenizer and model from a folder, with a new head of two classes where its own is another.

    Raises:
        InputError: a file is missing, cut or altered; weights of the body are missing or not sane; the folder
            is named.
    """
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    name = show(folder)
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            config = AutoConfig.from_pretrained(folder, local_files_only=True, num_labels=2)
            set_dropout(config, dropout)
            model, info = AutoModelForSequenceClassification.from_pretrained(
                folder, config=config, local_files_only=True, use_safetensors=True, dtype=torch.float32,
                ignore_mismatched_sizes=True, output_loading_info=True,
            )  # fmt: skip
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        ImportError,
    ) as error:  # what transformers raises for odd files
        raise InputError(f"model {name}: {' '.join(str(error).split())[:300]}") from None
    mismatched = [key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]]
    body = [key for key in (*info["missing_keys"], *mismatched) if key.startswith(model.base_model_prefix + ".")]
    if body:
        raise InputError(f"model {name}: {len(body)} weights missing or of another shape, first {sorted(body)[0]}")
    require_sane(folder, model)
    pad_with_something(tokenizer, model)
    return tokenizer, model
