"""What counts as a weight in a checkpoint: what training moves, under any name, and nothing else that is written."""

import argparse

import pytest
import torch
from safetensors.torch import save_file

from pytest_trainguard.damage.pickled import look_into
from pytest_trainguard.probes.finite_weights import find_bad_weights

INF, NAN = torch.tensor(float("inf")), float("nan")
MASK = torch.full((3, 3), float("-inf")).triu(1)


def weights(**more):
    return {"first.weight": torch.ones(2, 2), "first.bias": torch.zeros(2), **more}


def moments(value=0.5):
    states = {number: {"step": torch.tensor(3.0), "exp_avg": torch.full((2,), value)} for number in range(2)}
    return {"state": states, "param_groups": [{"lr": 0.1, "params": [0, 1]}]}


def bad_in(tmp_path, content, undisturbed=None):
    """What is said of a checkpoint with this content; None where nothing is."""
    file, before = tmp_path / "checkpoint.pt", tmp_path / "undisturbed.pt"
    torch.save(content, file)
    if undisturbed is not None:
        torch.save(undisturbed, before)
    return find_bad_weights([file], [before] if undisturbed is not None else []).get(file)


SOUND = {
    "as Lightning writes it": {
        "epoch": 1,
        "state_dict": weights(),
        "loops": {"fit_loop": {"smallest": INF}},
        "callbacks": {
            "ModelCheckpoint{'monitor': 'loss'}": {
                "best_model_score": INF, "kth_value": INF, "best_k_models": {"a.ckpt": INF}, "best_model_path": "",
            },
            "EarlyStopping": {"best_score": INF, "wait_count": 0},
        },
        "optimizer_states": [moments()],
        "lr_schedulers": [{"best": INF, "_last_lr": [0.1]}],
    },
    "the best so far, beside the weights": {"model": weights(), "best_loss": INF, "best_val_loss": INF, "lowest": INF},
    "the best so far, among the weights": weights(step=torch.tensor(3), best_loss=INF),
    "what was measured": {"model": weights(), "metrics": {"loss": torch.tensor([1.0, NAN]), "accuracy": INF}},
    "a history": {"net": weights(), "loss_history": [torch.tensor([1.0, NAN]), torch.tensor([NAN, NAN])]},
    "random state": {"model": weights(), "rng": {"gauss": torch.tensor([NAN, NAN])}},
    "a file of nothing else": {"best": INF, "kth_value": INF, "patience": 3},
    "numbers that are no tensors": {"model": weights(), "best": float("inf"), "name": "x"},
}  # fmt: skip


@pytest.mark.parametrize("content", SOUND.values(), ids=SOUND)
def test_what_is_no_weight_may_be_infinite(tmp_path, content):
    assert bad_in(tmp_path, content) is None


DAMAGED = {
    "w": {"w": torch.tensor([NAN])},
    "the tensor": torch.tensor([1.0, NAN]),
    "model.first.bias": {"model": {**weights(), "first.bias": torch.tensor([0.0, NAN])}, "step": 3},
    "state_dict.scale": {"state_dict": weights(scale=INF), "callbacks": {"kth_value": INF}},
    "loss.scale": {"loss.scale": INF, **weights()},
    "whatever.it.is.callbed": {"whatever": {"it": {"is": {"callbed": torch.tensor([1.0, NAN])}}}},
    "critic.first.weight": {"generator": weights(), "critic": {**weights(), "first.weight": torch.full((2, 2), NAN)}},
    "optimizer.state.0.exp_avg": {"model": weights(), "optimizer": moments(NAN)},
    "optimizer_states.0.state.0.exp_avg": {"state_dict": weights(), "optimizer_states": [moments(NAN)]},
    "state.0.exp_avg": moments(NAN),
    "optimizer.state.0.momentum_buffer": {
        "model": weights(), "optimizer": {"state": {0: {"momentum_buffer": torch.tensor([NAN])}}},
    },
    "best_model.first.bias": {"best_model": {**weights(), "first.bias": torch.tensor([0.0, NAN])}, "model": weights()},
    "a": {"a": torch.tensor(NAN), "b": torch.tensor(1.0)},
    "model.a": {"model": {"a": torch.tensor(NAN), "b": torch.tensor(1.0)}, "optimizer": moments()},
    "score_network.first.weight": {"score_network": {**weights(), "first.weight": torch.full((2, 2), NAN)}},
    "epoch 3.0.first.bias": {"epoch 3": [{**weights(), "first.bias": torch.tensor([NAN, 0.0])}]},
}  # fmt: skip


@pytest.mark.parametrize(("name", "content"), DAMAGED.items(), ids=DAMAGED)
def test_a_weight_that_is_not_finite_is_named(tmp_path, name, content):
    assert bad_in(tmp_path, content) == f"{name} is not finite"


def test_what_was_so_undisturbed_is_so_on_purpose(tmp_path):
    masked = {"model": weights(mask=MASK)}
    assert bad_in(tmp_path, masked, undisturbed=masked) is None
    assert bad_in(tmp_path, masked, undisturbed={"model": weights()}) == "model.mask is not finite"
    damaged = {"model": {"mask": MASK, **weights(), "first.bias": torch.tensor([0.0, NAN])}}
    assert bad_in(tmp_path, damaged, undisturbed=masked) == "model.first.bias is not finite"


class Kept:
    """What a program of its own might save whole; it cannot be made anew without its code."""

    def __init__(self, **values):
        self.__dict__.update(values)

    def __reduce__(self):
        return _made_by, (self.__dict__,), self.__dict__


def _made_by(values):
    raise AssertionError("what a file names was called")


def test_classes_of_a_program_are_looked_into_and_never_made(tmp_path):
    arguments = argparse.Namespace(lr=0.1, layers=[2, {3}])
    assert bad_in(tmp_path, {"args": arguments, "model": weights()}) is None
    bad = weights(scale=torch.tensor([NAN, 1.0]))
    assert bad_in(tmp_path, {"args": arguments, "model": bad}) == "model.scale is not finite"
    assert bad_in(tmp_path, Kept(step=3, model=bad)) == "model.scale is not finite"
    assert bad_in(tmp_path, {"net": torch.nn.Linear(2, 2), "half": bad["scale"].half()}) == "half is not finite"
    content, classes = look_into(tmp_path / "checkpoint.pt")
    assert content["net"]["in_features"] == 2
    assert "torch.nn.modules.linear.Linear" in classes


def test_safetensors_and_files_that_cannot_be_loaded(tmp_path):
    mask, bad, cut = tmp_path / "mask.safetensors", tmp_path / "bad.safetensors", tmp_path / "cut.pt"
    save_file({"mask": MASK}, mask)
    save_file({"mask": MASK, "w": torch.tensor([NAN])}, bad)
    cut.write_bytes(b"")
    found = find_bad_weights([mask, bad, cut], [cut, mask, tmp_path / "nothing.pt"])
    assert found.pop(bad) == "w is not finite"
    assert "cannot be loaded" in found.pop(cut)
    assert found == {}
