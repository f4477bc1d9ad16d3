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

import psutil
import pytest
from trainer_runs import ROOT, TINY, left_behind

from trainers.code.seeds import series as seeds
from trainers.code.seeds import summary

PNG = b"\x89PNG\r\n"
NO_GATES = ["--min-mean-f1", "0", "--max-std-f1", "1"]

# A trainer that is not of this package: it has a main(argv), and writes what a series reads.
OTHER = """
import argparse, json, os, pathlib, sys, time

def main(argv):
    parser = argparse.ArgumentParser()
    for name in ("seed", "output-dir", "resume-from", "f1", "exit", "fail-seed", "sleep"):
        parser.add_argument("--" + name)
    flags = vars(parser.parse_args(argv))
    import numpy
    from safetensors.numpy import save_file
    folder = pathlib.Path(flags["output_dir"])
    folder.mkdir(parents=True, exist_ok=True)
    print("other: training seed", flags["seed"], file=sys.stderr, flush=True)
    (folder / "settings.json").write_text(json.dumps({"seed": int(flags["seed"])}))
    if flags["sleep"]:
        (folder / "begun").touch()
        time.sleep(float(flags["sleep"]))
    if flags["fail_seed"] == flags["seed"]:
        print("other: the loss is nan", file=sys.stderr)
        return int(flags["exit"] or 1)
    f1 = float(flags["f1"] or 0.9)
    scores = dict.fromkeys(
        ["f1", "best_f1", "best_threshold", "precision", "recall", "accuracy", "balanced_accuracy", "loss"], f1)
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 4, "kind": "validation", "loss": 0.5, "f1": f1}) + "\\n")
    logits = numpy.array([[0, 1], [1, 0]], dtype=numpy.float32)
    save_file({"logits": logits, "labels": numpy.array([1, 0]), "keys": numpy.array([5, 6])},
              folder / "validation_logits.safetensors", metadata={"step": "4"})
    (folder / "training_metadata.json").write_text(json.dumps({
        "status": "finished", "best_checkpoint": "checkpoint-4", "seconds": 1.0, "collapse_events": [],
        "best": {"kind": "validation", "step": 4, **scores}}))
    return 0

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "series"


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that a series can train."""
    (tmp_path / "other_trainer.py").write_text(OTHER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    return "other_trainer"


@pytest.fixture
def series(rows_file: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Train tiny transformers in a series of processes."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def run(*flags: str, **values: Any) -> int:
        settings = tmp_path / "settings.json"
        settings.write_text(json.dumps({**TINY, "max_steps": 4, "eval_every": 2, **values}))
        where = ["--data", str(rows_file), "--settings", str(settings), "--output-dir", str(root)]
        return seeds.main(["--trainer", "transformer", "--seeds", "5,6", *where, *flags])

    return run


def told(root: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((root / seeds.SUMMARY).read_text())
    return made


def test_seeds_are_trained_and_summed_up(series: Callable[..., int], root: Path, capfd: Any) -> None:
    assert series(*NO_GATES) == 0
    made = told(root)
    assert (made["status"], made["passed"], made["failures"]) == ("finished", True, [])
    f1 = []
    for seed, entry in zip((5, 6), made["seeds"], strict=True):
        metadata = json.loads((root / f"seed-{seed}/training_metadata.json").read_text())
        assert (entry["seed"], entry["state"], entry["step"]) == (seed, "finished", metadata["best_step"])
        assert (metadata["seed"], entry["f1"]) == (seed, metadata["best"]["f1"])
        f1.append(entry["f1"])
    assert made["scores"]["f1"]["mean"] == pytest.approx(sum(f1) / 2)
    assert made["ensemble"]["seeds"] == [5, 6]
    assert made["ensemble"]["rows"] == metadata["validation_rows"]
    assert (root / seeds.CURVES).read_bytes().startswith(PNG)
    assert not left_behind(root)
    shown = capfd.readouterr()
    assert "gate passed: mean F1" in shown.out
    assert "trainers.code.transformer: finished at step 4" in shown.err


def test_a_missed_gate_is_exit_code_1(series: Callable[..., int], root: Path, capfd: Any) -> None:
    assert series("--min-mean-f1", "0.99") == 1
    assert "is under 0.99 (min_mean_f1)" in capfd.readouterr().err
    assert told(root)["passed"] is False
    # The gate is a question asked of the results: nothing is trained again.
    begun = {path: path.stat().st_mtime_ns for path in root.glob("seed-*/**/*")}
    assert series(*NO_GATES) == 0
    assert {path: path.stat().st_mtime_ns for path in root.glob("seed-*/**/*")} == begun


def test_more_seeds_join_a_series_and_other_settings_do_not(series: Callable[..., int], root: Path, capfd: Any) -> None:
    assert series("--seeds", "5", *NO_GATES) == 0
    assert series("--seeds", "5,7", *NO_GATES) == 0
    assert "seed 1 of 2: 5 has finished before" in capfd.readouterr().err
    assert [entry["state"] for entry in told(root)["seeds"]] == ["finished", "finished"]
    before = told(root)
    assert series(*NO_GATES, hidden_size=64) == 2
    assert "hidden_size is 32 there and 64 here" in capfd.readouterr().err
    assert told(root) == before


def test_a_series_that_was_cut_off_goes_on(
    series: Callable[..., int], root: Path, tmp_path: Path, rows_file: Path, capfd: Any
) -> None:
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({**TINY, "max_steps": 40, "eval_every": 20}))
    command = [
        sys.executable,
        "-m",
        "trainers.code.seeds",
        "--trainer",
        "transformer",
        "--seeds",
        "5,6",
        *NO_GATES,
    ]
    command += ["--data", str(rows_file), "--settings", str(settings), "--output-dir", str(root)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(root.glob("seed-6/checkpoint-*")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 143, error
    assert "Traceback" not in error
    assert not psutil.wait_procs(children, timeout=8)[1]
    made = told(root)
    assert made["status"] == "ended by signal 15"
    assert [entry["state"] for entry in made["seeds"]] == ["finished", "cut off"]
    first = (root / "seed-5/training_metadata.json").stat().st_mtime_ns
    assert series(*NO_GATES, max_steps=40, eval_every=20) == 0
    error = capfd.readouterr().err
    assert "resuming from" in error
    assert (root / "seed-5/training_metadata.json").stat().st_mtime_ns == first
    assert told(root)["passed"] is True


def test_seeds_each_have_branches_of_their_own(rows_file: Path, tmp_path: Path, series: Callable[..., int]) -> None:
    assert series(*NO_GATES) == 0
    fused = tmp_path / "fused"
    arguments = ["--trainer", "fusion", "--seeds", "5,6", "--data", str(rows_file), "--output-dir", str(fused)]
    tiny = {"node_size": "8", "graph_layers": "1", "graph_vocab_size": "400", "max_length": "64", "dropout": "0.1"}
    flags = [word for name, value in tiny.items() for word in ("--" + name.replace("_", "-"), value)]
    flags += ["--max-steps", "2", "--device", "cpu", "--text-branch", str(tmp_path / "series/seed-{seed}")]
    assert seeds.main([*arguments, *NO_GATES, "--", *flags]) == 0
    for seed in (5, 6):
        chosen = json.loads((fused / f"seed-{seed}/settings.json").read_text())
        assert chosen["text_branch"] == str(tmp_path / f"series/seed-{seed}")
    flags[-1] = str(tmp_path / "series/seed-{seed}0")
    assert seeds.main([*arguments[:-1], str(tmp_path / "wrong"), *NO_GATES, "--", *flags]) == 2


def test_any_module_with_a_main_can_be_trained(other: str, root: Path, capfd: Any) -> None:
    begin = ["--trainer", other, "--seeds", "1,2,3", "--output-dir", str(root)]
    assert seeds.main([*begin, "--", "--f1", "0.9"]) == 0
    assert told(root)["scores"]["f1"] == {"mean": pytest.approx(0.9), "std": pytest.approx(0.0)}
    assert "other: training seed 2" in capfd.readouterr().err
    assert seeds.main([*begin, "--", "--f1", "0.8"]) == 2  # another series


def test_a_seed_that_fails_is_named_and_the_others_go_on(other: str, root: Path, capfd: Any) -> None:
    begin = ["--trainer", other, "--seeds", "1,2,3", "--output-dir", str(root)]
    assert seeds.main([*begin, "--", "--fail-seed", "2"]) == 1
    assert "seed 2: failed, exit code 1: other: the loss is nan" in capfd.readouterr().err
    made = told(root)
    assert [entry["state"] for entry in made["seeds"]] == ["finished", "failed", "finished"]
    assert made["seeds_counted"] == 2
    assert made["passed"] is False


def test_a_seed_that_rejects_its_input_ends_the_series(other: str, root: Path, capfd: Any) -> None:
    begin = ["--trainer", other, "--seeds", "1,2,3", "--output-dir", str(root)]
    assert seeds.main([*begin, "--", "--fail-seed", "2", "--exit", "2"]) == 2
    assert [entry["state"] for entry in told(root)["seeds"]] == ["finished", "failed", "not started"]


def test_a_seed_that_does_not_end_is_killed(other: str, root: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "trainers.code.seeds",
        "--trainer",
        other,
        "--seeds",
        "1,2",
        "--output-dir",
        str(root),
    ]
    command += ["--end-timeout", "0.5", "--", "--sleep", "600"]
    deaf = "def main(argv):\n    import signal\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    module = Path(os.environ["PYTHONPATH"].split(os.pathsep)[0]) / "other_trainer.py"
    module.write_text(module.read_text().replace("def main(argv):\n", deaf))
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (root / "seed-1/begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (child,) = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGTERM)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 143
    assert "did not end in 0.5 seconds (end_timeout): killed" in error
    assert not child.is_running()
    assert not left_behind(root)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--seeds", "1,x"], "seeds: x is not a whole number from 0 to 4294967295"),
        (["--seeds", "1,1"], "seeds: 1 is there twice"),
        (["--seeds", ""], "is not a whole number"),
        (["--seeds", "4294967296"], "4294967296 is not a whole number"),
        (["--min-mean-f1", "85"], "min_mean_f1 = 85.0 is not a number from 0 to 1"),
        (["--trainer", "transfomer"], "trainer transfomer: no such trainer"),
        (["--trainer", "json"], "trainer json: has no main(argv)"),
        (["--data", "/nowhere.jsonl"], "data /nowhere.jsonl: no such file"),
        (["--settings", "/nowhere.toml"], "settings file /nowhere.toml: No such file"),
        (["--", "--seed", "3"], "--seed after --: give the series --seeds"),
        (["--", "--resume-from=x"], "--resume-from after --: a series goes on by itself"),
        (["--", "--layers", "0"], "layers = 0 is not a whole number from 1 to 256"),
        (["--", "--layer", "2"], "has no flag --layer"),
        (["--", "--model", "/nowhere/model"], "model /nowhere/model: no such folder"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_started(
    root: Path, capsys: Any, flags: list[str], words: str
) -> None:
    assert seeds.main(["--trainer", "transformer", "--output-dir", str(root), *flags]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
    assert not root.exists()


def test_all_faults_are_told_at_once(root: Path, capsys: Any) -> None:
    flags = ["--seeds", "1,1", "--min-mean-f1", "2", "--data", "/nowhere.jsonl"]
    assert seeds.main(["--trainer", "gnn", "--output-dir", str(root), *flags, "--", "--node-size", "0"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("trainers.code.seeds: ") for line in lines)


def test_a_damaged_seed_is_named_and_not_trained_over(series: Callable[..., int], root: Path, capfd: Any) -> None:
    assert series(*NO_GATES) == 0
    logits = root / "seed-6" / "validation_logits.safetensors"
    logits.write_bytes(logits.read_bytes()[:-20])
    assert series(*NO_GATES) == 1
    assert "seed 6: damaged: validation_logits.safetensors" in capfd.readouterr().err
    assert [entry["state"] for entry in told(root)["seeds"]] == ["finished", "damaged"]


def test_the_defaults_are_those_of_the_post_mortem() -> None:
    flags = vars(seeds._parser().parse_args(["--trainer", "gnn"]))
    assert seeds.read_seeds(flags["seeds"]) == (42, 2025, 7)
    chosen = seeds.Settings()
    assert (chosen.min_mean_f1, chosen.max_std_f1) == (0.85, 0.05)
    assert summary.THRESHOLDS[0] == 0.05
