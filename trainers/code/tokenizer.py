"""The tokenizer of Python code: that of prepared data, or a new one trained on the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainers.code.prepared import Prepared
from trainers.code.rows import Rows
from trainers.common.errors import InputError
from trainers.common.pretrained import CHARACTERS_PER_TOKEN, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPECIAL_TOKENS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]  # in RoBERTa's order: 0, 1, 2, 3, 4
SMALLEST_VOCABULARY = 256 + len(SPECIAL_TOKENS)
TOKENIZER_ROWS = 20_000
"""A tokenizer is trained on so many rows at most: more change it little."""
PIECES = r"[^\W\d]\w*|\d\w*|\W+"
"""Names, numbers, and what stands between them. No token reaches over the end of a piece, so that a name is
the same token, or the same few, wherever it stands."""


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


def require_length(tokenizer: PreTrainedTokenizerBase, codes: Sequence[str], max_length: int) -> None:
    """At least one of the shortest rows must fit into ``max_length`` uncut, or nothing is left to learn from.

    Raises:
        InputError: none does, naming ``max_length`` and the length that would do.
    """
    least = min(token_count(tokenizer, code[: max_length * CHARACTERS_PER_TOKEN]) for code in codes)
    if least > max_length:
        raise InputError(f"max_length = {max_length}: every row is longer, the shortest has {least} tokens")
