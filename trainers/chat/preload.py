"""What each run of the chat trainer does first and does alike: done here, once for all processes that are forked later.

What the base's tokenizer learns, and what transformers and peft look up and compile for the first model
and the first adapter of a process. On `meta` that takes no memory and draws no random number.
"""

from __future__ import annotations

import torch

from trainers.chat import model as chat_model
from trainers.chat import tiny_llama as chat_base
from trainers.chat.settings import Settings

SIZE = {"hidden_size": 8, "layers": 1, "heads": 1}

chat_base.words()
with torch.device("meta"):
    small = chat_base.model(8, **SIZE)
    chat_model.with_adapter(small, Settings(), chat_model.Base(chat_base.name(**SIZE), None, ""))
del small
