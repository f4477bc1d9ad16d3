"""What each run of the chat trainer does first and does alike: done here, once for all processes that are forked later.

What the base's tokenizer learns, and what transformers and peft look up and compile for the first model
and the first adapter of a process. On `meta` that takes no memory and draws no random number.
"""

from __future__ import annotations

import torch

from trainers.chat import adapter, tiny_llama
from trainers.chat.settings import Settings

SIZE = {"hidden_size": 8, "layers": 1, "heads": 1}

tiny_llama.words()
with torch.device("meta"):
    small = tiny_llama.model(8, **SIZE)
    adapter.with_adapter(small, Settings(), adapter.Base(tiny_llama.name(**SIZE), None, ""))
del small
