"""Inside a process of its own, on a GPU: run a trainer's program, unmodified, and read torch's counters."""

from __future__ import annotations

import traceback
from dataclasses import asdict
from pathlib import Path

from pytest_trainguard.adapters import load_trainer
from pytest_trainguard.contract.trainer import Run, TrainerSpec
from pytest_trainguard.launch.exit_code import run_to_exit_code
from pytest_trainguard.memory.replay.counters import read_counters


def run_measured(
    trainer: TrainerSpec,
    settings: dict[str, object],
    data: str | None,
    output_dir: str,
    max_steps: int,
    seed: int,
    cap: int | None,
) -> dict[str, int]:
    """Run a trainer with `cap` bytes for torch's allocator.

    The arguments are those of `engine.run_traced`.

    Returns:
        a `Measured` as plain values.

    Raises:
        RuntimeError: there is no GPU.
    """
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError("nothing can be measured: torch sees no GPU")
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(cap / total, 1.0) if cap else 1.0, 0)
    torch.cuda.reset_peak_memory_stats(0)
    loaded = load_trainer(trainer)
    run = Run(settings, Path(data) if data else None, Path(output_dir), max_steps, seed, config_type=loaded.config)
    # An out-of-memory error is among what is reported; the allocator has counted it.
    code = run_to_exit_code(lambda: loaded.train(run), traceback.print_exception)
    return asdict(read_counters(torch.cuda.memory_stats(0), code))
