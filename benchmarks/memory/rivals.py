"""The same jobs by others' means: MemTracker of torch, accelerate's estimate, and four times the weights.

Each answers in a process of its own: `python -m benchmarks.memory.rivals NAME`, JSON on standard output.
"""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import sys
import time
from typing import Any

from benchmarks.memory import jobs
from pytest_trainguard.memory.replay.budget import parse_budget, resolve_budget

NAMES = ("roberta-base bf16", "gpt2 bf16")
CARD = "a100-40gb"


def ours(name: str) -> dict[str, float]:
    """Peak allocated bytes of a job; seconds and resident memory of the trace itself, after the imports."""
    from pytest_trainguard.memory.answers.tracing import tracing
    from pytest_trainguard.memory.answers.verdict import judge_trace

    trainer, settings = jobs.configurations()[name]
    limit = resolve_budget(parse_budget(CARD))
    with tracing(f"benchmarks.memory.jobs:{trainer}", device=limit.device) as traced:
        traced.trace(settings)  # what it imports is loaded ahead of the one that counts
        judged = judge_trace(traced.trace(settings, steps=3), limit)
        figures = traced.figures
    return {"bytes": judged.allocated, "seconds": figures["seconds"], "rss": figures["peak_rss"]}


def ask(name: str) -> dict[str, float]:
    """What the rivals say of a job, in bytes; seconds and resident memory of MemTracker's run.

    Raises:
        RuntimeError: a rival fails.
    """
    command = [sys.executable, "-m", "benchmarks.memory.rivals", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _mem_tracker(settings: jobs.Settings) -> dict[str, float]:
    """Two steps under MemTracker: fake tensors on the CPU, with what it calls temporary and activations alike."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.mem_tracker import MemTracker

    began = time.perf_counter()
    with FakeTensorMode():
        model, batch = jobs.ARCHITECTURES[settings.architecture](settings)
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
        tracker = MemTracker()
        tracker.track_external(model, optimizer)
        dtype = jobs.DTYPES.get(settings.precision)
        amp = torch.autocast("cpu", dtype=dtype) if dtype else contextlib.nullcontext()
        with tracker:
            for _ in range(2):
                with amp:
                    loss = model(**batch()).loss
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                del loss
                tracker.reset_mod_stats()
    peak = tracker.get_tracker_snapshot("peak")
    total = sum(sizes["Total"] for sizes in peak.values())
    return {"mem_tracker": total, "mem_tracker_seconds": time.perf_counter() - began}


def _estimates(settings: jobs.Settings) -> dict[str, float]:
    """`accelerate estimate-memory` (training with Adam), by its own functions; and 4 x the weights in fp32."""
    import torch
    from accelerate.commands.estimate import estimate_training_usage
    from accelerate.utils import calculate_maximum_sizes

    with torch.device("meta"):
        model, _ = jobs.ARCHITECTURES[settings.architecture](settings)
    size, _ = calculate_maximum_sizes(model)
    kind = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}[settings.precision]
    weights = sum(parameter.numel() * 4 for parameter in model.parameters())
    return {"accelerate": max(estimate_training_usage(size, kind).values()), "four_times": 4.0 * weights}


def main() -> int:
    """Answer for one job, or ask for all and print the table."""
    if len(sys.argv) > 1:
        settings = jobs.Settings(**jobs.configurations()[sys.argv[1]][1])
        found: dict[str, Any] = {**_estimates(settings), **_mem_tracker(settings)}
        found["mem_tracker_rss"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps(found))
        return 0
    print("\n".join(table()))
    return 0


def table() -> list[str]:
    """A line for each job: peak GiB by each means, and what finding out took. None is measured on a GPU."""
    head = "peak GiB, predicted; not yet measured on a GPU"
    lines = [f"{head:<46} {'ours':>8} {'MemTracker':>11} {'accelerate':>11} {'4 × rule':>9}"]
    for name in NAMES:
        mine, theirs = ours(name), ask(name)
        sizes = [mine["bytes"], theirs["mem_tracker"], theirs["accelerate"], theirs["four_times"]]
        shown = [f"{size / 2**30:.2f}" for size in sizes]
        lines.append(f"{name:<46} {shown[0]:>8} {shown[1]:>11} {shown[2]:>11} {shown[3]:>9}")
        seconds = f"{mine['seconds']:>8.1f} {theirs['mem_tracker_seconds']:>11.1f}"
        lines.append(f"{'  seconds (goal for RoBERTa-base: 8)':<46} {seconds}")
        resident = f"{mine['rss'] / 2**20:>8.0f} {theirs['mem_tracker_rss'] / 2**20:>11.0f}"
        lines.append(f"{'  resident MiB (goal: 1200)':<46} {resident}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
