from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trainer_runs import ROOT, TINY, losses

from trainers.code.graph.examples import within_budget
from trainers.common import batches


def flat(lists: list[list[int]]) -> list[int]:
    return [row for rows in lists for row in rows]


def windows(rows: list[int], effective: int, **more: Any) -> list[batches.Window]:
    given = {"seed": 1, "epoch": 0, "rows_done": 0, "cut": lambda window: batches.batched(window, 4), **more}
    return batches.epoch_windows(rows, effective=effective, **given)


def test_a_step_has_its_rows_however_they_are_cut() -> None:
    whole = [flat(window) for window in windows(list(range(50)), 12, cut=lambda window: [window])]
    pieces = [flat(window) for window in windows(list(range(50)), 12)]
    assert whole == pieces
    assert [len(window) for window in whole] == [12, 12, 12, 12, 2]
    assert sorted(flat(whole)) == list(range(50))


def test_a_budget_bounds_every_forward_pass() -> None:
    weights = [3, 3, 3, 9, 1, 1, 1, 1, 20, 2]
    pieces = within_budget(range(10), 3, weights.__getitem__, 9)
    assert flat(pieces) == list(range(10))
    assert pieces == [[0, 1, 2], [3], [4, 5, 6], [7], [8], [9]]


def test_rare_rows_are_drawn_as_often_as_the_others() -> None:
    labels = [int(row % 10 == 0) for row in range(1000)]
    drawn = windows(list(range(1000)), 100, labels=labels.__getitem__)
    rows = [row for window in drawn for row in flat(window)]
    assert len(rows) == 1000
    assert 430 < sum(labels[row] for row in rows) < 570
    counts = Counter(row for row in rows if labels[row])
    assert len(counts) > 90  # of 100 rare rows, nearly all
    later = windows(list(range(1000)), 100, labels=labels.__getitem__, rows_done=300)
    assert later == drawn[3:]
    other = windows(list(range(1000)), 100, labels=labels.__getitem__, epoch=1)
    assert other != drawn


def test_a_sampler_evens_out_what_is_trained_on(start: Callable[..., int], tmp_path: Path, out: Path) -> None:
    rows = [{"code": f"def f(a, b):\n    return a + {index}\n", "label": int(index % 8 == 0)} for index in range(64)]
    data = tmp_path / "rare.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert start(data=data, class_balance="sampler", max_steps=20, collapse_grace=0, collapse_patience=100) == 0
    assert start(data=data, class_balance="weights", output_dir=tmp_path / "weights") == 0


@pytest.mark.parametrize("accumulation", [1, 3])
def test_processes_of_torchrun_give_the_losses_of_one(
    start: Callable[..., int], rows_file: Path, out: Path, tmp_path: Path, accumulation: int
) -> None:
    # 7 rows shared by 2; the last window of the epoch is short, and one of its batches is of one row.
    values = {**TINY, "dropout": 0.0, "batch_size": 7, "gradient_accumulation": accumulation, "max_steps": 8}
    values |= {"validation_fraction": 0.3, "eval_every": 4, "save_every": 100}
    assert start(**{name: value for name, value in values.items() if name != "max_steps"}, max_steps=8) == 0
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps(values))
    two = tmp_path / "two"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "trainers.code.transformer", "--settings", str(settings), "--data", str(rows_file)]
    command += ["--output-dir", str(two)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("finished at step 8") == 1
    alone, together = dict(losses(out)), dict(losses(two))
    assert alone.keys() == together.keys()
    assert together == pytest.approx(alone, rel=1e-4)
    told = [json.loads((folder / "training_metadata.json").read_text()) for folder in (out, two)]
    assert told[1]["processes"] == 2
    assert told[1]["best"]["loss"] == pytest.approx(told[0]["best"]["loss"], rel=1e-4)
    assert told[1]["rows_truncated"] == told[0]["rows_truncated"] > 0
