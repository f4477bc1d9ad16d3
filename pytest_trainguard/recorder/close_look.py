"""Inside a run: what a silent error shows in, written down pass by pass and step by step.

It is on only in runs that ask for it, for it copies weights and looks at every row. It draws no random number, touches
no graph, and changes no tensor, so that a run's results are the same to the bit with and without it. What it writes is
judged elsewhere (`casework.silent`), by what stands in the recording alone.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from pytest_trainguard.recorder.doors import Observer
from pytest_trainguard.recorder.states import digest
from pytest_trainguard.recorder.surroundings import find_caller
from pytest_trainguard.recorder.tensors import bytes_of, tensors_in

MOST_ROWS = 512  # of a batch, that are told apart
WALKED = 64  # nodes of a loss's graph that are looked at
WRAPPERS = ("_orig_mod.", "module.")  # torch.compile's and DataParallel's, before the names of parameters
# What only changes the form of its argument: the argument's own maker is looked for behind it.
FORMS = frozenset({
    "View", "ReshapeAlias", "UnsafeView", "Squeeze", "Unsqueeze", "Select", "Slice", "Transpose", "T", "Permute",
    "Alias", "ToCopy", "Clone", "Expand", "Index", "IndexSelect",
})  # fmt: skip
COMPUTED = torch.nn.utils.parametrize.ParametrizationList  # a weight that is computed as it is read: no model's pass
MODAL = (torch.nn.modules.dropout._DropoutNd, torch.nn.modules.batchnorm._NormBase)


@dataclass
class _Known:
    """One parameter or buffer that is followed: its number, and what it was when it was last looked at."""

    tensor: torch.Tensor
    number: int
    before: torch.Tensor


@dataclass
class _Pass:
    """A forward pass of the outermost module: which of its modules ran in which mode, and that they ran at all."""

    names: dict[int, str] = field(default_factory=dict)
    modes: dict[str, bool] = field(default_factory=dict)
    grads: bool = False
    place: str = ""
    draws: str = ""  # torch's random state as it began


class CloseLook(Observer):
    """Follows one training program. Its events are named `look ...`."""

    inner = True

    def __init__(self, write: Callable[..., None]):
        """`write`: appends one event to the recording."""
        self._write = write
        self._known: dict[int, _Known] = {}  # by id
        self._names: dict[int, str] = {}  # of parameters, by number
        self._optimizers: dict[int, tuple[int, torch.optim.Optimizer]] = {}  # by id
        self._schedulers: dict[int, tuple[int, Any]] = {}
        self._pass = _Pass()
        self._ran: set[str] = set()  # modules whose forward pass had gradients, since the step before
        self._steps = self._backwards = 0
        # The gradients that a step was taken with, by the parameter's id, and how many backward passes there were.
        self._used: dict[int, tuple[torch.Tensor, int]] = {}
        # Gradients that another optimizer's step left where they were, by the parameter's id, with the line of the
        # backward pass that they are of; and those of them to which a backward pass of another line then added.
        self._passed_over: dict[int, tuple[torch.Tensor, str]] = {}
        self._added_to: dict[int, str] = {}
        self._backward_place = ""
        self._clips: list[dict[str, Any]] = []
        self._scaler: torch.amp.GradScaler | None = None
        self._outputs: list[torch.Tensor] = []  # of outermost passes since the step before, that have a graph
        self._at_step: dict[int, torch.Tensor] = {}

    def write(self, kind: str, **values: object) -> None:
        """Append one event, with the number of optimizer steps that are done."""
        self._write(f"look {kind}", step=self._steps, **values)

    @property
    def steps(self) -> int:
        """Optimizer steps that are done."""
        return self._steps

    def parameters(self) -> Iterator[tuple[int, str, torch.Tensor]]:
        """What is followed: number, name (empty for what is in no module), and the tensor itself."""
        for known in self._known.values():
            yield known.number, self._names[known.number], known.tensor

    # --- the model

    def forward(self, module: torch.nn.Module, *, outermost: bool) -> None:
        if torch.compiler.is_compiling() or (outermost and isinstance(module, COMPUTED)):
            return
        if outermost:
            names = {id(inner): name for name, inner in module.named_modules()}
            self._pass = _Pass(names, {}, torch.is_grad_enabled(), find_caller(), _random_state())
            self._follow(module)
        name = self._pass.names.get(id(module), "")
        if torch.is_grad_enabled():
            self._ran.add(name)
        if isinstance(module, MODAL) and _depends_on_mode(module):
            self._pass.modes[name] = module.training

    def forwarded(
        self, module: torch.nn.Module, inputs: tuple[object, ...], output: object, *, outermost: bool
    ) -> None:
        if not outermost or torch.compiler.is_compiling() or next(module.parameters(), None) is None:
            return
        if isinstance(module, COMPUTED):
            return
        rows = rows_of(inputs, _pad_of(module))
        made = [tensor for tensor in tensors_in(output) if tensor.is_floating_point() and tensor.dim()]
        if self._pass.grads:
            self._outputs += [tensor for tensor in made if tensor.grad_fn is not None]
        self.write(
            "pass",
            module=type(module).__name__,
            number=self._number_of_root(module),
            training=module.training,
            gradients=self._pass.grads,
            modes=self._pass.modes,
            rows=rows,
            constant=_is_constant(made, rows),
            began=self._pass.draws,
            draws=self._pass.draws != _random_state(),
            place=self._pass.place,
        )

    def _number_of_root(self, module: torch.nn.Module) -> int:
        first = next(module.parameters())
        known = self._known.get(id(first))
        return known.number if known else -1

    def _follow(self, module: torch.nn.Module) -> None:
        """Begin to follow what of a module is not followed yet."""
        for path, inner in module.named_modules():
            own = list(inner._parameters.items())
            frozen = bool(own) and not any(p is not None and p.requires_grad for _, p in own)
            for name, tensor in own:
                self._add(_join(path, name), tensor, "parameter", inner)
            for name, tensor in inner._buffers.items() if frozen else []:
                self._add(_join(path, name), tensor, "buffer", inner)

    def _add(self, name: str, tensor: torch.Tensor | None, kind: str, owner: torch.nn.Module | None) -> None:
        if tensor is None or (id(tensor) in self._known and self._names[self._known[id(tensor)].number]):
            return
        if torch.nn.parameter.is_lazy(tensor) or tensor.is_sparse:
            return
        known = self._known.get(id(tensor))
        if known is None:
            known = _Known(tensor, len(self._known), tensor.detach().clone())
            self._known[id(tensor)] = known
        self._names[known.number] = name
        self.write(
            "tensor",
            sort=kind,
            number=known.number,
            name=name,
            shape=list(tensor.shape),
            trains=tensor.requires_grad,
            floats=tensor.is_floating_point(),
            owner=type(owner).__name__ if owner else "",
            simple=owner is not None and not owner._modules,
            zero=not bool(tensor.detach().any()),
            start=digest(tensor),
        )

    # --- the loss

    def scored(self, function: str, arguments: Mapping[str, Any]) -> None:
        scores, target = arguments.get("input"), arguments.get("target")
        if not isinstance(scores, torch.Tensor) or not isinstance(target, torch.Tensor):
            return
        with torch.no_grad():
            told = {
                "function": function,
                "input": list(scores.shape),
                "target": list(target.shape),
                "learns": scores.requires_grad,
                "sums_to_one": _sums_to_one(scores),
                **_maker_of(scores),
            }
        self.write("loss", place=find_caller(), **told)

    def backward(self, losses: list[torch.Tensor]) -> None:
        self._backwards += 1
        self._drop_zeroed()
        self._backward_place = find_caller()
        for key, (gradient, place) in self._passed_over.items():
            kept = self._known[key].tensor.grad is gradient and bool(gradient.any())
            if kept and place != self._backward_place:
                self._added_to[key] = place
        for loss in losses:
            broadcast = self._find_broadcast(loss)
            if broadcast:
                self.write("broadcast", place=find_caller(), **broadcast)

    def _find_broadcast(self, loss: torch.Tensor) -> dict[str, object] | None:
        """An output of shape [n, 1] that met a target [n], or the other way round: the loss is of n x n differences."""
        narrow = {o.grad_fn: o for o in self._outputs if len(o) > 1 and o.dim() < 3 and o.numel() == len(o)}
        for node, above in _nodes_of(loss.grad_fn) if narrow else ():
            # Torch's own losses expand each of their arguments by itself.
            met = above.next_functions if above is not None and operation(node) == "Expand" else node.next_functions
            if sum(behind is not None for behind, _ in met) > 1:
                continue  # of two that are both learnt, as each row's score against that of every other one
            for behind, _ in node.next_functions:
                output, shape = narrow.get(behind), shape_of(node)
                if output is not None and shape == [len(output)] * 2:
                    return {"output": list(output.shape), "made": shape}
        return None

    # --- the step

    def scaling(self, scaler: torch.amp.GradScaler) -> None:
        self._scaler = scaler

    def clipped(self, parameters: list[torch.Tensor], limit: float, kind: float) -> None:
        self._clips.append({"parameters": parameters, "limit": limit, "kind": kind, "place": find_caller()})
        self.write("clip", place=find_caller(), limit=limit, parameters=len(parameters))

    def stepping(self, optimizer: torch.optim.Optimizer) -> None:
        for parameter in _parameters_of(optimizer):
            self._add("", parameter, "parameter", None)
        self._at_step = {id(p): p.detach().clone() for p in _parameters_of(optimizer)}

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        number = self._number(self._optimizers, optimizer)
        parameters = [p for p in _parameters_of(optimizer) if id(p) in self._known]
        self._drop_zeroed()
        stale, norms, by_step = [], {}, []
        for parameter in parameters:
            mine = self._known[id(parameter)].number
            gradient, used = parameter.grad, self._used.get(id(parameter))
            if id(parameter) in self._at_step and not torch.equal(self._at_step[id(parameter)], parameter.detach()):
                by_step.append(mine)
            if gradient is None or gradient.is_sparse:
                continue
            norms[mine] = float(gradient.detach().float().norm())
            if used is not None and used[1] < self._backwards and norms[mine] > 0:
                stale.append(mine)
            self._used[id(parameter)] = (gradient, self._backwards)
        added = {
            self._known[key].number: place for key, place in self._added_to.items() if key in set(map(id, parameters))
        }
        self._pass_over(parameters)
        clips = [self._look_at(clip) for clip in self._clips if _shares(clip["parameters"], parameters)]
        self._steps += 1
        self.write(
            "step",
            optimizer=number,
            holds=[self._known[id(p)].number for p in parameters],
            lr=[float(group.get("lr", 0.0)) for group in optimizer.param_groups],
            norms=norms,
            reached=self._reached(),
            stale=stale,
            added_to=added,
            backward=self._backward_place,
            moved=self._moved(),
            by_step=by_step,
            frozen=[self._known[id(p)].number for p in parameters if not p.requires_grad],
            ran=sorted(self._ran),
            clips=clips,
            place=find_caller(),
        )
        self._outputs, self._at_step, self._ran = [], {}, set()
        self._clips = [clip for clip in self._clips if not _shares(clip["parameters"], parameters)]

    def _pass_over(self, stepped: list[torch.Tensor]) -> None:
        """Note the gradients that are there as an optimizer steps, and are none of its own."""
        mine = set(map(id, stepped))
        self._added_to = {key: place for key, place in self._added_to.items() if key not in mine}
        self._passed_over = {
            key: (known.tensor.grad, self._backward_place)
            for key, known in self._known.items()
            if key not in mine and known.tensor.is_leaf and known.tensor.grad is not None
            if not known.tensor.grad.is_sparse and key not in self._added_to
        }

    def _drop_zeroed(self) -> None:
        """Forget gradients of a step before that were set to zero, or replaced, since."""
        for key, (gradient, _) in list(self._used.items()):
            if self._known[key].tensor.grad is not gradient or not bool(gradient.any()):
                del self._used[key]

    def _reached(self) -> list[int]:
        """The parameters that a gradient other than zero has reached, whoever steps them."""
        found = []
        for known in self._known.values():
            gradient = known.tensor.grad if known.tensor.is_leaf else None
            if gradient is not None and (gradient.is_sparse or bool(gradient.any())):
                found.append(known.number)
        return found

    def _moved(self) -> list[int]:
        """What differs from how it was after the step before."""
        found = []
        for known in self._known.values():
            now = known.tensor.detach()
            if now.shape != known.before.shape or not torch.equal(now, known.before):
                found.append(known.number)
                known.before = now.clone()
        return found

    def _look_at(self, clip: Mapping[str, Any]) -> dict[str, object]:
        """A clipping of this window: the norm of the same gradients as they are stepped with."""
        gradients = [p.grad for p in clip["parameters"] if p.grad is not None and not p.grad.is_sparse]
        norm = float(torch.nn.utils.get_total_norm(gradients, clip["kind"])) if gradients else 0.0
        scale = self._scaler.get_scale() if self._scaler is not None and self._scaler.is_enabled() else 1.0
        return {"place": clip["place"], "limit": clip["limit"], "norm": norm, "scale": scale}

    # --- schedules and loaders

    def planned(self, scheduler: Any) -> None:
        self._tell_schedule("planned", scheduler)

    def scheduled(self, scheduler: Any, *, inner: bool) -> None:
        self._tell_schedule("scheduled", scheduler, inner=inner)

    def _tell_schedule(self, kind: str, scheduler: Any, **values: object) -> None:
        self.write(
            kind,
            scheduler=self._number(self._schedulers, scheduler),
            name=type(scheduler).__name__,
            optimizer=self._number(self._optimizers, _innermost(scheduler.optimizer)),
            place=find_caller(),
            lr=[float(group["lr"]) for group in scheduler.optimizer.param_groups],
            **values,
        )

    def opened(self, loader: torch.utils.data.DataLoader[Any]) -> None:
        length = None
        with contextlib.suppress(TypeError, NotImplementedError):  # of a data set that is a stream
            length = len(loader.dataset)
        # Beside a batch sampler of the team's own a loader has a sampler that nobody asks.
        batches = loader.batch_sampler
        sampler = batches if batches is not None else loader.sampler
        if type(batches) is torch.utils.data.BatchSampler:
            sampler = batches.sampler
        weighs = isinstance(sampler, torch.utils.data.WeightedRandomSampler)
        weights = len(sampler.weights) if weighs else None
        self.write("loader", sampler=type(sampler).__name__, rows=length, weights=weights, place=find_caller())

    def _number(self, numbers: dict[int, tuple[int, Any]], one: object) -> int:
        """The number of an optimizer or a scheduler, which is held so that its id stays its own."""
        return numbers.setdefault(id(one), (len(numbers), one))[0]


def _join(path: str, name: str) -> str:
    whole = f"{path}.{name}" if path else name
    for wrapper in WRAPPERS:
        whole = whole.removeprefix(wrapper)
    return whole


def _parameters_of(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]


def _shares(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    """They have a tensor in common, or there is none among the first."""
    return not some or bool(set(map(id, some)) & set(map(id, others)))


def _innermost(optimizer: Any) -> Any:
    """The optimizer inside those that Accelerate and others put around it."""
    while isinstance(getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = optimizer.optimizer
    return optimizer


def _depends_on_mode(module: Any) -> bool:
    return module.p > 0 if hasattr(module, "p") else bool(module.track_running_stats)


def _pad_of(module: torch.nn.Module) -> int | None:
    """The token id that is padding to an embedding of the model."""
    pads = (each.padding_idx for each in module.modules() if isinstance(each, torch.nn.Embedding))
    return next((pad for pad in pads if pad is not None), None)


def rows_of(inputs: tuple[object, ...], pad: int | None = None) -> list[str]:
    """A digest of each row of what goes in first; empty where that cannot be told.

    Of token ids the padding is left out: what a mask beside them hides, else the id that is known to be padding, else
    what is repeated at either end.
    """
    first, *others = [tensor for tensor in tensors_in(list(inputs)) if tensor.dim()] or [None]
    if first is None or first.is_sparse or len(first) > MOST_ROWS:
        return []
    with contextlib.suppress(Exception):  # a fake tensor, which has no values
        values = first.detach().cpu()
        masks = [mask for other in others if (mask := _as_mask(other, values)) is not None]
        # A mask that hides nothing may stand beside one that does, such as the segments of a text.
        mask = min(masks, key=lambda one: int(one.sum()), default=None)
        if mask is None and pad is not None:
            mask = _as_mask(values != pad, values)
        told = [_without_padding(row) for row in values] if mask is None else [
            bytes_of(row[kept]) for row, kept in zip(values, mask, strict=True)
        ]  # fmt: skip
        return [hashlib.blake2b(row, digest_size=6).hexdigest() for row in told]
    return []


def _as_mask(other: torch.Tensor, ids: torch.Tensor) -> torch.Tensor | None:
    """What tells of each token id whether it counts; None of any other tensor.

    Of ones and zeros alone, the zeros at one end of each row, and all of them at the same id.
    """
    if ids.is_floating_point() or ids.dim() != 2 or other.shape != ids.shape:
        return None
    given = other.detach().cpu()
    mask = given != 0
    if not bool(((given == 0) | (given == 1)).all()) or not bool(mask.any(1).all()):
        return None
    before, after = mask.int().cummin(1).values.bool(), mask.flip(1).int().cummin(1).values.flip(1).bool()
    at_one_end = torch.equal(before, mask) or torch.equal(after, mask)
    return mask if at_one_end and len(ids[~mask].unique()) <= 1 else None


def _without_padding(row: torch.Tensor) -> bytes:
    """A row's values; of token ids without what is repeated at either end, for a row is padded like its neighbours."""
    if row.dim() != 1 or len(row) < 2 or row.is_floating_point():
        return bytes_of(row)
    values = row.tolist()
    if len(set(values)) == 1:
        return bytes_of(row[:2])
    first, last = 0, len(values) - 1
    while values[last] == values[last - 1]:
        last -= 1
    while values[first] == values[first + 1]:
        first += 1
    return bytes_of(row[first : last + 1])


def _random_state() -> str:
    """A digest of where torch's random numbers have come to."""
    return digest(torch.get_rng_state())


def _is_constant(made: list[torch.Tensor], rows: list[str]) -> bool | None:
    """Whether every row got the same output, though rows differ; None where that cannot be told."""
    first = next((tensor for tensor in made if len(tensor) == len(rows)), None)
    if first is None or len(set(rows)) < 2:
        return None
    values = first.detach()
    return bool((values == values[:1]).all())


def _sums_to_one(scores: torch.Tensor) -> bool:
    """Along its classes each row of scores is a distribution: nowhere below 0, and 1 in sum."""
    if scores.dim() < 2 or scores.shape[1] < 2 or not scores.numel():
        return False
    return bool((scores >= 0).all()) and bool(((scores.float().sum(1) - 1).abs() < 1e-3).all())


def _nodes_of(root: Any) -> Iterator[tuple[Any, Any]]:
    """The first nodes of a graph, from the loss on, each once, with the one that it was reached from."""
    waiting: list[tuple[Any, Any]] = [(root, None)]
    seen: set[Any] = set()
    while waiting and len(seen) < WALKED:
        node, above = waiting.pop(0)
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node, above
        waiting += [(behind, node) for behind, _ in node.next_functions]


def shape_of(node: Any) -> list[int]:
    """The shape of what a node of a graph made; empty where torch does not say."""
    with contextlib.suppress(AttributeError, IndexError, RuntimeError):
        return list(node._input_metadata[0].shape)
    return []


def _maker_of(scores: torch.Tensor) -> dict[str, object]:
    """The operation that scores come from, and of a softmax the dimension that it goes along, and its size."""
    node: Any = scores.grad_fn
    while node is not None and operation(node) in FORMS and node.next_functions:
        node = node.next_functions[0][0]
    told: dict[str, object] = {"maker": operation(node) if node is not None else ""}
    if told["maker"] in ("Softmax", "LogSoftmax"):
        shape = shape_of(node)
        dim = int(node._saved_dim)
        dim = dim - 2**64 if dim >= 2**63 else dim  # torch shows a negative one without its sign
        told |= {"dim": dim % len(shape) if shape else dim, "size": shape[dim] if shape else 0, "of": shape}
    return told


def operation(node: Any) -> str:
    """`Softmax` of `SoftmaxBackward0`."""
    return str(node.name()).partition("Backward")[0]
