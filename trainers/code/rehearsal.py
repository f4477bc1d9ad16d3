"""Steps before the first step, which leave no trace: does one fit into memory, and which learning rate is good."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.code import gpu
from trainers.code import learning_rate as rate_finder
from trainers.code.rate_cache import RateCache, fingerprint
from trainers.common.process import Run
from trainers.common.settings import RunSettings

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from trainers.code.learner import Learner
    from trainers.common.batches import Feed

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
    """The most rows for one forward pass: ``batch_size``, or less where that is asked for; see `gpu.probe`."""

    def attempt(micro_batch: int) -> None:
        window = feed.largest(micro_batch)
        optimizer = optimizer_at(0.0)
        with _rehearsing(chosen, learner), feed.stream(window, workers=0) as incoming:
            learner.gradients(run, 0, window, incoming)
            optimizer.step()  # what the optimizer keeps takes memory too
            optimizer.zero_grad(set_to_none=True)

    return gpu.probe(learner.ranks.device, attempt, chosen.batch_size, adapt=chosen.adapt_batch_size, say=run.say)


def find_rate(
    run: Run,
    chosen: RunSettings,
    feed: Feed,
    learner: Learner,
    optimizer_at: Callable[[float], Optimizer],
    output_dir: Path,
) -> rate_finder.Choice:
    """The learning rate by a sweep, from the cache, or the fallback; see `rate_finder.choose`."""
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
    key = fingerprint(feed.table.fingerprint, {"program": run.program, **settings})
    path = Path(chosen.rate_cache) if chosen.rate_cache else output_dir / "learning_rates.json"
    with _rehearsing(chosen, learner), contextlib.closing(steps):
        return rate_finder.choose(
            run,
            step_at,
            lowest_allowed=chosen.found_rate_min,
            highest_allowed=chosen.found_rate_max,
            fallback=chosen.fallback_rate,
            cache=RateCache(path, key, writes=run.rank == 0),
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
    from trainers.common.optimization import Precision

    real = learner.precision
    learner.precision = Precision(chosen.precision, learner.ranks.device, chosen.max_skipped_steps)
    try:
        with rate_finder.untouched(learner.model):
            yield
    finally:
        learner.precision = real
