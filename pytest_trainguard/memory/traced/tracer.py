"""Notes the birth and death of every storage on a device while a program runs, without changing the program."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator

import torch

from pytest_trainguard.memory.replay.allocator_settings import read_environment
from pytest_trainguard.memory.replay.trace import Event, How, Kind, Trace, Workspace
from pytest_trainguard.memory.traced import cuda_answers, cuda_kernels, fakecuda, places, values
from pytest_trainguard.memory.traced.fakecuda import (
    Arguments,
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeMode,
    FakeTensor,
    Keywords,
    Operation,
    TorchDispatchMode,
    UnsupportedOperatorException,
)
from pytest_trainguard.memory.traced.forms import Forms
from pytest_trainguard.memory.traced.labels import Labels
from pytest_trainguard.memory.traced.memory_limit import MemoryLimit
from pytest_trainguard.memory.traced.unknown import Unknown
from pytest_trainguard.memory.traced.values import aten
from pytest_trainguard.recorder.doors import Doors
from pytest_trainguard.recorder.tensors import tensors_in

_DEVICE_OF = torch.ops.prim.device.default
_MATRIX_PRODUCTS = frozenset({
    aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default, aten.mv.default, aten.addmv.default,
    aten.dot.default,
})  # fmt: skip
_FACTORIES = frozenset({
    aten.empty.memory_format, aten.zeros.default, aten.ones.default, aten.full.default, aten.rand.default,
    aten.randn.default, aten.empty_strided.default, aten.randn.generator, aten.rand.generator,
})  # fmt: skip
_RECURRENT = "recurrent layers are traced cell by cell: cuDNN, which runs them on a GPU, keeps other things"
_LESS_CERTAIN = {
    aten.convolution.default: "cuDNN chooses a workspace for each convolution, which is not in the trace",
    aten._thnn_fused_lstm_cell.default: _RECURRENT,
    aten._thnn_fused_gru_cell.default: _RECURRENT,
}
_CHOICES = {aten.topk.default: 2, aten.argmax.default: 1}  # and the place of their dimension among the arguments
_ADD = aten.add.Tensor
_INDEXING = frozenset({aten.index.Tensor, aten._unsafe_index.Tensor})
_OTHER_CTC_LOSSES = [
    getattr(getattr(aten, name), overload)
    for name in ("_use_cudnn_ctc_loss", "_use_miopen_ctc_loss")
    if hasattr(aten, name)
    for overload in getattr(aten, name).overloads()
]
_SCALER_CHECK = aten._amp_foreach_non_finite_check_and_unscale_.default
# Bytes of floats from which even a tensor on the CPU has no memory: a weight, before it is moved.
LARGE_TENSOR = 1 << 20
# Between two optimizer steps. A pass through Llama-3.2-3B and back takes 13,000 operations.
MOST_OPERATIONS = 1_000_000
MOST_READS = 2000  # of a made-up value at one line, each after another pass through the model


class Tracer(TorchDispatchMode):  # type: ignore[misc]
    """While active, runs what concerns the device with fake tensors and notes their storages.

    What stays on the CPU is computed for real, unless it is a `LARGE_TENSOR`: data, indices, metrics.

    Attributes:
        now, peak, most: bytes alive now, the most ever, the most since the program last reset that.
        references: see `fakecuda.count_autograd_references`.
        unknown: the first thing that could not be traced.
        memory_limit: memory that can run out; None for as much as is wanted.
    """

    def __init__(self, device: str = "cuda", mode: FakeMode | None = None):
        """Trace.

        Args:
            device: whose storages are noted: `cuda`; or `cpu`, where fake CUDA does not hold.
            mode: makes the fake tensors; None to run everything for real, on the CPU.
        """
        super().__init__()
        self._device, self._given_mode = device, mode
        self._given_forms = None if mode is None else Forms(mode)
        self._rows: list[tuple[Kind, int, int, int, str, str, str, int]] = []  # kind, block, size, stream, op, ...
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._sizes: dict[int, int] = {}
        self._categories: dict[int, str] = {}
        self._workspaces: dict[tuple[str, int], Workspace] = {}
        self.references: tuple[int, int] | None = None
        self._count = 0
        self._made_up = 0
        self._operations, self._counted_step = 0, 0
        self._reads: dict[str, tuple[int, int]] = {}  # by place: how many, and passes through the model until the last
        self.now = self.peak = self.most = 0
        self.unknown: str | None = None
        self.memory_limit: MemoryLimit | None = None
        self.notes: list[str] = []
        self.labels = Labels(self.mark)

    # ---- what is noted

    def mark(self, tensor: torch.Tensor, category: str) -> None:
        """Say what a tensor's storage is for; the first word holds, but for gradients that became something else."""
        block = getattr(tensor.untyped_storage(), "_block", None)
        if block is not None and self._categories.get(block) in (None, "input"):
            self._categories[block] = category

    def _note_birth(self, tensor: torch.Tensor, op: str, category: str | None = None) -> None:
        if tensor.device.type != self._device:
            return
        storage = tensor.untyped_storage()
        if getattr(storage, "_block", None) is not None:
            return
        size = storage.nbytes()
        self._count += 1
        block = storage._block = self._count
        if not size:
            return
        if category:
            self._categories[block] = category
        labels = self.labels
        stream = cuda_answers.current_stream().stream_id
        if self.memory_limit is not None:
            self.memory_limit.allocate(block, size, stream, labels.phase, labels.step)
        self._sizes[block] = size
        self.now += size
        self.peak, self.most = max(self.peak, self.now), max(self.most, self.now)
        self._rows.append(("alloc", block, size, stream, op, labels.module, labels.phase, labels.step))
        self._alive[block] = weakref.ref(storage, lambda _: self._note_death(block, stream))

    def _note_death(self, block: int, stream: int) -> None:
        if self._alive.pop(block, None) is None:
            return
        size = self._sizes[block]
        self.now -= size
        if self.memory_limit is not None:
            self.memory_limit.release(block)
        self._rows.append(("free", block, size, stream, "", "", self.labels.phase, self.labels.step))

    def _note_scratch(self, sizes: list[int], op: str) -> None:
        """What a kernel takes beside its results, and gives back before anything else happens."""
        labels, stream = self.labels, cuda_answers.current_stream().stream_id
        taken = []
        for size in sizes:
            self._count += 1
            if self.memory_limit is not None:
                self.memory_limit.allocate(self._count, size, stream, labels.phase, labels.step)
            self._rows.append(("alloc", self._count, size, stream, op, labels.module, labels.phase, labels.step))
            taken.append((self._count, size))
        self.peak, self.most = (max(before, self.now + sum(sizes)) for before in (self.peak, self.most))
        for block, size in reversed(taken):
            if self.memory_limit is not None:
                self.memory_limit.release(block)
            self._rows.append(("free", block, size, stream, "", "", labels.phase, labels.step))

    def empty_cache(self) -> None:
        """The program gives back what the allocator has cached."""
        if self.memory_limit is not None:
            self.memory_limit.empty_cache()
        self._rows.append(("empty cache", 0, 0, 0, "", "", self.labels.phase, self.labels.step))

    def _note_workspace(self) -> None:
        thread = "autograd" if fakecuda.in_backward_pass() else "main"
        stream = cuda_answers.current_stream().stream_id
        if (thread, stream) not in self._workspaces:
            self._workspaces[thread, stream] = Workspace("cublas", thread, stream, len(self._rows))

    def trace(self, how: How) -> Trace:
        """What was noted up to now."""
        if self._made_up:
            self.notes.append(
                f"{self._made_up} integers or flags that depend on the model's output were read back and made up "
                "(predicted classes, counts of them): what the program decides by them may be otherwise"
            )
        born: dict[int, tuple[str, str, str]] = {}
        ends = {row[1]: row[6] for row in self._rows if row[0] == "free"}
        events = []
        for kind, block, size, stream, op, module, phase, step in self._rows:
            if kind == "alloc":
                category = self._categories.get(block) or _guess_category(phase, module, ends.get(block))
                born[block] = (category, op, module)
            category, op, module = born.get(block, ("temporary", "", ""))
            events.append(Event(kind, block, size, stream, category, op, module, phase, step))
        workspaces = list(self._workspaces.values())
        return Trace(events, list(self.notes), self.unknown, torch.__version__, how, workspaces, read_environment())

    # ---- how operations run

    @property
    def _fake_mode(self) -> FakeMode:
        assert self._given_mode is not None
        return self._given_mode

    @property
    def _forms(self) -> Forms:
        assert self._given_forms is not None
        return self._given_forms

    def __torch_dispatch__(
        self, func: Operation, types: object, args: Arguments = (), kwargs: Keywords | None = None
    ) -> object:
        if func is _DEVICE_OF:
            tensor = args[0]
            return tensor.fake_device if isinstance(tensor, FakeTensor) else tensor.device
        try:
            self._count_work()
            return self.run_operation(func, args, kwargs or {})
        except Unknown as error:
            self.unknown = self.unknown or str(error)
            raise
        except (DynamicOutputShapeException, DataDependentOutputException, UnsupportedOperatorException):
            self.unknown = self.unknown or self._describe_place(func)
            raise Unknown(self.unknown) from None

    def run_operation(self, func: Operation, args: Arguments, kwargs: Keywords) -> object:
        """One operation: for real where it stays on the CPU, otherwise with fake tensors."""
        if func is _ADD and self._adds_in_place(args):
            func = aten.add_.Tensor
        tensors = [*tensors_in(args), *tensors_in(kwargs)]
        fake = any(isinstance(tensor, FakeTensor) for tensor in tensors)
        if self._given_mode is None or not (fake or self._wants_fake(func, tensors, args, kwargs)):
            results = self._run_really(func, args, kwargs)
        else:
            handler = _HANDLERS.get(func)
            results = handler(self, func, args, kwargs) if handler else self.run_faked(func, args, kwargs)
        op = func._schema.name
        for tensor in tensors_in(results):
            self._note_birth(tensor, op, "input" if func is aten._to_copy.default and not fake else None)
        if fake and self._device == "cuda":
            self._note_scratch(cuda_kernels.find_scratch_sizes(func, args, kwargs), op)
        return results

    def _adds_in_place(self, args: Arguments) -> bool:
        """Whether autograd would add two gradients in place, as it does where it holds the first one alone.

        It does not while any dispatch mode is active, such as this one, and would show memory that is not taken. The
        counts of references tell: see `fakecuda.count_references`.
        """
        first, second = args
        if not fakecuda.in_backward_pass() or torch.is_grad_enabled():
            return False
        if not (isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor)):
            return False
        alone = self.references is not None and fakecuda.count_references(first) == self.references
        return alone and first.shape == second.shape and first.dtype == second.dtype and _is_dense(first)

    def _wants_fake(self, func: Operation, tensors: list[torch.Tensor], args: Arguments, kwargs: Keywords) -> bool:
        device = kwargs.get("device")
        if device is not None and torch.device(device).type == "cuda":
            return True
        if tensors or func not in _FACTORIES:
            return False
        dtype = kwargs.get("dtype") or torch.get_default_dtype()
        count = 1
        for size in args[0]:
            count *= size
        kept_real = device is not None and torch.device(device).type == "meta"
        return dtype.is_floating_point and count * dtype.itemsize >= LARGE_TENSOR and not kept_real

    def _run_really(self, func: Operation, args: Arguments, kwargs: Keywords) -> object:
        if kwargs.get("pin_memory"):
            kwargs = {**kwargs, "pin_memory": False}
        return func(*args, **kwargs)

    def run_faked(self, func: Operation, args: Arguments, kwargs: Keywords) -> object:
        """With fake tensors, and with their values where those are known."""
        if func in _MATRIX_PRODUCTS:
            self._note_workspace()
        elif func in _LESS_CERTAIN:
            self._note_once(_LESS_CERTAIN[func])
        try:
            results = self._forms.run(func, args, kwargs)
        except (DynamicOutputShapeException, DataDependentOutputException):
            return self._by_values(func, args, kwargs)
        known = None
        if any(map(values.is_worth_keeping, tensors_in(results))) or func._schema.is_mutable:
            known = values.compute_values(func, args, kwargs)
        if known is None:
            if func._schema.is_mutable:
                values.forget_written_values(func, args, kwargs)
            elif isinstance(results, FakeTensor) and not results.is_floating_point():
                known = values.assume_finite(func, args, results)
                known = values.infer_value(func, args, results) if known is None else known
        if known is not None:
            values.remember_values(results, known)
        elif func in _CHOICES:
            self._choose(func, args, results)
        return results

    def _choose(self, func: Operation, args: Arguments, results: object) -> None:
        """Which experts take a row, as routers choose them: balanced.

        `argmax` only inside of a module: outside it is more often a prediction that is counted.
        """
        dim = args[_CHOICES[func]] if len(args) > _CHOICES[func] else -1
        scores, chosen = args[0], next(one for one in tensors_in(results) if not one.is_floating_point())
        among = scores.shape[dim] if dim is not None and scores.dim() else 0
        if not 0 < among <= values.MOST_EXPERTS or (func is aten.argmax.default and not self.labels.inside):
            return
        self._note_once(values.ROUTING)
        values.remember_values(chosen, values.balance_choices(among, chosen.shape))

    def _note_once(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def _by_values(self, func: Operation, args: Arguments, kwargs: Keywords) -> object:
        """An operation whose result's shape, or which itself, is a matter of values."""
        known = values.compute_values(func, args, kwargs)
        if known is None:
            raise Unknown(self._describe_place(func))
        if not isinstance(known, torch.Tensor | tuple | list):
            return known
        device = next(tensors_in(args)).device
        with self._fake_mode:
            results = values.map_tensors(known, lambda value: torch.empty_like(value, device=device))
        values.remember_values(results, known)
        return results

    def _describe_place(self, func: Operation) -> str:
        """An operation that cannot be traced, and where."""
        module = self.labels.module
        return f"{func._schema.name}{f' in {module}' if module else ''} ({self.labels.phase})"

    def _count_work(self) -> None:
        """A trace has a bound on work: a loop may wait for what is made up here, and never come."""
        if self.labels.step != self._counted_step:
            self._counted_step, self._operations = self.labels.step, 0
            self._reads.clear()
        self._operations += 1
        if self._operations > MOST_OPERATIONS:
            often = (
                max(self._reads, key=lambda place: self._reads[place][0])
                if self._reads
                else places.find_current_place()
            )
            raise Unknown(f"{often}: {MOST_OPERATIONS:,} operations without an optimizer step, more than are traced")

    def _count_read(self) -> None:
        """Count the reads of a value that is made up, at one line, with a pass through the model before each."""
        place, passes = places.find_current_place(), self.labels.passes
        count, before = self._reads.get(place, (0, -1))
        if passes == before:
            return
        self._reads[place] = count + 1, passes
        if count >= MOST_READS:
            raise Unknown(
                f"{place}: a loop whose end depends on what the model computes, which is not known here "
                f"({MOST_READS:,} passes through the model without an optimizer step)"
            )

    # ---- operations that look at values

    def _read_number(self, func: Operation, args: Arguments, kwargs: Keywords) -> object:
        """`.item()`, and whatever else asks for a number."""
        return self._get_value(func, args[0]).item()

    def _get_value(self, func: Operation, tensor: torch.Tensor) -> torch.Tensor:
        known = values.find_value(tensor)
        if known is not None:
            return known
        self._count_read()
        if not tensor.is_floating_point():
            if self.labels.inside:
                raise Unknown(f"{self._describe_place(func)}, of a number that depends on the weights")
            self._made_up += 1
        return values.make_up_value(tensor)

    def _copy(self, func: Operation, args: Arguments, kwargs: Keywords) -> object:
        """`.to(device)`: to the CPU a small tensor gets real memory, so that whatever reads it there can."""
        tensor, device = args[0], kwargs.get("device")
        from_device = isinstance(tensor, FakeTensor) and tensor.device.type == "cuda"
        small = tensor.numel() * tensor.element_size() < LARGE_TENSOR or values.find_value(tensor) is not None
        if from_device and device is not None and torch.device(device).type == "cpu" and small:
            options = {**kwargs, "device": None, "pin_memory": None, "non_blocking": False}
            return aten._to_copy.default(self._get_value(func, tensor), **options)
        return self.run_faked(func, args, kwargs)

    def _copy_into(self, func: Operation, args: Arguments, kwargs: Keywords) -> object:
        """`copy_`, and indexed assignment: into real memory on the CPU, what the device's tensor holds."""
        if isinstance(args[0], FakeTensor):
            return self.run_faked(func, args, kwargs)
        return func(*self._make_real(func, args), **kwargs)

    def _make_real(self, func: Operation, args: Arguments) -> Arguments:
        return tuple(
            self._get_value(func, value)
            if isinstance(value, FakeTensor)
            else [self._get_value(func, inner) if isinstance(inner, FakeTensor) else inner for inner in value]
            if isinstance(value, list | tuple)
            else value
            for value in args
        )

    def _index(self, func: Operation, args: Arguments, kwargs: Keywords) -> object:
        """A mask among the indices becomes the places where it is true, as CUDA's kernel does it."""
        indices: list[torch.Tensor | None] = []
        for index in args[1]:
            if isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8):
                if values.find_value(index) is None:
                    raise Unknown(f"{self._describe_place(func)}, by a mask that depends on the weights")
                indices += self._put_on_device(index, args[0].device)
            else:
                indices.append(index)
        return self.run_faked(func, (args[0], indices), kwargs)

    def _put_on_device(self, mask: torch.Tensor, device: torch.device) -> list[torch.Tensor]:
        value = values.find_value(mask)
        assert value is not None
        true = value.nonzero()
        whole = fakecuda.make_fake(self._fake_mode, true.shape, true.stride(), true.dtype, device)
        self._note_birth(whole, "aten::nonzero")
        columns = []
        for column in range(true.shape[1]):
            fake = self._forms.run(aten.select.int, (whole, 1, column), {})
            values.remember_values(fake, true.select(1, column))
            columns.append(fake)
        return columns

    def _without_cudnn(self, func: Operation, args: Arguments, kwargs: Keywords) -> object:
        """The CTC loss that cuDNN has is for labels on the CPU and short rows; torch's own kernel takes all."""
        return False

    def _lose_by_ctc(self, func: Operation, args: Arguments, kwargs: Keywords) -> object:
        """A loss for each row, and for each step and row what each label and blank has come to (LossCTC.cu)."""
        scores, _, _, lengths = args[:4]
        given = lengths if isinstance(lengths, list | tuple) else self._get_value(func, lengths).tolist()
        rows = scores.shape[1] if scores.dim() == 3 else 1
        with self._fake_mode:
            return scores.new_empty(rows), scores.new_empty(rows, scores.shape[0], 2 * max(given, default=0) + 1)

    def _go_back_through_ctc(self, func: Operation, args: Arguments, kwargs: Keywords) -> object:
        """Its lengths may be on the CPU, which its shape function takes for a mistake."""
        with self._fake_mode:
            return torch.empty_like(args[1])

    def _pack_rows(self, func: Operation, args: Arguments, kwargs: Keywords) -> object:
        """Rows of several lengths, one after the other: how many are left at each step is counted on the CPU."""
        rows, lengths = args[0], self._get_value(func, args[1])
        data, sizes = func(torch.empty(*rows.shape[:2], 1), lengths, *args[2:], **kwargs)
        with self._fake_mode:
            packed = rows.new_empty((data.shape[0], *rows.shape[2:]))
        return packed, sizes

    def _multiply_groups(self, func: Operation, args: Arguments, kwargs: Keywords) -> object:
        """`grouped_mm`: its shape function knows bfloat16 alone, its kernel takes others one group after the other."""
        self._note_workspace()
        first = args[0]
        if first.dtype is torch.bfloat16:
            return self.run_faked(func, args, kwargs)
        with self._fake_mode:
            half = (one.to(torch.bfloat16) for one in args[:2])
            return func(*half, *args[2:], **kwargs).to(first.dtype)

    def _check_gradients(self, func: Operation, args: Arguments, kwargs: Keywords) -> object:
        """The gradient scaler's look for infinities: it finds none, so that the step is taken."""
        with self._fake_mode:
            results = func(*args, **kwargs)
        for tensor in args[0]:
            values.forget_value(tensor)
        return results


_HANDLERS: dict[Operation, Callable[[Tracer, Operation, Arguments, Keywords], object]] = {
    **dict.fromkeys(_OTHER_CTC_LOSSES, Tracer._without_cudnn),
    aten._ctc_loss.default: Tracer._lose_by_ctc,
    aten._ctc_loss.Tensor: Tracer._lose_by_ctc,
    aten._ctc_loss_backward.default: Tracer._go_back_through_ctc,
    aten._ctc_loss_backward.Tensor: Tracer._go_back_through_ctc,
    aten._pack_padded_sequence.default: Tracer._pack_rows,
    **({aten._grouped_mm.default: Tracer._multiply_groups} if hasattr(aten, "_grouped_mm") else {}),
    aten._local_scalar_dense.default: Tracer._read_number,
    aten._to_copy.default: Tracer._copy,
    aten.copy_.default: Tracer._copy_into,
    aten.index_put_.default: Tracer._copy_into,
    aten._index_put_impl_.default: Tracer._copy_into,
    _SCALER_CHECK: Tracer._check_gradients,
    **dict.fromkeys(_INDEXING, Tracer._index),
}


def _guess_category(phase: str, module: str, end: str | None) -> str:
    """What a storage was for that nobody claimed: kept from a forward pass into another phase, or not."""
    if phase == "forward" and end != "forward":
        return "activation"
    return "temporary"


def _is_dense(tensor: torch.Tensor) -> bool:
    """Without gaps and overlaps, so that something can be added to it in place."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


@contextlib.contextmanager
def activate_tracer(tracer: Tracer) -> Iterator[Tracer]:
    """Trace what happens inside; the labels stand at the doors meanwhile."""
    # Not before: autograd counts the devices at its first backward pass.
    tracer.references = fakecuda.count_autograd_references()
    doors = Doors(None, [tracer.labels])
    doors.install()
    try:
        with tracer:
            yield tracer
    finally:
        doors.fall_silent()
