"""What would help most: other settings of the same trainer, each traced and held against the same budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pytest_trainguard.contract.settings import Field
from pytest_trainguard.memory.answers.interpolation import interpolate_trace
from pytest_trainguard.memory.answers.search import Largest, find_largest
from pytest_trainguard.memory.answers.verdict import Judgement, judge_trace
from pytest_trainguard.memory.replay.allocator_settings import (
    ENVIRONMENT_VARIABLES,
    EXPANDABLE_SEGMENTS,
    make_allocator,
)
from pytest_trainguard.memory.replay.budget import Limit
from pytest_trainguard.memory.replay.expandable_allocator import ExpandableAllocator
from pytest_trainguard.memory.replay.trace import Trace
from pytest_trainguard.memory.replay.trace_replay import replay_trace

# From settings that differ from production, by dotted path, to what happens then.
TraceFunction = Callable[[dict[str, Any]], Trace]
BF16 = ("bf16", "bfloat16", "bf16-mixed")
HALF = (*BF16, "fp16", "float16", "16-mixed", "fp16-mixed")


class Settings(Protocol):
    """What has to be known of a trainer's settings; `TrainerSettings` is one."""

    def role(self, name: str) -> Field | None:
        """The setting that plays a role; see `settings.ROLES`."""

    def production(self, field: Field) -> Any:
        """A setting's value as it will be launched."""


@dataclass(frozen=True)
class Alternative:
    """Other settings, and what comes of them.

    Attributes:
        words: what is changed, in words.
        settings: the changes, by dotted path.
        judgement: what comes of them.
    """

    words: str
    settings: dict[str, Any]
    judgement: Judgement

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for JSON; sizes in bytes."""
        judged = self.judgement
        return {"words": self.words, "settings": self.settings, "verdict": judged.verdict, "needs": judged.needs,
                "least": judged.least, "reason": judged.reason}  # fmt: skip


def propose_changes(settings: Settings) -> list[tuple[str, dict[str, Any]]]:
    """The changes that this trainer has settings for, in words and as settings."""
    return [found for find in _FINDERS for found in find(settings)]


def judge_alternatives(
    trace: TraceFunction, settings: Settings, limit: Limit, tell: Callable[[str], None]
) -> list[Alternative]:
    """Trace each of the changes that `propose_changes` finds, and replay production's trace with expandable segments.

    The one that needs least comes first, those that cannot be traced last.

    Args:
        trace: traces the trainer with changed settings.
        settings: the trainer's.
        limit: the budget.
        tell: takes what is being done, in words.
    """
    found = []
    for words, changes in propose_changes(settings):
        tell(f"tracing with {words}")
        found.append(Alternative(words, changes, judge_trace(trace(changes), limit)))
    if not isinstance(make_allocator(trace({}).allocator), ExpandableAllocator):
        other = replace(trace({}), allocator=EXPANDABLE_SEGMENTS)
        words = f"{ENVIRONMENT_VARIABLES[1]}={EXPANDABLE_SEGMENTS} in the environment"
        found.append(Alternative(words, {}, judge_trace(other, limit)))
    return sorted(found, key=lambda one: (one.judgement.verdict == "UNKNOWN", one.judgement.least))


def find_largest_setting(
    role: str, trace: TraceFunction, settings: Settings, limit: Limit, first: Judgement, tell: Callable[[str], None]
) -> tuple[Field, Largest] | None:
    """The largest value of the setting that plays a role (`batch_size`, `max_length`) that fits.

    Args:
        role: as in `settings.ROLES`.
        trace: traces the trainer with changed settings.
        settings: the trainer's.
        limit: the budget.
        first: the judgement of the production settings.
        tell: takes what is being done, in words.

    Returns:
        the field and what was found; None where no whole number plays that role.
    """
    field = settings.role(role)
    start = settings.production(field) if field else None
    if field is None or type(start) is not int or start < 1:
        return None
    path, bounds = field.path, field.bounds
    traces = {start: trace({})}

    def judged(value: int) -> Judgement:
        tell(f"tracing with {path} = {value}")
        traces[value] = trace({path: value})
        return judge_trace(traces[value], limit)

    def expected(value: int) -> bool | None:
        interpolated = interpolate_trace(traces, value)
        return (
            None
            if interpolated is None
            else not replay_trace(interpolated, limit.cap, workspace=limit.workspace).failed
        )

    low = int(bounds.get("ge", bounds.get("gt", 0) + 1))
    high = int(bounds["le"]) if "le" in bounds else int(bounds["lt"]) - 1 if "lt" in bounds else None
    step = int(bounds.get("multiple_of", 1))
    return field, find_largest(judged, start, first, smallest=max(low, 1), highest=high, step=step, expected=expected)


def _whole(settings: Settings, role: str) -> tuple[str, int] | None:
    field = settings.role(role)
    value = settings.production(field) if field else None
    return (field.path, value) if field and type(value) is int and value > 1 else None


def _batch(settings: Settings) -> Iterator[tuple[str, dict[str, Any]]]:
    found, field = _whole(settings, "batch_size"), settings.role("accumulation")
    if found is None:
        return
    path, size = found
    parts = settings.production(field) if field else None
    if field and type(parts) is int and size % 2 == 0:
        changes = {path: size // 2, field.path: parts * 2}
        yield f"{_words(changes)} (the same effective batch)", changes
    else:
        yield f"{path} = {size // 2} (half the effective batch)", {path: size // 2}


def _length(settings: Settings) -> Iterator[tuple[str, dict[str, Any]]]:
    found = _whole(settings, "max_length")
    if found:
        changes = {found[0]: found[1] // 2}
        yield _words(changes), changes


def _switch(role: str) -> Callable[[Settings], Iterator[tuple[str, dict[str, Any]]]]:
    def find(settings: Settings) -> Iterator[tuple[str, dict[str, Any]]]:
        field = settings.role(role)
        if field and field.kind == "bool" and not settings.production(field):
            yield _words({field.path: True}), {field.path: True}

    return find


def _precision(settings: Settings) -> Iterator[tuple[str, dict[str, Any]]]:
    field = settings.role("precision")
    if field and settings.production(field) not in HALF:
        for choice in (choice for choice in BF16 if choice in field.choices):
            yield _words({field.path: choice}), {field.path: choice}


def _optimizer(settings: Settings) -> Iterator[tuple[str, dict[str, Any]]]:
    field = settings.role("optimizer")
    if field and "fused" not in str(settings.production(field)):
        for choice in [choice for choice in field.choices if "fused" in str(choice)][:1]:
            yield _words({field.path: choice}), {field.path: choice}


def _words(changes: dict[str, Any]) -> str:
    return ", ".join(f"{path} = {value}" for path, value in changes.items())


_FINDERS = (_batch, _length, _switch("checkpointing"), _precision, _optimizer, _switch("fused"))
