"""What to do after an attempt: a pure function of the settings, how it ended, and what was tried before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from trainers.queue.options import QueueSettings

ALERTS = ("out_of_memory", "nan", "collapse", "disk_full", "hang")
"""Kinds of end that somebody is told of, whatever is done about them."""
HOPELESS = ("bad_input", "collapse")
"""Kinds of end that the same file and the same settings would only bring about again."""


class Ended(NamedTuple):
    """How an attempt ended.

    Attributes:
        kind: one of `trainers.common.status.KINDS`; or ``lost``: the queue was killed, and the trainer with it.
        message: one line.
        step: optimizer steps done, as far as it is known.
        exit: the trainer's exit code; None where nobody saw it.
    """

    kind: str
    message: str
    step: int | None = None
    exit: int | None = None


class Tried(NamedTuple):
    """An attempt of before: how it ended, and whether it counts as a failure (`Decision.counts`)."""

    kind: str
    counts: bool


class Decision(NamedTuple):
    """What becomes of the file.

    Attributes:
        state: ``done``, ``failed`` or ``queued`` (to be tried again).
        reason: one line for ledger and report.
        changes: trainer's settings that are different from the next attempt on.
        recovery: what was done so that the next attempt ends better; None: nothing.
        delay: seconds before the next attempt.
        alert: whether somebody is told.
        counts: whether the attempt is one of ``max_attempts``.
    """

    state: str
    reason: str
    changes: dict[str, Any] = {}  # noqa: RUF012
    recovery: str | None = None
    delay: float = 0.0
    alert: bool = False
    counts: bool = False


def decide(
    chosen: QueueSettings, ended: Ended, tried: Sequence[Tried], values: Mapping[str, Any], *, stopping: bool
) -> Decision:
    """What to do.

    Args:
        chosen: the queue's settings.
        ended: the attempt that has just ended.
        tried: those before it, since the file came or was asked to be tried again.
        values: the trainer's settings in this attempt.
        stopping: whether the queue itself asked the trainer to end.
    """
    if ended.kind == "success":
        return Decision("done", "trained")
    if ended.kind == "lost" or (ended.kind == "interrupted" and stopping):
        return Decision("queued", ended.message)
    return _after_failure(chosen, ended, tried, values)._replace(alert=ended.kind in ALERTS)


def _after_failure(chosen: QueueSettings, ended: Ended, tried: Sequence[Tried], values: Mapping[str, Any]) -> Decision:
    why = f"{ended.kind}: {ended.message}"
    if ended.kind in HOPELESS:
        return Decision("failed", why)
    if not _switched_on(chosen, ended.kind):
        return Decision("failed", f"{why} (recovery is switched off)")
    if ended.kind == "out_of_memory":
        return _smaller_batch(chosen, why, values)
    if ended.kind == "nan":
        return _smaller_rate(chosen, why, tried, values)
    failures = 1 + sum(attempt.counts for attempt in tried)
    if failures >= chosen.max_attempts:
        return Decision("failed", f"{why}; tried {failures} times (max_attempts)", counts=True)
    return Decision("queued", why, recovery=_again(ended.kind), delay=backoff(chosen, failures), counts=True)


def _switched_on(chosen: QueueSettings, kind: str) -> bool:
    switches = {
        "out_of_memory": chosen.recover_out_of_memory,
        "nan": chosen.recover_nan,
        "disk_full": chosen.recover_disk_full,
        "hang": chosen.recover_hang,
    }
    return switches.get(kind, True)


def _again(kind: str) -> str | None:
    return {"disk_full": "waits for room on the disk", "hang": "ended with its stack kept; tried again"}.get(kind)


def backoff(chosen: QueueSettings, failures: int) -> float:
    """Seconds before the next attempt after so many failures: doubled each time, up to a limit."""
    return min(chosen.backoff_max, chosen.backoff_seconds * 2.0 ** min(failures - 1, 60))


def _smaller_batch(chosen: QueueSettings, why: str, values: Mapping[str, Any]) -> Decision:
    batch, accumulation = values.get(chosen.batch_size_field), values.get(chosen.accumulation_field, 1)
    if type(batch) is not int or type(accumulation) is not int or batch < 1 or accumulation < 1:
        return Decision("failed", f"{why} (cannot halve the batch: trainer_settings has no {chosen.batch_size_field})")
    smaller = halve(batch, accumulation, floor=chosen.min_batch_size, limit=chosen.max_accumulation)
    if smaller is None:
        limits = f"min_batch_size = {chosen.min_batch_size}, max_accumulation = {chosen.max_accumulation}"
        effective = f"{batch} × {accumulation} = {batch * accumulation} rows"
        return Decision("failed", f"{why} (no smaller batch makes the same effective batch of {effective}; {limits})")
    changes = {chosen.batch_size_field: smaller[0], chosen.accumulation_field: smaller[1]}
    before = {chosen.batch_size_field: batch, chosen.accumulation_field: accumulation}
    steps = ", ".join(f"{name} {before[name]} → {value}" for name, value in changes.items())
    return Decision("queued", why, changes, f"out of memory: {steps}")


def halve(batch: int, accumulation: int, *, floor: int, limit: int) -> tuple[int, int] | None:
    """At most half the batch, at exactly the same effective batch.

    Args:
        batch: rows in one forward pass.
        accumulation: forward passes in one optimizer step.
        floor: smallest batch.
        limit: largest accumulation.

    Returns:
        batch and accumulation, the batch as large as may be; None where there are none.
    """
    effective = batch * accumulation
    for smaller in range(batch // 2, floor - 1, -1):
        if effective % smaller == 0:
            return (smaller, effective // smaller) if effective // smaller <= limit else None
    return None


def _smaller_rate(chosen: QueueSettings, why: str, tried: Sequence[Tried], values: Mapping[str, Any]) -> Decision:
    if any(attempt.kind == "nan" for attempt in tried):
        return Decision("failed", f"{why} (again, after a smaller learning rate)")
    name, rate = chosen.learning_rate_field, values.get(chosen.learning_rate_field)
    if not isinstance(rate, int | float) or isinstance(rate, bool) or not rate > 0:
        return Decision("failed", f"{why} (cannot lower the learning rate: trainer_settings has no {name})")
    smaller = rate * chosen.nan_rate_factor
    if smaller < chosen.min_learning_rate:
        limit = f"min_learning_rate = {chosen.min_learning_rate:g}"
        return Decision("failed", f"{why} ({name} = {rate:g} cannot be lowered: {limit})")
    recovery = f"NaN: from the last checkpoint, {name} {rate:g} → {smaller:g}"
    return Decision("queued", why, {name: smaller}, recovery)
