"""Jobs whose GPU memory others measured and published, written anew: one trainer, its setting says which.

What was measured, where and by whom is in `published.csv`; here is what a program has to do to take the same memory.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from pytest_trainguard import Run, Trainer

BF16 = torch.bfloat16


@dataclass
class Settings:
    """Which job of `JOBS`."""

    job: str = ""


class Job(Trainer):
    """Runs one of `JOBS`."""

    config = Settings

    def train(self, run: Run) -> None:
        """Train for `run.max_steps` optimizer steps, or rounds of a benchmark that has none."""
        JOBS[run.config.job](run.max_steps)


# ---- layers and losses, forward and backward, as Liger-Kernel's benchmark measures torch's own


def _rounds(steps: int, once: Callable[[], None]) -> None:
    """Rounds of a benchmark; after each the step of an optimizer of one number, for steps are what is counted."""
    number = nn.Parameter(torch.zeros(1))
    number.grad = torch.zeros(1)
    optimizer = torch.optim.SGD([number], lr=0.1)
    for _ in range(steps):
        once()
        optimizer.step()


def _through(layer: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, steps: int, *, same: bool = False) -> None:
    """Forward, and backward from random gradients (`same`: drawn once); the graph is kept, as there."""
    gradient = torch.randn_like(x) if same else None

    def once() -> None:
        y = layer(x)
        y.backward(torch.randn_like(y) if gradient is None else gradient, retain_graph=True)

    _rounds(steps, once)


def _cross_entropy(steps: int, vocabulary: int, rows: int = 16_384) -> None:
    scores = torch.randn(rows, vocabulary, requires_grad=True, device="cuda")
    target = torch.randint(vocabulary, (rows, 1), device="cuda").squeeze(1)
    _rounds(steps, lambda: functional.cross_entropy(scores, target).backward())


class _Head(nn.Module):
    def __init__(self, width: int, vocabulary: int):
        super().__init__()
        self.head, self.loss = nn.Linear(width, vocabulary, bias=False, dtype=BF16), nn.CrossEntropyLoss()

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> Any:
        return self.loss(self.head(x), target)


def _head_and_loss(steps: int, rows: int, width: int = 4096, vocabulary: int = 128_256) -> None:
    head, other = _Head(width, vocabulary).to("cuda"), _Head(width, vocabulary).to("cuda")  # the rival's is there too
    x = torch.randn(rows, width, requires_grad=True, dtype=BF16, device="cuda")
    target = torch.randint(vocabulary, (rows, 1), device="cuda").squeeze(1)
    _rounds(steps, lambda: head(x, target).backward())
    del other


class _Gated(nn.Module):
    def __init__(self, activation: nn.Module, width: int = 4096, inner: int = 11_008):
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.down_proj, self.act = nn.Linear(inner, width, bias=False), activation

    def forward(self, x: torch.Tensor) -> Any:
        return self.down_proj(self.act(self.gate_proj(x)) * self.up_proj(x))


def _gated(steps: int, rows: int, length: int, activation: nn.Module) -> None:
    x = torch.randn(rows, length, 4096, device="cuda", dtype=BF16, requires_grad=True)
    _through(_Gated(activation).to("cuda").to(BF16), x, steps)


class _RmsNorm(nn.Module):
    """As Llama's: in single precision, and back."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before, x = x.dtype, x.to(torch.float32)
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.weight * x.to(before)


def _norm(steps: int, make: Callable[[], nn.Module], shape: tuple[int, ...], dtype: torch.dtype) -> None:
    layer, other = make().to("cuda"), make().to("cuda")
    x = torch.randn(*shape, dtype=dtype, device="cuda")
    x.requires_grad_(True)
    _through(layer, x, steps, same=True)
    del other


def _kl_divergence(steps: int, vocabulary: int, rows: int = 16_384) -> None:
    given = torch.randn(rows, vocabulary, requires_grad=True, device="cuda").log_softmax(dim=-1)
    target = torch.randn(rows, vocabulary, device="cuda").softmax(dim=-1)
    loss = nn.KLDivLoss(reduction="batchmean")
    _rounds(steps, lambda: loss(given, target).backward(retain_graph=True))


def _experts(steps: int, rows: int, experts: int, width: int = 2048, inner: int = 768, chosen: int = 8) -> None:
    """A loop over experts, as in Mixtral and Qwen-MoE."""
    x = torch.randn(rows, width, dtype=BF16, device="cuda", requires_grad=True)
    gate_up = torch.randn(experts, 2 * inner, width, dtype=BF16, device="cuda", requires_grad=True) * 0.02
    down = torch.randn(experts, width, inner, dtype=BF16, device="cuda", requires_grad=True) * 0.02
    scores = torch.randn(rows, experts, device="cuda")
    index = torch.topk(scores, chosen, dim=-1).indices.to(torch.int32)
    shares = torch.softmax(torch.gather(scores, 1, index.long()), dim=-1).to(BF16).requires_grad_(True)

    def layer(x: torch.Tensor) -> torch.Tensor:
        out = torch.zeros_like(x)
        with torch.no_grad():
            mask = functional.one_hot(index.long(), num_classes=experts).permute(2, 1, 0)
            hit = torch.greater(mask.sum(dim=(-1, -2)), 0).nonzero()
        for one in hit:
            expert = one[0]
            place, row = torch.where(mask[expert])
            gate, up = functional.linear(x[row], gate_up[expert]).chunk(2, dim=-1)
            found = functional.linear(functional.silu(gate) * up, down[expert]) * shares[row, place, None]
            out.index_add_(0, row, found.to(out.dtype))
        return out

    _through(layer, x, steps)


class _EagerAttention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: torch.Tensor) -> Any:
        rows, length, width = x.shape
        q, k, v = (project(x).view(rows, length, self.heads, width // self.heads).transpose(1, 2)
                   for project in (self.q_proj, self.k_proj, self.v_proj))  # fmt: skip
        scores = torch.matmul(q, k.transpose(-2, -1)) * (1 / math.sqrt(width // self.heads))
        mask = torch.zeros(length, length, device=x.device, dtype=torch.bool)
        weights = torch.softmax(scores.masked_fill(~mask, float("-inf")), dim=-1)
        return self.out_proj(torch.matmul(weights, v).transpose(1, 2).contiguous().view(rows, length, width))


def _eager_attention(steps: int, rows: int, length: int, width: int, heads: int) -> None:
    other, layer = _EagerAttention(width, heads).to("cuda"), _EagerAttention(width, heads).to("cuda")
    _through(layer, torch.randn(rows, length, width, device="cuda", requires_grad=True), steps)
    del other


# ---- GPT-2 of 124 million parameters, 8 x 1,024 tokens, in the stages of LLMs-from-scratch, chapter 5


class _Norm(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, var = x.mean(dim=-1, keepdim=True), x.var(dim=-1, keepdim=True, unbiased=False)
        norm = (x - mean) / torch.sqrt(var + 1e-5)
        return self.scale * norm + self.shift


class _Gelu(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * x * (1 + torch.tanh(torch.sqrt(torch.tensor(2.0 / torch.pi)) * (x + 0.044715 * torch.pow(x, 3))))


class _SelfAttention(nn.Module):
    """Step by step; `kept`: the mask is a buffer of each layer, otherwise it is made each time."""

    def __init__(self, width: int, length: int, heads: int, kept: bool):
        super().__init__()
        self.heads, self.kept, self.dropout = heads, kept, nn.Dropout(0.1)
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width)
        if kept:
            self.register_buffer("mask", torch.triu(torch.ones(length, length), diagonal=1))

    def forward(self, x: torch.Tensor) -> Any:
        rows, length, width = x.shape
        keys, queries, values = self.key(x), self.query(x), self.value(x)
        keys, values, queries = (one.view(rows, length, self.heads, width // self.heads).transpose(1, 2)
                                 for one in (keys, values, queries))  # fmt: skip
        scores = queries @ keys.transpose(2, 3)
        if self.kept:
            mask = self.mask.bool()[:length, :length]
        else:
            mask = torch.triu(torch.ones(length, length, dtype=torch.bool, device=x.device), diagonal=1)
        scores.masked_fill_(mask, -torch.inf)
        weights = torch.softmax(scores / keys.shape[-1] ** 0.5, dim=-1)
        weights = self.dropout(weights)
        context = (weights @ values).transpose(1, 2).reshape(rows, length, width)
        return self.out(context)


class _FusedAttention(nn.Module):
    def __init__(self, width: int, length: int, heads: int, kept: bool):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> Any:
        rows, length, width = x.shape
        q, k, v = self.qkv(x).view(rows, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        dropout = 0.1 if self.training else 0.0
        context = functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        return self.out(context.transpose(1, 2).contiguous().view(rows, length, width))


class _Block(nn.Module):
    def __init__(self, width: int, attention: nn.Module, norm: Callable[[int], nn.Module], gelu: nn.Module):
        super().__init__()
        self.attention, self.first, self.second = attention, norm(width), norm(width)
        self.inner = nn.Sequential(nn.Linear(width, 4 * width), gelu, nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = x
        x = self.first(x)
        x = self.attention(x)
        x = self.dropout(x)
        x = x + before
        before = x
        x = self.second(x)
        x = self.inner(x)
        x = self.dropout(x)
        return x + before


class _Gpt(nn.Module):
    def __init__(
        self, vocabulary: int = 50_257, length: int = 1024, width: int = 768, heads: int = 12, layers: int = 12,
        attention: Any = _SelfAttention, kept: bool = True, norm: Any = _Norm, gelu: Any = _Gelu,
    ):  # fmt: skip
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        blocks = (_Block(width, attention(width, length, heads, kept), norm, gelu()) for _ in range(layers))
        self.dropout, self.blocks, self.norm = nn.Dropout(0.1), nn.Sequential(*blocks), norm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, ids: torch.Tensor) -> Any:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        x = self.dropout(x)
        x = self.blocks(x)
        return self.head(self.norm(x))


def _gpt_loss(model: nn.Module, rows: int) -> torch.Tensor:
    ids, targets = (torch.randint(50_257, (rows, 1024)).to("cuda") for _ in range(2))
    scores = model(ids)
    return functional.cross_entropy(scores.flatten(0, 1), targets.flatten())


def _gpt(
    steps: int, rows: int = 8, half: bool = False, fused: bool = False, compiled: bool = False, **options: Any
) -> None:
    model: Any = _Gpt(**options)
    model = (torch.compile(model) if compiled else model).to("cuda")
    if half:
        model.to(BF16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=0.1, fused=fused or None)
    for step in range(steps):
        model.train()
        optimizer.zero_grad()
        loss = _gpt_loss(model, rows)
        loss.backward()
        optimizer.step()
        if step == 0:
            model.eval()
            with torch.no_grad():
                for _ in range(2):
                    _gpt_loss(model, rows).item()


# ---- Llama-3.2-3B, finetuned in many ways: PEFT's method comparison on MetaMathQA

# Tokens of the longest row, which is not published: chosen on one row, `lora rank32`, so that this one comes out.
LONGEST_ROW = 648


@contextlib.contextmanager
def _made_in(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _llama() -> Any:
    import transformers

    config = transformers.LlamaConfig(
        hidden_size=3072, num_hidden_layers=28, num_attention_heads=24, num_key_value_heads=8, head_dim=128,
        intermediate_size=8192, vocab_size=128_256, tie_word_embeddings=True, max_position_embeddings=131_072,
        rope_parameters={"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 32.0, "high_freq_factor": 4.0,
                         "low_freq_factor": 1.0, "original_max_position_embeddings": 8192},
    )  # fmt: skip
    with _made_in(BF16), torch.device("cuda"):
        return transformers.LlamaForCausalLM(config)


def _finetune(steps: int, method: dict[str, Any] | None) -> None:
    """4 rows of a bucket, nearly as long as the longest; the cache is given back before each of those."""
    model = _llama()
    if method is not None:
        import peft

        model = peft.get_peft_model(model, peft.get_peft_config(dict(method)), autocast_adapter_dtype=True)
    model.to("cuda")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1)
    model.train()
    for _ in range(steps):
        torch.cuda.empty_cache()
        ids = torch.randint(1000, 100_000, (4, LONGEST_ROW))
        mask, labels = torch.ones_like(ids), ids.clone()
        for row in range(1, 4):
            mask[row, LONGEST_ROW - 6 * row :] = 0
            labels[row, LONGEST_ROW - 6 * row + 1 :] = -100
        batch = {"input_ids": ids.to("cuda"), "attention_mask": mask.to("cuda"), "labels": labels.to("cuda")}
        items = batch["attention_mask"].sum().item()
        optimizer.zero_grad()
        outputs = model(**batch, num_items_in_batch=items)
        loss = outputs.loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()


_QV = {"target_modules": ["q_proj", "v_proj"]}
_LM = {"task_type": "CAUSAL_LM"}
_MLP = ["up_proj", "gate_proj", "down_proj"]
_ATTENTION = ["o_proj", "q_proj", "k_proj", "v_proj"]
_METHODS: dict[str, dict[str, Any] | None] = {
    "lora rank64": {**_LM, **_QV, "peft_type": "LORA", "r": 64, "lora_alpha": 128},
    "lora rank10-target-mlp": {**_LM, "peft_type": "LORA", "r": 10, "lora_alpha": 20, "target_modules": _MLP},
    "ia3 all-attn-5k-lr0.005": {
        "peft_type": "IA3",
        "target_modules": [*_MLP, *_ATTENTION],
        "feedforward_modules": _MLP,
    },
    "vera default": {**_QV, "peft_type": "VERA", "r": 256, "d_initial": 0.1},
    "prompt_tuning default": {**_LM, "peft_type": "PROMPT_TUNING", "num_virtual_tokens": 200},
    "ptuning default": {**_LM, "peft_type": "P_TUNING", "num_virtual_tokens": 20, "encoder_hidden_size": 3072},
    "hira rank32-lr4.5e-3": {**_LM, **_QV, "peft_type": "HIRA", "r": 32},
    "boft default": {**_QV, "peft_type": "BOFT", "boft_block_size": 4, "boft_n_butterfly_factor": 1},
    "fourierft default": {**_QV, "peft_type": "FOURIERFT", "n_frequency": 1000, "scaling": 300},
    "randlora default": {**_QV, "peft_type": "RANDLORA", "r": 32, "randlora_alpha": 640},
    "c3a default": {**_QV, "peft_type": "C3A", "block_size": 64},
    "lokr rank32-factor4-lr0.003": {**_QV, "peft_type": "LOKR", "r": 32, "alpha": 64, "decompose_factor": 4},
    "shira lr_0.0003-random_seed_42": {**_QV, "peft_type": "SHIRA", "r": 32, "mask_type": "random", "random_seed": 42},
    "full finetuning": None,
}


def _jobs() -> Iterator[tuple[str, Callable[[int], None]]]:
    """By name, what takes the number of steps."""
    silu, gelu = nn.SiLU(), nn.GELU(approximate="tanh")
    for size in (4096, 32_768, 131_072):
        yield f"liger:cross_entropy V={size}", partial(_cross_entropy, vocabulary=size)
        yield f"liger:kl_div V={size}", partial(_kl_divergence, vocabulary=size)
    for rows in (4096, 16_384, 32_768):
        yield f"liger:fused_linear_cross_entropy BT={rows}", partial(_head_and_loss, rows=rows)
    for length in (1024, 2048, 8192):
        yield f"liger:swiglu T={length}", partial(_gated, rows=4, length=length, activation=silu)
        yield f"liger:geglu T={length}", partial(_gated, rows=8, length=length, activation=gelu)
    for width in (1024, 8192, 32_768):
        yield (
            f"liger:rms_norm H={width}",
            partial(_norm, make=partial(_RmsNorm, width), shape=(2048, width), dtype=BF16),
        )
    for width in (1024, 16_384):
        make = partial(nn.LayerNorm, width, eps=1e-6)
        yield f"liger:layer_norm N={width}", partial(_norm, make=make, shape=(4096, width), dtype=torch.float32)
    for channels in (32, 2048):
        make = partial(nn.GroupNorm, channels // 4, channels, eps=1e-6)
        yield (
            f"liger:group_norm C={channels}",
            partial(_norm, make=make, shape=(128, channels, 512), dtype=torch.float32),
        )
    for card in ("3090", "H100"):
        for rows, width, heads in ((2, 512, 8), (4, 768, 12)):
            for length in (64, 1024, 4096):
                job = partial(_eager_attention, rows=rows, length=length, width=width, heads=heads)
                yield f"liger:neighborhood {rows}x{length}x{width} {card}", job
    for rows in (128, 2048, 32_768):
        yield f"liger:fused_moe T={rows}", partial(_experts, rows=rows, experts=128)
    for experts in (8, 32):
        yield f"liger:fused_moe E={experts}", partial(_experts, rows=8192, experts=experts)
    fast: dict[str, Any] = {"fused": True, "half": True, "kept": False}
    native = {**fast, "norm": nn.LayerNorm, "gelu": partial(nn.GELU, approximate="tanh")}
    flash = {**native, "attention": _FusedAttention}
    stages: dict[str, dict[str, Any]] = {
        "0 orig fp32": {}, "1 mask on the fly": {"kept": False}, "3 fused adamw": {"kept": False, "fused": True},
        "5 bf16": fast, "6 native classes": native, "7 flash": flash, "8 compile": {**flash, "compiled": True},
        "9 compile vocab 50304": {**flash, "compiled": True, "vocabulary": 50_304},
        "10 compile batch 32": {**flash, "compiled": True, "vocabulary": 50_304, "rows": 32},
    }  # fmt: skip
    for name, options in stages.items():
        yield f"raschka_gpt:gpt {name}", partial(_gpt, **options)
    for name, method in _METHODS.items():
        yield f"peft_metamath:{name}", partial(_finetune, method=method)


JOBS = dict(_jobs())
