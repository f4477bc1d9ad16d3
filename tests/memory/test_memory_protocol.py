"""How predictions are judged: errors, false verdicts and largest batches, on results made up for the purpose."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.memory import __main__ as protocol
from benchmarks.memory import jobs

GIB = 2**30


def result(half, allocated, words=("FITS", "FITS"), **more):
    verdicts = dict(zip(protocol.BUDGETS, words, strict=True))
    return {"half": half, "allocated": allocated, "reserved": 2 * allocated, "verdicts": verdicts, **more}


def test_the_table_and_the_scores():
    predictions = {
        "calibrated": result("calibrated", 50 * GIB),
        "low": result("scored", 9 * GIB, ("FITS", "FITS"), largest={"24GiB": 90, "40GiB": None}),
        "high": result("scored", 12 * GIB, ("OUT OF MEMORY", "TIGHT")),
        "lost": {"half": "scored", "unknown": "mylib::kernel"},
        "never measured": result("scored", GIB),
    }
    seen = {
        "calibrated": result("calibrated", 10 * GIB),
        "low": result("scored", 10 * GIB, ("OUT OF MEMORY", "FITS"), largest={"24GiB": 100, "40GiB": 0}),
        "high": result("scored", 10 * GIB),
        "lost": result("scored", 10 * GIB),
    }
    told = protocol.compared(predictions, seen)
    assert "| low | 9.00 | 10.00 | -10.0% | 18.00 | 20.00 | -10.0% | FITS / OUT OF MEMORY | FITS / FITS |" in told
    assert any(line.startswith("| lost | mylib::kernel |") for line in told)
    assert not any("never measured" in line for line in told)
    assert "3 of 4 jobs known, 2 of them scored:" in told
    assert "- allocated: median error 15.0%, 95th percentile 19.5%, mean signed +5.0%" in told
    assert "- false 'fits': 25.0% of 4" in told
    assert "- false 'out of memory': 25.0% of 4" in told
    assert "- largest batch: median error 10.0%, 95th percentile 10.0%, mean signed -10.0%" in told
    assert all(line.count("|") == told[0].count("|") for line in told if line.startswith("|"))


def test_the_largest_batch_is_bisected(monkeypatch):
    asked = []

    def on_gpu(traced, cap, changes):
        asked.append(changes["batch_size"])
        return type("Measured", (), {"word": "FITS" if changes["batch_size"] <= 37 else "OUT OF MEMORY"})

    monkeypatch.setattr(protocol.measure, "on_gpu", on_gpu)
    for start in (1, 37, 38, 500):
        assert protocol.edge(None, GIB, start) == 37
    assert len(asked) < 45


def test_every_job_is_one_that_exists():
    for trainer, settings in jobs.configurations().values():
        assert hasattr(jobs, trainer)
        assert jobs.Settings(**settings).architecture in jobs.ARCHITECTURES
    architectures = {settings["architecture"] for _, settings in jobs.configurations().values()}
    assert architectures == set(jobs.ARCHITECTURES)
    assert set(protocol.EDGES) <= set(jobs.configurations())
    assert set(jobs.CALIBRATED) < architectures


@pytest.mark.parametrize(
    ("module", "there"),
    [
        ("benchmarks.memory.jobs", True),  # in namespace packages, one in the other
        ("benchmarks.memory", True),
        ("benchmarks.memory.nothing", False),
        ("benchmarks.nothing.jobs", False),
        ("trainers.preflight", True),
        ("json.decoder", True),
    ],
)
def test_a_module_is_found_without_importing_it(module, there):
    root = str(Path(jobs.__file__).parent.parent.parent)
    code = (
        f"import sys; from pytest_trainguard.session.preflight import _exists; print(_exists({module!r}, [{root!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=True)
    assert done.stdout.strip() == str(there)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_nothing_is_measured(tmp_path):
    command = [sys.executable, "-m", "benchmarks.memory", "measure", str(tmp_path / "measured.json")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no GPU to measure on")
    assert not (tmp_path / "measured.json").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"architecture": "lstm", "batch_size": 2, "max_length": 16},
        {"architecture": "sage", "batch_size": 2, "max_length": 64},
        {"architecture": "t5-small", "batch_size": 1, "max_length": 16},
    ],
)
def test_a_job_is_a_model_and_batches_that_go_together(settings):
    model, batch = jobs.ARCHITECTURES[settings["architecture"]](jobs.Settings(**settings))
    loss = model(**batch()).loss
    loss.backward()
    assert torch.isfinite(loss)


def test_predictions_are_written(tmp_path):
    path = tmp_path / "predictions.json"
    command = [sys.executable, "-m", "benchmarks.memory", "predict", str(path), "--only", "lstm"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(path.read_text()).values()
    assert found["verdicts"] == {"24GiB": "FITS", "40GiB": "FITS"}
    assert 0 < found["allocated"] <= found["reserved"] < found["needs"]
