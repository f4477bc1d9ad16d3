"""The text encoder with its tokenizer: a RoBERTa of any size, and code as its tensors."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trainers.code.prepared import Prepared
from trainers.code.rows import Row, Rows
from trainers.common import checkpoint
from trainers.common.errors import InputError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SPECIAL_TOKENS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]  # in RoBERTa's order: 0, 1, 2, 3, 4
SMALLEST_VOCABULARY = 256 + len(SPECIAL_TOKENS)
TOKENIZER_ROWS = 20_000
"""A tokenizer is trained on so many rows at most: more change it little."""
CHARACTERS_PER_TOKEN = 32
"""Code is cut to so many characters a token of ``max_length`` before it is tokenised."""


PIECES = r"[^\W\d]\w*|\d\w*|\W+"
"""Names, numbers, and what stands between them. No token reaches over the end of a piece, so that a name is
the same token, or the same few, wherever it stands."""


class Batch(NamedTuple):
    """Rows as tensors.

    Attributes:
        inputs: the model's keyword arguments, each of shape (rows, tokens).
        labels: int64 of shape (rows,).
        truncated: how many of the rows were longer than ``max_length``.
        unparsed: none: text of any kind has tokens.
    """

    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor
    truncated: int
    unparsed: int = 0

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        inputs = {name: tensor.to(device, non_blocking=True) for name, tensor in self.inputs.items()}
        return self._replace(inputs=inputs, labels=self.labels.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """For torch's loader: page-locked memory, from which a GPU copies faster."""
        inputs = {name: tensor.pin_memory() for name, tensor in self.inputs.items()}
        return self._replace(inputs=inputs, labels=self.labels.pin_memory())


class Collate:
    """Turns rows into a `Batch`, padded to its longest row and cut at ``max_length`` tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int, table: Rows) -> None:
        """Collate rows of ``table`` with this tokenizer, to at most ``max_length`` tokens a row."""
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._prepared = isinstance(table, Prepared) and table.made_with(tokenizer)
        tokenizer.deprecation_warnings["Asking-to-pad-a-fast-tokenizer"] = True  # else it advises against `pad`

    def __call__(self, rows: Sequence[Row]) -> Batch:
        """The rows as one batch."""
        import torch

        labels = torch.tensor([row.label for row in rows])
        ready = [row.tokens for row in rows if row.tokens is not None and len(row.tokens) <= self._max_length]
        if self._prepared and len(ready) == len(rows):
            return Batch(dict(self._tokenizer.pad({"input_ids": ready}, return_tensors="pt")), labels, 0)
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
        return Batch(dict(encoded), labels, truncated)


def token_count(tokenizer: PreTrainedTokenizerBase, code: str) -> int:
    """The tokens of ``code``, the special ones included, uncut."""
    return len(tokenizer(code, verbose=False)["input_ids"])


def tokenizer_for(rows: Rows, indices: Sequence[int], vocab_size: int, max_length: int) -> PreTrainedTokenizerBase:
    """The tokenizer of prepared data, or one that is trained on the rows given; see `train_tokenizer`."""
    if isinstance(rows, Prepared):
        return load_tokenizer(rows.tokenizer_folder)
    return train_tokenizer(rows, indices, vocab_size, max_length)


def train_tokenizer(rows: Rows, indices: Sequence[int], vocab_size: int, max_length: int) -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer trained on the rows given.

    Byte-level as GPT-2's and RoBERTa's: every text survives it unaltered. Unlike theirs, which begin a token
    with the space before a word, it has one token for a name after a space and after a bracket (`PIECES`).
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    stride = -(-len(indices) // TOKENIZER_ROWS)
    tokenizer.train_from_iterator(
        (rows[index].code[: max_length * CHARACTERS_PER_TOKEN] for index in indices[::stride]),
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            special_tokens=SPECIAL_TOKENS,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", cls_token="<s>", eos_token="</s>", sep_token="</s>",
        pad_token="<pad>", unk_token="<unk>", mask_token="<mask>",
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def new_model(
    tokenizer: PreTrainedTokenizerBase,
    *,
    hidden_size: int,
    layers: int,
    heads: int,
    max_length: int,
    dropout: float,
) -> PreTrainedModel:
    """A RoBERTa sequence classifier of two classes with random weights."""
    from transformers import RobertaConfig, RobertaForSequenceClassification

    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden_size,
        max_position_embeddings=max_length + 2,  # RoBERTa counts positions from its padding index 1 on
        type_vocab_size=1,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        # RoBERTa's 0.02 is that of width 768. Narrower, it leaves attention nearly uniform for a long time.
        initializer_range=0.02 * math.sqrt(768 / hidden_size),
        num_labels=2,
    )
    return RobertaForSequenceClassification(config)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """A tokenizer as it was saved."""
    from transformers import AutoTokenizer

    with quiet():
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return tokenizer


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
        model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
    return tokenizer, model


def resumed(folder: Path, dropout: float) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Tokenizer and model of a checkpoint."""
    tokenizer, model = saved(folder, dropout)
    checkpoint.load_weights(folder / checkpoint.WEIGHTS, model)
    return tokenizer, model


def require_fit(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, max_length: int) -> None:
    """Tokenizer, model and ``max_length`` must agree.

    Raises:
        InputError: the vocabulary is larger than the embedding, or there are fewer positions than
            ``max_length``.
    """
    embedded = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > embedded:
        raise InputError(f"tokenizer has {len(tokenizer)} tokens, the model's embedding {embedded}: no pair")
    if tokenizer.pad_token is None:
        raise InputError("tokenizer has no padding token and no end token")
    positions = getattr(model.config, "max_position_embeddings", None)
    roberta_like = model.config.model_type in ("roberta", "xlm-roberta", "camembert", "longformer")
    if positions is not None and max_length > positions - 2 * roberta_like:
        raise InputError(
            f"max_length = {max_length}: the model has positions for {positions - 2 * roberta_like} tokens"
        )


def require_length(tokenizer: PreTrainedTokenizerBase, codes: Sequence[str], max_length: int) -> None:
    """At least one of the shortest rows must fit into ``max_length`` uncut, or nothing is left to learn from.

    Raises:
        InputError: none does, naming ``max_length`` and the length that would do.
    """
    least = min(token_count(tokenizer, code[: max_length * CHARACTERS_PER_TOKEN]) for code in codes)
    if least > max_length:
        raise InputError(f"max_length = {max_length}: every row is longer, the shortest has {least} tokens")


def set_dropout(config: Any, dropout: float) -> None:
    """Put the setting into a model's configuration, where that has such fields."""
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        if hasattr(config, name):
            setattr(config, name, dropout)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and notes from transformers inside: the program says what matters itself."""
    from transformers.utils import logging as notes

    verbosity, bars = notes.get_verbosity(), notes.is_progress_bar_enabled()
    notes.set_verbosity_error()
    notes.disable_progress_bar()
    try:
        yield
    finally:
        notes.set_verbosity(verbosity)
        if bars:
            notes.enable_progress_bar()
