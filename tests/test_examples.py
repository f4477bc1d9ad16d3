"""The two examples can be read in one sitting, and run as their first lines say."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = ("plain_loop", "with_transformers")
MOST_LINES, MOST_COLUMNS = 255, 120


def started(name, output_dir, *options, expected=0):
    command = [sys.executable, f"examples/{name}.py", "--data", "examples/reviews.jsonl", "--output-dir", output_dir]
    small = ("--hidden-size", "16", "--max-length", "32", "--batch-size", "8", "--save-every", "2", "--seed", "3")
    done = subprocess.run(
        [*command, *small, *options], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == expected, done.stderr
    return done.stdout + done.stderr


def losses(output):
    return [line for line in output.splitlines() if line.startswith("step ")]


@pytest.mark.parametrize("name", EXAMPLES)
def test_is_read_in_one_sitting(name):
    lines = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8").splitlines()
    assert 100 < len(lines) <= MOST_LINES
    assert max(map(len, lines)) <= MOST_COLUMNS


@pytest.mark.parametrize("name", EXAMPLES)
def test_runs_by_its_command_line(name, tmp_path):
    """Trained, resumed after its newest checkpoint was damaged, and started where it may not: four starts in all."""
    run, file = tmp_path / "run", tmp_path / "settings.json"
    whole = started(name, run, "--max-steps", "12", "--validation-data", "examples/reviews_held_out.jsonl")
    assert len(losses(whole)) == 12
    assert whole.count("validation: loss ") == 6
    assert "device: cpu" in whole
    kept = {int(path.name.rpartition("-")[2]) for path in run.glob("checkpoint-*")}
    assert {6, 8, 10, 12} <= kept
    assert len(kept) <= 5  # the best one may be older

    (run / "checkpoint-12" / "manifest.json").unlink()
    resumed = started(name, run, "--max-steps", "12", "--resume-from", run)
    assert "checkpoint-12 is damaged" in resumed
    assert losses(resumed) == losses(whole)[10:]

    file.write_text(json.dumps({"learning_rate": -1, "max_length": 8}))
    message = started(name, run, "--settings", file, "--max-steps", "12", expected=1)
    assert "learning_rate = -1: must be float, from 1e-06" in message
    message = started(name, run, "--settings", file, "--learning-rate", "0.001", "--max-steps", "12", expected=1)
    assert "truncated to 32" in message  # what an option says goes over the file's 8
    assert f"{run} has checkpoints: --resume-from {run}" in message


@pytest.mark.parametrize("name", ["reviews", "reviews_held_out"])
def test_the_sample_is_what_the_examples_read(name):
    lines = (ROOT / "examples" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert {row["label"] for row in rows} == {"negative", "positive"}
    assert len({row["text"] for row in rows}) == len(rows)
    assert any(not row["text"].isascii() for row in rows)
