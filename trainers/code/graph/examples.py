"""Rows as program graphs: for the loader, and as one batch of tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from trainers.code.graph import program_graph
from trainers.code.prepared import CUT, UNPARSED, Prepared, piece
from trainers.code.rows import Row, Rows
from trainers.common.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch_geometric.data import Data
    from transformers import PreTrainedTokenizerBase

CHARACTERS_PER_NODE = 2
"""Code has about one node for two to three characters: how many a row has is only estimated before it is read."""

LAST_MADE = 64
"""Graphs that are kept, for rows that come again soon: few rows in many epochs, a function in many rows."""
LARGEST_KEPT = 8192
"""Nodes of a graph that is kept: all of them together take 60 MB at most."""


class Example(NamedTuple):
    """One row with its graph.

    Attributes:
        row: the code and its label.
        graph: as `program_graph.to_data` makes it.
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
        self._subtokens = program_graph.subtokens_of(tokenizer)
        self._last: dict[tuple[str, int], Example] = {}
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
            shard, at = self._prepared.at(index)
            flags = int(shard["flags"][at])
            return Example(row, prepared_graph(self._prepared, index), bool(flags & CUT), bool(flags & UNPARSED))
        example = self._last.pop((row.code, row.label), None) or self._make(row)
        if example.graph.num_nodes <= LARGEST_KEPT:
            if len(self._last) == LAST_MADE:
                del self._last[next(iter(self._last))]
            self._last[row.code, row.label] = example  # at the end: first is the one that was longest not asked for
        return example

    def _make(self, row: Row) -> Example:
        graph = program_graph.read(row.code, self._max_nodes)
        return Example(
            row, program_graph.to_data(graph, self._subtokens, row.label), graph.cut, graph.fault is not None
        )

    def nodes(self, index: int) -> int:
        """The nodes of a row's graph; where they are not prepared, an estimate from above for most rows."""
        if self._prepared is not None:
            shard, at = self._prepared.at(index)
            return int(shard["x_begins"][at + 1] - shard["x_begins"][at])
        return min(self._max_nodes, self._table.size(index) // CHARACTERS_PER_NODE + 1)


def prepared_graph(table: Prepared, index: int) -> Data:
    """A row's graph, as `to_data` makes it; with ``features`` float32 (nodes, `feature_size`) if there are any."""
    import torch
    from torch_geometric.data import Data

    shard, at = table.at(index)
    graph = Data(
        x=piece(shard, "x", at).long(),
        edge_index=piece(shard, "edges", at).long().t().contiguous(),
        edge_type=piece(shard, "edge_type", at).long(),
        y=shard["labels"][at : at + 1].long(),
    )
    if table.feature_size:
        begin, end = shard["x_begins"][at : at + 2].tolist()
        graph.features = shard["features"][begin:end].to(torch.float32)
    return graph


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


def within_budget(rows: Sequence[int], size: int, weight: Callable[[int], int], budget: int) -> list[list[int]]:
    """``rows`` in pieces of at most ``size`` rows whose weights add up to at most ``budget``.

    A row that is over the budget alone has a piece of its own.
    """
    pieces: list[list[int]] = []
    total = 0
    for row in rows:
        weighs = weight(row)
        if not pieces or len(pieces[-1]) == size or total + weighs > budget:
            pieces.append([])
            total = 0
        pieces[-1].append(row)
        total += weighs
    return pieces
