"""Operations whose memory on CUDA is known to the byte, from torch's source and from what others measured."""

import torch
from torch.nn import functional

NUMBERS = 256 * 1024


def _through(operation, *shape, dtype=torch.float32):
    """Forward and backward of an operation that keeps its shape."""
    x = torch.ones(*(shape or (256, 1024)), device="cuda", dtype=dtype, requires_grad=True)
    operation(x).backward(torch.ones_like(x))


def _embedding(tokens, rows, width=64):
    weight = torch.ones(rows, width, device="cuda", requires_grad=True)
    ids = torch.randint(rows, (tokens,), device="cuda")
    out = functional.embedding(ids, weight)
    out.backward(torch.ones_like(out))


def _rms_norm():
    weight = torch.ones(1024, device="cuda", requires_grad=True)
    _through(lambda x: functional.rms_norm(x, (1024,), weight))


def _empty_cache():
    x = torch.ones(NUMBERS, device="cuda")
    del x
    torch.cuda.empty_cache()
    torch.cuda.memory.empty_cache()
    torch.accelerator.empty_cache()


def _raw_stream():
    return torch._C._cuda_getCurrentRawStream(0)


KINDS = {
    "silu": lambda: _through(functional.silu),
    "mish": lambda: _through(functional.mish),
    "rms norm": _rms_norm,
    "softmax": lambda: _through(lambda x: x.softmax(-1)),
    "log softmax": lambda: _through(lambda x: x.log_softmax(-1)),
    "group norm": lambda: _through(lambda x: functional.group_norm(x, 4, torch.ones(16, device="cuda")), 8, 16, 512),
    "small embedding": lambda: _embedding(3072, 100),
    "embedding": lambda: _embedding(4096, 100),
    "embedding of many rows": lambda: _embedding(4096, 100_000),
    "empty cache": _empty_cache,
    "raw stream": _raw_stream,
}
