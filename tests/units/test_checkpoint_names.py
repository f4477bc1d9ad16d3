"""Checkpoints, found by their names."""

import os
from pathlib import Path

import pytest

from pytest_trainguard.contract import checkpoints
from pytest_trainguard.verdicts import kinds


@pytest.mark.parametrize("name", [".tmp-model", "model.tmp", "a/tmpx1y2", "temp/x", "_temp_1", "x.partial"])
def test_names_of_unfinished_work(name):
    assert kinds.TEMPORARY.search(name)


@pytest.mark.parametrize("name", ["base/chat_template.jinja", "templates/x", "attempt-1/model.pt", "model.pt"])
def test_names_of_finished_work(name):
    assert not kinds.TEMPORARY.search(name)


def names(folder, *paths):
    for path in paths:
        target = folder / path
        if path.endswith("/"):
            target.mkdir(parents=True)
            (target / "weights.bin").touch()
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
    return [str(path.relative_to(folder)) for path in checkpoints.find(folder)]


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (["checkpoint-10/", "checkpoint-9/"], ["checkpoint-9", "checkpoint-10"]),
        (["ckpt_4.pt", "ckpt_2.pt", "model.pt"], ["ckpt_2.pt", "ckpt_4.pt"]),
        (["run/version_0/checkpoints/epoch=0-step=4.ckpt"], ["run/version_0/checkpoints/epoch=0-step=4.ckpt"]),
        (["global_step40/", "step-5.safetensors"], ["step-5.safetensors", "global_step40"]),
        ([".tmp-checkpoint-4/", "checkpoint-4.tmp/", "tmp/checkpoint-2.pt", "checkpoint-2.partial.pt"], []),
        (["template-1/checkpoint-2.pt"], ["template-1/checkpoint-2.pt"]),
        (["checkpoint-2/", ".checkpoint-4/"], ["checkpoint-2"]),
        (["attempt-1/checkpoint-2.pt"], ["attempt-1/checkpoint-2.pt"]),
        (["filter3.pt", "footstep2.pt"], ["filter3.pt", "footstep2.pt"]),
        (["model.pt", "sub/model.safetensors"], ["model.pt", "sub/model.safetensors"]),
        (["checkpoint-2.txt", "log.json"], []),
        (
            ["c/epoch_010.ckpt", "c/epoch_009.ckpt", "c/last.ckpt"],
            ["c/epoch_009.ckpt", "c/epoch_010.ckpt", "c/last.ckpt"],
        ),
        (["epoch=2-step=8.ckpt", "epoch=9-step=4.ckpt"], ["epoch=9-step=4.ckpt", "epoch=2-step=8.ckpt"]),
        (["last.ckpt", "step=10.ckpt"], ["step=10.ckpt", "last.ckpt"]),
        (["checkpoint.pth.tar", "data.tar"], ["checkpoint.pth.tar"]),
        (["checkpoint-3.pth.tar", "iteration_4.pt"], ["checkpoint-3.pth.tar", "iteration_4.pt"]),
        (
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
            ["model-00001-of-00002.safetensors"],
        ),
        (["state/.metadata", "state/__0_0.distcp", "state/__1_0.distcp"], ["state"]),
        (["best/mp_rank_00_model_states.pt", "best/zero_pp_rank_0_mp_rank_00_optim_states.pt"], ["best"]),
        ([".metadata", "__0_0.distcp", "__1_0.distcp"], ["__0_0.distcp"]),
        ([], []),
    ],
)
def test_checkpoints_are_found(tmp_path, paths, found):
    assert names(tmp_path, *paths) == found


def test_a_copy_of_the_best_is_not_the_newest(tmp_path):
    for name in ("checkpoint.pth.tar", "model_best.pth.tar"):  # as timm's train.py leaves them
        (tmp_path / name).write_bytes(b"x")
    os.utime(tmp_path / "checkpoint.pth.tar", (0, 0))
    assert [path.name for path in checkpoints.find(tmp_path)] == ["model_best.pth.tar", "checkpoint.pth.tar"]


def test_a_link_to_the_newest_is_no_checkpoint_of_its_own(tmp_path):
    (tmp_path / "checkpoint-2").mkdir()
    (tmp_path / "checkpoint-9").symlink_to(tmp_path / "checkpoint-2")
    assert checkpoints.find(tmp_path) == [tmp_path / "checkpoint-2"]
    assert checkpoints.find(tmp_path / "nowhere") == []


def test_the_shares_of_a_checkpoint_are_its_files(tmp_path):
    shares = [f"model-0000{share}-of-00002.safetensors" for share in (1, 2)]
    names(tmp_path, *shares, "adapter-00001-of-00001.safetensors")
    assert [file.name for file in checkpoints.files(tmp_path / shares[0])] == shares


def test_steps_and_files_of_checkpoints(tmp_path):
    assert checkpoints.step_of(Path("a/epoch=1-step=40.ckpt")) == 40
    assert checkpoints.step_of(Path("a/model.pt")) is None
    assert checkpoints.step_of(Path("epoch_000.ckpt")) is None  # an epoch is no step
    names(tmp_path, "checkpoint-2/")
    assert checkpoints.files(tmp_path / "checkpoint-2") == [tmp_path / "checkpoint-2/weights.bin"]
    assert checkpoints.files(tmp_path / "checkpoint-2/weights.bin") == [tmp_path / "checkpoint-2/weights.bin"]
