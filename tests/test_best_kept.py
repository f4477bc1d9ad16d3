"""What is called the best, and evaluations that are made far worse: by made-up writes, and by a model's outputs."""

import os
from types import SimpleNamespace

import pytest
import torch

from pytest_trainguard.casework.best_kept import _best_writes
from pytest_trainguard.contract import checkpoints
from pytest_trainguard.faults import worse_evaluations
from pytest_trainguard.faults.inject import Injector
from pytest_trainguard.recorder.timeline import Recording


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("best.pt", True),
        ("model_best.pth.tar", True),
        ("best/model.safetensors", True),
        ("bestiary.pt", False),
        (".tmp-best.pt", False),
        ("best.tmp", False),
        ("checkpoint-4/model.pt", False),
    ],
)
def test_what_is_called_the_best(name, called):
    assert checkpoints.is_called_best(name) is called


def test_when_the_best_was_written(tmp_path):
    def write(step, path, how="open"):
        return {"event": "write", "step": step, "path": os.path.join(os.path.realpath(tmp_path), path), "how": how}

    events = [
        write(0, "best.pt"), write(2, "best.pt"), write(2, "best_ema.pt"), write(4, "best.tmp"),
        write(5, "best.pt", "move"), write(6, "best.json"), write(7, "best.pt", "remove"), write(8, "../best.pt"),
    ]  # fmt: skip
    outcome = SimpleNamespace(output_dir=tmp_path, recording=Recording(events))
    assert _best_writes(outcome) == {0: "best.pt", 2: "best.pt", 5: "best.pt"}


def test_a_best_that_is_a_folder(tmp_path):
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "model.safetensors").touch()
    (tmp_path / "best_rows").mkdir()
    (tmp_path / "best_rows" / "rows.json").touch()
    events = [
        {"event": "write", "step": step, "path": os.path.join(os.path.realpath(tmp_path), name), "how": "rename"}
        for step, name in ((2, "best"), (4, "best_rows"))
    ]
    assert _best_writes(SimpleNamespace(output_dir=tmp_path, recording=Recording(events))) == {2: "best"}


def test_evaluations_that_are_made_far_worse():
    told = []
    recorder = SimpleNamespace(steps=1, write=lambda *args, **values: told.append(values))
    fault, model = Injector(worse_evaluations(2), recorder, None), torch.nn.Linear(2, 2)
    output = {"loss": torch.tensor(0.5), "scores": torch.ones(3, 2), "kinds": torch.tensor([1, 2])}

    def put_out():
        return fault.forwarded(model, (), dict(output), outermost=True)

    with torch.no_grad():
        assert put_out() is None
        recorder.steps = 2
        worse = put_out()
        assert fault.forwarded(model, (), dict(output), outermost=False) is None
    assert (float(worse["loss"]), float(worse["scores"][0, 0]), worse["kinds"].tolist()) == (500.0, -1000.0, [1, 2])
    assert put_out() is None  # a pass that trains
    assert told == [{"step": 2, "kind": "worse", "where": "evaluate"}]
    assert str(worse_evaluations(2)) == "evaluations far worse from step 2 on"
