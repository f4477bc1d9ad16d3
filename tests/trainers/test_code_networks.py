"""The graph network and the fusion: what is their own beside the training loop that all share."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trainer_runs import TINY, left_behind, losses

from trainers.code import fusion, gnn, misuse, prepare, rows, transformer
from trainers.code.branches import trust_in
from trainers.code.graph import examples, program_graph
from trainers.code.graph.examples import GraphRows, collate, cut_by
from trainers.code.tokenizer import tokenizer_for
from trainers.common import checkpoint
from trainers.common.process import Run
from trainers.common.rows import Split

GNN: dict[str, Any] = {
    "node_size": 16,
    "graph_layers": 2,
    "graph_vocab_size": 400,
    "max_nodes": 128,
    "node_budget": 400,
    "batch_size": 8,
    "learning_rate": 2e-3,
    "warmup_steps": 2,
    "log_every": 1,
    "save_every": 2,
    "device": "cpu",
}
FUSION = {**GNN, **TINY, "head_size": 8, "eval_every": 4}
PROGRAMS = {"transformer": (transformer, TINY), "gnn": (gnn, GNN), "fusion": (fusion, FUSION)}


@pytest.fixture
def launch(rows_file: Path, tmp_path: Path) -> Callable[..., int]:
    """Run a program by name: keywords of `launch`, all others are settings."""

    def run(name: str, folder: str, **keywords: Any) -> int:
        module, values = PROGRAMS[name]
        places = {place: keywords.pop(place) for place in ("max_steps", "resume_from", "seed") if place in keywords}
        data = keywords.pop("data", rows_file)
        return module.launch({**values, **keywords}, data=data, output_dir=tmp_path / folder, **places)

    return run


@pytest.fixture(scope="module")
def branches(rows_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A run of each branch, and the settings that name them."""
    root = tmp_path_factory.mktemp("branches")
    for name in ("transformer", "gnn"):
        module, values = PROGRAMS[name]
        assert module.launch({**values, "eval_every": 2}, data=rows_file, output_dir=root / name, max_steps=6) == 0
    return {"text_branch": str(root / "transformer"), "graph_branch": str(root / "gnn")}


def metadata(folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((folder / "training_metadata.json").read_text())
    return told


# ---- both


@pytest.mark.parametrize("name", ["gnn", "fusion"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_two_halves_equal_the_whole(launch: Callable[..., int], tmp_path: Path, name: str, dropout: float) -> None:
    values = {"graph_dropout": dropout, "hidden_texts": dropout, "class_balance": "sampler" if dropout else "weights"}
    assert launch(name, "whole", max_steps=10, **values) == 0
    assert launch(name, "halves", max_steps=5, **values) == 0
    assert launch(name, "halves", max_steps=10, resume_from=tmp_path / "halves", **values) == 0
    assert losses(tmp_path / "halves") == losses(tmp_path / "whole")
    whole, halves = (tmp_path / folder / "checkpoint-10" / checkpoint.WEIGHTS for folder in ("whole", "halves"))
    assert whole.read_bytes() == halves.read_bytes()
    assert not left_behind(tmp_path / "halves")


@pytest.mark.parametrize("name", ["gnn", "fusion"])
def test_accumulated_steps_equal_those_of_the_big_batch(launch: Callable[..., int], tmp_path: Path, name: str) -> None:
    values = {"graph_dropout": 0.0, "hidden_texts": 0.0} | ({"dropout": 0.0} if name == "fusion" else {})
    assert launch(name, "big", max_steps=9, batch_size=12, node_budget=100_000, **values) == 0
    assert launch(name, "small", max_steps=9, batch_size=4, gradient_accumulation=3, node_budget=150, **values) == 0
    big, small = dict(losses(tmp_path / "big")), dict(losses(tmp_path / "small"))
    assert small == pytest.approx(big, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("gnn", {"node_size": 3}, "node_size = 3 is not a whole number from 4 to 16384"),
        ("gnn", {"node_budget": "all"}, 'node_budget = "all"'),
        ("gnn", {"hidden_size": 32}, "unknown setting hidden_size"),
        ("gnn", {"max_nodes": 8}, "max_nodes = 8: every row is larger"),
        ("gnn", {"rate_cache": "/nowhere/rates.json"}, "rate_cache /nowhere/rates.json: no such folder"),
        ("gnn", {"found_rate_min": 0.01}, "found_rate_min = 0.01, fallback_rate = 0.0005"),
        ("fusion", {"heads": 5}, "heads = 5 must divide hidden_size = 32"),
        ("fusion", {"branch_rate": 0.0}, "branch_rate = 0.0 is not a number over 0"),
        ("fusion", {"text_branch": "/no/a", "graph_branch": "/no/b"}, "text_branch /no/a: no such folder"),
        ("fusion", {"text_branch": "/no/a", "graph_branch": "/no/b"}, "graph_branch /no/b: no such folder"),
    ],
)  # fmt: skip
def test_bad_settings_are_named(
    launch: Callable[..., int], tmp_path: Path, capsys: Any, name: str, values: dict[str, Any], words: str
) -> None:
    assert launch(name, "out", **values) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


# ---- the graph network


def test_forward_passes_keep_to_the_node_budget(rows_file: Path) -> None:
    from trainers.code.graph import program_graph
    from trainers.code.tokenizer import train_tokenizer

    table = rows.RowFile(rows_file)
    tokenizer = train_tokenizer(table, range(len(table)), 400, 128)
    dataset = GraphRows(table, tokenizer, 128, 0)
    pieces = cut_by(dataset, 300)(range(len(table)), 32)
    assert [row for piece in pieces for row in piece] == list(range(len(table)))
    for piece in pieces:
        nodes = sum(len(program_graph.read(table[row].code, 128).kinds) for row in piece)
        assert len(piece) == 1 or nodes <= 300
    assert len({len(piece) for piece in pieces}) > 1


def test_a_row_that_comes_again_soon_is_parsed_once(rows_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = rows.RowFile(rows_file)
    dataset = GraphRows(table, tokenizer_for(table, range(16), 400, 128), 128, 0)
    parsed: list[str] = []

    def read(code: str, max_nodes: int) -> program_graph.ProgramGraph:
        parsed.append(code)
        return real(code, max_nodes)

    real = program_graph.read
    monkeypatch.setattr(program_graph, "read", read)
    monkeypatch.setattr(examples, "LAST_MADE", last := 8)
    first = dataset[0].graph
    for index in range(1, last):
        assert dataset[0].graph is first  # asked for time and again: it stays
        assert len(dataset[index].graph.x)
    assert dataset[0].graph is first
    assert dataset[last].row == table[last]
    assert len(parsed) == last + 1
    assert dataset[1].row == table[1]  # the one that was longest not asked for was given up
    assert len(parsed) == last + 2
    assert len(dataset._last) == last
    monkeypatch.setattr(examples, "LARGEST_KEPT", 2)  # nodes: what is larger would take too much memory
    assert dataset[20].row == dataset[20].row == table[20]
    assert len(parsed) == last + 4


def test_the_order_of_graphs_in_a_batch_makes_no_difference(rows_file: Path) -> None:
    import torch

    from trainers.code.tokenizer import train_tokenizer

    table = rows.RowFile(rows_file)
    tokenizer = train_tokenizer(table, range(len(table)), 400, 128)
    dataset = GraphRows(table, tokenizer, 128, 0)
    torch.manual_seed(0)
    model = gnn.new_model(vocab_size=len(tokenizer), node_size=16, layers=2, dropout=0.0).eval()
    examples = [dataset[index] for index in range(6)]
    with torch.no_grad():
        together = model(collate(examples).graphs)
        turned = model(collate(examples[::-1]).graphs)
        alone = torch.cat([model(collate([example]).graphs) for example in examples])
    assert torch.allclose(together, turned.flip(0), atol=1e-5)
    assert torch.allclose(together, alone, atol=1e-5)
    assert (together[0] - together[2]).abs().max() > 1e-4  # two functions, not two answers to all


def test_messages_depend_on_the_kind_of_edge(rows_file: Path) -> None:
    import torch

    from trainers.code.tokenizer import train_tokenizer

    table = rows.RowFile(rows_file)
    tokenizer = train_tokenizer(table, range(len(table)), 400, 128)
    torch.manual_seed(0)
    model = gnn.new_model(vocab_size=len(tokenizer), node_size=16, layers=2, dropout=0.0).eval()
    batch = collate([GraphRows(table, tokenizer, 128, 0)[0]]).graphs
    other = batch.clone()
    other.edge_type = other.edge_type ^ 1  # every edge the other way round
    with torch.no_grad():
        assert (model(batch) - model(other)).abs().max() > 1e-4


def test_graphs_that_are_cut_are_counted(launch: Callable[..., int], tmp_path: Path, capsys: Any) -> None:
    assert launch("gnn", "out", max_nodes=40, max_steps=4) == 0
    assert "rows longer than max_nodes = 40 are truncated" in capsys.readouterr().err
    assert 0 < metadata(tmp_path / "out")["rows_truncated"] < 32


# ---- the fusion


def test_it_begins_with_what_its_branches_know(branches: dict[str, str], rows_file: Path, tmp_path: Path) -> None:
    """A new head adds nothing: the first logits are the branches' own, weighted by what each explained."""
    import torch
    from safetensors.torch import load_file

    best = {name: str(Path(folder) / metadata(Path(folder))["best_checkpoint"]) for name, folder in branches.items()}
    values = {**FUSION, **best, "freeze_branches": True, "learning_rate": 1e-12, "eval_every": 1, "dropout": 0.0}
    assert fusion.launch(values, data=rows_file, output_dir=tmp_path / "out", max_steps=1) == 0
    both = [load_file(Path(folder) / "validation_logits.safetensors") for folder in branches.values()]
    explained = [max(0.0, 1 - metadata(Path(folder))["best"]["loss"] / math.log(2)) for folder in branches.values()]
    trust = [share / max(explained) for share in explained] if max(explained) else [1.0, 1.0]
    joined = load_file(tmp_path / "out/validation_logits.safetensors")
    assert torch.equal(joined["keys"], both[0]["keys"])
    expected = trust[0] * both[0]["logits"] + trust[1] * both[1]["logits"]
    assert torch.allclose(joined["logits"], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "graph", "trust"),
    [(0.6, 0.3, (0.237, 1.0)), (0.3, 0.6, (1.0, 0.237)), (0.8, 0.3, (0.0, 1.0)), (0.8, 0.9, (1.0, 1.0)),
     (None, 0.3, (1.0, 1.0))],
)  # fmt: skip
def test_a_branch_is_believed_as_far_as_it_was_right(
    tmp_path: Path, text: float | None, graph: float, trust: tuple[float, float]
) -> None:
    found = []
    for name, loss in (("text", text), ("graph", graph)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "training_metadata.json").write_text(json.dumps({"best": {"loss": loss}}))
        found.append(checkpoint.Checkpoint(tmp_path / name / "checkpoint-1", 1, {}))
    assert trust_in(found[0], found[1]) == pytest.approx(trust, abs=1e-3)


def test_a_branch_begins_as_the_mean_of_its_checkpoints(
    branches: dict[str, str], rows_file: Path, tmp_path: Path, capsys: Any
) -> None:
    values = {**FUSION, **branches, "freeze_branches": True, "keep_last": 1}
    assert fusion.launch(values, data=rows_file, output_dir=tmp_path / "out", max_steps=2) == 0
    after = load_weights_of(tmp_path / "out/checkpoint-2")
    for part, folder in (("text", branches["text_branch"]), ("graph", branches["graph_branch"])):
        kept = [load_weights_of(path) for path in sorted(Path(folder).glob("checkpoint-*"))]
        assert len(kept) > 1
        for name, first in kept[0].items():
            mean = sum(weights[name].double() for weights in kept) / len(kept)
            assert after[f"{part}.{name}"].equal(mean.to(first.dtype))
    assert "the mean of 3 checkpoints" in capsys.readouterr().err


def load_weights_of(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / checkpoint.WEIGHTS)


def test_branches_learn_slower_than_the_head(
    branches: dict[str, str], launch: Callable[..., int], tmp_path: Path
) -> None:
    assert launch("fusion", "out", max_steps=2, learning_rate=1e-3, branch_rate=0.05, **branches) == 0
    rates = metadata(tmp_path / "out")["learning_rates"]
    assert sorted(set(rates)) == pytest.approx([5e-5, 1e-3])
    # A branch that is new learns as fast as the head.
    only_text = {"text_branch": branches["text_branch"]}
    assert launch("fusion", "new", max_steps=2, learning_rate=1e-3, branch_rate=0.05, **only_text) == 0
    rates = metadata(tmp_path / "new")["learning_rates"]
    assert (rates.count(5e-5), rates.count(1e-3)) == (2, 4)


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_branches_stay_as_they_are(
    branches: dict[str, str], launch: Callable[..., int], tmp_path: Path, frozen: bool
) -> None:
    best = {name: str(Path(folder) / metadata(Path(folder))["best_checkpoint"]) for name, folder in branches.items()}
    assert launch("fusion", "out", max_steps=4, freeze_branches=frozen, **best) == 0
    after = load_weights_of(tmp_path / "out/checkpoint-4")
    for part, folder in (("text", best["text_branch"]), ("graph", best["graph_branch"])):
        before = load_weights_of(Path(folder))
        # A branch that is not believed at all does not learn to classify either.
        inner = {name: weight for name, weight in before.items() if "classifier" not in name}
        same = [after[f"{part}.{name}"].equal(weight) for name, weight in inner.items()]
        assert all(same) if frozen else not any(same[2:])
    moved = after["head.4.weight"]
    assert moved.abs().max() > 0


def test_a_branch_that_does_not_fit_is_named(
    branches: dict[str, str], launch: Callable[..., int], tmp_path: Path, capsys: Any
) -> None:
    def rejected(words: str, **values: Any) -> None:
        assert launch("fusion", "out", max_steps=2, **{**branches, **values}) == 2
        error = capsys.readouterr().err
        assert words in error
        assert "Traceback" not in error

    rejected("max_nodes = 64, but the branch", max_nodes=64)
    rejected("max_length = 32, but the branch", max_length=32)
    swapped = {"text_branch": branches["graph_branch"], "graph_branch": branches["text_branch"]}
    rejected("is of trainers.code.gnn, not of trainers.code.transformer", **swapped)
    (tmp_path / "empty").mkdir()
    rejected("graph_branch", graph_branch=str(tmp_path / "empty"))
    best = Path(branches["graph_branch"]) / metadata(Path(branches["graph_branch"]))["best_checkpoint"]
    copied = tmp_path / "copied" / best.name
    copied.mkdir(parents=True)
    for file in best.iterdir():
        (copied / file.name).write_bytes(file.read_bytes())
    (copied / checkpoint.WEIGHTS).write_bytes((best / checkpoint.WEIGHTS).read_bytes()[:-100])
    rejected("graph_branch", graph_branch=str(copied))


def test_resumed_it_needs_its_branches_no_more(
    branches: dict[str, str], launch: Callable[..., int], tmp_path: Path
) -> None:
    import shutil

    copies = {name: str(tmp_path / name) for name in branches}
    for name, folder in branches.items():
        shutil.copytree(folder, copies[name])
    assert launch("fusion", "whole", max_steps=8, **copies) == 0
    assert launch("fusion", "halves", max_steps=4, **copies) == 0
    for folder in copies.values():
        for entry in Path(folder).iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    assert launch("fusion", "halves", max_steps=8, resume_from=tmp_path / "halves", **copies) == 0
    assert losses(tmp_path / "halves") == losses(tmp_path / "whole")


def test_both_branches_feel_the_loss(tmp_path: Path, rows_file: Path) -> None:
    import torch

    from trainers.code import roberta
    from trainers.code.fusion_network import groups

    table = rows.RowFile(rows_file)
    run, chosen = Run("test"), fusion.Settings(**FUSION)
    split = Split(range(len(table)), [])
    both = fusion.load_branches(run, chosen, table, split)
    model = fusion.joined(chosen, both.text, both.graph, both.trust)
    dataset = GraphRows(table, both.graph_tokenizer, chosen.max_nodes, 0)
    examples = [dataset[index] for index in range(8)]
    text = roberta.Collate(both.text_tokenizer, chosen.max_length, table)([example.row for example in examples])
    logits = model(text.inputs, collate(examples).graphs)
    torch.nn.functional.cross_entropy(logits, text.labels).backward()
    for part in (model.text, model.graph):
        assert sum(float(weight.grad.abs().sum()) for weight in part.parameters() if weight.grad is not None) > 0
    made = groups(model, 0.01, {"text": 0.1, "graph": 0.2})
    counted = sum(weight.numel() for group in made for weight in group["params"])
    assert counted == sum(weight.numel() for weight in model.parameters())
    assert {group["share"] for group in made} == {1.0, 0.1, 0.2}


def test_rows_from_python_source_train_it_too(launch: Callable[..., int], tmp_path: Path) -> None:
    source = misuse.standard_library() / "json"
    assert launch("fusion", "out", data=source, longest_function=400, twins=2, max_steps=3) == 0
    assert metadata(tmp_path / "out")["status"] == "finished"


# ---- bad data, whatever the program


def bad_data(folder: Path, kind: str) -> Path:
    path = folder / "bad.jsonl"
    right = json.dumps({"code": "def f(a, b):\n    return a\n", "label": 0}) + "\n"
    if kind == "a folder":
        path.mkdir()
    elif kind == "a circular link":
        path.symlink_to(path.name)
    elif kind == "another format":
        path = folder / "bad.csv"
        path.write_text("code,label\n")
    elif kind == "no Python":
        path = folder / "notes"
        path.mkdir()
        (path / "notes.txt").write_text("def f(a, b): return a")
    else:
        rows = {
            "empty": "",
            "cut short": right + right[:20],
            "a field too few": right + '{"code": "x = 1"}\n',
            "a wrong type": right + '{"code": "x = 1", "label": "0"}\n',
            "an unknown label": right + '{"code": "x = 1", "label": 2}\n',
            "empty code": right + '{"code": "", "label": 0}\n',
            "a NUL": right + "\0\n",
        }
        path.write_text(rows[kind])
    return path


@pytest.mark.parametrize("program", [transformer, gnn, fusion, prepare])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("a folder", "a folder where a file belongs"),
        ("a circular link", "circular link"),
        ("another format", "suffix .csv is unknown"),
        ("no Python", "no Python function"),
        ("empty", "empty, no rows"),
        ("cut short", "line 2: bad JSON"),
        ("a field too few", "line 2: field label missing"),
        ("a wrong type", 'line 2: label = "0" (text): must be the number 0 or 1'),
        ("an unknown label", "line 2: label = 2 (number): outside 0 to 1"),
        ("empty code", "line 2: code is empty"),
        ("a NUL", "line 2: NUL byte at column 1"),
    ],
)
def test_bad_data_is_one_line_and_leaves_nothing(
    program: Any, tmp_path: Path, capsys: Any, kind: str, words: str
) -> None:
    out = tmp_path / "out"
    assert program.launch({}, data=bad_data(tmp_path, kind), output_dir=out) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith(program.__name__)]
    assert words in line
    assert not out.exists() or not list(out.iterdir())
