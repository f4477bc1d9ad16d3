"""Does it fit? A trace held against a budget: one word, what takes the memory, and where the peak stands."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pytest_trainguard.memory.replay.allocator_settings import find_unmodelled
from pytest_trainguard.memory.replay.budget import Limit
from pytest_trainguard.memory.replay.sizes import format_size
from pytest_trainguard.memory.replay.trace import Trace
from pytest_trainguard.memory.replay.trace_replay import (
    WORKSPACE_CATEGORY,
    PeakComposition,
    Replay,
    find_least_cap,
    find_peak_composition,
    replay_trace,
)

Verdict = Literal["FITS", "TIGHT", "OUT OF MEMORY", "UNKNOWN"]
# In the order in which they are shown; the first six are the trace's categories, in the plural.
PART_NAMES = {
    "weight": "weights", "gradient": "gradients", "optimizer state": "optimizer state", "activation": "activations",
    "input": "inputs", "temporary": "temporaries", WORKSPACE_CATEGORY: "workspaces",
}  # fmt: skip
BAR_WIDTH = 24  # characters


@dataclass(frozen=True)
class Judgement:
    """A trace held against a budget.

    Attributes:
        verdict: the answer in a word.
        limit: the budget.
        needs: bytes in all at the peak, with CUDA's context and what the allocator holds beyond what is in use.
        least: bytes in all under which it would just survive, its cache given back as often as need be.
        allocated, reserved: the allocator's peaks; without a cap where it does not fit.
        breakdown: bytes of `needs` by what takes them.
        peak: where the peak stands, in words.
        largest: the largest storages at the peak, in words, and their bytes.
        by_module, by_op: bytes at the peak; largest first.
        retries: how often cached memory has to be given back so that it fits.
        reason: why it does not fit, or is not known.
        notes: what is less certain than usual.
        source: how the trace came about, in words.
    """

    verdict: Verdict
    limit: Limit
    needs: int = 0
    least: int = 0
    allocated: int = 0
    reserved: int = 0
    breakdown: dict[str, int] = field(default_factory=dict)
    peak: str = ""
    largest: list[tuple[str, int]] = field(default_factory=list)
    by_module: dict[str, int] = field(default_factory=dict)
    by_op: dict[str, int] = field(default_factory=dict)
    retries: int = 0
    reason: str = ""
    notes: list[str] = field(default_factory=list)
    source: str = ""

    @property
    def fits(self) -> bool:
        """It runs under the budget."""
        return self.verdict in ("FITS", "TIGHT")

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for JSON; sizes in bytes."""
        plain = asdict(self)
        plain["budget"] = plain.pop("limit")
        plain["largest"] = [{"what": what, "bytes": size} for what, size in self.largest]
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Judgement:
        """Read back what `as_dict` gave; what else is in it is passed over."""
        known = {name: plain[name] for name in cls.__dataclass_fields__ if name in plain}
        limit = Limit.from_dict(plain["budget"])
        known["largest"] = [(one["what"], one["bytes"]) for one in plain["largest"]]
        return cls(**{**known, "limit": limit})


def judge_trace(trace: Trace, limit: Limit) -> Judgement:
    """Hold a trace against a budget.

    It fits where the trace, replayed with the budget as the allocator's cap, runs to its end. Where it does not, what
    takes the memory is told of a replay without a cap: what the program wants.
    """
    notes = [*trace.notes, *find_unmodelled(trace.allocator)]
    source = f"{trace.how.replace('cuda', 'CUDA').replace('cpu', 'CPU')} tensors, torch {trace.torch}"
    if trace.unknown is not None:
        an_operation = re.match(r"\w+::", trace.unknown)  # else a sentence: "the program ends with exit 1"
        reason = f"unknown: {trace.unknown}" + (" could not be traced" if an_operation else "")
        return Judgement("UNKNOWN", limit, reason=reason, notes=notes, source=source)
    if not trace.events:
        reason = "unknown: nothing was put on the device"
        return Judgement("UNKNOWN", limit, reason=reason, notes=notes, source=source)
    capped = replay_trace(trace, limit.cap, workspace=limit.workspace)
    free = capped if not (capped.failed or capped.retries) else replay_trace(trace, workspace=limit.workspace)
    least = find_least_cap(trace, free, limit.workspace, over=limit.cap if capped.failed else 0) + limit.context
    wanted = free if capped.failed else capped
    stood = find_peak_composition(trace, wanted, limit.workspace)
    needs = wanted.peak_reserved + limit.context
    verdict, reason = _decide(capped, needs, limit)
    return Judgement(
        verdict=verdict, limit=limit, needs=needs, least=least,
        allocated=wanted.peak_allocated, reserved=wanted.peak_reserved,
        breakdown=_breakdown(stood, wanted, limit), peak=wanted.peak.where if wanted.peak else "",
        largest=[(_describe(event.category, event.op, event.module), size) for event, size in stood.largest],
        by_module=stood.by_module, by_op=stood.by_op, retries=capped.retries, reason=reason, notes=notes,
        source=source,
    )  # fmt: skip


def _decide(capped: Replay, needs: int, limit: Limit) -> tuple[Verdict, str]:
    if capped.failed is not None:
        return "OUT OF MEMORY", (
            f"memory runs out at {capped.failed.where}: {format_size(capped.asked)} more are wanted, "
            f"{format_size(capped.failed.allocated + limit.context)} are in use"
        )
    if capped.retries:
        times = "once" if capped.retries == 1 else f"{capped.retries} times"
        return "TIGHT", f"it fits only because the allocator gives back its cache {times}, which costs time"
    if needs > limit.comfortable:
        return "TIGHT", f"it takes {needs / limit.size:.1%} of the budget; {limit.headroom:.0%} should stay free"
    return "FITS", ""


def _breakdown(stood: PeakComposition, wanted: Replay, limit: Limit) -> dict[str, int]:
    parts = {name: stood.by_category.get(category, 0) for category, name in PART_NAMES.items()}
    parts["CUDA context"] = limit.context
    parts["fragmentation"] = wanted.fragmentation
    return parts


def _describe(category: str, op: str, module: str) -> str:
    return category + (f" of {op}" if op else "") + (f" in {module}" if module else "")


def format_headline(judgement: Judgement) -> str:
    """The verdict in one line."""
    limit = judgement.limit
    budget = f"{limit.text} ({format_size(limit.size)})"
    if judgement.verdict == "UNKNOWN":
        return f"UNKNOWN under {budget}: {judgement.reason}"
    if judgement.fits:
        needs, spare = format_size(judgement.needs), format_size(limit.size - judgement.needs)
        return f"{judgement.verdict}: {needs} of {budget}, {spare} to spare"
    least, over = format_size(judgement.least), format_size(judgement.least - limit.size)
    return f"{judgement.verdict}: {least} at the least, {over} over {budget}"


def format_verdict(judgement: Judgement) -> list[str]:
    """The verdict as a person reads it in the terminal."""
    lines = [format_headline(judgement)]
    if judgement.verdict == "UNKNOWN":
        return lines + _footnotes(judgement)
    if judgement.reason:
        lines.append(f"  {judgement.reason}")
    lines.append(f"  the peak: {judgement.peak}")
    shown_parts = {name: size for name, size in judgement.breakdown.items() if size}
    for name, size in shown_parts.items():
        share = size / judgement.needs
        lines.append(f"    {name:<16}{format_size(size):>11} {share:>6.1%} {'█' * round(share * BAR_WIDTH)}".rstrip())
    lines.append("  largest there: " + "; ".join(f"{what} {format_size(size)}" for what, size in judgement.largest[:3]))
    return lines + _footnotes(judgement)


def _footnotes(judgement: Judgement) -> list[str]:
    notes = [f"  less certain: {note}" for note in judgement.notes]
    return [*notes, f"  predicted with {judgement.source}"]
