"""Pytest's side of measuring: a trainer's run on the GPU that is present, under the budget."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from pytest_trainguard.contract.settings import merge
from pytest_trainguard.launch.protocol import SEED, ProcessRequest
from pytest_trainguard.memory.answers.tracing import TRACE_TIME_LIMIT, Tracing
from pytest_trainguard.memory.replay.counters import Measured
from pytest_trainguard.memory.traced.measured_run import run_measured
from pytest_trainguard.verdicts.errors import CannotJudge

MEASURED_STEPS = 3


def measure_on_gpu(tracing: Tracing, cap: int | None, changes: dict[str, Any] | None = None) -> Measured:
    """Measure a trainer's run at its production settings, on the rows that predictions are made with.

    Args:
        tracing: the trainer, as it is traced.
        cap: bytes for torch's allocator; None for all that there are.
        changes: settings that differ from production.

    Raises:
        CannotJudge: the run did not come to its end, or left no figures.
    """
    subject = tracing.subject
    values = merge(subject.description.production, changes or {})
    data, _ = tracing.make_longest_rows(values, MEASURED_STEPS)
    folder = Path(tempfile.mkdtemp(prefix="measured-", dir=subject.folder))
    subject.furnish(folder, data)
    # Runs see no GPU unless they are to, nor do the modules that they import; this one sees those that its caller does.
    visible = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0")}
    request = ProcessRequest("measured its memory", time_limit=TRACE_TIME_LIMIT, env=visible)
    path = str(data) if data else None
    server = subject.make_server(visible)
    try:
        found, ended = server.perform(
            request, run_measured, subject.spec, values, path, str(folder), MEASURED_STEPS, SEED, cap
        )
    finally:
        server.close()
        shutil.rmtree(folder, ignore_errors=True)
    if found is None:
        last = ended.output.strip().splitlines()[-1:] or [f"exit {ended.exit}"]
        raise CannotJudge(f"{subject.name}: nothing was measured: {last[0]}", ended.output)
    return Measured(**found)
