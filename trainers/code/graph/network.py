"""The graph network: from program graphs to a vector each, and to two logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch_geometric.nn import RGCNConv
from torch_geometric.nn.aggr import MultiAggregation

from trainers.code.graph.kinds import EDGE_KINDS, NODE_KINDS

if TYPE_CHECKING:
    from torch_geometric.data import Batch

# PyG writes and compiles a layer's code when the first one is made, which takes as long as an optimizer step. Here that
# is done once for all processes that are forked later. On `meta` it draws no random number.
with torch.device("meta"):
    RGCNConv(1, 1, 1)


class GraphEncoder(nn.Module):
    """A relational graph convolution (Schlichtkrull et al. 2017, https://arxiv.org/abs/1703.06103) in several rounds.

    A node is its kind, the mean of its text's pieces and, where data was prepared with an encoder, that encoder's
    hidden states. `RGCNConv` has weights of its own for each kind of edge and takes the mean over each kind's
    edges apart, so that a node without any (a variable that is never read) stands out as a zero among numbers.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        node_size: int,
        layers: int,
        feature_size: int = 0,
        dropout: float = 0.0,
        hidden_texts: float = 0.0,
    ) -> None:
        """With random weights.

        Args:
            vocab_size: pieces of text.
            node_size: width of a node.
            layers: rounds of message passing.
            feature_size: width of an encoder's hidden states, 0 where there are none.
            dropout: of what a round adds, and before the logits.
            hidden_texts: share of the nodes of which only the kind is seen in training.
        """
        super().__init__()
        self.sizes: dict[str, Any] = {
            "vocab_size": vocab_size,
            "node_size": node_size,
            "layers": layers,
            "feature_size": feature_size,
        }
        """What makes saved weights fit or not: the constructor's arguments but for what is random in training."""
        self.width = 2 * node_size
        """Of a graph's vector."""
        self.kinds = nn.Embedding(len(NODE_KINDS), node_size)
        self.pieces = nn.EmbeddingBag(vocab_size + 1, node_size, mode="mean", padding_idx=0)
        self.features = nn.Linear(feature_size, node_size) if feature_size else None
        self.norms = nn.ModuleList(nn.LayerNorm(node_size) for _ in range(layers))
        self.rounds = nn.ModuleList(RGCNConv(node_size, node_size, len(EDGE_KINDS)) for _ in range(layers))
        self.last_norm = nn.LayerNorm(node_size)
        # The mean tells what a function is like, the maximum whether one node in it is odd.
        self.pool = MultiAggregation(["mean", "max"])
        self.dropout = nn.Dropout(dropout)
        self.seen = nn.Dropout(hidden_texts)
        self.classifier = nn.Sequential(
            nn.Linear(self.width, node_size), nn.ReLU(), nn.Dropout(dropout), nn.Linear(node_size, 2)
        )

    def pooled(self, graphs: Batch) -> torch.Tensor:
        """A vector of each graph, of shape (graphs, `width`)."""
        texts = self.pieces(graphs.x[:, 1:])
        if self.features is not None:
            texts = texts + self.features(graphs.features)
        nodes = self.kinds(graphs.x[:, 0]) + self.seen(texts.new_ones(len(texts), 1)) * texts
        for norm, convolution in zip(self.norms, self.rounds, strict=True):
            told = convolution(norm(nodes), graphs.edge_index, graphs.edge_type)
            nodes = nodes + self.dropout(told.relu())
        together: torch.Tensor = self.pool(self.last_norm(nodes), graphs.batch, dim_size=graphs.num_graphs)
        return together

    def classify(self, pooled: torch.Tensor) -> torch.Tensor:
        """Logits of shape (graphs, 2)."""
        logits: torch.Tensor = self.classifier(pooled)
        return logits

    def forward(self, graphs: Batch) -> torch.Tensor:
        """Logits of shape (graphs, 2)."""
        return self.classify(self.pooled(graphs))
