"""Inside a run that is looked at closely: what a row's output depends on beside that row, and a token's behind it.

Both are tried in a forked copy of the process, in evaluation mode, so that nothing is drawn and no batch norm looks at
the batch: each model is called again as the program called it, with one row replaced by another, or with other tokens
in the later part of each row.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from pytest_trainguard.recorder.apart import try_apart
from pytest_trainguard.recorder.close_look import CloseLook
from pytest_trainguard.recorder.doors import Observer
from pytest_trainguard.recorder.first_steps import chooses_among, gives_shares
from pytest_trainguard.recorder.supervision import IGNORED, OVER_CLASSES
from pytest_trainguard.recorder.surroundings import find_caller
from pytest_trainguard.recorder.tensors import tensors_in

TRIES = 4  # steps in which a model is tried, until it tells: a head of zeros says the same of any row at first
CLOSE, COARSE = 1e-4, 1e-2  # of the largest output: less is rounding, in single precision and in half of that
FEWEST = 3  # rows of a batch
SHORTEST = 8  # tokens of a row
COMPARED = 32  # targets that are compared with the token after theirs
ALL = 0.95  # of them
PARTS = (0.5, 0.25, 0.75)  # of a row, behind which its tokens are replaced
PARALLEL = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
Answer = dict[str, object] | None


@dataclass(frozen=True)
class Call:
    """How a program called a model in its training, and the line that did."""

    module: torch.nn.Module
    args: tuple[object, ...]
    kwargs: Mapping[str, object]
    place: str


class Dependence(Observer):
    """Tries each model before it is stepped. Its events are `look beside` and `look ahead`."""

    def __init__(self, look: CloseLook, rows: int):
        """`rows`: of a batch, as the settings say; 0 where nobody knows."""
        self._look, self._rows = look, rows
        self._sizes: set[int] = set()  # of batches
        self._whole = False  # some loader gives what its data set gives, which may be one series
        self._calls: dict[int, Call] = {}  # the first since the step before, by the id of the model's first parameter
        self._said: list[tuple[torch.Tensor, int]] = []  # targets since then, and which of them are ignored
        self._tries: dict[int, tuple[object, int]] = {}  # that parameter, and how often its model was tried
        self._told: set[tuple[int, str]] = set()

    def opened(self, loader: torch.utils.data.DataLoader[Any]) -> None:
        sizes = (loader.batch_size, getattr(loader.batch_sampler, "batch_size", None))
        self._sizes.update(size for size in (*sizes, self._rows) if isinstance(size, int) and size)
        self._whole = self._whole or loader.batch_sampler is None

    def called(self, module: torch.nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        first = next(module.parameters(), None)
        if first is None or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return
        _, tries = self._tries.setdefault(id(first), (first, 0))
        if tries < TRIES:
            self._calls.setdefault(id(first), Call(module, args, kwargs, find_caller()))

    def scored(self, function: str, arguments: Mapping[str, Any]) -> None:
        target = arguments.get("target")
        if function in OVER_CLASSES and isinstance(target, torch.Tensor) and not target.is_floating_point():
            self._said.append((target.detach(), arguments.get("ignore_index", IGNORED)))

    def stepping(self, optimizer: torch.optim.Optimizer) -> None:
        calls, said = self._calls, self._said
        self._calls, self._said = {}, []
        for key, call in calls.items():
            first, tries = self._tries[key]
            self._tries[key] = first, tries + 1
            self._try(key, "beside", call, partial(try_rows, call, set() if self._whole else self._sizes))
            self._try(key, "ahead", call, partial(try_tokens, call, said))

    def _try(self, key: int, kind: str, call: Call, work: Callable[[], Answer]) -> None:
        if (key, kind) in self._told:
            return
        told = try_apart(work)
        if told:
            self._told.add((key, kind))
            self._look.write(kind, place=call.place, module=type(call.module).__name__, **told)


def try_rows(call: Call, sizes: set[int]) -> Answer:
    """Replace the first row by another one: how many of the others have another output then, and by how much.

    None where nobody knows which dimension the rows are, or the row's own output stays as it was.

    Args:
        call: of a model in training.
        sizes: of batches. What goes in has as many parts, and is in no other dimension as long.
    """
    given = _tensors_of(call)
    rows = len(given[0]) if given else 0
    if rows < FEWEST or rows not in sizes or any(len(one) != rows or rows in one.shape[1:] for one in given):
        return None
    other = next((row for row in range(1, rows) if any(bool((one[row] != one[0]).any()) for one in given)), 0)
    outputs = _Outputs(call)
    if not other or not outputs.are_independent:
        return None

    def replaced(tensor: torch.Tensor) -> torch.Tensor:
        changed = tensor.clone()
        if tensor.dim():
            changed[0] = tensor[other]
        return changed

    change = outputs.change_by(replaced, lambda one: len(one) == rows and rows not in one.shape[1:])
    if change is None:
        return None
    by_row = change.flatten(1).amax(1)
    told = by_row[1:]
    return {"rows": rows, "others": int((told > 0).sum()), "most": float(told.max())} if by_row[0] else None


def try_tokens(call: Call, said: list[tuple[torch.Tensor, int]]) -> Answer:
    """Replace the later tokens of each row: how many targets before them have another output then, and of how many.

    None where the targets are not each the token after their own, as that is read in one place only: what is read by
    an encoder may be read to its end.
    """
    ids = [one for one in _tensors_of(call) if one.dim() == 2 and not one.is_floating_point()]
    found = [(one, *fitting) for one in ids for target, ignored in said if (fitting := _fits(one, target, ignored))]
    if not found:
        return None
    tokens, table, counts = found[0]
    outputs = _Outputs(call)
    width = tokens.shape[1]
    if width < SHORTEST or not outputs.are_independent or outputs.times_read(table, counts) > 1:
        return None
    for part in PARTS:
        place = int(width * part)

        def replaced(tensor: torch.Tensor, place: int = place) -> torch.Tensor:
            if tensor.shape != tokens.shape or not torch.equal(tensor, tokens):
                return tensor
            return torch.cat([tensor[:, :place], tensor[:, :1].expand(-1, width - place)], 1)

        change = outputs.change_by(replaced, lambda one: one.shape[:2] in (tokens.shape, table.shape) and one.dim() > 2)
        before = counts[:, : min(place, table.shape[1])]
        if change is not None and bool(before.any()) and bool(change[:, place:].any()):
            changed = change.flatten(2).amax(2)[:, : before.shape[1]][before]
            return {"targets": len(changed), "changed": int((changed > 0).sum()), "most": float(changed.max())}
    return None


class _Outputs:
    """What a model gives in evaluation mode; only in a copy of the process, of which nothing is kept."""

    def __init__(self, call: Call):
        module = call.module.module if isinstance(call.module, PARALLEL) else call.module
        self._module, self._call = module.eval(), call
        with contextlib.suppress(AttributeError):
            torch.compiler.set_stance("force_eager")
        self._sizes: dict[int, int] = {}  # of what goes into each inner module, by id
        self._read: list[torch.Tensor] = []  # by embeddings
        for inner in module.modules():
            inner.register_forward_pre_hook(self._note)
        self._made = self._give(lambda one: one)
        self._again = self._give(lambda one: one)

    def _note(self, module: torch.nn.Module, inputs: object) -> None:
        given = [tensor for tensor in tensors_in(inputs) if tensor.dim()]
        self._sizes[id(module)] = len(given[0]) if given else 0
        if isinstance(module, torch.nn.Embedding):
            self._read += given

    @property
    def are_independent(self) -> bool:
        """Nothing in the model is meant to look at all rows, and it gives the same twice.

        A norm without statistics of its own takes the batch's; what chooses among tokens has room for so many.
        """
        modules = list(self._module.modules())
        batch_norms = [one for one in modules if isinstance(one, torch.nn.modules.batchnorm._BatchNorm)]
        if any(one.running_mean is None for one in batch_norms) or any(gives_shares(m, self._sizes) for m in modules):
            return False
        if any(chooses_among(one) for one in self._made) or len(self._made) != len(self._again):
            return False
        return all(torch.equal(one, other) for one, other in zip(self._made, self._again, strict=True))

    def times_read(self, table: torch.Tensor, counts: torch.Tensor) -> int:
        """How many embeddings read the tokens before these targets."""
        read = self._read[: len(self._read) // 2]  # it was called twice
        return sum(_is_before(one, table, counts) for one in read if one.dim() == 2)

    def change_by(
        self, replace: Callable[[torch.Tensor], torch.Tensor], wanted: Callable[[torch.Tensor], bool]
    ) -> torch.Tensor | None:
        """By how much the first output of a kind changes with its inputs, where that is more than rounding; else 0.

        In parts of the largest output. None where there is none, or it takes another shape.
        """
        after = self._give(replace)
        for one, other in zip(self._again, after, strict=False):
            if one.dim() and wanted(one):
                if one.shape != other.shape:
                    return None
                before = one.detach().float()
                apart = (before - other.detach().float()).abs() / (float(before.abs().max()) or 1.0)
                return apart * (apart > (CLOSE if one.dtype in (torch.float32, torch.float64) else COARSE))
        return None

    def _give(self, replace: Callable[[torch.Tensor], torch.Tensor]) -> list[torch.Tensor]:
        torch.manual_seed(0)
        random.seed(0)
        args, kwargs = _mapped((self._call.args, dict(self._call.kwargs)), replace)
        with torch.enable_grad():  # always: without gradients some of torch's modules take another way
            return [one for one in tensors_in(self._module(*args, **kwargs)) if one.is_floating_point()]


def _tensors_of(call: Call) -> list[torch.Tensor]:
    """What goes into a model, but for numbers; nothing where something is no tensor, or lies on a GPU."""
    found: list[torch.Tensor] = []
    plain = True

    def note(tensor: torch.Tensor) -> torch.Tensor:
        found.append(tensor)
        return tensor

    try:
        _mapped((call.args, dict(call.kwargs)), note)
    except TypeError:
        plain = False
    usable = plain and all(one.device.type == "cpu" and one.layout == torch.strided for one in found)
    return [one for one in found if one.dim()] if usable else []


def _mapped(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The same with its tensors changed.

    Raises:
        TypeError: there is something in it that may hold tensors where nobody looks.
    """
    if isinstance(value, torch.Tensor):
        return change(value.detach())
    if isinstance(value, Mapping):
        return {key: _mapped(inner, change) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_mapped(inner, change) for inner in value)
    if value is None or isinstance(value, bool | int | float | str | torch.dtype | torch.device):
        return value
    raise TypeError(f"a {type(value).__name__}")


def _fits(tokens: torch.Tensor, target: torch.Tensor, ignored: int) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Targets as a table beside their tokens, and which of them count, where each is the token after its own."""
    rows, width = tokens.shape
    if not rows or target.numel() % rows or (target.dim() > 1 and len(target) != rows):
        return None
    table = target.reshape(rows, -1)
    counts = table != ignored
    if table.shape[1] not in (width, width - 1) or not _is_before(tokens, table, counts):
        return None
    return table, counts


def _is_before(tokens: torch.Tensor, table: torch.Tensor, counts: torch.Tensor) -> bool:
    if len(tokens) != len(table):
        return False
    width = min(tokens.shape[1] - 1, table.shape[1])
    same = (tokens[:, 1 : width + 1] == table[:, :width])[counts[:, :width]]
    return len(same) >= COMPARED and float(same.float().mean()) > ALL
