"""Inside a process of its own: run a trainer's `train(run)`, unmodified, and write down the trace of its memory.

The process is forked for this one run.
"""

from __future__ import annotations

import os
import resource
import sys
import time
import traceback
from pathlib import Path

from pytest_trainguard.adapters import load_trainer
from pytest_trainguard.contract.trainer import Run, TrainerSpec
from pytest_trainguard.launch.child import loaded_modules
from pytest_trainguard.launch.exit_code import run_to_exit_code
from pytest_trainguard.memory.replay.device import Device, DeviceJson
from pytest_trainguard.memory.replay.trace import How
from pytest_trainguard.memory.traced import places
from pytest_trainguard.memory.traced.memory_limit import MemoryLimit
from pytest_trainguard.memory.traced.preparation import prepare_process
from pytest_trainguard.memory.traced.tracer import Tracer, activate_tracer
from pytest_trainguard.memory.traced.unknown import Unknown


def run_traced(
    trainer: TrainerSpec, settings: dict[str, object], data: str | None, output_dir: str, max_steps: int, seed: int,
    device: DeviceJson, how: How, result: str, cap: int | None = None,
) -> dict[str, object]:  # fmt: skip
    """Trace one run.

    Args:
        trainer: its spec.
        settings: as `Run.settings`.
        data: path of the data.
        output_dir: an existing folder.
        max_steps: optimizer steps to ask for.
        seed: of the run.
        device: a `Device` as plain values.
        how: `fake cuda` or `fake cpu`.
        result: the file that the trace is written to.
        cap: bytes that the allocator may take, so that memory runs out where they do not do; None for no limit.

    Returns:
        `exit`, `seconds`, `peak_rss` and `rss_before` in bytes, `libraries` that were imported, `steps` taken, and
        where memory `ran_out`.
    """
    started, before = time.monotonic(), _peak_rss()
    tracer = prepare_process(Device.from_json(device), how)
    tracer.memory_limit = None if cap is None else MemoryLimit(cap)
    loaded = load_trainer(trainer)
    run = Run(settings, Path(data) if data else None, Path(output_dir), max_steps, seed, config_type=loaded.config)
    with activate_tracer(tracer):
        code = run_to_exit_code(lambda: loaded.train(run), lambda error: _note_failure(tracer, error))
    _explain_ending(tracer, code, max_steps)
    Path(result).write_text(tracer.trace(how).to_json())
    sys.stdout.flush()
    figures: dict[str, object] = {
        "exit": code,
        "seconds": time.monotonic() - started,
        "peak_rss": _peak_rss(),
        "rss_before": before,
    }
    figures |= {"steps": tracer.labels.step, "ran_out": tracer.memory_limit.ran_out if tracer.memory_limit else []}
    return {**figures, "libraries": loaded_modules(os.getcwd()).libraries}


def _note_failure(tracer: Tracer, error: BaseException) -> None:
    """What ended the program, as the trace's `unknown`; a traceback on stderr where it may be the program's own."""
    words = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    if isinstance(error, Unknown):
        said = str(error)
    elif places.is_limit(error):
        traceback.print_exception(error)
        said = f"{places.find_place(error)}: what is done there cannot be traced without a GPU ({words})"
    else:
        traceback.print_exception(error)
        said = f"the program's own run ends with {words}"
    tracer.unknown = tracer.unknown or said


def _explain_ending(tracer: Tracer, code: int, wanted: int) -> None:
    steps = tracer.labels.step
    if code != 0 and tracer.unknown is None:
        tracer.unknown = f"the program ends with exit {code} after {steps} optimizer steps"
    if steps == 0 and tracer.unknown is None:
        tracer.unknown = "the program takes no optimizer step that torch knows of"
    if tracer.unknown is None and not tracer.peak:
        tracer.unknown = "the program puts nothing on the GPU: it trains on the CPU"
    if 0 < steps < min(wanted, 2):
        tracer.notes.append(
            "only one optimizer step was taken: the second, which holds the optimizer's state, may be more"
        )


def _peak_rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts KiB
