"""Steps before the first step, which leave no trace: does one fit into memory, and which learning rate is good."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from trainers.code import learning_rate
from trainers.code.learner import Learner, Precision
from trainers.code.ranks import Feed
from trainers.code.settings import RunSettings
from trainers.common.errors import TrainingFailed
from trainers.common.process import Run, out_of_memory

if TYPE_CHECKING:
    import torch
    from torch.optim import Optimizer

NEARLY_FULL = 0.9
"""Share of the device's memory over which a step is said to fit barely: longer rows, or fragments, and it does not."""
NOT_FOR_THE_RATE = frozenset(
    {
        *("seed", "max_epochs", "max_steps", "learning_rate", "find_learning_rate", "rate_cache", "warmup_steps"),
        *("decay_steps", "adapt_batch_size", "device", "num_workers", "hang_timeout", "eval_every", "save_every"),
        *("log_every", "best_by", "keep_last", "divergence_factor", "max_skipped_steps", "collapse_window"),
        *("collapse_patience", "collapse_grace", "vanishing_norm", "exploding_norm"),
    }
)
"""Settings that make no other learning rate the right one. The seed is among them: a series has one rate."""


def largest_that_fits(
    run: Run, chosen: RunSettings, feed: Feed, learner: Learner, optimizer_at: Callable[[float], Optimizer]
) -> int:
    """The most rows for one forward pass: ``batch_size``, or less where that is asked for; see `probe`."""

    def attempt(micro_batch: int) -> None:
        window = feed.largest(micro_batch)
        optimizer = optimizer_at(0.0)
        with _rehearsing(chosen, learner), feed.stream(window, workers=0) as incoming:
            learner.gradients(run, 0, window, incoming)
            optimizer.step()  # what the optimizer keeps takes memory too
            optimizer.zero_grad(set_to_none=True)

    return probe(learner.ranks.device, attempt, chosen.batch_size, adapt=chosen.adapt_batch_size, say=run.say)


def find_rate(
    run: Run,
    chosen: RunSettings,
    feed: Feed,
    learner: Learner,
    optimizer_at: Callable[[float], Optimizer],
    output_dir: Path,
) -> learning_rate.Choice:
    """The learning rate by a sweep, from the cache, or the fallback; see `learning_rate.choose`."""
    run.stage = "searching for the learning rate"
    optimizer = optimizer_at(0.0)
    windows = feed.windows(0, 0)
    steps = _forever(feed, windows)
    taken = 0

    def step_at(rate: float) -> float:
        nonlocal taken
        taken += 1
        window, incoming = next(steps)
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("share", 1.0)
        seen = learner.gradients(run, taken, window, incoming)
        learner.precision.step(optimizer, learner.clipped(optimizer), taken)
        optimizer.zero_grad(set_to_none=True)
        return seen.loss

    settings = {name: value for name, value in chosen.model_dump().items() if name not in NOT_FOR_THE_RATE}
    key = learning_rate.fingerprint(feed.table.fingerprint, {"program": run.program, **settings})
    path = Path(chosen.rate_cache) if chosen.rate_cache else output_dir / "learning_rates.json"
    with _rehearsing(chosen, learner), contextlib.closing(steps):
        return learning_rate.choose(
            run,
            step_at,
            lowest_allowed=chosen.found_rate_min,
            highest_allowed=chosen.found_rate_max,
            fallback=chosen.fallback_rate,
            cache=learning_rate.RateCache(path, key, writes=run.rank == 0),
        )


def _forever(feed: Feed, windows: Any) -> Iterator[Any]:
    """The steps of an epoch again and again, each with the stream that gives its batches."""
    while True:
        with feed.stream([rows for window in windows for rows in window], workers=0) as incoming:
            for window in windows:
                yield window, incoming


@contextlib.contextmanager
def _rehearsing(chosen: RunSettings, learner: Learner) -> Iterator[None]:
    """Inside, weights may move and random numbers be drawn: afterwards all is as it was."""
    real = learner.precision
    learner.precision = Precision(chosen.precision, learner.ranks.device, chosen.max_skipped_steps)
    try:
        with learning_rate.untouched(learner.model):
            yield
    finally:
        learner.precision = real


# ---- does a step fit into memory


class Peak(NamedTuple):
    """Bytes: the most that tensors took, the most that the allocator held, and what the device has."""

    allocated: int
    reserved: int
    total: int


class Memory(Protocol):
    """A device's memory."""

    def reset(self) -> None:
        """Give back what is not in use, and measure peaks from here."""

    def peak(self) -> Peak:
        """Since `reset`."""


class CudaMemory:
    """That of a CUDA device, as torch's allocator counts it."""

    def __init__(self, device: torch.device) -> None:
        """Of this device."""
        self._device = device

    def reset(self) -> None:
        """Empty the cache, reset the peaks."""
        import torch

        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)

    def peak(self) -> Peak:
        """Waits for the device."""
        import torch

        torch.cuda.synchronize(self._device)
        return Peak(
            torch.cuda.max_memory_allocated(self._device),
            torch.cuda.max_memory_reserved(self._device),
            torch.cuda.get_device_properties(self._device).total_memory,
        )


def probe(
    device: torch.device,
    attempt: Callable[[int], None],
    micro_batch: int,
    *,
    adapt: bool,
    say: Callable[[str], None],
    memory: Memory | None = None,
) -> int:
    """Try one step over the largest rows; on a device without memory of its own, nothing is done.

    Args:
        device: where the model is.
        attempt: forward, backward and what the optimizer keeps, over so many rows; leaves no trace.
        micro_batch: rows in one forward pass, as the settings say.
        adapt: halve it until a step fits with some room. The caller keeps the effective batch size, by
            more accumulation.
        say: is told the peak.
        memory: of the device.

    Returns:
        the rows for one forward pass.

    Raises:
        TrainingFailed: a step does not fit, naming what it needed and the settings to change.
    """
    if memory is None:
        if device.type != "cuda":
            return micro_batch
        memory = CudaMemory(device)
    asked = micro_batch
    while True:
        memory.reset()
        shortage = None
        try:
            attempt(micro_batch)
        except Exception as error:
            shortage = out_of_memory(error, f"a trial step of {micro_batch} rows")
            if shortage is None:
                raise
        peak = memory.peak()
        memory.reset()
        share = peak.reserved / peak.total
        if shortage is None:
            say(
                f"a step of {micro_batch} rows takes {_gib(peak.allocated)} allocated, {_gib(peak.reserved)} reserved "
                f"of {_gib(peak.total)} ({share:.0%})"
            )
        if shortage is not None and (not adapt or micro_batch == 1):
            remedy = "nothing smaller is left" if adapt else "a smaller batch_size, or adapt_batch_size = true"
            raise TrainingFailed(f"{shortage}; {remedy}")
        if shortage is None and (share <= NEARLY_FULL or not adapt or micro_batch == 1):
            if share > NEARLY_FULL:
                say(f"that is over {NEARLY_FULL:.0%} of the device's memory: a longer row may not fit (batch_size)")
            if micro_batch < asked:
                say(f"batch_size {asked} is taken in forward passes of {micro_batch} rows (adapt_batch_size)")
            return micro_batch
        micro_batch = -(-micro_batch // 2)


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"
