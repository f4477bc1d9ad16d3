"""Finds variable misuse in Python functions with a graph network over their program graphs.

    python -m trainers.code.gnn --output-dir runs/gnn

trains on the functions of Python's own standard library (`trainers.code.misuse` says what the task is,
`trainers.code.graph.program_graph` what the graph is, `trainers.code.graph.network` what the network is). From top
to bottom: the settings, the model, the run. The training loop is `trainers.code.loop`'s, the command line
`trainers.common.program`'s.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from trainers.code import learning_rate, loop, rows
from trainers.code.graph import examples, program_graph
from trainers.code.prepared import Prepared
from trainers.code.settings import DATA_HELP, RunSettings
from trainers.code.tokenizer import SMALLEST_VOCABULARY, tokenizer_for
from trainers.common import checkpoint
from trainers.common.errors import InputError, show
from trainers.common.optimization import parameter_groups
from trainers.common.pretrained import load_tokenizer
from trainers.common.process import Run
from trainers.common.program import Places, Program
from trainers.common.rows import Split
from trainers.common.settings import with_default

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from trainers.code.graph.network import GraphEncoder

PRELOAD = (
    "torch", "torch._dynamo", "torch.utils.data", "torch_geometric.data", "torch_geometric.nn", "numpy", "tqdm",
    "tokenizers", "safetensors.torch", "sklearn.metrics", "transformers.models.auto.tokenization_auto",
    "trainers.code.graph.network",
)  # fmt: skip
"""What a run imports late. A server from which many runs are forked imports these once."""

SIZES = "graph_encoder.json"
"""In a checkpoint: what the network's constructor is given."""


class Settings(RunSettings):
    """Settings of this program, for two CPU cores and the functions of one library."""

    max_epochs: int = with_default(RunSettings, "max_epochs", 3)
    batch_size: int = with_default(RunSettings, "batch_size", 64)
    learning_rate: float = with_default(RunSettings, "learning_rate", 2e-3)
    eval_every: int = with_default(RunSettings, "eval_every", 150)
    node_size: int = Field(48, ge=4, le=16_384, description="width of a node")
    graph_layers: int = Field(4, ge=1, le=256, description="rounds of message passing")
    graph_dropout: float = Field(0.1, ge=0, lt=1, description="dropout in the graph network")
    hidden_texts: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="share of a graph's nodes whose text is hidden in a training step, against learning "
        "functions by heart",
    )
    graph_vocab_size: int = Field(
        2048,
        ge=SMALLEST_VOCABULARY,
        le=1_000_000,
        description="largest vocabulary of the tokenizer for the texts of nodes (prepared data brings its own)",
    )
    max_nodes: int = Field(512, ge=8, le=1_000_000, description="nodes of a graph that are read; the rest is cut off")
    node_budget: int = Field(
        16_384, ge=8, le=100_000_000, description="most nodes in one forward pass; a step with more is accumulated"
    )
    found_rate_min: float = Field(1e-4, gt=0, le=0.1, description="a found learning rate is raised to this")
    found_rate_max: float = Field(1e-2, gt=0, le=0.1, description="a found learning rate is lowered to this")
    fallback_rate: float = Field(5e-4, gt=0, le=0.1, description="learning rate where the search finds none")

    def described(self) -> dict[str, Any]:
        """What makes saved weights fit or not."""
        return {name: getattr(self, name) for name in ("node_size", "graph_layers", "graph_vocab_size", "max_nodes")}


def build(
    run: Run, chosen: Settings, found: checkpoint.Checkpoint | None, table: rows.Rows, split: Split
) -> tuple[PreTrainedTokenizerBase, GraphEncoder]:
    """Tokenizer and network: from the checkpoint, or new."""
    run.stage = "building the model"
    if found is not None:
        return resumed(found.path, chosen)
    run.stage = "making the tokenizer"
    tokenizer = tokenizer_for(table, split.train, chosen.graph_vocab_size, chosen.max_nodes)
    run.stage = "building the model"
    return tokenizer, new_model(
        vocab_size=len(tokenizer),
        node_size=chosen.node_size,
        layers=chosen.graph_layers,
        dropout=chosen.graph_dropout,
        hidden_texts=chosen.hidden_texts,
        feature_size=table.feature_size if isinstance(table, Prepared) else 0,
    )


def new_model(**sizes: Any) -> GraphEncoder:
    """The network with random weights; ``sizes`` are its constructor's arguments."""
    from trainers.code.graph.network import GraphEncoder

    return GraphEncoder(**sizes)


def saved(folder: Path, chosen: Settings) -> tuple[PreTrainedTokenizerBase, GraphEncoder]:
    """Tokenizer and network as `save_others` left them, the weights random.

    Raises:
        InputError: they are not there.
    """
    try:
        sizes = json.loads((folder / SIZES).read_bytes())
        model = new_model(**sizes, dropout=chosen.graph_dropout, hidden_texts=chosen.hidden_texts)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"checkpoint {show(folder)}: no graph network in it: {error}") from None
    return load_tokenizer(folder), model


def resumed(folder: Path, chosen: Settings) -> tuple[PreTrainedTokenizerBase, GraphEncoder]:
    """Tokenizer and network of a checkpoint of this program."""
    tokenizer, model = saved(folder, chosen)
    checkpoint.load_weights(folder / checkpoint.WEIGHTS, model)
    return tokenizer, model


def save_others(folder: Path, tokenizer: PreTrainedTokenizerBase, model: GraphEncoder) -> None:
    """What `saved` needs: the tokenizer, and the network's sizes."""
    tokenizer.save_pretrained(folder)
    (folder / SIZES).write_text(json.dumps(model.sizes, indent=2), encoding="utf-8")


def train(run: Run, chosen: Settings, places: Places) -> None:
    """Everything from the data to the last checkpoint. The output folder's lock is held."""
    begun = loop.begin(run, chosen, places)
    if begun is None:
        return
    program_graph.require_nodes(rows.shortest(begun.table, begun.split.train), chosen.max_nodes)
    ranks = loop.enter(run, chosen)
    tokenizer, model = build(run, chosen, begun.found, begun.table, begun.split)
    dataset = examples.GraphRows(begun.table, tokenizer, chosen.max_nodes, model.sizes["feature_size"])

    def forward(called: nn.Module, batch: examples.Batch) -> torch.Tensor:
        scores: torch.Tensor = called(batch.graphs)
        return scores

    task = loop.Task(
        model=model,
        forward=forward,
        dataset=dataset,
        collate=examples.collate,
        cut=examples.cut_by(dataset, chosen.node_budget),
        groups=parameter_groups(model, chosen.weight_decay),
        save_others=lambda folder: save_others(folder, tokenizer, model),
        limit=f"max_nodes = {chosen.max_nodes}",
    )
    loop.fit(run, chosen, places, begun, ranks, task)


PROGRAM = Program(
    "trainers.code.gnn",
    (__doc__ or "").split("\n\n")[0],
    Settings,
    train,
    DATA_HELP,
    prechecks=(learning_rate.require_cache_place,),
)

main, launch = PROGRAM.main, PROGRAM.launch

if __name__ == "__main__":
    sys.exit(main())
