"""Models that do not fit each other: two sizes of a setting, an adapter of another base, and what names them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from pytest_trainguard.contract import settings
from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.contract.settings import Field
from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.verdicts.wording import Wording, field_name

__all__ = ["choose_two_sizes", "find_adapter", "mismatch", "two_bases"]


def choose_two_sizes(guard: Guard, field: Field) -> tuple[int, int] | None:
    """A setting's size in small, and twice or half of it, within its range; None where it is not set."""
    own = settings.value_at(guard.subject.settings.base, field.path) or field.default
    if type(own) is not int:
        return None
    high = field.bounds.get("le", field.bounds.get("lt", 2 * own + 1))
    return own, 2 * own if 2 * own <= high else own // 2


def mismatch(name: str, own: int, other: int) -> Wording:
    """The setting with both values, or the tensor that is missing or of another shape."""
    with_both = rf"^(?=.*{field_name(name).pattern.pattern})(?=.*\b{own}\b)(?=.*\b{other}\b)"
    return Wording(
        f"the first mismatch: {name!r} with {own} and {other}, or the tensor that is missing or of another shape",
        re.compile(rf"{with_both}|size mismatch|shape|(missing|unexpected) key", re.I | re.M),
    )


def find_adapter(guard: Guard, outcome: Outcome) -> Path | None:
    """The folder of the newest adapter that a run left, as peft saves it; None where there is none."""
    for folder in (*reversed(guard.checkpoints.find(outcome.output_dir)), outcome.output_dir):
        found = sorted(folder.rglob("adapter_config.json")) if folder.is_dir() else []
        if found:
            return found[0].parent
    return None


def two_bases(ours: Path, theirs: Path) -> Wording:
    """The bases of two adapters by their names; where they share one, that and what differs; or two shapes."""
    bases = []
    for folder in (ours, theirs):
        told = json.loads((folder / "adapter_config.json").read_bytes())
        bases.append(re.escape(str(told.get("base_model_name_or_path") or "base")))
    names = "".join(f"(?=.*{base})" for base in bases)
    differs = "" if bases[0] != bases[1] else r"(?=.*(shape|size|fingerprint|hash|another|other))"
    shapes = r"\d+, \d+\D.*\d+, \d+\D"
    return Wording("both bases, or both shapes", re.compile(rf"^{names}{differs}|{shapes}", re.I | re.M))
