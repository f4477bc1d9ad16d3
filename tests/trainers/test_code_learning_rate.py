from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trainer_runs import left_behind, losses

from trainers.code import learning_rate
from trainers.code.learning_rate import RateCache
from trainers.common.errors import TrainingFailed
from trainers.common.process import Run

NOW = 1_800_000_000.0
HOUR = 3600.0


def slope(curvature: float, noise: float = 0.0, seed: int = 0) -> Callable[[float], float]:
    """Gradient descent on a parabola, the loss seen with noise."""
    drawn, place = random.Random(seed), 1.0

    def step(rate: float) -> float:
        nonlocal place
        loss = place**2 + 0.1 + noise * drawn.gauss(0, 1)
        place -= rate * curvature * place
        return loss

    return step


def found(step: Callable[[float], float]) -> float | None:
    return learning_rate.suggest(learning_rate.sweep(step))


def test_the_sweep_rises_evenly_from_lowest_to_highest() -> None:
    curve = learning_rate.sweep(lambda rate: 1.0, lowest=1e-6, highest=1e-2, steps=5)
    assert curve.rates == pytest.approx([1e-6, 1e-5, 1e-4, 1e-3, 1e-2])
    assert curve.smoothed == pytest.approx([1.0] * 5)
    assert not curve.diverged


@pytest.mark.parametrize("curvature", [10.0, 100.0, 1000.0])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_the_rate_found_is_that_of_the_steepest_fall(curvature: float, noise: float) -> None:
    for seed in range(5):
        rate = found(slope(curvature, noise, seed))
        # Past 2 / curvature, gradient descent on this parabola diverges.
        assert rate is not None
        assert 0.02 / curvature < rate < 0.5 / curvature


def test_the_sweep_ends_where_the_loss_runs_away() -> None:
    curve = learning_rate.sweep(slope(100.0))
    assert curve.diverged
    assert 0.02 < curve.rates[-1] < 1.0
    assert len(curve.rates) == len(curve.losses) == len(curve.smoothed) < 100


@pytest.mark.parametrize("broken", ["NaN", "infinity", "raises"])
def test_a_loss_that_is_not_finite_ends_the_sweep(broken: str) -> None:
    def step(rate: float) -> float:
        if rate < 1e-3:
            return 1.0 - 100 * rate
        if broken == "raises":
            raise TrainingFailed("step 7: the loss is nan")
        return math.nan if broken == "NaN" else math.inf

    curve = learning_rate.sweep(step)
    assert curve.diverged
    assert curve.rates[-1] < 1e-3
    assert all(map(math.isfinite, curve.smoothed))


def test_nothing_is_found_in_noise() -> None:
    def noise(seed: int) -> Callable[[float], float]:
        drawn = random.Random(seed)
        return lambda rate: 0.69 + 0.05 * drawn.gauss(0, 1)

    assert sum(found(noise(seed)) is not None for seed in range(200)) <= 2
    assert found(lambda rate: 0.69) is None
    assert found(lambda rate: 0.69 + rate) is None
    assert found(lambda rate: math.nan) is None


def chosen(tmp_path: Path, step: Callable[[float], float], **more: Any) -> learning_rate.Choice:
    limits = {"lowest_allowed": 1e-5, "highest_allowed": 5e-5, "fallback": 2.5e-5, **more}
    cache = RateCache(tmp_path / "rates.json", "key", now=lambda: NOW)
    return learning_rate.choose(Run("test"), step, cache=cache, **limits)


def test_what_is_found_is_capped_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert chosen(tmp_path, slope(100.0)).rate == 5e-5
    assert "capped to 1e-05 to 5e-05" in capsys.readouterr().err
    again = chosen(tmp_path, lambda rate: pytest.fail("searched again"))
    assert again[:2] == (5e-5, "cached")
    high = {"lowest_allowed": 1e-2, "highest_allowed": 1e-1, "fallback": 2e-2}
    assert chosen(tmp_path, slope(1000.0), **high).rate == 1e-2  # what is kept is outside of that range


def test_the_fallback_is_never_kept(tmp_path: Path) -> None:
    assert chosen(tmp_path, lambda rate: 1.0)[:2] == (2.5e-5, "fallback")
    assert chosen(tmp_path, lambda rate: math.nan).why == "the loss ran away in 0 steps of the search"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"rate": 3e-5, "found_at": NOW - 167.9 * HOUR}, None),
        ({"rate": 3e-5, "found_at": NOW - 168 * HOUR}, "168 hours old"),
        ({"rate": 3e-5, "found_at": NOW + 60}, "clock went backwards"),
        ({"rate": 3.0, "found_at": NOW - 60}, "outside 1e-05 to 5e-05"),
        ({"rate": "3e-5", "found_at": NOW - 60}, "no rate"),
        ({"rate": True, "found_at": NOW - 60}, "no rate"),
        ({"rate": 3e-5}, "no rate"),
        (["rate", 3e-5], "no rate"),
    ],
)
def test_only_a_sane_entry_is_used(tmp_path: Path, entry: Any, why: str | None) -> None:
    path, said = tmp_path / "rates.json", []
    path.write_text(json.dumps({"key": entry}))
    rate = RateCache(path, "key", now=lambda: NOW).get(1e-5, 5e-5, said.append)
    if why is None:
        assert (rate, said) == (3e-5, [])
    else:
        assert rate is None
        assert why in said[0]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": {"rate": NaN, "found_at": 0}}', "\x00"])
def test_a_damaged_cache_is_no_reason_to_stop(tmp_path: Path, text: str) -> None:
    path, said = tmp_path / "rates.json", []
    path.write_text(text)
    cache = RateCache(path, "key", now=lambda: NOW)
    assert cache.get(1e-5, 5e-5, said.append) is None
    assert "rates.json" in said[0]
    cache.put(2e-5)
    assert cache.get(1e-5, 5e-5, said.append) == 2e-5
    assert len(said) == 1


def test_another_seed_takes_the_rate_that_was_found_and_other_settings_do_not(
    start: Callable[..., int], tmp_path: Path, rows_file: Path
) -> None:
    learns = {"batch_size": 64, "learning_rate": 1e-4, "dropout": 0.0, "validation_fraction": 0.0, "max_length": 160}
    learns |= {"find_learning_rate": True, "rate_cache": str(tmp_path / "rates.json"), "max_steps": 1}
    learns |= {"found_rate_max": 0.1, "found_rate_min": 1e-6}

    def source(name: str, **more: Any) -> str:
        folder = tmp_path / name
        assert start(output_dir=folder, **{**learns, **more}) == 0
        assert not left_behind(folder)
        told = json.loads((folder / "training_metadata.json").read_text())
        (rate,) = set(told["learning_rates"])
        assert rate != 1e-4
        return str(told["learning_rate_from"])

    assert source("first", seed=1) == "found"
    assert source("second", seed=2) == "cached"
    assert source("wider", hidden_size=64) == "found"


def test_the_search_leaves_no_trace_in_training(start: Callable[..., int], tmp_path: Path) -> None:
    found, plain = tmp_path / "found", tmp_path / "plain"
    assert start(output_dir=found, find_learning_rate=True) == 0
    (rate,) = set(json.loads((found / "training_metadata.json").read_text())["learning_rates"])
    assert start(output_dir=plain, learning_rate=rate) == 0
    assert losses(found) == losses(plain)
    assert (found / "checkpoint-6/model.safetensors").read_bytes() == (
        plain / "checkpoint-6/model.safetensors"
    ).read_bytes()
