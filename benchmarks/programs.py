"""What the repository's own trainers cost, beside the same work without them."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any
from unittest import mock

PROJECT = Path(__file__).parent.parent
PAIRS, STEPS, WARM = 3, 60, 5
ROWS, FEW, MANY = 3000, 1_000, 100_000
MEASURED = """
import importlib, pathlib, re, sys
assert importlib.import_module(sys.argv[1]).main(sys.argv[2:]) == 0
print(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
"""
"""A run that prints its peak memory in KiB. (That of `resource` has the parent's in it.)"""


def seconds_per_step(folder: Path, module: ModuleType) -> tuple[float, float]:
    """Of a trainer at its default settings, and of a bare loop over the same rows with the same model."""
    from trainers.code import samples

    data = folder / "functions.jsonl"
    if not data.exists():
        samples.write_jsonl(data, ROWS, longest=200)
    pairs = []
    for number in range(PAIRS):
        pairs.append((_trainer(module, data, folder / f"{module.__name__}-{number}"), _bare(module, data)))
    return median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)


def _trainer(module: Any, data: Path, output_dir: Path) -> float:
    """The time between the beginnings of two steps, so that all that the loop does counts."""
    from trainers.code.learner import Learner

    begun: list[float] = []
    taken = Learner.step

    def step(*arguments: Any) -> Any:
        begun.append(time.perf_counter())
        return taken(*arguments)

    values = {"eval_every": 10 * STEPS, "save_every": 10 * STEPS}
    with mock.patch.object(Learner, "step", step), _quiet():
        code = module.launch(values, data=data, output_dir=output_dir, max_steps=STEPS)
    assert code == 0
    return (begun[-1] - begun[WARM]) / (len(begun) - 1 - WARM)


def _bare(module: Any, data: Path) -> float:
    """The same steps as a notebook would take them."""
    import torch
    from torch.utils.data import DataLoader

    from trainers.code import roberta, rows
    from trainers.code.graph import examples
    from trainers.common import batches, checkpoint
    from trainers.common.optimization import parameter_groups
    from trainers.common.process import Run
    from trainers.common.rows import split_by_content

    chosen = module.Settings()
    table = rows.RowFile(data)
    split = split_by_content(table, chosen.validation_fraction)
    checkpoint.seed_random(chosen.seed)
    tokenizer, model = module.build(Run("bare"), chosen, None, table, split)
    windows = batches.epoch_windows(
        split.train, seed=chosen.seed, epoch=0, rows_done=0, effective=chosen.batch_size, cut=lambda window: [window]
    )
    as_graphs = module.__name__ == "trainers.code.gnn"
    loader: DataLoader[Any] = DataLoader(
        examples.GraphRows(table, tokenizer, chosen.max_nodes, 0) if as_graphs else table,  # type: ignore[arg-type]
        batch_sampler=[window[0] for window in windows],
        collate_fn=examples.collate
        if as_graphs
        else roberta.Collate(tokenizer, chosen.max_length, table, numbers_names=True),
    )
    optimizer = torch.optim.AdamW(parameter_groups(model, chosen.weight_decay), lr=chosen.learning_rate)
    model.train()
    begun = []
    for _, batch in zip(range(STEPS), _again(loader), strict=False):
        begun.append(time.perf_counter())
        logits = model(batch.graphs) if as_graphs else model(**batch.inputs).logits
        loss = torch.nn.functional.cross_entropy(logits, batch.labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), chosen.max_gradient_norm)
        optimizer.step()
        loss.item()
    return (begun[-1] - begun[WARM]) / (len(begun) - 1 - WARM)


def _again(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with contextlib.redirect_stderr(io.StringIO()):
        yield


def preparation(folder: Path) -> float:
    """Functions a second, from a file of rows to the prepared folder."""
    from trainers.code import prepare, samples

    data = folder / "prepared.jsonl"
    samples.write_jsonl(data, ROWS, longest=200)
    began = time.perf_counter()
    with _quiet():
        assert prepare.launch(data=data, output_dir=folder / "prepared") == 0
    return ROWS / (time.perf_counter() - began)


def peak_memory(folder: Path, program: str) -> tuple[float, float]:
    """MiB that a run takes at most over 100,000 rows, and over 1,000 rows of the same kind."""
    peaks = []
    for count in (MANY, FEW):
        data = folder / f"rows-{count}.jsonl"
        if not data.exists():
            with data.open("w", encoding="utf-8") as file:
                for number in range(count):
                    names = ("first", "second") if number % 2 else ("second", "first")
                    code = f"def f{number}(first, second):\n    total = {names[0]} + {number}\n    return {names[1]}\n"
                    file.write(json.dumps({"code": code, "label": number % 2}) + "\n")
        flags = [
            "--max-steps",
            "20",
            "--validation-fraction",
            "0.01",
            "--output-dir",
            str(folder / f"{program}-{count}"),
        ]
        command = [sys.executable, "-c", MEASURED, program, "--data", str(data), *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PROJECT)
        peaks.append(int(done.stdout) / 1024)
    return peaks[0], peaks[1]
