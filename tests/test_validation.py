"""What the cases about validation rest on: labels exchanged, checkpoints compared, what a program told."""

import csv
import hashlib
import json

import pytest
import torch

from pytest_trainguard import NotApplicable
from pytest_trainguard.contract import validation
from pytest_trainguard.damage import checkpoints, labels, weights

ROWS = [{"text": "é 1", "y": 0}, {"text": "2", "y": 1}, {"text": "3", "y": 0}]
TALKS = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": word}]} for word in "xyz"]


def _jsonl(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n", encoding="utf-8")


def _csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize(
    ("name", "write", "rows", "field", "old", "new"),
    [
        ("a.jsonl", _jsonl, ROWS, "y", [0, 1, 0], [1, 1, 0]),
        ("a.json", lambda path, rows: path.write_text(json.dumps(rows)), ROWS, "y", [0, 1, 0], [1, 1, 1]),
        ("a.json", lambda path, rows: path.write_text(json.dumps({"n": 1, "d": rows})), ROWS, "y", [0, 1, 0], [1] * 3),
        ("a.csv", _csv, ROWS, "y", ["0", "1", "0"], ["1", "0", "1"]),
        ("a.jsonl", _jsonl, TALKS, "messages.-1.content", ["x", "y", "z"], ["y", "y", "x"]),
    ],
    ids=["jsonl", "json", "json-object", "csv", "nested"],
)
def test_labels_are_exchanged(tmp_path, name, write, rows, field, old, new):
    data = tmp_path / name
    write(data, rows)
    content = data.read_bytes()
    assert labels.read_labels(data, field) == old
    changed = labels.write_labels(data, tmp_path / "new", field, new)
    assert changed.name == name
    assert labels.read_labels(changed, field) == new
    assert data.read_bytes() == content
    if rows is ROWS:
        assert labels.read_labels(changed, "text") == ["é 1", "2", "3"]


@pytest.mark.parametrize("field", ["label", "text.0.x", "messages.7"])
def test_a_field_that_is_not_there(tmp_path, field):
    _jsonl(tmp_path / "a.jsonl", [{**ROWS[0], "messages": []}])
    with pytest.raises(NotApplicable, match="a row has no field"):
        labels.read_labels(tmp_path / "a.jsonl", field)


def test_data_of_another_form(tmp_path):
    for name in ("a.parquet", "folder"):
        with pytest.raises(NotApplicable, match=f"its data is {name}"):
            labels.read_labels(tmp_path / name, "y")


def test_validations_of_transformers(tmp_path):
    assert validation.losses(tmp_path) == {}
    assert validation.best(tmp_path) is None
    (tmp_path / "checkpoint-4").mkdir()
    state = {
        "log_history": [{"step": 2, "loss": 1.0}, {"step": 2, "eval_loss": 0.5}, {"step": 4, "eval_loss": 0.75}],
        "best_model_checkpoint": "/elsewhere/checkpoint-2",
    }
    (tmp_path / "checkpoint-4" / "trainer_state.json").write_text(json.dumps(state))
    assert validation.losses(tmp_path) == {2: 0.5, 4: 0.75}
    assert validation.best(tmp_path) == tmp_path / "checkpoint-2"


def _checkpoint(folder, step, weight, **manifest):
    folder.mkdir()
    adam = {"state": {0: {"step": torch.tensor(float(step))}}}
    torch.save({"step": step, "model": {"w": torch.full((2,), weight)}, "optimizer": adam}, folder / "state.pt")
    (folder / "trainer.json").write_text(json.dumps({"global_step": step, "log": [{"step": 1}], "epoch": 3}))
    held = {}
    for name in ("state.pt", "trainer.json"):
        content = (folder / name).read_bytes()
        held[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (folder / "manifest.json").write_text(json.dumps({"files": held, **manifest}))
    return folder


def test_step_counts_are_made_negative_and_checksums_fit(tmp_path):
    folders = [_checkpoint(tmp_path / f"checkpoint-{step}", step, 0.5) for step in (2, 10)]
    changed = checkpoints.negate_step_counts([str(folder) for folder in folders], str(tmp_path))
    assert list(changed.values()) == [-2, -2, -10, -10]
    for folder, step in zip(folders, (-2, -10), strict=True):
        assert checkpoints.read_step_count(folder) == step
        state = torch.load(folder / "state.pt", weights_only=True)
        assert state["step"] == step
        assert state["optimizer"]["state"][0]["step"] == -step
        assert json.loads((folder / "trainer.json").read_text()) == {
            "global_step": step, "log": [{"step": 1}], "epoch": 3,
        }  # fmt: skip
        for name, held in json.loads((folder / "manifest.json").read_text())["files"].items():
            content = (folder / name).read_bytes()
            assert held == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}, name


def test_a_setting_is_no_step_count(tmp_path):
    told = {"config": {"num_steps": 100, "steps": 8}, "trainer": {"iteration": 6}}
    (tmp_path / "state.json").write_text(json.dumps(told))
    assert checkpoints.read_step_count(tmp_path) == 6
    assert list(checkpoints.negate_step_counts([str(tmp_path)], str(tmp_path)).values()) == [-6]
    assert json.loads((tmp_path / "state.json").read_text()) == {**told, "trainer": {"iteration": -6}}


def test_checkpoints_without_a_step_count(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "weights.pt")
    (tmp_path / "bad.json").write_text("{")
    assert checkpoints.negate_step_counts([str(tmp_path)], str(tmp_path)) == {}
    assert checkpoints.read_step_count(tmp_path) is None


def test_weights_are_compared(tmp_path):
    first, same, other = (_checkpoint(tmp_path / f"step-{n}", n, w) for n, w in ((1, 0.5), (2, 0.5), (3, 0.25)))
    assert weights.hold_same_weights(first, same)
    assert not weights.hold_same_weights(first, other)
    torch.save({"other": torch.ones(2)}, tmp_path / "weights.pt")
    assert weights.hold_same_weights(first, tmp_path / "weights.pt") is None
