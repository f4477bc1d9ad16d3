from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trainer_runs import ROOT, TINY, left_behind, losses, tree

from trainers.code import gnn, misuse, prepare, samples, transformer
from trainers.code.graph import examples, program_graph
from trainers.code.prepared import Prepared
from trainers.common.errors import InputError

SMALL: dict[str, Any] = {"vocab_size": 400, "max_length": 64, "max_nodes": 128, "shard_rows": 16}
GNN: dict[str, Any] = {
    "node_size": 8,
    "graph_layers": 2,
    "graph_vocab_size": 400,
    "max_nodes": 128,
    "batch_size": 8,
    "warmup_steps": 2,
    "log_every": 1,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of Python of several modules, one of which is none."""
    folder = tmp_path_factory.mktemp("source")
    for number in range(8):
        functions = "".join(
            f"def f{number}_{index}(first, second):\n    total = first * {index} + second\n    return total\n\n"
            for index in range(4)
        )
        (folder / f"module{number}.py").write_text(functions)
    (folder / "again.py").write_text((folder / "module0.py").read_text())
    (folder / "broken.py").write_text("def f(:\n")
    return folder


@pytest.fixture(scope="module")
def prepared(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared") / "out"
    assert prepare.launch({**SMALL, "twins": 2}, data=source, output_dir=folder) == 0
    return folder


@pytest.fixture
def run(rows_file: Path, tmp_path: Path) -> Callable[..., int]:
    def start(name: str = "out", data: Path | None = rows_file, **values: Any) -> int:
        return prepare.launch({**SMALL, **values}, data=data, output_dir=tmp_path / name)

    return start


def manifest(folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((folder / "prepared.json").read_text())
    return told


def test_rows_are_those_of_the_source_and_split_by_module(source: Path, prepared: Path) -> None:
    corpus = misuse.Corpus(source, seed=42, validation_fraction=0.1, longest=200, twins_each=2)
    there = Prepared(prepared)
    assert [there[index][:2] for index in range(len(there))] == [row[:2] for row in corpus.rows]
    assert (list(there.split.train), list(there.split.validation)) == tuple(map(list, corpus.split))
    assert there.together == 2
    told = manifest(prepared)
    assert told["counts"]["left_out"]["files that are no Python"] == 1
    assert told["counts"]["left_out"]["functions that came before"] == 4
    sides = {"train": there.split.train, "validation": there.split.validation}
    for side, rows in sides.items():
        balance = {str(label): sum(there.label(index) == label for index in rows) for label in (0, 1)}
        assert told["class_balance"][side] == balance
    assert not (prepared / "started.json").exists()
    assert not left_behind(prepared)


def test_graphs_and_tokens_are_those_made_on_the_way(prepared: Path) -> None:
    from transformers import AutoTokenizer

    there = Prepared(prepared)
    tokenizer = AutoTokenizer.from_pretrained(there.tokenizer_folder)
    subtokens = program_graph.subtokens_of(tokenizer)
    for index in range(len(there)):
        row = there[index]
        assert row.tokens == tokenizer(row.code)["input_ids"]
        made = program_graph.to_data(program_graph.read(row.code, 128), subtokens, row.label)
        kept = examples.prepared_graph(there, index)
        for name in ("x", "edge_index", "edge_type", "y"):
            assert kept[name].equal(made[name]), name
            assert kept[name].dtype == made[name].dtype


@pytest.mark.parametrize("program", [transformer, gnn])
def test_training_on_prepared_data_is_training_on_its_source(program: Any, source: Path, tmp_path: Path) -> None:
    values = {**(TINY if program is transformer else GNN), "twins": 2, "max_steps": 4}
    kept, made = tmp_path / "kept", tmp_path / "made"
    assert prepare.launch({**SMALL, "twins": 2}, data=source, output_dir=tmp_path / "data") == 0
    assert program.launch(values, data=tmp_path / "data", output_dir=kept) == 0
    assert program.launch(values, data=source, output_dir=made) == 0
    assert losses(kept) == losses(made)


def test_the_same_source_is_prepared_to_the_same_bytes(source: Path, prepared: Path, tmp_path: Path) -> None:
    assert prepare.launch({**SMALL, "twins": 2}, data=source, output_dir=tmp_path / "again") == 0
    assert tree(tmp_path / "again") == tree(prepared)
    assert prepare.launch({**SMALL, "twins": 2, "data_seed": 7}, data=source, output_dir=tmp_path / "seed") == 0
    assert tree(tmp_path / "seed") != tree(prepared)


def test_finished_work_is_not_done_again(source: Path, prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in prepared.rglob("*")}
    assert prepare.launch({**SMALL, "twins": 2}, data=source, output_dir=prepared) == 0
    assert "already prepared" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in prepared.rglob("*")} == before


def test_killed_and_started_again_gives_the_same_bytes(
    rows_file: Path, tmp_path: Path, run: Callable[..., int]
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run("whole", shard_rows=4) == 0
    slowly = (
        "import sys, time\nfrom trainers.code import prepare\nwrite = prepare._write_shard\n"
        "def slow(*rest):\n    write(*rest)\n    time.sleep(0.3)\n"
        f"prepare._write_shard = slow\nprepare.launch({ {**SMALL, 'shard_rows': 4}!r}, "
        f"data={str(rows_file)!r}, output_dir={str(cut)!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", slowly], cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (cut / "shard-00002.safetensors").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    begun = (cut / "shard-00000.safetensors").stat().st_mtime_ns
    with pytest.raises(InputError, match=r"no such file|No such file"):
        Prepared(cut)
    assert run("cut", shard_rows=4) == 0
    assert (cut / "shard-00000.safetensors").stat().st_mtime_ns == begun
    assert tree(cut) == tree(whole)


def test_rows_that_came_before_are_left_out(run: Callable[..., int], tmp_path: Path, capsys: Any) -> None:
    codes = [f"def f(a, b):\n    return a + b * {index}\n" for index in range(20)]
    rows = [(code, index % 2) for index, code in enumerate(codes)] + [(codes[3], 1), (codes[4], 1)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"code": code, "label": label}) + "\n" for code, label in rows))
    assert run(data=path) == 0
    there = Prepared(tmp_path / "out")
    assert sorted(there[index].code for index in range(len(there))) == sorted(codes)
    assert "row 22 has the code of row 5 and another label: left out" in capsys.readouterr().err
    told = manifest(tmp_path / "out")["counts"]["left_out"]
    assert told == {"rows that came before": 1, "rows that came before with another label": 1}


def test_rows_with_a_module_are_split_by_it(run: Callable[..., int], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [
        {"code": f"def f(a, b):\n    return a + b * {index}\n", "label": index % 2, "module": f"m{index % 6}"}
        for index in range(60)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(data=path, validation_fraction=0.3) == 0
    there = Prepared(tmp_path / "out")
    module = {row["code"]: row["module"] for row in rows}
    train, held_out = ({module[there[index].code] for index in side} for side in there.split)
    assert train
    assert held_out
    assert not train & held_out


def test_what_is_no_python_is_counted_named_and_trained_on(
    run: Callable[..., int], tmp_path: Path, rows_file: Path, capsys: Any
) -> None:
    path = tmp_path / "rows.jsonl"
    bad = json.dumps({"code": "def f(:\n    return 1 +\n", "label": 1}) + "\n"
    path.write_text(rows_file.read_text() + bad)
    assert run(data=path, validation_fraction=0.0) == 0
    told = manifest(tmp_path / "out")
    assert told["counts"]["unparsed"] == 1
    assert told["unparsed"][0].startswith("row 65: ")
    assert "row 65: " in capsys.readouterr().err
    values = {**GNN, "max_epochs": 1}
    assert gnn.launch(values, data=tmp_path / "out", output_dir=tmp_path / "trained") == 0
    error = capsys.readouterr().err
    assert "row 65: " in error
    assert "1 of 65 rows seen were no Python" in error


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_nodes": 64}, ("max_nodes is 128 there and 64 here",)),
        ({"shard_rows": 8}, ("shard_rows is 16 there and 8 here",)),
        ({"data": "other"}, ("source is",)),
    ],
)
def test_a_folder_of_other_data_or_settings_is_left_alone(
    run: Callable[..., int], tmp_path: Path, capsys: Any, change: dict[str, Any], words: tuple[str, ...]
) -> None:
    assert run() == 0
    before = tree(tmp_path / "out")
    if "data" in change:
        change = {"data": tmp_path / "other.jsonl"}
        samples.write_jsonl(change["data"], rows=8, seed=9)
    assert run(**change) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words)
    assert tree(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"vocab_size": 3}, "vocab_size = 3 is not a whole number from 261 to 1000000"),
        ({"max_nodes": "many"}, 'max_nodes = "many"'),
        ({"max_nods": 64}, "unknown setting max_nods; did you mean max_nodes?"),
        ({"encoder": "/nowhere/model"}, "model /nowhere/model: no such folder"),
        ({"max_nodes": 8}, "max_nodes = 8: every row is larger"),
        ({"max_length": 8}, "max_length = 8: every row is longer"),
        ({"data": "/nowhere.jsonl"}, "data /nowhere.jsonl: no such file or folder"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    run: Callable[..., int], tmp_path: Path, capsys: Any, values: dict[str, Any], words: str
) -> None:
    given = {**values, **({"data": Path(values["data"])} if "data" in values else {})}
    assert run(**given) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_strangers_in_the_folder_are_left_alone(run: Callable[..., int], tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("years of work")
    assert run() == 2
    assert "holds other files" in capsys.readouterr().err
    assert tree(tmp_path / "out") == {"thesis.tex": b"years of work"}


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "manifest", "version", "entry"])
def test_damage_is_named(run: Callable[..., int], tmp_path: Path, capsys: Any, damage: str) -> None:
    assert run() == 0
    folder, shard = tmp_path / "out", tmp_path / "out/shard-00001.safetensors"
    told = manifest(folder)
    words = "shard-00001"
    if damage == "cut":
        os.truncate(shard, 1000)
    elif damage == "flipped":
        bytes_there = bytearray(shard.read_bytes())
        bytes_there[-5] ^= 4
        shard.write_bytes(bytes_there)
    elif damage == "gone":
        shard.unlink()
    elif damage == "manifest":
        (folder / "prepared.json").write_text('{"format_version": 1')
        words = "bad prepared.json"
    elif damage == "version":
        (folder / "prepared.json").write_text(json.dumps({**told, "format_version": 99}))
        words = "format version 99"
    else:
        told["files"]["shard-00001.safetensors"] = "sound"
        (folder / "prepared.json").write_text(json.dumps(told))
    capsys.readouterr()
    assert gnn.launch(GNN, data=folder, output_dir=tmp_path / "trained") == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
    assert not (tmp_path / "trained").exists() or not list((tmp_path / "trained").iterdir())


def test_an_encoders_hidden_states_become_node_features(rows_file: Path, tmp_path: Path, capsys: Any) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    trained = tmp_path / "trained"
    values = {**TINY, "max_steps": 2}
    assert transformer.launch(values, data=rows_file, output_dir=trained) == 0
    (model_folder,) = trained.glob("checkpoint-2")
    assert prepare.launch({**SMALL, "encoder": str(model_folder)}, data=rows_file, output_dir=tmp_path / "out") == 0
    there = Prepared(tmp_path / "out")
    assert there.feature_size == TINY["hidden_size"]
    tokenizer, model = AutoTokenizer.from_pretrained(model_folder), AutoModel.from_pretrained(model_folder).eval()
    row = there[0]
    encoded = tokenizer(row.code, return_tensors="pt", return_offsets_mapping=True, truncation=True, max_length=64)
    offsets = encoded.pop("offset_mapping")[0].tolist()
    with torch.no_grad():
        states = model(**encoded).last_hidden_state[0]
    graph, kept = program_graph.read(row.code, 128), examples.prepared_graph(there, 0)
    for node, (begin, end) in enumerate(graph.spans):
        covered = [
            states[at] for at, (first, last) in enumerate(offsets) if first < end and last > begin and last > first
        ]
        expected = torch.stack(covered).mean(0) if covered else torch.zeros(TINY["hidden_size"])
        assert torch.allclose(kept.features[node], expected, atol=2e-3), node
    assert gnn.launch({**GNN, "max_steps": 2}, data=tmp_path / "out", output_dir=tmp_path / "graph") == 0
    # Without these features, the trained network is of no use: said, not guessed away.
    capsys.readouterr()
    again = {"data": rows_file, "output_dir": tmp_path / "graph", "resume_from": tmp_path / "graph"}
    assert gnn.launch({**GNN, "max_steps": 4}, **again) == 2
    assert "the network reads 32 encoder features a node, the data has 0" in capsys.readouterr().err
