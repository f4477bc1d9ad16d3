"""Which kernel `scaled_dot_product_attention` takes on a GPU, by CUDA's own rules: fakes would all take the slow one.

Source: `aten/src/ATen/native/transformers/cuda/sdp_utils.cpp` of torch. The flash and cuDNN kernels keep a
logarithm for each row, the mathematical one whole matrices of (length, length): nothing else decides as much about a
transformer's memory. The choice stands in the dispatcher, since autograd's threads know no other place.
"""

from __future__ import annotations

import torch

from pytest_trainguard.memory.traced import fakecuda
from pytest_trainguard.memory.traced.fakecuda import FakeTensor

aten = torch.ops.aten
_HALF = (torch.float16, torch.bfloat16)


class KernelChooser:
    """Chooses for one card, and counts.

    Attributes:
        chosen: how often each kernel was taken.
    """

    def __init__(self, capability: tuple[int, int]):
        self.capability = capability
        self.chosen: dict[str, int] = {}

    def install(self, more: tuple[str, ...] = ()) -> None:
        """Put the choice in the dispatcher, for CUDA tensors and `more` keys, for the rest of this process's life."""
        self._library = torch.library.Library("aten", "IMPL")
        for key in ("AutogradCUDA", "CUDA", *more):
            fakecuda.override_operator(self._library, "scaled_dot_product_attention", self.attend, key)

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0, is_causal: bool = False, *, scale: float | None = None, enable_gqa: bool = False,
    ) -> torch.Tensor:  # fmt: skip
        """As `torch.nn.functional.scaled_dot_product_attention`, by the kernel that this card would take."""
        keeps = torch.is_grad_enabled() and any(part.requires_grad for part in (query, key, value))
        name = self.choose(query, key, value, attn_mask, keeps, enable_gqa, dropout_p)
        self.chosen[name] = self.chosen.get(name, 0) + 1
        run = {"flash": _flash, "efficient": _efficient, "cudnn": _cudnn, "math": _math}[name]
        return run(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa, keeps)

    def choose(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, keeps: bool,
        gqa: bool = False, dropout: float = 0.0,
    ) -> str:  # fmt: skip
        """The first kernel in this card's order whose conditions hold, `math` where none does."""
        order = ["flash", "efficient"]
        if self.capability in ((9, 0), (10, 0)):  # where cuDNN's is faster
            order.insert(0, "cudnn")
        if query.dim() != 4 or 0 in query.shape or 0 in key.shape or not isinstance(query, FakeTensor):
            return "math"
        tests = {"flash": self._flash_can, "efficient": self._efficient_can, "cudnn": self._cudnn_can}
        enabled = {
            "flash": torch.backends.cuda.flash_sdp_enabled(),
            "efficient": torch.backends.cuda.mem_efficient_sdp_enabled(),
            "cudnn": torch.backends.cuda.cudnn_sdp_enabled(),
        }
        for name in order:
            if enabled[name] and tests[name](query, key, value, mask, keeps, gqa, dropout):
                return name
        return "math"

    def _flash_can(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, keeps: bool,
        gqa: bool, dropout: float,
    ) -> bool:  # fmt: skip
        width = query.shape[-1]
        deep = keeps and width > 192 and dropout > 0 and self.capability in ((8, 6), (8, 9))
        return (
            self.capability >= (8, 0)
            and query.dtype in _HALF
            and mask is None
            and width <= 256
            and width == key.shape[-1] == value.shape[-1]
            and not deep
            and (gqa or query.shape[1] == key.shape[1])
        )

    def _efficient_can(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, keeps: bool,
        gqa: bool, dropout: float,
    ) -> bool:  # fmt: skip
        if query.dtype is torch.bfloat16 and self.capability < (8, 0):
            return False
        half = query.dtype in _HALF
        tensor_cores = self.capability >= (8, 0) or (self.capability >= (7, 0) and half)
        aligned = (8 if half else 4) if tensor_cores else 1
        return (
            query.dtype in (*_HALF, torch.float32)
            and query.shape[1] == key.shape[1] == value.shape[1]
            and query.shape[-1] == key.shape[-1]
            and query.shape[-1] % aligned == 0
            and value.shape[-1] % aligned == 0
        )

    def _cudnn_can(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, keeps: bool,
        gqa: bool, dropout: float,
    ) -> bool:  # fmt: skip
        width = max(query.shape[-1], value.shape[-1])
        return (
            query.dtype in _HALF
            and width <= (256 if self.capability[0] >= 9 and not keeps else 128)
            and query.shape[-1] % 8 == 0
            and value.shape[-1] % 8 == 0
            and query.shape[-2] > 1
            and key.shape[-2] > 1
            and not (mask is not None and mask.requires_grad)
        )


def _flash(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, dropout: float, causal: bool,
    scale: float | None, gqa: bool, keeps: bool,
) -> torch.Tensor:  # fmt: skip
    width = q.shape[-1]
    scale = width**-0.5 if scale is None else scale
    if missing := -width % 8:
        q, k, v = (torch.nn.functional.pad(part, (0, missing)) for part in (q, k, v))
    out = aten._scaled_dot_product_flash_attention(q, k, v, dropout, causal, False, scale=scale)[0]
    return out[..., :width] if missing else out


def _efficient(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, dropout: float, causal: bool,
    scale: float | None, gqa: bool, keeps: bool,
) -> torch.Tensor:  # fmt: skip
    bias = None if mask is None else _bias(mask, q, k)
    return aten._scaled_dot_product_efficient_attention(q, k, v, bias, keeps, dropout, causal, scale=scale)[0]


def _cudnn(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, dropout: float, causal: bool,
    scale: float | None, gqa: bool, keeps: bool,
) -> torch.Tensor:  # fmt: skip
    bias = None if mask is None else _additive(mask, q)
    return aten._scaled_dot_product_cudnn_attention(q, k, v, bias, keeps, dropout, causal, False, scale=scale)[0]


def _math(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, dropout: float, causal: bool,
    scale: float | None, gqa: bool, keeps: bool,
) -> torch.Tensor:  # fmt: skip
    return aten._scaled_dot_product_attention_math(q, k, v, mask, dropout, causal, scale=scale, enable_gqa=gqa)[0]


def _additive(mask: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """What is added to the scores: of a boolean mask, minus infinity where it is false."""
    if mask.dtype is not torch.bool:
        return mask
    zero = torch.zeros((), dtype=q.dtype, device=q.device)
    return torch.where(mask, zero, torch.full((), float("-inf"), dtype=q.dtype, device=q.device))


def _bias(mask: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """The mask as the memory-efficient kernel wants it: additive, rows aligned, one for each head."""
    bias = _additive(mask, q)
    aligned = 16
    if missing := -bias.shape[-1] % aligned:
        bias = torch.nn.functional.pad(bias, (0, missing))[..., : mask.shape[-1]]
    return bias.expand(q.shape[0], q.shape[1], q.shape[2], k.shape[2])
