"""The network that joins a text transformer and a graph network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from trainers.common.optimization import parameter_groups

if TYPE_CHECKING:
    from torch_geometric.data import Batch
    from transformers import PreTrainedModel

    from trainers.code.graph.network import GraphEncoder


class FusionModel(nn.Module):
    """Two branches and a head.

    Both branches give logits of their own, whose weighted sum is where training begins: two witnesses, each
    believed as far as it was right before. The head sees what they see (the transformer's first token, the graph's
    pooled vector) and learns what the sum gets wrong; its last layer begins at zero. The weights are not learnt: on
    rows that it knows by heart, the branch that overfits more would be believed more (Wang et al. 2020,
    https://arxiv.org/abs/1905.12681).
    """

    trust: torch.Tensor

    def __init__(
        self,
        text: PreTrainedModel,
        graph: GraphEncoder,
        *,
        trust: tuple[float, float],
        head_size: int,
        dropout: float,
        frozen: bool,
    ) -> None:
        """Join them.

        Args:
            text: a sequence classifier of two classes.
            graph: a graph classifier of two classes.
            trust: the weights of their logits.
            head_size: width of the head.
            dropout: in the head.
            frozen: the branches are not trained, and stay in evaluation mode.
        """
        super().__init__()
        self.text, self.graph, self.frozen = text, graph, frozen
        self.register_buffer("trust", torch.tensor(trust))
        self.head = nn.Sequential(
            nn.LayerNorm(text.config.hidden_size + graph.width),
            nn.Linear(text.config.hidden_size + graph.width, head_size),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(head_size, 2),
        )
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        if frozen:
            for branch in (text, graph):
                branch.requires_grad_(False)

    def train(self, mode: bool = True) -> FusionModel:
        """Frozen branches stay as they are in evaluation: without dropout."""
        super().train(mode)
        if self.frozen:
            self.text.eval()
            self.graph.eval()
        return self

    def forward(self, text: Mapping[str, torch.Tensor], graphs: Batch) -> torch.Tensor:
        """Logits of shape (rows, 2).

        Args:
            text: the transformer's arguments, each of shape (rows, tokens).
            graphs: the same rows as graphs.
        """
        seen = self.text(**text, output_hidden_states=True)
        pooled = self.graph.pooled(graphs)
        joined = torch.cat([seen.hidden_states[-1][:, 0], pooled], dim=1)
        told = self.trust[0] * seen.logits + self.trust[1] * self.graph.classify(pooled)
        logits: torch.Tensor = told + self.head(joined)
        return logits


def groups(model: FusionModel, weight_decay: float, shares: Mapping[str, float]) -> list[dict[str, Any]]:
    """Parameter groups for AdamW, the branches' with their share of the learning rate.

    Discriminative learning rates: Howard and Ruder 2018 (https://arxiv.org/abs/1801.06146).

    Args:
        model: the whole network.
        weight_decay: on matrices.
        shares: by branch, ``text`` and ``graph``.
    """
    parts = [(model.head, 1.0)]
    if not model.frozen:
        parts += [(model.text, shares["text"]), (model.graph, shares["graph"])]
    return [{**group, "share": share} for part, share in parts for group in parameter_groups(part, weight_decay)]
