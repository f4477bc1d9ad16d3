"""Fake CUDA on a torch without CUDA: everything here that depends on torch's inside, each piece with its reason.

`install` makes torch believe in one CUDA device: tensors on it are `FakeTensor`s, with shapes and storages but no
memory; what Python code asks of the device is answered in `cuda_answers`. `selftest` tells whether that works on this
build of torch, in a process of its own, because a wrong guess about C++ objects ends a process. Installed once, for
the rest of the process's life.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import inspect
import re
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch._ops import OpOverload as Operation
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    UnsupportedOperatorException,
    in_kernel_invocation_manager,
)
from torch.autograd.graph import Node
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from _ctypes import CFuncPtr

__all__ = [
    "Arguments", "DataDependentOutputException", "DynamicOutputShapeException", "FakeMode", "FakeTensor", "Keywords",
    "Node", "Operation", "TorchDispatchMode", "UnsupportedOperatorException", "copy_to_memory",
    "count_autograd_references", "count_references", "describe_untried", "find_autograd_node", "in_backward_pass",
    "install", "install_on_cpu", "is_parameter", "keep_alive", "make_fake", "override_operator",
]  # fmt: skip

OLDEST, NEWEST = (2, 6), (2, 15)  # the versions of torch that `make torch-versions` tries
_LIBRARIES = Path(torch.__file__).parent / "lib"
_CUDA, _META = 1, 14  # their numbers among c10's device types
_kept_alive: list[object] = []  # what C++ now points to
_aten = torch.ops.aten
Arguments = tuple[Any, ...]  # what an operation is called with: tensors, numbers, lists of them, and so on
Keywords = dict[str, Any]
# Half of what a chat model does. Sums and products are answered in Python: `FakeTensorMode`'s cache is faster.
_DIRECT = frozenset({
    _aten.view.default, _aten._unsafe_view.default, _aten.t.default, _aten.transpose.int, _aten.permute.default,
    _aten.unsqueeze.default, _aten.squeeze.dim, _aten.expand.default, _aten.select.int, _aten.slice.Tensor,
    _aten.detach.default, _aten.mm.default, _aten.bmm.default,
})  # fmt: skip


class FakeMode(FakeTensorMode):  # type: ignore[misc]
    """Makes fake tensors; never initialises a device, whatever `torch.cuda.is_available` was made to say."""

    avoid_device_init = True

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)

    def dispatch(self, func: Operation, types: object, args: Arguments = (), kwargs: Keywords | None = None) -> object:
        """One operation. A real tensor to be copied is made fake first: torch 2.6 would copy it to a real device."""
        if func is torch.ops.aten._to_copy.default and not isinstance(args[0], FakeTensor):
            args = (self.fake_tensor_converter.from_real_tensor(self, args[0]),)
        return super().dispatch(func, types, args, kwargs)

    def run_directly(self, func: Operation, args: Arguments, kwargs: Keywords) -> FakeTensor | None:
        """What an operation gives, from torch's kernel for shapes alone: where there is nothing more to find out.

        As `dispatch` would in the end, without its questions, which take many times as long; None where it has to ask.
        """
        if func not in _DIRECT or kwargs:
            return None
        device = None
        for value in args:
            if isinstance(value, FakeTensor):
                if value.constant is not None or device not in (None, value.fake_device):
                    return None
                device = value.fake_device
            elif isinstance(value, torch.Tensor):
                return None
        if device is None:
            return None
        with in_kernel_invocation_manager(self):
            result = func(*args)
        return FakeTensor(self, result, device)


def make_fake(
    mode: FakeMode, shape: torch.Size, strides: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> FakeTensor:
    """A new fake tensor."""
    return FakeTensor(mode, torch.empty_strided(shape, strides, dtype=dtype, device="meta"), device)


def describe_untried(version: str) -> str | None:
    """What to say of a version of torch that fake CUDA was not tried with; None of one between those that were."""
    major, minor = (int(part) for part in version.split(".")[:2])
    if OLDEST <= (major, minor) <= NEWEST:
        return None
    oldest, newest = (".".join(map(str, tried)) for tried in (OLDEST, NEWEST))
    how = "older" if (major, minor) < OLDEST else "newer"
    return f"torch {version} is {how} than what fake CUDA was tried with, torch {oldest} to {newest}"


def install() -> None:
    """Make torch believe in one CUDA device.

    Raises:
        RuntimeError: this build of torch does not let itself be told.
    """
    _register_device_guard()
    _answer_hooks()
    _never_initialise()
    _leave_recurrent_layers_to_torch()
    _tell_shapes()
    install_on_cpu()


def install_on_cpu() -> None:
    """What fake tensors on the CPU need."""
    _keep_modules_movable()
    _support_fast_optimizers()
    _read_without_memory()


# ---- what C++ asks


def _register_device_guard() -> None:
    """Let torch put its own fake guard in place of CUDA's, as it does where CUDA is built in but no device is there.

    It does so only if some guard is registered that counts no devices. On a build without CUDA there is none: tensors
    "not linked with support for cuda devices", and one path of attention aborts the process. So one is registered
    whose every virtual function returns 0; torch asks it once and replaces it.
    """
    registry = (ctypes.c_void_p * (_META + 1)).in_dll(
        ctypes.CDLL(str(_LIBRARIES / "libc10.so")), "_ZN3c104impl26device_guard_impl_registryE"
    )
    if not hasattr(torch._C, "_ensureCUDADeviceGuardSet"):  # torch 2.6
        _adapt_guard_of_meta(registry)
    elif registry[_CUDA] is None:
        zero = ctypes.CFUNCTYPE(ctypes.c_int8, ctypes.c_void_p)(lambda this: 0)
        address = ctypes.cast(zero, ctypes.c_void_p).value
        virtual = (ctypes.c_void_p * 64)(*[address] * 64)
        guard = (ctypes.c_void_p * 8)(ctypes.addressof(virtual))
        _kept_alive.extend([zero, virtual, guard])
        registry[_CUDA] = ctypes.addressof(guard)
        torch._C._ensureCUDADeviceGuardSet()
        if registry[_CUDA] == ctypes.addressof(guard):
            registry[_CUDA] = None
            raise RuntimeError("torch did not put its fake device guard in place")
    else:
        torch._C._ensureCUDADeviceGuardSet()


def _adapt_guard_of_meta(registry: ctypes.Array[ctypes.c_void_p]) -> None:
    """In torch 2.6 there is no fake guard for CUDA: the meta device's, which does nothing either, is adapted.

    Its type and its current device become CUDA's, so that autograd has a thread for it and `.to("cuda")` goes there;
    its default stream is the one that it has.
    """
    entries = _virtual_functions("c10/core/impl/DeviceGuardImplInterface.h", "DeviceGuardImplInterface")
    # A device is two bytes, its type and its index: here 1 and 0.
    device_type = ctypes.CFUNCTYPE(ctypes.c_int8, ctypes.c_void_p)(lambda this: _CUDA)
    current = ctypes.CFUNCTYPE(ctypes.c_int16, ctypes.c_void_p)(lambda this: _CUDA)
    exchanged = ctypes.CFUNCTYPE(ctypes.c_int16, ctypes.c_void_p, ctypes.c_int16)(lambda this, other: _CUDA)
    meta = registry[_META]
    assert meta is not None
    guard = ctypes.c_void_p(ctypes.c_void_p.from_address(meta).value)
    answers = {"type": device_type, "getDevice": current, "exchangeDevice": exchanged}
    _replace(guard, {**{entries[name]: answer for name, answer in answers.items()},
                     entries["getDefaultStream"]: entries["getStream"]})  # fmt: skip
    _kept_alive.append(guard)
    registry[_CUDA] = ctypes.addressof(guard)


def _answer_hooks() -> None:
    """The backward pass asks CUDA's hooks two things, which a build without CUDA answers by raising.

    `isBuilt` becomes true and `hasPrimaryContext` false: there is CUDA, and no context that would need care.
    torch 2.6 has no `isBuilt`, and asks nothing where it finds no device.
    """
    entries = _virtual_functions("ATen/detail/AcceleratorHooksInterface.h", "AcceleratorHooksInterface")
    get_hooks = ctypes.CDLL(str(_LIBRARIES / "libtorch_cpu.so"))._ZN2at6detail12getCUDAHooksEv
    get_hooks.restype = ctypes.c_void_p
    yes = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p)(lambda this: True)
    no = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_int8)(lambda this, index: False)
    answers: dict[int, CFuncPtr | int] = {entries["hasPrimaryContext"]: no}
    if "isBuilt" in entries:
        answers[entries["isBuilt"]] = yes
    _replace(ctypes.c_void_p.from_address(get_hooks()), answers)


def _virtual_functions(header: str, name: str) -> dict[str, int]:
    """The places of a class's virtual functions in its table, by name: in the order of torch's own header.

    Raises:
        RuntimeError: this build has no such header, or declares no such class in it.
    """
    path = _LIBRARIES.parent / "include" / header
    if not path.exists():
        raise RuntimeError(f"this build of torch comes without its header {header}")
    text = re.sub(r"//[^\n]*|/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
    body = re.search(rf"struct\s+(?:\w+\s+)?{name}\s*\{{(.*?)^\}};", text, flags=re.DOTALL | re.MULTILINE)
    if body is None:
        raise RuntimeError(f"torch's header {header} has no {name}")
    places: dict[str, int] = {}
    count = 0
    for declared in re.findall(r"\bvirtual\b[^(]*?(~?\w+)\s*\(", body[1]):
        places[declared] = count
        count += 2 if declared.startswith("~") else 1  # a destructor has two
    return places


def _replace(table: ctypes.c_void_p, answers: dict[int, CFuncPtr | int]) -> None:
    """Point `table`, an object's pointer to its virtual functions, to a copy with some of them exchanged.

    Args:
        table: is written to.
        answers: by their places, functions of ctypes, or the places of others that stand in for them.
    """
    assert table.value is not None
    before, entries = 2, 48  # two words stand before a table: the offset to the top, the type's information
    old = (ctypes.c_void_p * (before + entries)).from_address(table.value - before * 8)
    new = (ctypes.c_void_p * (before + entries))(*old)
    for place, answer in answers.items():
        there = old[before + answer] if isinstance(answer, int) else ctypes.cast(answer, ctypes.c_void_p).value
        new[before + place] = there
    _kept_alive.extend([*answers.values(), new])
    table.value = ctypes.addressof(new) + before * 8


def _never_initialise() -> None:
    """Making a tensor on CUDA initialises it first, from C++, by this name; `torch.tensor` has to copy to it late."""
    torch.cuda._lazy_init = lambda: None
    torch.cuda._lazy_call = lambda call, **options: None  # seeds and generator states wait for an initialisation
    fake_tensor.init_gpu_context = lambda *device: None  # torch 2.5 names none
    torch._C._set_only_lift_cpu_tensors(True)
    # Asked for while they are imported, by libraries with kernels of their own: Triton, bitsandbytes, diffusers.
    for name in ("_cuda_getCurrentRawStream", "_cuda_getDevice"):
        if not hasattr(torch._C, name):
            setattr(torch._C, name, lambda *device: 0)


def _leave_recurrent_layers_to_torch() -> None:
    """A build with CUDA gives recurrent layers to cuDNN, whose weights want the device's driver: cell by cell instead.

    As a build without does; convolutions, which torch asks about otherwise, keep the layout that cuDNN gives them.
    """
    torch.backends.cudnn.is_acceptable = lambda tensor: False
    library = torch.library.Library("aten", "IMPL")
    _kept_alive.append(library)
    for key in ("AutogradCUDA", "CUDA"):
        override_operator(library, "cudnn_is_acceptable", lambda tensor: False, key)
        for overload in ("IntList", "Tensor"):
            override_operator(library, f"ctc_loss.{overload}", _lose_by_ctc, key)


def _lose_by_ctc(
    scores: torch.Tensor, targets: torch.Tensor, lengths: object, target_lengths: object, blank: int = 0,
    reduction: int = 1, zero_infinity: bool = False,
) -> torch.Tensor:  # fmt: skip
    """As torch does it (LossCTC.cpp); itself it would divide what is on the device by lengths on the CPU."""
    losses = _aten._ctc_loss(scores, targets, lengths, target_lengths, blank, zero_infinity)[0]
    if zero_infinity:
        losses = torch.where(losses == float("inf"), torch.zeros((), device=losses.device), losses)
    if reduction == 1:  # the mean over rows, each by its own length
        divisors = torch.as_tensor(target_lengths).clamp_min(1).to(losses.device, losses.dtype)
        return (losses / divisors).mean()
    return losses.sum() if reduction == 2 else losses


def _tell_shapes() -> None:
    """An operation without a function for shapes alone would be run on the device: it is not supported instead.

    Then the verdict names it. torch 2.6 lacks those of the two operations by which transformer layers are evaluated.
    """
    FakeMode.can_run_unsafe_fallback = lambda mode, func: False
    library = torch.library.Library("aten", "IMPL")
    _kept_alive.append(library)
    for name, function in (
        ("_transformer_encoder_layer_fwd", _shape_of_layer), ("_native_multi_head_attention", _shapes_of_attention),
        ("_thnn_fused_gru_cell", _shapes_of_gru_cell), ("_thnn_fused_gru_cell_backward", _shapes_of_gru_gradients),
    ):  # fmt: skip
        if not torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", "Meta"):
            override_operator(library, name, function, "Meta")


def _shape_of_layer(rows: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
    if rows.is_nested:
        raise NotImplementedError
    return torch.empty_like(rows)


def _shapes_of_gru_cell(
    from_input: torch.Tensor, from_state: torch.Tensor, state: torch.Tensor, input_bias: object = None,
    state_bias: object = None,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """The next state, and five numbers for each of its own that the backward pass needs."""
    return torch.empty_like(state), state.new_empty(state.shape[0], 5 * state.shape[1])


def _shapes_of_gru_gradients(grad: torch.Tensor, kept: torch.Tensor, has_bias: bool) -> tuple[torch.Tensor | None, ...]:
    rows, width = grad.shape
    biases = [grad.new_empty(3 * width) if has_bias else None for _ in range(2)]
    gates = (grad.new_empty(rows, 3 * width) for _ in range(2))
    return (*gates, torch.empty_like(grad), *biases)


def _shapes_of_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, width: int, heads: int, qkv_weight: torch.Tensor,
    qkv_bias: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, mask: object = None, need_weights: bool = True,
    average: bool = True, mask_type: object = None,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    if query.is_nested:
        raise NotImplementedError
    count, length = query.shape[:2]
    shape = (0,) if not need_weights else (count, *([] if average else [heads]), length, length)
    return query.new_empty(count, length, weight.shape[0]), query.new_empty(shape)


# ---- what Python code takes a fake tensor for

Move = Callable[[torch.Tensor], torch.Tensor]  # to a device or a dtype


def _keep_modules_movable() -> None:
    """`Module.to` swaps a fake parameter's inside, which torch refuses where there is a weak reference to it.

    Parameters keep their identity where they can be swapped, so that an optimizer made before `.to` still holds them;
    otherwise they are replaced, tied ones by the same new parameter.
    """
    original = torch.nn.Module._apply
    local = threading.local()

    @functools.wraps(original)
    def apply(module: torch.nn.Module, fn: Move, recurse: bool = True) -> torch.nn.Module:
        outermost = not hasattr(local, "moved")
        if outermost:
            local.moved = {}
        try:
            if recurse:
                for child in module.children():
                    child._apply(fn)
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    module._parameters[name] = _moved(parameter, fn, local.moved)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = fn(buffer)
            return module
        finally:
            if outermost:
                del local.moved

    torch.nn.Module._apply = apply


def _moved(
    parameter: torch.nn.Parameter, fn: Move, moved: dict[int, tuple[torch.nn.Parameter, torch.nn.Parameter]]
) -> torch.nn.Parameter:
    if id(parameter) in moved:
        return moved[id(parameter)][1]
    with torch.no_grad():
        applied = fn(parameter)
        grad = None if parameter.grad is None else fn(parameter.grad)
    result = parameter
    if applied is not parameter:
        if not (isinstance(applied, FakeTensor) or isinstance(parameter, FakeTensor)):
            parameter.data = applied
        else:
            result = torch.nn.Parameter(applied, requires_grad=parameter.requires_grad)
            del applied
            parameter.grad = None
            if _swapped(parameter, result):
                result = parameter
        if grad is not None:
            result.grad = grad
    moved[id(parameter)] = moved[id(result)] = (parameter, result)
    return result


def _swapped(parameter: torch.nn.Parameter, moved: torch.nn.Parameter) -> bool:
    """Whether a parameter could be given the inside of another one, and keeps its identity.

    As `torch.utils.swap_tensors`, which refuses where there are weak references: here the tables of fake tensors
    hold some, and look things up by them that stay right.
    """
    try:
        parameter.__class__, moved.__class__ = moved.__class__, parameter.__class__
    except TypeError:
        return False
    parameter.__dict__, moved.__dict__ = moved.__dict__, parameter.__dict__
    try:
        torch._C._swap_tensor_impl(parameter, moved)
    except RuntimeError:  # something in C++ holds one of them, such as a graph
        parameter.__class__, moved.__class__ = moved.__class__, parameter.__class__
        parameter.__dict__, moved.__dict__ = moved.__dict__, parameter.__dict__
        return False
    return True


def _support_fast_optimizers() -> None:
    """Optimizers and gradient clipping take their `foreach` and fused ways for types that they know only."""
    from torch.optim.optimizer import _foreach_supported_types as of_optimizers
    from torch.utils._foreach_utils import _foreach_supported_types as of_clipping

    for known in (of_optimizers, of_clipping):
        if FakeTensor not in known:
            known.append(FakeTensor)


def _read_without_memory() -> None:
    """`tolist`, `numpy` and pickling look for a tensor's memory; copying it to the CPU gives one that has some.

    What a checkpoint holds of a fake tensor is one zero, expanded: the right shape, and no bytes to write.
    """

    def pickled(tensor: FakeTensor, protocol: int) -> object:
        whole = torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
        return whole.__reduce_ex__(protocol)

    def copied(tensor: FakeTensor, memo: dict[int, object]) -> object:
        if id(tensor) not in memo:
            clone = tensor.detach().clone().requires_grad_(tensor.requires_grad)
            memo[id(tensor)] = torch.nn.Parameter(clone, tensor.requires_grad) if is_parameter(tensor) else clone
        return memo[id(tensor)]

    def address(tensor: FakeTensor) -> int:
        storage = tensor.untyped_storage()
        return int(storage._cdata + tensor.storage_offset() * tensor.element_size()) if storage.nbytes() else 0

    real_address = torch.UntypedStorage.data_ptr

    def storage_address(storage: torch.UntypedStorage) -> int:
        with contextlib.suppress(RuntimeError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # against looking for a fake storage's memory
            if found := real_address(storage):
                return int(found)
        return int(storage._cdata) if storage.nbytes() else 0

    FakeTensor.data_ptr = address  # compared, to find tensors that share memory
    torch.UntypedStorage.data_ptr = storage_address
    FakeTensor.tolist = lambda tensor: copy_to_memory(tensor).tolist()
    FakeTensor.numpy = lambda tensor, *, force=False: copy_to_memory(tensor, force=force).numpy()
    FakeTensor.__format__ = lambda tensor, spec: format(tensor.item() if tensor.dim() == 0 else repr(tensor), spec)
    FakeTensor.__reduce_ex__ = pickled
    FakeTensor.__deepcopy__ = copied


def copy_to_memory(tensor: torch.Tensor, *, force: bool = True) -> torch.Tensor:
    """The tensor in real memory of the CPU.

    Raises:
        TypeError: it is on the device, and `force` is not set, as torch has it.
    """
    if tensor.device.type != "cpu" and not force:
        raise TypeError(
            f"can't convert {tensor.device} device type tensor to numpy. Use Tensor.cpu() to copy the tensor to "
            "host memory first."
        )
    copied = tensor.detach().to("cpu", copy=True)
    if isinstance(copied, FakeTensor):  # larger than what is copied as a rule
        return torch.zeros((), dtype=copied.dtype).expand(copied.shape).clone()
    return copied


def is_parameter(tensor: torch.Tensor) -> bool:
    """Whether a tensor, fake or not, is a module's parameter."""
    return isinstance(tensor, torch.nn.Parameter)


def count_references(tensor: torch.Tensor) -> tuple[int, int]:
    """How many references C++ counts to a tensor, and to its storage."""
    return tensor._use_count(), torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)


def count_autograd_references() -> tuple[int, int] | None:
    """The `references`, seen from inside a dispatch mode, to a gradient that autograd alone holds.

    The numbers depend on how torch passes arguments, so they are measured: two gradients meet at one tensor, and the
    first of them is added to the second. None where they do not.
    """
    seen: list[tuple[int, int]] = []

    class Look(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(
            self, func: Operation, types: object, args: Arguments = (), kwargs: Keywords | None = None
        ) -> object:
            if func is torch.ops.aten.add.Tensor and in_backward_pass():
                first, _ = args
                seen.append(count_references(first))
            return func(*args, **(kwargs or {}))

    with torch.enable_grad(), Look():
        met = torch.zeros(4, requires_grad=True) * 2
        (met.relu() + met.sigmoid()).backward(torch.zeros(4))
    return seen[0] if seen else None


def in_backward_pass() -> bool:
    """Whether this thread is at work for autograd."""
    return bool(torch._C._current_graph_task_id() != -1)


def find_autograd_node() -> Node | None:
    """The node of autograd's graph that is computed now, in a backward pass; else None."""
    return torch._C._current_autograd_node()


def keep_alive(held: object) -> None:
    """Hold something for the rest of the process's life."""
    _kept_alive.append(held)


def override_operator(library: torch.library.Library, name: str, function: Callable[..., object], key: str) -> None:
    """Have the dispatcher call `function` for an operation of torch's own."""
    # torch 2.6 lets everything be overridden, and does not know the option.
    options = {"allow_override": True} if "allow_override" in inspect.signature(library.impl).parameters else {}
    library.impl(name, function, key, **options)
