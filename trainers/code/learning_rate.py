"""The learning-rate finder: raise the rate step by step, see where the loss falls fastest, and keep that for a week.

Smith 2017, "Cyclical learning rates for training neural networks" (https://arxiv.org/abs/1506.01186), with the
smoothing and the stop that fast.ai's library made common.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from trainers.common import checkpoint, files
from trainers.common.errors import InputError, TrainingFailed, reason, show
from trainers.common.process import Run

if TYPE_CHECKING:
    from torch import nn

SMOOTHING = 0.9
"""Weight of the past in the smoothed loss: about the last ten of a hundred steps count."""
DIVERGED = 4.0
"""The sweep ends where the smoothed loss is so many times its lowest."""
FEWEST = 40
"""With fewer points there is no telling a fall from noise; half as many are taken for the level to fall from."""
LEAST_FALL = 0.02
"""The smoothed loss must fall by this share of that level, or nothing was found."""
NOISES = 6.0
"""And by so many standard deviations of the smoothed loss at that level."""
REACH = 7
"""A slope is that of the loss over so many steps to either side."""
EXPIRES_HOURS = 168.0
"""A rate that was found is taken for so long."""
KEPT = 32
"""So many found rates are kept, the newest."""


@dataclass
class Curve:
    """What a sweep saw, up to where it stopped.

    Attributes:
        rates: learning rates, rising.
        losses: of the steps taken at them.
        smoothed: the same, smoothed, without bias towards the first.
        diverged: whether it stopped early.
    """

    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    smoothed: list[float] = field(default_factory=list)
    diverged: bool = False


class Choice(NamedTuple):
    """A learning rate, where it comes from, and why."""

    rate: float
    source: Literal["found", "cached", "fallback"]
    why: str


def sweep(step_at: Callable[[float], float], *, lowest: float = 1e-7, highest: float = 1.0, steps: int = 100) -> Curve:
    """Take steps at rates that rise from ``lowest`` to ``highest`` by the same factor each time.

    Args:
        step_at: takes one optimizer step at a learning rate and returns its loss.
        lowest: the first rate.
        highest: the last rate.
        steps: how many, unless the loss runs away before.
    """
    curve, average = Curve(), 0.0
    for index in range(steps):
        rate = lowest * (highest / lowest) ** (index / (steps - 1))
        try:
            loss = step_at(rate)
        except (TrainingFailed, ArithmeticError):  # a loss or a gradient that is not finite
            loss = math.nan
        if not math.isfinite(loss):
            curve.diverged = True
            return curve
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        smoothed = average / (1 - SMOOTHING ** (index + 1))
        if curve.smoothed and smoothed > DIVERGED * min(curve.smoothed):
            curve.diverged = True
            return curve
        curve.rates.append(rate)
        curve.losses.append(loss)
        curve.smoothed.append(smoothed)
    return curve


def suggest(curve: Curve) -> float | None:
    """The rate at which the loss falls fastest over the logarithm of the rate, before its lowest point.

    None where it does not fall clearly: by more than batches that differ make it, and more than `LEAST_FALL`.
    """
    if len(curve.losses) < FEWEST:
        return None
    # At the lowest rates nothing is learnt yet: what the losses are like there is the level, and the noise.
    flat = curve.losses[: FEWEST // 2]
    level, noise = statistics.fmean(flat), statistics.stdev(flat)
    bottom = min(range(len(flat), len(curve.smoothed)), key=curve.smoothed.__getitem__)
    fall = level - curve.smoothed[bottom]
    if fall < max(LEAST_FALL * level, NOISES * noise * math.sqrt((1 - SMOOTHING) / (1 + SMOOTHING))):
        return None
    # Rates are evenly spaced on the logarithmic scale. Slopes are those of straight lines through the losses
    # themselves, as many before a rate as after it: the smoothed ones lag behind.
    reach = range(-REACH, REACH + 1)
    slopes = {
        at: sum(offset * curve.losses[at + offset] for offset in reach)
        for at in range(REACH, min(bottom, len(curve.losses) - 1 - REACH) + 1)
    }
    return curve.rates[min(slopes, key=slopes.__getitem__)]


def choose(
    run: Run,
    step_at: Callable[[float], float],
    *,
    lowest_allowed: float,
    highest_allowed: float,
    fallback: float,
    cache: RateCache,
) -> Choice:
    """From the cache, by a sweep, or the fallback.

    Args:
        run: is told.
        step_at: see `sweep`.
        lowest_allowed: a rate found below is raised to this,
        highest_allowed: and one above is lowered to this.
        fallback: where the sweep finds nothing; never cached.
        cache: what was found before.
    """
    cached = cache.get(lowest_allowed, highest_allowed, run.say)
    if cached is not None:
        return _said(run, Choice(cached, "cached", f"found before, for the same data and settings ({cache.path.name})"))
    curve = sweep(step_at)
    found = suggest(curve)
    if found is None:
        why = "the loss ran away" if curve.diverged and len(curve.losses) < FEWEST else "the loss does not fall clearly"
        return _said(run, Choice(fallback, "fallback", f"{why} in {len(curve.losses)} steps of the search"))
    rate = min(max(found, lowest_allowed), highest_allowed)
    capped = "" if rate == found else f", capped to {lowest_allowed:g} to {highest_allowed:g}"
    cache.put(rate)
    return _said(run, Choice(rate, "found", f"steepest fall at {found:.3g} in {len(curve.losses)} steps{capped}"))


def _said(run: Run, choice: Choice) -> Choice:
    run.say(f"learning rate {choice.rate:.3g} ({choice.source}): {choice.why}")
    return choice


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Whatever happens inside, weights, buffers, gradients, modes and random generators are as they were.

    The copy is kept in the main memory.
    """
    import torch

    weights = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    gradients = [None if part.grad is None else part.grad.detach().cpu().clone() for part in model.parameters()]
    modes = [module.training for module in model.modules()]
    random = checkpoint.random_state()
    try:
        yield
    finally:
        with torch.no_grad():
            for name, tensor in model.state_dict().items():
                tensor.copy_(weights[name])
            for part, gradient in zip(model.parameters(), gradients, strict=True):
                part.grad = None if gradient is None else gradient.to(part.device)
        for module, mode in zip(model.modules(), modes, strict=True):
            module.training = mode
        checkpoint.restore_random_state(random)


# ---- what was found before


def fingerprint(data: str, settings: Mapping[str, Any]) -> str:
    """One key for the data (their fingerprint) and the settings that decide which learning rate is right."""
    text = json.dumps([data, dict(settings)], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


class RateCache:
    """One entry of the file: ``{fingerprint: {"rate": float, "found_at": seconds since 1970}}``."""

    def __init__(self, path: Path, key: str, *, writes: bool = True, now: Callable[[], float] = time.time) -> None:
        """The entry of ``key``.

        Args:
            path: the file; need not be there.
            key: see `fingerprint`.
            writes: whether `put` writes (of several processes, one does).
            now: the clock, in seconds since 1970.
        """
        self.path, self._key, self._writes, self._now = path, key, writes, now

    def get(self, lowest: float, highest: float, say: Callable[[str], None]) -> float | None:
        """The rate, if it is there and sane; else why not is said (nothing, where there is none).

        Args:
            lowest: of the range that is allowed,
            highest: and its upper end.
            say: is told.
        """
        entries = _entries(self.path)
        if isinstance(entries, str):
            say(f"learning-rate cache {show(self.path)} is not used: {entries}")
            return None
        entry = entries.get(self._key)
        if entry is None:
            return None
        fault = _fault(entry, lowest, highest, self._now())
        if fault:
            say(f"learning-rate cache {show(self.path)}: the entry is not used: {fault}")
            return None
        return float(entry["rate"])

    def put(self, rate: float) -> None:
        """Keep a rate that was found, beside the newest others that are well-formed.

        Raises:
            TrainingFailed: the file cannot be written.
        """
        if not self._writes:
            return
        entries = _entries(self.path)
        others = {} if isinstance(entries, str) else entries
        sound = {key: entry for key, entry in others.items() if not _fault(entry, 0.0, math.inf, self._now())}
        sound[self._key] = {"rate": rate, "found_at": self._now()}
        newest = sorted(sound.items(), key=lambda item: item[1]["found_at"])[-KEPT:]
        files.write_json(self.path, dict(newest))


def require_cache_place(values: Mapping[str, Any]) -> None:
    """Reject a setting ``rate_cache`` that no file can be kept under; what is no text is not judged here.

    Raises:
        InputError: its folder is not there, or it is a folder itself.
    """
    path = values.get("rate_cache")
    if not isinstance(path, str):
        return
    try:
        is_folder, has_folder = os.path.isdir(path), os.path.isdir(os.path.dirname(path) or ".")
    except ValueError as error:  # a NUL in the name
        raise InputError(f"rate_cache {show(path)}: {error}") from None
    if is_folder or not has_folder:
        raise InputError(f"rate_cache {show(path)}: {'a folder' if is_folder else 'no such folder'}")


def _entries(path: Path) -> dict[str, Any] | str:
    """All entries, or what is wrong with the file."""
    try:
        entries = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        return reason(error)
    except (ValueError, RecursionError):
        return "bad JSON"
    return entries if isinstance(entries, dict) else "no JSON object"


def _fault(entry: Any, lowest: float, highest: float, now: float) -> str | None:
    """What is wrong with one entry, if anything is."""
    rate = entry.get("rate") if isinstance(entry, dict) else None
    found_at = entry.get("found_at") if isinstance(entry, dict) else None
    if type(rate) not in (int, float) or type(found_at) not in (int, float):
        return "it is no rate with its time"
    if not (math.isfinite(rate) and math.isfinite(found_at)):
        return "not finite"
    if not lowest <= rate <= highest:
        return f"rate {rate:g} is outside {lowest:g} to {highest:g}"
    hours = (now - found_at) / 3600
    if hours < 0:
        return f"it is from {-hours:.1f} hours ahead: the clock went backwards"
    if hours >= EXPIRES_HOURS:
        return f"it is {hours:.0f} hours old, over {EXPIRES_HOURS:g}"
    return None
