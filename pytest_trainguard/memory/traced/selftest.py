"""Whether fake CUDA holds on this build of torch: exit 0 where it does.

    python -m pytest_trainguard.memory.traced.selftest

A process of its own, because a wrong guess about C++ objects ends it without a word.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_trainguard.memory.traced.tracer import Tracer

LEAST = 2**29  # bytes that the steps below take at their peak, at the very least


def main() -> int:
    """Try the paths that break first; the last line on stderr says which one did."""
    import torch

    from pytest_trainguard.memory.replay.device import Device
    from pytest_trainguard.memory.traced import attention, cuda_answers, cuda_kernels, fakecuda
    from pytest_trainguard.memory.traced.tracer import Tracer, activate_tracer

    tracer = Tracer("cuda", fakecuda.FakeMode())
    try:
        fakecuda.install()
        cuda_kernels.take_kernels_of_cuda()
        cuda_answers.install_answers(Device(), tracer)
        attention.KernelChooser((8, 0)).install()
        with activate_tracer(tracer):
            _take_plain_steps()
            _run_attention()
            _run_kernels_of_cuda(tracer)
        _require(tracer.peak > LEAST, f"the peak of a step is {tracer.peak} bytes, not over {LEAST}")
        _require(tracer.now == 0, f"{tracer.now} bytes outlive what held them")
    except Exception as error:
        print(f"torch {torch.__version__}: {type(error).__name__}: {' '.join(str(error).split())[:200]}",
              file=sys.stderr)  # fmt: skip
        return 1
    print(f"torch {torch.__version__}: fake CUDA holds", flush=True)
    if untried := fakecuda.describe_untried(torch.__version__):
        print(untried, flush=True)
    print(f"kernels of CUDA whose memory is known: {', '.join(cuda_kernels.COVERED)}", flush=True)
    if unlisted := cuda_kernels.find_unlisted():
        print(f"and others that are not, so that their parts are traced: {', '.join(unlisted)}", flush=True)
    return 0


def _take_plain_steps() -> None:
    import torch

    for fused, half in ((False, torch.bfloat16), (True, torch.float16)):
        model = torch.nn.Sequential(torch.nn.Linear(4096, 4096), torch.nn.ReLU(), torch.nn.Linear(4096, 2)).to("cuda")
        optimizer = torch.optim.AdamW(model.parameters(), fused=fused)
        scaler = torch.amp.GradScaler("cuda", enabled=half is torch.float16)
        for _ in range(2):
            rows = torch.randn(16_384, 4096, device="cuda")
            labels = torch.randint(2, (16_384,)).to("cuda")
            with torch.autocast("cuda", dtype=half):
                logits = model(rows)
                loss = torch.nn.functional.cross_entropy(logits, labels)
            _require(logits.dtype is half, f"autocast gives {logits.dtype}, not {half}")
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            _require(isinstance(loss.item(), float), "a loss cannot be read")
        _require(len(optimizer.state) == 4, "the optimizer's step was skipped")


def _run_attention() -> None:
    import torch

    query = torch.randn(4, 8, 256, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    mask = torch.ones(4, 1, 256, 256, dtype=torch.bool, device="cuda")
    for given in (None, mask):
        out = torch.nn.functional.scaled_dot_product_attention(query, query, query, attn_mask=given)
        out.sum().backward()
    _require(query.grad.device.type == "cuda", "a gradient is not on the device")


def _run_kernels_of_cuda(tracer: Tracer) -> None:
    """One of them keeps nothing in between: where the dispatcher takes the composite, the peak is higher."""
    import torch

    tracer.peak = before = tracer.now
    rows = torch.ones(2**28, device="cuda", requires_grad=True)
    torch.nn.functional.silu(rows).backward(rows.detach())
    took = (tracer.peak - before) / 2**30
    _require(took == 3, f"silu takes {took:.2f} GiB for 1 GiB of rows, not 3: composites stand in for kernels of CUDA")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # torch's own end would have to take down threads of a device that is not there
