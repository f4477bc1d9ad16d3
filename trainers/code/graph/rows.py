"""Rows as program graphs: for the loader, and as one batch of tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from trainers.code.graph import build as graphs
from trainers.code.prepared import Prepared
from trainers.code.rows import Row, Rows
from trainers.common.batches import within_budget
from trainers.common.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch_geometric.data import Data
    from transformers import PreTrainedTokenizerBase

CHARACTERS_PER_NODE = 2
"""Code has about one node for two to three characters: how many a row has is only estimated before it is read."""


class Example(NamedTuple):
    """One row with its graph.

    Attributes:
        row: the code and its label.
        graph: as `graphs.to_data` makes it.
        truncated: whether it had more nodes than are read.
        unparsed: whether the code is no Python; the graph is then of its tokens alone.
    """

    row: Row
    graph: Data
    truncated: bool
    unparsed: bool


class GraphRows:
    """The rows of a table with their graphs: read from prepared data, or made from the code on the way."""

    def __init__(self, table: Rows, tokenizer: PreTrainedTokenizerBase, max_nodes: int, feature_size: int) -> None:
        """Read a table.

        Args:
            table: the rows.
            tokenizer: for the texts of nodes.
            max_nodes: nodes of a graph at most.
            feature_size: width of the node features that the network expects, 0 for none.

        Raises:
            InputError: the table has not these features.
        """
        self._table = table
        self._max_nodes = max_nodes
        self._subtokens = graphs.subtokens_of(tokenizer)
        as_prepared = isinstance(table, Prepared) and table.max_nodes == max_nodes and table.made_with(tokenizer)
        self._prepared = table if isinstance(table, Prepared) and as_prepared else None
        there = self._prepared.feature_size if self._prepared else 0
        if there != feature_size:
            made = f"; it was prepared with max_nodes = {table.max_nodes}" if isinstance(table, Prepared) else ""
            raise InputError(
                f"the network reads {feature_size} encoder features a node, the data has {there} "
                f"with this tokenizer and max_nodes = {max_nodes}{made}"
            )

    def __len__(self) -> int:
        """The number of rows."""
        return len(self._table)

    def __getitem__(self, index: int) -> Example:
        """One row."""
        row = self._table[index]
        if self._prepared is not None:
            cut, unparsed = self._prepared.oddities(index)
            return Example(row, self._prepared.graph(index), cut, unparsed)
        graph = graphs.read(row.code, self._max_nodes)
        return Example(row, graphs.to_data(graph, self._subtokens, row.label), graph.cut, graph.fault is not None)

    def nodes(self, index: int) -> int:
        """The nodes of a row's graph; where they are not prepared, an estimate from above for most rows."""
        if self._prepared is not None:
            return self._prepared.nodes(index)
        return min(self._max_nodes, self._table.size(index) // CHARACTERS_PER_NODE + 1)


class Batch(NamedTuple):
    """Rows as one graph that is not connected.

    Attributes:
        graphs: PyTorch Geometric's batch.
        labels: int64 of shape (rows,).
        truncated: how many of the rows had more nodes than are read.
        unparsed: how many of the rows are no Python.
    """

    graphs: Any
    labels: torch.Tensor
    truncated: int
    unparsed: int

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        graphs_there = self.graphs.to(device, non_blocking=True)
        return self._replace(graphs=graphs_there, labels=self.labels.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """For torch's loader: page-locked memory, from which a GPU copies faster."""
        return self._replace(graphs=self.graphs.pin_memory(), labels=self.labels.pin_memory())


def collate(examples: Sequence[Example]) -> Batch:
    """Examples as one batch."""
    import torch
    from torch_geometric.data import Batch as Graphs

    return Batch(
        Graphs.from_data_list([example.graph for example in examples]),
        torch.tensor([example.row.label for example in examples]),
        sum(example.truncated for example in examples),
        sum(example.unparsed for example in examples),
    )


def cut_by(rows: GraphRows, node_budget: int) -> Callable[[Sequence[int], int], list[list[int]]]:
    """Forward passes of a step: at most so many rows each, and at most ``node_budget`` nodes."""

    def cut(window: Sequence[int], most: int) -> list[list[int]]:
        return within_budget(window, most, rows.nodes, node_budget)

    return cut
