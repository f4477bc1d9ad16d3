"""Finds variable misuse in Python functions with a text transformer and a graph network together.

    python -m trainers.code.fusion --text-branch runs/transformer --graph-branch runs/gnn --output-dir runs/fusion

goes on from a run of `trainers.code.transformer` and one of `trainers.code.gnn`, and trains both with a head that joins
what they see. From top to bottom: the settings, what is checked before torch is imported, the model, the run. The
training loop is `trainers.code.loop`'s, the command line `trainers.common.program`'s.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field

from trainers.code import branches, gnn, learning_rate, loop, roberta, rows, transformer
from trainers.code.graph import examples, program_graph
from trainers.code.settings import DATA_HELP, RunSettings
from trainers.common import checkpoint
from trainers.common.errors import InputError, show
from trainers.common.process import Run
from trainers.common.program import Places, Program
from trainers.common.rows import Split
from trainers.common.settings import with_default

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from trainers.code.fusion_network import FusionModel
    from trainers.code.graph.network import GraphEncoder

PRELOAD = (*transformer.PRELOAD, *gnn.PRELOAD, "trainers.code.fusion_network")
"""What a run imports late. A server from which many runs are forked imports these once."""
TEXT, GRAPH = "text", "graph"
"""Folders in a checkpoint: each branch's tokenizer and configuration."""


class Settings(transformer.Settings, gnn.Settings):
    """Settings of this program: those of both branches, and of what joins them.

    The sizes of a branch are those of its checkpoint, where one is named.
    """

    # The branches have learnt already; a head that learns fast makes them too sure of what they know by heart.
    learning_rate: float = with_default(RunSettings, "learning_rate", 1e-4)
    max_epochs: int = with_default(RunSettings, "max_epochs", 1)
    eval_every: int = with_default(RunSettings, "eval_every", 150)
    text_branch: str | None = Field(
        None,
        description="run of trainers.code.transformer (then the mean of its checkpoints), or a checkpoint; left out: "
        "a new branch",
    )
    graph_branch: str | None = Field(
        None,
        description="run of trainers.code.gnn (then the mean of its checkpoints), or a checkpoint; left out: a new "
        "branch",
    )
    head_size: int = Field(128, ge=2, le=16_384, description="width of the head that joins the branches")
    head_dropout: float = Field(0.1, ge=0, lt=1, description="dropout in the head")
    branch_rate: float = Field(
        0.05,
        gt=0,
        le=1,
        description="the branches' learning rate, as a share of the head's (branches that are not new)",
    )
    freeze_branches: bool = Field(False, description="train the head alone")

    def described(self) -> dict[str, Any]:
        """What makes saved weights fit or not."""
        text = {} if self.text_branch else transformer.Settings.described(self)
        graph = {} if self.graph_branch else gnn.Settings.described(self)
        own = {name: getattr(self, name) for name in ("max_length", "max_nodes", "head_size")}
        return {**text, **graph, **own, "text_branch": self.text_branch, "graph_branch": self.graph_branch}


class Batch(NamedTuple):
    """The same rows as text and as graphs."""

    text: roberta.Batch
    graph: examples.Batch

    @property
    def labels(self) -> torch.Tensor:
        """int64 of shape (rows,)."""
        return self.text.labels

    @property
    def truncated(self) -> int:
        """Rows of which one of the two is cut: the larger number of both."""
        return max(self.text.truncated, self.graph.truncated)

    @property
    def unparsed(self) -> int:
        """How many of the rows are no Python."""
        return self.graph.unparsed

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(self.text.to(device), self.graph.to(device))

    def pin_memory(self) -> Batch:
        """For torch's loader: page-locked memory, from which a GPU copies faster."""
        return Batch(self.text.pin_memory(), self.graph.pin_memory())


def require_branches(values: Mapping[str, Any]) -> None:
    """Reject a branch that is not there, before torch is imported."""
    faults = []
    for name in ("text_branch", "graph_branch"):
        value = values.get(name)
        if isinstance(value, str) and not Path(value).is_dir():
            faults.append(f"{name} {show(value)}: no such folder")
    if faults:
        raise InputError(*faults)


class Branches(NamedTuple):
    """Both branches, each with its tokenizer, and how far each is believed: the text first."""

    text_tokenizer: PreTrainedTokenizerBase
    text: PreTrainedModel
    graph_tokenizer: PreTrainedTokenizerBase
    graph: GraphEncoder
    trust: tuple[float, float] = (1.0, 1.0)


def load_branches(run: Run, chosen: Settings, table: rows.Rows, split: Split) -> Branches:
    """The branches of a new run: each from its checkpoint, or new."""
    run.stage = "loading the branches"
    text_from = (
        branches.best_of(chosen.text_branch, "text_branch", transformer.PROGRAM.name, run.say)
        if chosen.text_branch
        else None
    )
    graph_from = (
        branches.best_of(chosen.graph_branch, "graph_branch", gnn.PROGRAM.name, run.say)
        if chosen.graph_branch
        else None
    )
    for found, name, setting in (
        (text_from, "max_length", chosen.max_length),
        (graph_from, "max_nodes", chosen.max_nodes),
    ):
        saved = found.state["model"].get(name, setting) if found else setting
        if saved != setting:
            raise InputError(f"{name} = {setting}, but the branch {show(found.path)} was trained with {saved}")
    for found, name in ((text_from, "text_branch"), (graph_from, "graph_branch")):
        if found is None:
            run.say(f"{name}: new (no checkpoint is named)")
    text_tokenizer, text = transformer.build(run, chosen, text_from, table, split)
    graph_tokenizer, graph = gnn.build(run, chosen, graph_from, table, split)
    for found, folder, model in ((text_from, chosen.text_branch, text), (graph_from, chosen.graph_branch, graph)):
        if found is not None and folder is not None:
            # They stand around a minimum: their mean is nearer to it than each (Izmailov et al. 2018,
            # https://arxiv.org/abs/1803.05407).
            paths = [path / checkpoint.WEIGHTS for path in branches.kept(folder, found)]
            branches.load_mean_weights(paths, model)
            run.say(f"{show(folder)}: the mean of {len(paths)} checkpoints")
    roberta.remove_pointer(text)
    return Branches(text_tokenizer, text, graph_tokenizer, graph, branches.trust_in(text_from, graph_from))


def resumed(chosen: Settings, folder: Path) -> tuple[Branches, FusionModel]:
    """Everything from a checkpoint of this program; the branches' own are not needed any more."""
    text_tokenizer, text = roberta.saved(folder / TEXT, chosen.dropout)
    graph_tokenizer, graph = gnn.saved(folder / GRAPH, chosen)
    model = joined(chosen, text, graph, (1.0, 1.0))  # what it was is among the weights
    checkpoint.load_weights(folder / checkpoint.WEIGHTS, model)
    return Branches(text_tokenizer, text, graph_tokenizer, graph), model


def joined(chosen: Settings, text: PreTrainedModel, graph: GraphEncoder, trust: tuple[float, float]) -> FusionModel:
    """Both branches with a new head."""
    from trainers.code.fusion_network import FusionModel

    return FusionModel(
        text,
        graph,
        trust=trust,
        head_size=chosen.head_size,
        dropout=chosen.head_dropout,
        frozen=chosen.freeze_branches,
    )


def train(run: Run, chosen: Settings, places: Places) -> None:
    """Everything from the data to the last checkpoint. The output folder's lock is held."""
    begun = loop.begin(run, chosen, places)
    if begun is None:
        return
    program_graph.require_nodes(rows.shortest(begun.table, begun.split.train), chosen.max_nodes)
    if chosen.text_branch is None:
        transformer.look_over(run, chosen, begun.found)
    ranks = loop.enter(run, chosen)
    from trainers.code.fusion_network import groups

    if begun.found is not None:
        run.stage = "building the model"
        both, model = resumed(chosen, begun.found.path)
    else:
        both = load_branches(run, chosen, begun.table, begun.split)
        model = joined(chosen, both.text, both.graph, both.trust)
    dataset = examples.GraphRows(begun.table, both.graph_tokenizer, chosen.max_nodes, both.graph.sizes["feature_size"])
    text_collate = roberta.Collate(
        both.text_tokenizer, chosen.max_length, begun.table, numbers_names=roberta.numbers_names(both.text)
    )

    def collate(drawn: Sequence[examples.Example]) -> Batch:
        return Batch(text_collate([example.row for example in drawn]), examples.collate(drawn))

    def forward(called: nn.Module, batch: Batch) -> torch.Tensor:
        scores: torch.Tensor = called(batch.text.inputs, batch.graph.graphs)
        return scores

    def save_others(folder: Path) -> None:
        roberta.save_others(folder / TEXT, both.text_tokenizer, both.text)
        gnn.save_others(folder / GRAPH, both.graph_tokenizer, both.graph)

    shares = {
        "text": chosen.branch_rate if chosen.text_branch or chosen.model else 1.0,
        "graph": chosen.branch_rate if chosen.graph_branch else 1.0,
    }
    task = loop.Task(
        model=model,
        forward=forward,
        dataset=dataset,
        collate=collate,
        cut=examples.cut_by(dataset, chosen.node_budget),
        groups=groups(model, chosen.weight_decay, shares),
        save_others=save_others,
        limit=f"max_length = {chosen.max_length} or max_nodes = {chosen.max_nodes}",
    )
    loop.fit(run, chosen, places, begun, ranks, task)


PROGRAM = Program(
    "trainers.code.fusion",
    (__doc__ or "").split("\n\n")[0],
    Settings,
    train,
    DATA_HELP,
    prechecks=(transformer.require_model, require_branches, learning_rate.require_cache_place),
)

main, launch = PROGRAM.main, PROGRAM.launch

if __name__ == "__main__":
    sys.exit(main())
