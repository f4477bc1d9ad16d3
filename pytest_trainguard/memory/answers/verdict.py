"""Does it fit? A trace held against a budget: one word, what takes the memory, and where the peak stands."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pytest_trainguard.memory.replay.allocator_settings import unmodelled
from pytest_trainguard.memory.replay.budget import Limit
from pytest_trainguard.memory.replay.cards import GIB, MIB
from pytest_trainguard.memory.replay.trace import Trace
from pytest_trainguard.memory.replay.trace_replay import WORKSPACE, Composition, Replay, composition, least_cap, replay

Word = Literal["FITS", "TIGHT", "OUT OF MEMORY", "UNKNOWN"]
# In the order in which they are shown; the first six are the trace's categories, in the plural.
PARTS = {
    "weight": "weights", "gradient": "gradients", "optimizer state": "optimizer state", "activation": "activations",
    "input": "inputs", "temporary": "temporaries", WORKSPACE: "workspaces",
}  # fmt: skip
BAR = 24  # characters


@dataclass(frozen=True)
class Judgement:
    """A trace held against a budget.

    Attributes:
        word: the verdict.
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

    word: Word
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
        return self.word in ("FITS", "TIGHT")

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for JSON; sizes in bytes."""
        plain = asdict(self)
        plain["verdict"] = plain.pop("word")
        plain["budget"] = plain.pop("limit")
        plain["largest"] = [{"what": what, "bytes": size} for what, size in self.largest]
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Judgement:
        """Read back what `as_dict` gave; what else is in it is passed over."""
        known = {name: plain[name] for name in cls.__dataclass_fields__ if name in plain}
        limit = Limit.from_dict(plain["budget"])
        known["largest"] = [(one["what"], one["bytes"]) for one in plain["largest"]]
        return cls(**{**known, "word": plain["verdict"], "limit": limit})


def judge(trace: Trace, limit: Limit) -> Judgement:
    """Hold a trace against a budget.

    It fits where the trace, replayed with the budget as the allocator's cap, runs to its end. Where it does not, what
    takes the memory is told of a replay without a cap: what the program wants.
    """
    notes = [*trace.notes, *unmodelled(trace.allocator)]
    source = f"{trace.how.replace('cuda', 'CUDA').replace('cpu', 'CPU')} tensors, torch {trace.torch}"
    if trace.unknown is not None:
        an_operation = re.match(r"\w+::", trace.unknown)  # else a sentence: "the program ends with exit 1"
        reason = f"unknown: {trace.unknown}" + (" could not be traced" if an_operation else "")
        return Judgement("UNKNOWN", limit, reason=reason, notes=notes, source=source)
    if not trace.events:
        reason = "unknown: nothing was put on the device"
        return Judgement("UNKNOWN", limit, reason=reason, notes=notes, source=source)
    capped = replay(trace, limit.cap, workspace=limit.workspace)
    free = capped if not (capped.failed or capped.retries) else replay(trace, workspace=limit.workspace)
    least = least_cap(trace, free, limit.workspace, over=limit.cap if capped.failed else 0) + limit.context
    wanted = free if capped.failed else capped
    stood = composition(trace, wanted, limit.workspace)
    needs = wanted.peak_reserved + limit.context
    word, reason = _word(capped, needs, limit)
    return Judgement(
        word=word, limit=limit, needs=needs, least=least,
        allocated=wanted.peak_allocated, reserved=wanted.peak_reserved,
        breakdown=_breakdown(stood, wanted, limit), peak=wanted.peak.where if wanted.peak else "",
        largest=[(_told(event.category, event.op, event.module), size) for event, size in stood.largest],
        by_module=stood.by_module, by_op=stood.by_op, retries=capped.retries, reason=reason, notes=notes,
        source=source,
    )  # fmt: skip


def _word(capped: Replay, needs: int, limit: Limit) -> tuple[Word, str]:
    if capped.failed is not None:
        return "OUT OF MEMORY", (
            f"memory runs out at {capped.failed.where}: {shown(capped.asked)} more are wanted, "
            f"{shown(capped.failed.allocated + limit.context)} are in use"
        )
    if capped.retries:
        times = "once" if capped.retries == 1 else f"{capped.retries} times"
        return "TIGHT", f"it fits only because the allocator gives back its cache {times}, which costs time"
    if needs > limit.comfortable:
        return "TIGHT", f"it takes {needs / limit.size:.1%} of the budget; {limit.headroom:.0%} should stay free"
    return "FITS", ""


def _breakdown(stood: Composition, wanted: Replay, limit: Limit) -> dict[str, int]:
    parts = {name: stood.by_category.get(category, 0) for category, name in PARTS.items()}
    parts["CUDA context"] = limit.context
    parts["fragmentation"] = wanted.fragmentation
    return parts


def _told(category: str, op: str, module: str) -> str:
    return category + (f" of {op}" if op else "") + (f" in {module}" if module else "")


def shown(size: int) -> str:
    """Bytes as people read them: `13.93 GiB`, `430 MiB`, `96 bytes`."""
    if size >= GIB // 2:
        return f"{size / GIB:.2f} GiB"
    if size >= MIB:
        return f"{size / MIB:.3g} MiB"
    return f"{size / 2**10:.3g} KiB" if size >= 2**10 else f"{size} bytes"


def headline(judgement: Judgement) -> str:
    """The verdict in one line."""
    limit = judgement.limit
    budget = f"{limit.text} ({shown(limit.size)})"
    if judgement.word == "UNKNOWN":
        return f"UNKNOWN under {budget}: {judgement.reason}"
    if judgement.fits:
        needs, spare = shown(judgement.needs), shown(limit.size - judgement.needs)
        return f"{judgement.word}: {needs} of {budget}, {spare} to spare"
    least, over = shown(judgement.least), shown(judgement.least - limit.size)
    return f"{judgement.word}: {least} at the least, {over} over {budget}"


def text(judgement: Judgement) -> list[str]:
    """The verdict as a person reads it in the terminal."""
    lines = [headline(judgement)]
    if judgement.word == "UNKNOWN":
        return lines + _footnotes(judgement)
    if judgement.reason:
        lines.append(f"  {judgement.reason}")
    lines.append(f"  the peak: {judgement.peak}")
    shown_parts = {name: size for name, size in judgement.breakdown.items() if size}
    for name, size in shown_parts.items():
        share = size / judgement.needs
        lines.append(f"    {name:<16}{shown(size):>11} {share:>6.1%} {'█' * round(share * BAR)}".rstrip())
    lines.append("  largest there: " + "; ".join(f"{what} {shown(size)}" for what, size in judgement.largest[:3]))
    return lines + _footnotes(judgement)


def _footnotes(judgement: Judgement) -> list[str]:
    notes = [f"  less certain: {note}" for note in judgement.notes]
    return [*notes, f"  predicted with {judgement.source}"]
