"""Node features from a pretrained model: what each node's text means where it stands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trainers.code.graph import program_graph
from trainers.common.errors import InputError, show
from trainers.common.pretrained import pad_with_something, quiet

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class NodeFeatures:
    """A pretrained model that tells what each node's text means where it stands."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, max_length: int) -> None:
        """Read up to ``max_length`` tokens of a row."""
        self._tokenizer, self._model, self._max_length = tokenizer, model.eval(), max_length
        self.width = int(model.config.hidden_size)

    def __call__(self, codes: list[str], made: list[program_graph.ProgramGraph]) -> list[torch.Tensor]:
        """Features of each graph's nodes, float16 of shape (nodes, width).

        A node's are the mean of the last hidden states of the tokens that its text covers; zero where it covers
        none, or only tokens that were cut off.
        """
        import torch

        read = list(map(program_graph.normalised, codes))
        encoded = self._tokenizer(
            read,
            truncation=True,
            max_length=self._max_length,
            padding=True,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        offsets = encoded.pop("offset_mapping")
        with torch.no_grad():
            states = self._model(**encoded).last_hidden_state.float()
        return [self._pooled(*each) for each in zip(states, offsets, made, strict=True)]

    def _pooled(self, states: torch.Tensor, offsets: torch.Tensor, graph: program_graph.ProgramGraph) -> torch.Tensor:
        import torch

        real = offsets[:, 1] > offsets[:, 0]  # special tokens and padding cover nothing
        begins, ends, states = offsets[real, 0], offsets[real, 1], states[real]
        sums = torch.cat([states.new_zeros(1, states.shape[1]), states.cumsum(0, dtype=torch.float64)])
        spans = torch.tensor(graph.spans).reshape(-1, 2)
        first = torch.searchsorted(ends.contiguous(), spans[:, 0].contiguous(), right=True)
        last = torch.searchsorted(begins.contiguous(), spans[:, 1].contiguous()).clamp_min(first)
        last = torch.where(spans[:, 1] > spans[:, 0], last, first)
        covered = (last - first)[:, None]
        return ((sums[last] - sums[first]) / covered.clamp_min(1)).to(torch.float16)


def load_encoder(folder: Path) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Tokenizer and body of a model, to read with.

    Raises:
        InputError: a file is missing, cut or altered; the tokenizer does not tell where its tokens stand.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    name = show(folder)
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=torch.float32)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise InputError(f"encoder {name}: {' '.join(str(error).split())[:300]}") from None
    if not tokenizer.is_fast:
        raise InputError(f"encoder {name}: its tokenizer does not tell where in the text its tokens stand")
    pad_with_something(tokenizer, model)
    return tokenizer, model
