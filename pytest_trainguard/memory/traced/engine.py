"""Inside a process of its own: run a trainer's `train(run)`, unmodified, and write down the trace of its memory.

The process is forked for this one run; nothing here is ever undone.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.utils.data

from pytest_trainguard.adapters import load_trainer
from pytest_trainguard.contract.trainer import Run
from pytest_trainguard.launch.child import loaded_modules
from pytest_trainguard.memory.replay.device import Device
from pytest_trainguard.memory.traced import attention, fakecuda
from pytest_trainguard.memory.traced.memory_limit import MemoryLimit
from pytest_trainguard.memory.traced.tracer import Tracer, activate_tracer
from pytest_trainguard.memory.traced.values import Unknown

_PATCHED = ("transformers.utils.import_utils", "safetensors.torch")  # what `fakecuda.after_import` knows
ON_THE_CPU = (
    "traced with fake tensors on the CPU, as fake CUDA does not hold on this torch: what a program does on a GPU only, "
    "and memory that CUDA's kernels take, is not in it"
)


def run_traced(
    trainer: Any, settings: dict[str, Any], data: str | None, output_dir: str, max_steps: int, seed: int,
    device: dict[str, Any], how: str, result: str, cap: int | None = None,
) -> dict[str, Any]:  # fmt: skip
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
    code = 0
    with activate_tracer(tracer):
        code = _exit_code(lambda: loaded.train(run), tracer)
    _judge(tracer, code, max_steps)
    Path(result).write_text(tracer.trace(how).to_json())
    sys.stdout.flush()
    figures: dict[str, Any] = {
        "exit": code,
        "seconds": time.monotonic() - started,
        "peak_rss": _peak_rss(),
        "rss_before": before,
    }
    figures |= {"steps": tracer.labels.step, "ran_out": tracer.memory_limit.ran_out if tracer.memory_limit else []}
    return {**figures, "libraries": loaded_modules(os.getcwd())["libraries"]}


def prepare_process(device: Device, how: str) -> Tracer:
    """Make this process one whose tensors are fake, and a tracer for it."""
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    cuda = how == "fake cuda"
    tracer = Tracer("cuda" if cuda else "cpu", fakecuda.FakeMode())
    if untried := fakecuda.describe_untried(torch.__version__):
        tracer.notes.append(untried)
    if cuda:
        fakecuda.install(device, tracer)
    else:
        fakecuda.install_on_cpu()
        tracer.notes.append(ON_THE_CPU)
    attention.KernelChooser(device.capability).install(() if cuda else ("AutogradCPU", "CPU"))
    _patch_after_import()
    _load_in_process(tracer)
    _leave_uncompiled(tracer)
    _stay_here()
    torch.save = tracer.labels.around_save(torch.save)
    return tracer


def _exit_code(work: Callable[[], Any], tracer: Tracer) -> int:
    """Run it; its exit code, and its traceback on stderr where it has one."""
    try:
        code = work()
        return code if isinstance(code, int) else 0
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException as error:
        if isinstance(error, Unknown):
            said = str(error)
        else:
            traceback.print_exc()
            said = "the program's own run ends with " + " ".join(f"{type(error).__name__}: {error}".split())[:300]
        tracer.unknown = tracer.unknown or said
        return 1


def _judge(tracer: Tracer, code: int, wanted: int) -> None:
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


def _load_in_process(tracer: Tracer) -> None:
    """Loader workers would be forks with a fake device each; what they make is the same in this process."""
    loader = torch.utils.data.DataLoader
    original = loader.__init__

    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        names = original.__code__.co_varnames[1 : 1 + len(args)]
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        for name in ("prefetch_factor", "persistent_workers", "multiprocessing_context", "timeout"):
            given.pop(name, None)
        original(self, **{**given, "num_workers": 0})

    loader.__init__ = init
    iterator = torch.utils.data.dataloader._BaseDataLoaderIter
    following = iterator.__next__

    def fetch(self: Any) -> Any:
        tracer.labels.fetched()
        return following(self)

    iterator.__next__ = fetch


def _leave_uncompiled(tracer: Tracer) -> None:
    """torch.compile needs the real device to compile for."""
    told: list[str] = []

    def compiled(model: Any = None, **options: Any) -> Any:
        if not told:
            told.append("")
            tracer.notes.append(
                "torch.compile was left out, for it compiles for a real device only: the same code was traced as it "
                "stands; compiled it mostly takes less, seldom more"
            )
        return model if model is not None else lambda function: function

    torch.compile = compiled
    torch.nn.Module.compile = lambda module, *args, **kwargs: compiled(module)


def _stay_here() -> None:
    """A program that goes on as another one would train there, for real."""

    def stay(program: Any, *args: Any, **kwargs: Any) -> None:
        raise Unknown(f"{os.fspath(program)}: the program goes on in a process that this Python cannot see into")

    for name in ("execl", "execle", "execlp", "execlpe", "execv", "execve", "execvp", "execvpe"):
        setattr(os, name, stay)


def _patch_after_import() -> None:
    for name in _PATCHED:
        if name in sys.modules:
            fakecuda.after_import(name, sys.modules[name])
    sys.meta_path.insert(0, _Late())


class _Late(importlib.abc.MetaPathFinder):
    """Finds a module as usual, and has it patched once it is imported."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name not in _PATCHED or name in sys.modules:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return None
        loader: Any = spec.loader
        execute = loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            fakecuda.after_import(name, module)

        loader.exec_module = exec_module
        return spec
