from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from trainer_runs import left_behind, losses, tree

from trainers.common import checkpoint, files
from trainers.common.errors import InputError


def steps(folder: Path) -> list[int]:
    return [step for step, _ in checkpoint.numbered(folder)]


def weights(folder: Path) -> bytes:
    return (folder / checkpoint.WEIGHTS).read_bytes()


@pytest.fixture(scope="module")
def trained(rows_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with the checkpoints of steps 2, 4 and 6. Copy it before changing it."""
    from trainer_runs import TINY

    from trainers.code.transformer import launch

    folder = tmp_path_factory.mktemp("trained") / "out"
    assert launch(TINY, data=rows_file, output_dir=folder, max_steps=6) == 0
    return folder


@pytest.fixture
def used(trained: Path, out: Path) -> Path:
    shutil.copytree(trained, out)
    return out


def test_a_checkpoint_holds_everything_and_loads_as_a_model(trained: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    assert steps(trained) == [6, 4, 2]
    found = checkpoint.verify(trained / "checkpoint-6")
    assert (found.step, found.state["rows_done"], found.state["epoch"]) == (6, 48, 0)
    assert AutoModelForSequenceClassification.from_pretrained(found.path).config.hidden_size == 32
    assert AutoTokenizer.from_pretrained(found.path).tokenize("def f(a)")
    assert not left_behind(trained)


@pytest.mark.parametrize(("precision", "workers"), [("fp32", 0), ("bf16", 2), ("fp16", 0)])
def test_a_run_in_two_halves_equals_the_run_in_one(
    start: Callable[..., int], out: Path, tmp_path: Path, precision: str, workers: int
) -> None:
    # Mid-epoch, with dropout, in windows of 3 x 3 rows of which the last of an epoch is short.
    settings = {"batch_size": 3, "gradient_accumulation": 3, "precision": precision, "num_workers": workers}
    whole = tmp_path / "whole"
    assert start(**settings, output_dir=whole, max_steps=10, save_every=5) == 0
    assert start(**settings, max_steps=5, save_every=5) == 0
    assert start(**settings, max_steps=10, save_every=5, resume_from=out) == 0
    assert losses(out) == losses(whole)
    assert weights(out / "checkpoint-10") == weights(whole / "checkpoint-10")


def test_accumulated_gradients_equal_the_big_batch(start: Callable[..., int], tmp_path: Path) -> None:
    seen = []
    for size, accumulation in ((16, 1), (5, 4), (20, 1)):
        folder = tmp_path / f"{size}"
        same = {"dropout": 0.0, "validation_fraction": 0.0, "batch_size": size}
        assert start(**same, gradient_accumulation=accumulation, output_dir=folder, max_steps=6) == 0
        seen.append([loss for _, loss in losses(folder)])
    assert seen[1] == pytest.approx(seen[2], abs=2e-6)  # the fourth window of the epoch has 4 rows, not 20
    assert seen[1] != pytest.approx(seen[0], abs=2e-6)


@pytest.mark.parametrize("name", [checkpoint.WEIGHTS, checkpoint.TRAINING, checkpoint.STATE, checkpoint.MANIFEST])
@pytest.mark.parametrize("how", ["cut", "emptied", "gone", "flipped"])
def test_a_damaged_newest_checkpoint_is_passed_over(
    start: Callable[..., int], used: Path, capsys: pytest.CaptureFixture[str], name: str, how: str
) -> None:
    file = used / "checkpoint-6" / name
    content = file.read_bytes()
    middle = len(content) // 2
    if how == "gone":
        file.unlink()
    elif how == "flipped":
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 0x10]) + content[middle + 1 :])
    else:
        file.write_bytes(content[:middle] if how == "cut" else b"")
    with pytest.raises((checkpoint.Damaged, InputError)):
        checkpoint.verify(file.parent)
    assert start(resume_from=file.parent, max_steps=6) == 2
    assert str(file.parent) in capsys.readouterr().err
    assert start(resume_from=used, max_steps=6) == 0
    text = capsys.readouterr().err
    assert "checkpoint-6 is damaged" in text
    assert "checkpoint-4 at step 4" in text
    assert steps(used) == [6, 4, 2]
    checkpoint.verify(used / "checkpoint-6")
    assert not left_behind(used)


def test_only_damaged_checkpoints_are_rejected(
    start: Callable[..., int], used: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (2, 4, 6):
        (used / f"checkpoint-{step}" / checkpoint.STATE).write_text('{"step": "six"}')
    before = tree(used)
    assert start(resume_from=used) == 2
    assert "no whole checkpoint" in capsys.readouterr().err
    assert tree(used) == before


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("where", ["checkpoint-6", "."])
def test_other_versions_and_negative_steps_are_rejected(
    start: Callable[..., int], used: Path, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    edit(used / "checkpoint-6" / checkpoint.MANIFEST, format_version=0)
    assert start(resume_from=used / where) == 2
    assert "format version 0, this program reads 1" in capsys.readouterr().err
    edit(used / "checkpoint-6" / checkpoint.MANIFEST, format_version=1)
    edit(used / "checkpoint-6" / checkpoint.STATE, step=-3)
    assert start(resume_from=used / where) == 2
    assert "negative step -3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_size": 64}, "hidden_size is 32 there and 64 here"),
        ({"layers": 1}, "layers is 2 there and 1 here"),
        ({"max_length": 128}, "max_length is 64 there and 128 here"),
    ],
)
def test_a_checkpoint_of_another_model_is_rejected(
    start: Callable[..., int], used: Path, capsys: pytest.CaptureFixture[str], settings: dict, message: str
) -> None:
    before = tree(used)
    assert start(**settings, resume_from=used) == 2
    assert message in capsys.readouterr().err
    assert tree(used) == before


def test_already_trained(start: Callable[..., int], used: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(used)
    assert start(resume_from=used, max_steps=4) == 0
    assert "already trained: step 6 of 4" in capsys.readouterr().err
    assert tree(used) == before


def test_resuming_where_there_is_nothing(
    start: Callable[..., int], out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(resume_from=out, max_steps=1) == 0
    assert "starting at step 0" in capsys.readouterr().err
    for missing in (tmp_path / "other", tmp_path / "other" / "checkpoint-4"):
        assert start(resume_from=missing, output_dir=tmp_path / "new") == 2
        assert f"resume from {missing}: no such folder" in capsys.readouterr().err
    empty = tmp_path / "empty"
    empty.mkdir()
    assert start(resume_from=empty, output_dir=empty, max_steps=1) == 0


def test_a_used_folder_is_not_written_over(
    start: Callable[..., int], used: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(used)
    assert start() == 2
    assert "holds checkpoint-6 of an earlier run" in capsys.readouterr().err
    assert tree(used) == before


def test_the_newest_is_chosen_by_step_and_leftovers_go(
    start: Callable[..., int], used: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.utime(used / "checkpoint-2")
    os.utime(used / "checkpoint-6", (1, 1))
    (used / f"{files.TEMPORARY}checkpoint-8").mkdir()
    (used / f"{files.TEMPORARY}checkpoint-8" / "half").write_text("x")
    assert start(resume_from=used, max_steps=7) == 0
    assert "resuming from " in (text := capsys.readouterr().err)
    assert "at step 6" in text
    assert not left_behind(used)


def test_an_older_checkpoint_asked_for_sets_the_later_aside(
    start: Callable[..., int], used: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(resume_from=used / "checkpoint-2", max_steps=6) == 0
    assert "checkpoint-6 is later than step 2: set aside" in capsys.readouterr().err
    assert weights(used / "checkpoint-6") == weights(trained / "checkpoint-6")
    assert losses(used) == losses(trained)


def test_last_few_and_best_are_kept(start: Callable[..., int], out: Path) -> None:
    # A learning rate under which nothing gets better after the first steps.
    assert start(max_steps=12, save_every=1, eval_every=3, keep_last=2, learning_rate=0.05) == 0
    best = json.loads((out / "training_metadata.json").read_text())
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    validated = {record["step"]: record["loss"] for record in records if record["kind"] == "validation"}
    assert validated[best["best_step"]] == min(validated.values()) == best["best_score"] == best["best"]["loss"]
    assert set(steps(out)) == {11, 12, best["best_step"]}


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("limit", [100_000, 200_000])  # too small for the weights; for the optimizer's state
def test_a_save_that_fails_costs_only_itself(
    start: Callable[..., int], used: Path, trained: Path, capsys: pytest.CaptureFixture[str], limit: int
) -> None:
    with file_size_limit(limit):
        assert start(resume_from=used, max_steps=8) == 1
    assert f"cannot save {used / 'checkpoint-8'}: File too large" in capsys.readouterr().err
    assert steps(used) == [6, 4, 2]
    assert tree(used / "checkpoint-6") == tree(trained / "checkpoint-6")
    assert not left_behind(used)
    assert start(resume_from=used, max_steps=8) == 0


def test_a_failing_write_of_a_small_file_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    files.write_json_lines(path, [{"a": 1}])

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Exception, match=rf"cannot save {path}: No space left on device"):
        files.write_json_lines(path, [{"a": 2}])
    assert path.read_text() == '{"a": 1}\n'
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]
