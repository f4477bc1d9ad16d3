"""The base model that is made on the spot where none is named: a tiny Llama and a byte-level tokenizer.

Its weights are random, but always the same ones (`BASE_SEED`), and so are its tokens: an adapter trained on it by one
run fits the base that another run makes.
"""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING

from trainers.chat import syllogisms

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BASE_SEED = 0
VERSION = 1
"""To be raised with any change of tokens or weights: what was trained before fits no more."""
SPECIAL_TOKENS = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TOKENIZER_ROWS = 500
"""Syllogisms of each level whose questions the tokenizer learns its words from."""
VOCABULARY = 640
MOST_POSITIONS = 32_768
EMBEDDING_LENGTH = 2.0


@functools.cache
def words() -> str:
    """What the tokenizer has learned from the questions of syllogisms, as JSON: always the same.

    From questions and not from answers, so that the letters of a mood stay tokens of their own.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    questions = [
        message["content"]
        for level in ("easy", "hard")
        for row in itertools.islice(syllogisms.rows(level, BASE_SEED), TOKENIZER_ROWS)
        for message in row["messages"][:-1]
    ]
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learned.decoder = decoders.ByteLevel()
    learned.train_from_iterator(
        questions,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=SPECIAL_TOKENS,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    text: str = learned.to_str()
    return text


def tokenizer() -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer with a chat template: any text survives it, words of syllogisms are short in it."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(words()), pad_token="<|pad|>", eos_token="<|end|>", chat_template=TEMPLATE,
        additional_special_tokens=SPECIAL_TOKENS[2:], clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def name(hidden_size: int, layers: int, heads: int) -> str:
    """What the model of that size is called."""
    return f"tiny-llama (hidden_size {hidden_size}, layers {layers}, heads {heads})"


def model(vocabulary: int, *, hidden_size: int, layers: int, heads: int) -> PreTrainedModel:
    """A Llama of that size with random weights; torch's random generator is as it was."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        intermediate_size=3 * hidden_size,
        max_position_embeddings=MOST_POSITIONS,
        initializer_range=hidden_size
        ** -0.5,  # frozen matrices must pass on what they get; Llama's 0.02 are to be trained
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(BASE_SEED)
        made = LlamaForCausalLM(config)
    with torch.no_grad():  # tied and frozen, they bound how sure a prediction can be
        made.get_input_embeddings().weight.mul_(EMBEDDING_LENGTH)
    return made
