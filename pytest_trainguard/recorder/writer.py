"""Inside a run: the recorder, which writes down what torch did, step by step.

It draws no random number and writes no tensor, so a run's results are the same to the bit with and without it.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import time
from pathlib import Path

import torch

from pytest_trainguard.recorder.doors import Observer
from pytest_trainguard.recorder.states import States
from pytest_trainguard.recorder.tensors import tensors_in

SAMPLED = 64  # values of each parameter whose movement is followed
Loss = tuple[float, float]  # its value, and what it was multiplied by at the end; NaN where that cannot be seen


class Recorder(Observer):
    """Writes the recording: one line per event, appended at once, so that it outlives SIGKILL."""

    def __init__(self, folder: Path, states: States | None = None):
        """`states`: an observer that stands at the doors too; each step is written with what it found.

        The norm of the gradients, which costs more than all else, is written in such runs only.
        """
        self._folder, self._files, self._fd, self._inode = folder, 0, -1, -1
        self._states = states
        self._last = time.perf_counter()
        self._losses: list[Loss] = []
        self._differentiated: dict[bool, list[Loss]] = {False: [], True: []}  # by whether a graph was made of it
        self._numbers: dict[int, int] = {}  # of optimizers, by id
        self._batches: list[int] = []
        self._length = self._eval_forwards = 0
        self._training = False
        self._autocast: str | None = None
        self._before: dict[int, torch.Tensor | None] = {}
        self._followed: dict[int, tuple[int, list[torch.Tensor]]] = {}
        self.steps = 0
        self._pid = os.getpid()
        self.write("start", pid=self._pid, rank=int(os.environ.get("RANK", 0)))
        atexit.register(self._end)

    def _end(self) -> None:
        """The program came to an end of its own accord: it was not killed, nor left by `os._exit`."""
        if os.getpid() == self._pid:
            with contextlib.suppress(OSError):  # its folder may be gone
                self.write("end")

    def write(self, kind: str, /, **values: object) -> None:
        """Append one event."""
        line = (json.dumps({"event": kind, **values}) + "\n").encode()
        if not self._append(line):
            # The file met a limit on its size, or the program closed descriptors that are not its own.
            path = self._folder / f"recording-{os.getpid()}-{self._files:04}.jsonl"
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._files += 1
            self._inode = os.fstat(self._fd).st_ino
            self._append(line)

    def _append(self, line: bytes) -> bool:
        try:
            # A program that closed the descriptor may have opened a file of its own under the same number.
            return os.fstat(self._fd).st_ino == self._inode and os.write(self._fd, line) == len(line)
        except OSError:
            return False

    def forward(self, module: torch.nn.Module, *, outermost: bool) -> None:
        if outermost:
            self._training = module.training
            self._eval_forwards += not module.training
            dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
            if torch.cuda.is_initialized() and torch.is_autocast_enabled("cuda"):
                dtype = torch.get_autocast_dtype("cuda")
            self._autocast = str(dtype) if dtype else None

    def forwarded(
        self, module: torch.nn.Module, inputs: tuple[object, ...], output: object, *, outermost: bool
    ) -> None:
        if outermost and module.training:
            first = next((t for t in tensors_in(list(inputs)) if t.dim()), None)
            if first is not None:
                self._batches.append(first.shape[0])
                self._length = max(self._length, first.shape[1] if first.dim() > 1 else 0)
        elif outermost:
            self._predicted(output)

    def _predicted(self, output: object) -> None:
        """Of a classifier in evaluation mode (scores of shape [rows, classes]): how many rows got which class."""
        tables = (t for t in tensors_in(output) if t.dim() == 2 and t.shape[1] > 1)
        scores = next((t for t in tables if t.is_floating_point()), None)
        if scores is not None:
            classes, counts = scores.detach().argmax(1).unique(return_counts=True)
            predicted = dict(zip(classes.tolist(), counts.tolist(), strict=True))
            self.write("predicted", step=self.steps, classes=predicted)

    def backward(self, losses: list[torch.Tensor]) -> None:
        self._losses.extend((_value(loss), _share(loss)) for loss in losses)

    def differentiated(self, outputs: list[torch.Tensor], *, create_graph: bool) -> None:
        scalars = [output for output in outputs if output.numel() == 1]
        with contextlib.suppress(RuntimeError):  # under torch.vmap a tensor has no single value
            self._differentiated[create_graph].extend([(_value(loss), _share(loss)) for loss in scalars])

    def stepping(self, optimizer: torch.optim.Optimizer) -> None:
        if id(optimizer) not in self._before:  # else they are where the step before left them
            self._before[id(optimizer)] = self._values(optimizer)

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        after, before = self._values(optimizer), self._before[id(optimizer)]
        self._before[id(optimizer)] = after
        same = before is not None and after is not None and before.shape == after.shape
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        # Beside backward passes, torch.autograd.grad is for penalty terms.
        losses = self._losses or self._differentiated[False] or self._differentiated[True]
        now = time.perf_counter()
        self.steps += 1
        self.write(
            "step",
            number=self.steps,
            optimizer=self._numbers.setdefault(id(optimizer), len(self._numbers)),
            maximises=any(group.get("maximize", False) for group in optimizer.param_groups),
            loss=_loss_of(losses),
            losses=[value for value, _ in losses],
            grad_norm=_norm_of(parameters) if self._states else float("nan"),
            lr=[float(group.get("lr", 0.0)) for group in optimizer.param_groups],
            moved=_value((after - before).norm()) if same else float("nan"),  # type: ignore[operator]
            training=self._training,
            dtype=str(parameters[0].dtype) if parameters else "",
            autocast=self._autocast,
            batches=self._batches,
            length=self._length,
            eval_forwards=self._eval_forwards,
            seconds=now - self._last,
            rss=_resident(),
            cuda=_cuda_peaks(),
            children=_children(),
            time=time.time(),
            **({"states": self._states.take()} if self._states else {}),
        )
        self._losses, self._differentiated = [], {False: [], True: []}
        self._batches, self._length, self._eval_forwards = [], 0, 0
        self._last = now

    def _values(self, optimizer: torch.optim.Optimizer) -> torch.Tensor | None:
        """A sample of the parameters' values, shape [parameters × at most SAMPLED], copied."""
        views = []
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                known = self._followed.get(id(parameter))
                if known is None or known[0] != parameter.data_ptr():
                    flat = parameter.detach().reshape(-1)
                    known = (parameter.data_ptr(), [flat[:: max(1, flat.numel() // SAMPLED)][:SAMPLED]])
                    self._followed[id(parameter)] = known
                views.extend(known[1])
        return torch.cat(views).float() if views else None

    def rescaled(self, scale: float) -> None:
        self.write("scale", step=self.steps, scale=scale)

    def writing(self, path: str, how: str) -> None:
        self.write("write", step=self.steps, path=path, how=how, time=time.time())

    def synced(self, path: str) -> None:
        status = os.stat(path)
        entries = {}
        if os.path.isdir(path):
            entries = {entry.name: entry.inode() for entry in os.scandir(path)}
        self.write(
            "fsync",
            step=self.steps,
            path=path,
            inode=status.st_ino,
            modified=status.st_mtime_ns,
            entries=entries,
        )

    def connecting(self, address: str) -> None:
        self.write("network", address=address)

    def built(self, module: torch.nn.Module) -> None:
        self.write("model", module=type(module).__name__)


def _value(tensor: torch.Tensor) -> float:
    """A tensor's value as a Python number: exact for one element, the mean of several."""
    detached = tensor.detach()
    return float(detached if detached.numel() == 1 else detached.float().mean())


def _norm_of(parameters: list[torch.Tensor]) -> float:
    """The norm of their gradients together."""
    gradients = [p.grad for p in parameters if p.grad is not None and not p.grad.is_sparse]
    return _value(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0


def _share(loss: torch.Tensor) -> float:
    """What a loss was multiplied by as the last thing before its backward pass: 0.25 of `loss / 4`; else NaN."""
    node = loss.grad_fn
    with contextlib.suppress(RuntimeError):  # its graph is gone, as the backward pass will say
        other = getattr(node, "_saved_other", None)
        if node is not None and isinstance(other, torch.Tensor) and other.numel() == 1:
            factor = float(other)
            if node.name() == "MulBackward0":
                return factor
            if node.name() == "DivBackward0" and factor:
                return 1 / factor
    return float("nan")


def _loss_of(losses: list[Loss]) -> float:
    """The loss of a step: the mean of its micro-batches', or their sum where each is a share of it already."""
    if not losses:
        return float("nan")
    total = sum(value for value, _ in losses)
    shared = len(losses) > 1 and abs(sum(share for _, share in losses) - 1) < 1e-3
    return total if shared else total / len(losses)


def _resident() -> int:
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _children() -> int:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as children:
            return len(children.read().split())
    except OSError:
        return 0


def _cuda_peaks() -> tuple[int, int] | None:
    if not torch.cuda.is_initialized():
        return None
    return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
