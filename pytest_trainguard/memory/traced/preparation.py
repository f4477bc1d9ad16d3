"""Making a process one whose tensors are fake; nothing here is ever undone."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import NoReturn, TypeVar

import torch
import torch.utils.data

from pytest_trainguard.memory.replay.device import Device
from pytest_trainguard.memory.replay.trace import How
from pytest_trainguard.memory.traced import attention, cuda_answers, cuda_kernels, fakecuda, late_patches
from pytest_trainguard.memory.traced.tracer import Tracer
from pytest_trainguard.memory.traced.unknown import Unknown

Compiled = TypeVar("Compiled")
ON_THE_CPU = (
    "traced with fake tensors on the CPU, as fake CUDA does not hold on this torch: what a program does on a GPU only, "
    "and memory that CUDA's kernels take, is not in it"
)


def prepare_process(device: Device, how: How) -> Tracer:
    """Make this process one whose tensors are fake, and a tracer for it."""
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    cuda = how == "fake cuda"
    tracer = Tracer("cuda" if cuda else "cpu", fakecuda.FakeMode())
    if untried := fakecuda.describe_untried(torch.__version__):
        tracer.notes.append(untried)
    if cuda:
        fakecuda.install()
        cuda_kernels.take_kernels_of_cuda()
        cuda_answers.install_answers(device, tracer)
    else:
        fakecuda.install_on_cpu()
        tracer.notes.append(ON_THE_CPU)
    attention.KernelChooser(device.capability).install(() if cuda else ("AutogradCPU", "CPU"))
    late_patches.patch_libraries()
    _load_in_process()
    _leave_uncompiled(tracer)
    _stay_here()
    return tracer


def _load_in_process() -> None:
    """Loader workers would be forks with a fake device each; what they make is the same in this process."""
    loader = torch.utils.data.DataLoader
    original = loader.__init__

    @functools.wraps(original)
    def init(self: torch.utils.data.DataLoader, *args: object, **kwargs: object) -> None:
        names = original.__code__.co_varnames[1 : 1 + len(args)]
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        for name in ("prefetch_factor", "persistent_workers", "multiprocessing_context", "timeout"):
            given.pop(name, None)
        original(self, **{**given, "num_workers": 0})

    loader.__init__ = init


def _leave_uncompiled(tracer: Tracer) -> None:
    """torch.compile needs the real device to compile for."""
    told: list[str] = []

    def compiled(model: Compiled | None = None, **options: object) -> Compiled | Callable[[Compiled], Compiled]:
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

    def stay(program: str | os.PathLike[str], *args: object, **kwargs: object) -> NoReturn:
        raise Unknown(f"{os.fspath(program)}: the program goes on in a process that this Python cannot see into")

    for name in ("execl", "execle", "execlp", "execlpe", "execv", "execve", "execvp", "execvpe"):
        setattr(os, name, stay)
