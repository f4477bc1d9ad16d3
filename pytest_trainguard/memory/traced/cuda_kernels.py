"""What CUDA's kernels do about memory, and a torch without CUDA does not show.

Two things. Of a few operations there is a kernel for CUDA, and a composite of others for devices without one; where
CUDA is not built in, the dispatcher takes the composite, and what that keeps in between. And many kernels take scratch
memory of their own, which the shape functions of fake tensors know nothing of. Source of all sizes:
`aten/src/ATen/native/cuda` of torch (pytorch/pytorch), in the files that each function names.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import Any

import torch

from pytest_trainguard.memory.traced import fakecuda
from pytest_trainguard.memory.traced.fakecuda import Arguments, Operation

aten = torch.ops.aten
FLOAT, LONG = 4, 8  # bytes of a number

# Operations with a kernel for CUDA beside a composite for all devices: `CompositeImplicitAutograd` and CUDA (or a
# structured kernel) under the same name in torch's native_functions.yaml, compared with the dispatch tables of a build
# without CUDA. torch 2.6 has no `_fused_rms_norm`. `find_unlisted` says when torch has others.
COMPOSITES = ("silu_backward", "mish_backward", "_fused_rms_norm")


def take_kernels_of_cuda() -> None:
    """Have the dispatcher take one operation for each of `COMPOSITES`, as a build with CUDA does.

    A kernel under CUDA's key is enough: the dispatcher then prefers it to the composite, in forward and in backward. It
    is never run, since fake tensors are answered before: with the operation's shapes, or from those of its parts.
    """
    library = torch.library.Library("aten", "IMPL")
    fakecuda.keep_alive(library)
    for name in COMPOSITES:
        if not hasattr(aten, name) or torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", "CUDA"):
            continue
        fakecuda.override_operator(library, name, _never_run, "CUDA")


def _never_run(*args: object, **kwargs: object) -> object:
    raise NotImplementedError("a kernel for CUDA, on a machine without one")


def find_unlisted(declared: str | None = None) -> list[str]:
    """Operations that `COMPOSITES` should hold, and does not: this torch has them, and was not looked at.

    Args:
        declared: torch's own list of its operations; by default the one that torch comes with.
    """
    text = _read_declarations() if declared is None else declared
    return sorted(set(_find_composites(text)) - set(COMPOSITES))


def _read_declarations() -> str:
    spec = importlib.util.find_spec("torchgen")
    places = spec.submodule_search_locations if spec else None
    path = Path(places[0], "packaged/ATen/native/native_functions.yaml") if places else None
    return path.read_text() if path is not None and path.exists() else ""


def _find_composites(declared: str) -> Iterator[str]:
    """Names of operations that are declared with a composite and a kernel for CUDA."""
    for entry in re.split(r"^- func: ", declared, flags=re.MULTILINE)[1:]:
        name = re.match(r"[\w.]+", entry)
        dispatched = re.search(r"^  dispatch:\n((?: {4}.*\n?)+)", entry, flags=re.MULTILINE)
        keys = set(re.findall(r"\w+", " ".join(re.findall(r"^ {4}([\w, ]+):", dispatched[1], re.MULTILINE)))
                   if dispatched else ())  # fmt: skip
        structured = re.search(r"^  structured_delegate:", entry, flags=re.MULTILINE)
        if name and "CompositeImplicitAutograd" in keys and ("CUDA" in keys or structured):
            yield name[0]


# ---- scratch memory

Scratch = Callable[[Arguments, dict[str, Any]], Iterator[int]]  # bytes of each piece, in the order in which they come


def find_scratch_sizes(func: Operation, args: Arguments, kwargs: dict[str, Any]) -> list[int]:
    """Bytes of what CUDA's kernel for an operation takes and gives back before the operation is over."""
    known = _SCRATCH.get(func)
    return [size for size in known(args, kwargs) if size] if known else []


def _bytes(tensor: torch.Tensor) -> int:
    return int(tensor.numel() * tensor.element_size())


def _copy_of(tensor: torch.Tensor) -> int:
    """Bytes of the contiguous copy that a kernel makes of a tensor that is not."""
    return 0 if tensor.is_contiguous() else _bytes(tensor)


def _softmax(args: Arguments, kwargs: dict[str, Any]) -> Iterator[int]:
    """SoftMax.cu, `host_softmax`."""
    yield _copy_of(args[0])


def _log_softmax_backward(args: Arguments, kwargs: dict[str, Any]) -> Iterator[int]:
    """SoftMax.cu, `host_softmax_backward`."""
    yield _copy_of(args[0])
    yield _copy_of(args[1])


def _softmax_backward(args: Arguments, kwargs: dict[str, Any]) -> Iterator[int]:
    """SoftMax.cu, `softmax_backward_cuda_out`: the gradient times the output, before the kernel begins."""
    grad, output = args[0], args[1]
    yield output.numel() * torch.result_type(grad, output).itemsize
    yield _copy_of(output)


def _layer_norm(args: Arguments, kwargs: dict[str, Any]) -> Iterator[int]:
    """layer_norm_kernel.cu."""
    yield _copy_of(args[0])


def _layer_norm_backward(args: Arguments, kwargs: dict[str, Any]) -> Iterator[int]:
    """layer_norm_kernel.cu."""
    yield _copy_of(args[0])
    yield _copy_of(args[1])


_SMALL_EMBEDDING = 3072  # indices up to which one kernel adds rows without sorting them
_ROWS_PER_PART = 10


def _embedding_backward(args: Arguments, kwargs: dict[str, Any]) -> Iterator[int]:
    """Embedding.cu, `embedding_dense_backward_cuda`, and EmbeddingBackwardKernel.cu: sorted, added up in parts."""
    grad, indices, rows, by_frequency = args[0], args[1], args[2], args[4] if len(args) > 4 else False
    yield _copy_of(grad)
    count = indices.numel()
    if count <= _SMALL_EMBEDDING and not by_frequency:
        return
    yield from _sum_rows_in_parts(count, rows, grad.shape[-1], grad, indices.element_size())


def _sum_rows_in_parts(count: int, rows: int, width: int, grad: torch.Tensor, index: int) -> Iterator[int]:
    """EmbeddingBackwardKernel.cu, `embedding_backward_cuda_kernel`: ten rows to a part, the last of each row fewer."""
    segments = min(count, rows)
    parts = count // _ROWS_PER_PART + segments
    yield from (count * index,) * 3  # sorted indices, where they were, and where each row's begin
    yield from (segments * index,) * 2
    yield parts * index
    yield parts * width * max(grad.element_size(), FLOAT)


def _embedding_bag_backward(args: Arguments, kwargs: dict[str, Any]) -> Iterator[int]:
    """EmbeddingBag.cu, `embedding_bag_backward_cuda_sum_avg`: as of an embedding, for all sizes; a maximum has none."""
    grad, indices, rows, mode = args[0], args[1], args[5], args[7]
    yield _copy_of(grad)
    if mode != 2:
        yield from _sum_rows_in_parts(indices.numel(), rows, grad.shape[-1], grad, indices.element_size())


def _group_norm_backward(args: Arguments, kwargs: dict[str, Any]) -> Iterator[int]:
    """group_norm_kernel.cu, `GroupNormBackwardKernelImplInternal`: sums and factors for each channel and group."""
    rows, channels, groups = args[5], args[6], args[8]
    number = max(args[1].element_size(), FLOAT)
    yield _copy_of(args[0])
    yield from (rows * channels * number,) * (3 if args[4] is not None else 2)
    yield from (rows * groups * number,) * 2


def _add_at_indices(args: Arguments, kwargs: dict[str, Any]) -> Iterator[int]:
    """Indexing.cu, `index_put_with_sort_kernel`: where rows are added up, their places are sorted first."""
    accumulate = args[3] if len(args) > 3 else kwargs.get("accumulate", False)
    places = [index for index in args[1] if index is not None]
    if not accumulate or not places or args[0].device.type != "cuda":
        return
    count = prod(torch.broadcast_shapes(*(index.shape for index in places)))
    yield from (count * LONG,) * 3  # linear, sorted, and where they were
    yield from (count * LONG,) * 2  # radix sort, between its passes


def _norms(args: Arguments, kwargs: dict[str, Any]) -> Iterator[int]:
    """ForeachReduceOp.cu, `foreach_tensor_norm_cuda`: a number for each chunk of 65,536, for all as for the largest."""
    tensors = args[0]
    if tensors:
        yield len(tensors) * -(-max(tensor.numel() for tensor in tensors) // 65_536) * FLOAT


def _flash_backward(args: Arguments, kwargs: dict[str, Any]) -> Iterator[int]:
    """flash_attn/flash_api.cpp, `mha_bwd`: the query's gradient in single precision; keys for each of its heads."""
    grad, query, key = args[0], args[1], args[2]
    batch, heads, length, width = query.shape
    rounded = -(-length // 128) * 128
    yield batch * heads * rounded * FLOAT
    yield batch * heads * rounded * (-(-width // 32) * 32) * FLOAT
    if key.shape[1] != heads:
        yield from (batch * heads * key.shape[2] * width * query.element_size(),) * 2
    yield _copy_of(grad.transpose(1, 2))


def _efficient_backward(args: Arguments, kwargs: dict[str, Any]) -> Iterator[int]:
    """mem_eff_attention/kernel_backward.h, `workspace_size`: half precision is added up in single, block by block.

    The keys' gradients only where they are too wide for registers.
    """
    grad, query, key = args[0], args[1], args[2]
    batch, heads, length, width = query.shape
    yield batch * heads * length * FLOAT
    yield _copy_of(grad.transpose(1, 2))
    if query.element_size() == 2:
        block = 128 if width <= 128 else 64
        wide = -(-width // block) * block
        rows = -(-length // block) * block
        if width > 128:
            rows += 2 * -(-key.shape[2] // block) * block
        yield batch * heads * rows * wide * FLOAT


def _cudnn_backward(args: Arguments, kwargs: dict[str, Any]) -> Iterator[int]:
    """What cuDNN takes, cudnn/MHA.cpp, is not public: the query's gradient in single precision, as of the others."""
    query = args[1]
    batch, heads, length, width = query.shape
    yield batch * heads * length * FLOAT
    yield batch * heads * length * width * FLOAT


_SCRATCH: dict[Operation, Scratch] = {
    aten._softmax.default: _softmax,
    aten._log_softmax.default: _softmax,
    aten._softmax_backward_data.default: _softmax_backward,
    aten._log_softmax_backward_data.default: _log_softmax_backward,
    aten.native_layer_norm.default: _layer_norm,
    aten.native_layer_norm_backward.default: _layer_norm_backward,
    aten.embedding_dense_backward.default: _embedding_backward,
    aten._embedding_bag_dense_backward.default: _embedding_bag_backward,
    aten.native_group_norm_backward.default: _group_norm_backward,
    aten.index_put_.default: _add_at_indices,
    aten._index_put_impl_.default: _add_at_indices,
    aten.index_put.default: _add_at_indices,
    aten._foreach_norm.Scalar: _norms,
    aten._scaled_dot_product_flash_attention_backward.default: _flash_backward,
    aten._scaled_dot_product_efficient_attention_backward.default: _efficient_backward,
    aten._scaled_dot_product_cudnn_attention_backward.default: _cudnn_backward,
}
COVERED = (*COMPOSITES, *sorted(func._schema.name.removeprefix("aten::") for func in _SCRATCH))
