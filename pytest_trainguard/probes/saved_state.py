"""What two runs saved, held against each other: weights, averages, optimizer states and counters, by name.

Done where torch is loaded. Random states are left out, since what is drawn from shows in the losses, and single numbers
that are no counters: times, best scores, logged values.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_trainguard.contract.checkpoints import STEP_NAMES
from pytest_trainguard.probes.finite_weights import is_tensor, items_of, load_weights

if TYPE_CHECKING:
    from torch import Tensor

COUNTERS = {*STEP_NAMES, "last_epoch", "_step_count", "n_averaged"}


def find_differing(ours: list[Path], theirs: list[Path]) -> dict[str, str]:
    """What two runs saved under one name, and differs: `file: name`, to what the difference is.

    Args:
        ours: files of weights.
        theirs: as many, each the one that belongs to ours at its place.
    """
    found: dict[str, str] = {}
    for one, other in zip(ours, theirs, strict=True):
        try:
            values, expected = dict(_values_in(load_weights(one), "")), dict(_values_in(load_weights(other), ""))
        except Exception:  # whether it can be loaded is looked at elsewhere
            continue
        for name, value in expected.items():
            what = _difference(values.get(name), value)
            if what:
                found[f"{one.name}: {name}"] = what
    return found


def find_same(ours: list[Path], theirs: list[Path]) -> list[Path]:
    """Those of our files that hold what theirs do, by the values that are compared; see `find_differing`."""
    return [one for one, other in zip(ours, theirs, strict=True) if _is_same(one, other)]


def _is_same(one: Path, other: Path) -> bool:
    try:
        values, expected = dict(_values_in(load_weights(one), "")), dict(_values_in(load_weights(other), ""))
    except Exception:  # then nobody knows
        return False
    names_alike = bool(values) and values.keys() == expected.keys()
    return names_alike and not any(_difference(values[name], expected[name]) for name in expected)


def _values_in(value: object, name: str) -> Iterator[tuple[str, Tensor | int]]:
    """The tensors of floating-point numbers, and the counters, each with its keys joined by dots."""
    key = name.rpartition(".")[2]
    if is_tensor(value):
        if value.is_floating_point() and value.numel() > 1:
            yield name, value
        elif key in COUNTERS and value.numel() == 1:
            yield name, int(value)
    elif isinstance(value, int) and not isinstance(value, bool) and key in COUNTERS:
        yield name, value
    for inner, part in items_of(value):
        yield from _values_in(part, f"{name}.{inner}" if name else str(inner))


def _difference(ours: Tensor | int | None, theirs: Tensor | int) -> str:
    """In words; empty where there is none, or where ours is not there to be compared."""
    if ours is None:
        return ""
    if not is_tensor(ours) or not is_tensor(theirs):
        return "" if isinstance(ours, int) and ours == theirs else f"{ours}, undisturbed {theirs}"
    if ours.shape != theirs.shape:
        return f"shape {list(ours.shape)}, undisturbed {list(theirs.shape)}"
    same = (ours == theirs) | (ours.isnan() & theirs.isnan())
    if bool(same.all()):
        return ""
    return f"{int((~same).sum())} of {ours.numel()} values are others"
