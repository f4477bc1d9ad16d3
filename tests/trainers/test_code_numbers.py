from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trainer_runs import left_behind, losses

from trainers.code import classification, learner, loop, samples
from trainers.common import checkpoint, optimization, progress
from trainers.common.errors import TrainingFailed


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Multiply the losses of some forward passes by a number, or the gradients that flow back from them."""

    def spoiled(calls: set[int], by: float, gradient: bool = False) -> None:
        original = learner.Learner.losses
        count = 0

        def losses(self: Any, batch: Any) -> Any:
            nonlocal count
            count += 1
            values, *others = original(self, batch)
            if count in calls and gradient and values.requires_grad:
                values.register_hook(lambda grad: grad * by)
            elif count in calls:
                values = values * by
            return values, *others

        monkeypatch.setattr(learner.Learner, "losses", losses)

    return spoiled


@pytest.mark.parametrize("by", [float("nan"), float("inf")])
@pytest.mark.parametrize(("gradient", "what"), [(False, "the loss is"), (True, "the gradient's norm is")])
def test_what_is_not_finite_stops_the_run(
    start: Callable[..., int],
    spoil: Callable[..., None],
    out: Path,
    capsys: pytest.CaptureFixture[str],
    by: float,
    gradient: bool,
    what: str,
) -> None:
    import torch
    from safetensors.torch import load_file

    spoil({5}, by, gradient)
    assert start(validation_fraction=0.0) == 1
    assert f"step 5: {what} " in capsys.readouterr().err
    ((four, path), _) = checkpoint.numbered(out)
    assert four == 4
    assert all(torch.isfinite(tensor).all() for tensor in load_file(path / checkpoint.WEIGHTS).values())
    assert not left_behind(out)


def test_the_scaler_skips_and_goes_on(start: Callable[..., int], spoil: Callable[..., None], out: Path) -> None:
    spoil({3}, float("inf"))
    assert start(precision="fp16", validation_fraction=0.0) == 0
    recorded = dict(losses(out))
    assert recorded.pop(3) is None
    assert len(recorded) == 5
    import torch

    scaler = torch.load(out / "checkpoint-6" / checkpoint.TRAINING, weights_only=True)["scaler"]
    assert scaler["scale"] == 2.0**15
    rates = [json.loads(line)["learning_rate"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert rates[2] == rates[3]  # a step that was not taken does not move the learning rate


def test_the_scaler_does_not_skip_for_ever(
    start: Callable[..., int], spoil: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(set(range(3, 100)), float("nan"))
    assert start(precision="fp16", validation_fraction=0.0, max_steps=50, max_skipped_steps=4) == 1
    assert "step 6: gradient not finite 4 times in a row" in capsys.readouterr().err


def test_weights_that_are_not_finite_are_not_saved(
    start: Callable[..., int], out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    original = learner.Learner.step

    def step(self: Any, run: Any, number: int, *rest: Any) -> Any:
        taken = original(self, run, number, *rest)
        if number == 4:
            with torch.no_grad():
                next(self.model.parameters()).view(-1)[7] = float("nan")
        return taken

    monkeypatch.setattr(learner.Learner, "step", step)
    assert start() == 1
    assert "step 4: weight roberta.embeddings.word_embeddings.weight is not finite" in capsys.readouterr().err
    assert [step for step, _ in checkpoint.numbered(out)] == [2]


def test_a_diverging_loss_stops_the_run(
    start: Callable[..., int], spoil: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(set(range(6, 100)), 10.0)
    assert start(max_steps=40, validation_fraction=0.0) == 1
    assert "the loss diverges" in capsys.readouterr().err


def test_the_loss_watch_knows_chance_and_resumes() -> None:
    watch = optimization.LossWatch(factor=2.0, chance=0.7)
    for step in range(30):
        watch.update(0.01, step)
    watch.update(1.2, 30)  # a hundred times the best, and no divergence
    again = optimization.LossWatch(factor=2.0, chance=0.7)
    again.load(json.loads(json.dumps(watch.state())))
    assert again.state() == watch.state()
    again.update(5.0, 31)
    again.update(5.0, 32)
    with pytest.raises(TrainingFailed, match="the loss diverges: smoothed"):
        again.update(5.0, 33)


def test_the_learning_rate_rises_and_falls() -> None:
    import torch

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = optimization.warm_up_then_decay(optimizer, warmup_steps=4, decay_steps=14)
    rates = []
    for _ in range(20):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[9] == pytest.approx(0.55)
    assert rates[14:] == pytest.approx([0.1] * 6)


def test_32_rows_are_learnt_by_heart(start: Callable[..., int], out: Path, tmp_path: Path) -> None:
    samples.write_jsonl(tmp_path / "few.jsonl", rows=32, seed=0)
    by_heart = {
        "batch_size": 32,
        "learning_rate": 3e-3,
        "dropout": 0.0,
        "weight_decay": 0.0,
        "warmup_steps": 5,
    }
    assert start(**by_heart, data=tmp_path / "few.jsonl", max_steps=50, max_epochs=50, validation_fraction=0.0) == 0
    recorded = [loss for _, loss in losses(out)]
    assert recorded[-1] < 0.5
    assert recorded[-1] < 0.3 * recorded[0]


@pytest.mark.parametrize(
    ("labels", "probabilities", "flags"),
    [
        ([0, 1, 1], [0.9, 0.8, 0.6], ["one_class_predictions"]),
        ([0, 1, 1], [0.9, 0.1, 0.2], ["zero_accuracy"]),
        ([1, 1], [0.1, 0.5], ["one_class_predictions", "zero_accuracy"]),
        ([0, 1, 1], [0.1, 0.9, 0.2], []),
    ],
)
def test_degenerate_predictions_are_flagged(labels: list[int], probabilities: list[float], flags: list[str]) -> None:
    assert classification.scores(labels, probabilities)["flags"] == flags


def test_scores() -> None:
    assert classification.scores([1, 1, 1, 0], [0.9, 0.6, 0.2, 0.7]) == {
        "precision": pytest.approx(2 / 3),
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(2 / 3),
        "accuracy": 0.5,
        "balanced_accuracy": pytest.approx(1 / 3),
        "best_threshold": 0.2,
        "best_f1": pytest.approx(6 / 7),
        "flags": [],
    }
    assert classification.scores([0, 0], [0.1, 0.2])["best_f1"] == 0.0
    assert classification.scores([1, 1], [0.1, 0.2])["balanced_accuracy"] == 0.0


def test_a_rare_class_weighs_more_up_to_the_cap() -> None:
    labels = [0] * 90 + [1] * 10
    assert classification.capped_weights(labels, 100.0) == [pytest.approx(100 / 180), 5.0]
    assert classification.capped_weights(labels, 1.2) == [pytest.approx(100 / 180), 1.2]
    assert classification.capped_weights([0, 1], 1.2) == classification.capped_weights([], 1.2) == [1.0, 1.0]
    assert classification.capped_weights([0, 0], 1.2) == [0.5, 1.0]


def test_focal_loss_is_that_of_the_paper() -> None:
    import torch

    logits = torch.tensor([[2.0, -1.0], [0.3, 0.1], [-1.0, 4.0]], requires_grad=True)
    labels = torch.tensor([0, 0, 0])
    entropies = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    right = logits.softmax(1)[:, 0]
    expected = -(1 - right).pow(2) * right.log()
    assert torch.allclose(classification.Objective(gamma=2.0)(entropies, labels), expected)
    assert torch.equal(classification.Objective()(entropies, labels), entropies)
    weighed = classification.Objective((3.0, 1.0))(entropies, torch.tensor([0, 1, 0]))
    assert torch.equal(weighed, entropies * torch.tensor([3.0, 1.0, 3.0]))
    classification.Objective(gamma=0.5)(entropies * 0, labels).sum().backward()  # a row that is certain: 0 ** 0.5
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("scores", [[0.9, 0.4, 0.5], [0.1, 0.4, 0.3]])
def test_the_best_validation_is_by_the_metric_asked_for(scores: list[float]) -> None:
    for metric, best in (("loss", min), ("f1", max)):
        done = loop.Position()
        for score in scores:
            done.add(1, 0, 0)
            done.improved({metric: score}, metric)
        assert (done.best_step, done.best_score) == (1 + scores.index(best(scores)), best(scores))


def test_a_spoilt_metrics_log_stops_nobody(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 9}\n{"st')
    log = progress.MetricsLog(path, until_step=5)
    log.add(6, "train", loss=0.5)
    log.write()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 6]
    log.add(7, "train", loss=float("nan"))
    with pytest.raises(ValueError, match="JSON"):
        log.write()
