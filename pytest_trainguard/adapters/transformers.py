"""For trainers built on Hugging Face transformers."""

from __future__ import annotations

import copy
from typing import Any

# By the names that configurations use for the same thing. Depth first, then width, then what is counted in heads.
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers",
           "num_decoder_layers", "depth")  # fmt: skip
_WIDTHS = ("hidden_size", "n_embd", "d_model", "dim", "embedding_size", "word_embed_proj_dim")
_INNER = (
    "intermediate_size",
    "n_inner",
    "d_ff",
    "ffn_dim",
    "encoder_ffn_dim",
    "decoder_ffn_dim",
    "hidden_dim",
)
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads",
          "decoder_attention_heads")  # fmt: skip


def tiny_twin(config: Any, *, layers: int = 2, width: int = 32, heads: int = 2) -> Any:
    """The same architecture as a `transformers` configuration, small enough for a CPU.

    Vocabulary, maximal length, activation, dropout and everything else stay as they are, so that tokenizer and data
    still fit. Nested configurations (text and vision parts, encoder and decoder) are cut down alike.

    Args:
        config: a `transformers.PretrainedConfig`; it is not changed.
        layers: how many layers each stack gets.
        width: the hidden size; the inner size of feed-forward layers is twice that.
        heads: attention heads; key-value heads of grouped attention are cut to as many, or kept if fewer.

    Returns:
        a new configuration of the same class.
    """
    twin = copy.deepcopy(config)
    _shrink(twin, layers, width, heads)
    return twin


def _shrink(config: Any, layers: int, width: int, heads: int) -> None:
    known = config.to_dict()
    names = {
        **{alias: name for name, alias in config.attribute_map.items()},
        **{name: name for name in known},
    }
    sizes: dict[str, int] = {}
    for group, size in ((_LAYERS, layers), (_WIDTHS, width), (_INNER, 2 * width), (_HEADS, heads)):
        sizes.update({name: size for name in group if isinstance(known.get(name), int)})
    if isinstance(known.get("num_key_value_heads"), int):
        sizes["num_key_value_heads"] = min(known["num_key_value_heads"], heads)
    for name in ("head_dim", "d_kv"):
        if isinstance(known.get(name), int):
            sizes[name] = width // heads
    for name, size in sizes.items():
        setattr(config, names[name], size)
    if isinstance(known.get("layer_types"), list):
        config.layer_types = config.layer_types[:layers]
    for name in known:
        inner = getattr(config, name, None)
        if hasattr(inner, "to_dict") and hasattr(inner, "attribute_map"):
            _shrink(inner, layers, width, heads)
