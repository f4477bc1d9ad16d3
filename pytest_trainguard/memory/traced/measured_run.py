"""Inside a process of its own, on a GPU: run a trainer's program, unmodified, and read torch's counters."""

from __future__ import annotations

import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pytest_trainguard.memory.replay.counters import read_counters


def run_measured(
    trainer: Any,
    settings: dict[str, Any],
    data: str | None,
    output_dir: str,
    max_steps: int,
    seed: int,
    cap: int | None,
) -> dict[str, Any]:
    """Run a trainer with `cap` bytes for torch's allocator.

    The arguments are those of `engine.run_traced`.

    Returns:
        a `Measured` as plain values.

    Raises:
        RuntimeError: there is no GPU.
    """
    import torch

    from pytest_trainguard.adapters import load_trainer
    from pytest_trainguard.contract.trainer import Run

    if not torch.cuda.is_available():
        raise RuntimeError("nothing can be measured: torch sees no GPU")
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(cap / total, 1.0) if cap else 1.0, 0)
    torch.cuda.reset_peak_memory_stats(0)
    loaded = load_trainer(trainer)
    run = Run(settings, Path(data) if data else None, Path(output_dir), max_steps, seed, config_type=loaded.config)
    code = _exit_code(loaded, run)
    return asdict(read_counters(torch.cuda.memory_stats(0), code))


def _exit_code(trainer: Any, run: Any) -> int:
    try:
        code = trainer.train(run)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:  # an out-of-memory error among them, which the allocator has counted
        traceback.print_exc()
        return 1
    return code if isinstance(code, int) else 0
