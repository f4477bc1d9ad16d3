"""GPU memory as pictures: what the page's template draws, in per cent of each picture's width and height.

No drawing library: the page is to have its pictures with the plain installation, and all that they need are a few
polygons. Letters are the page's, beside the drawing, so that they stay readable where it is narrow.
"""

from __future__ import annotations

import itertools
from typing import TypedDict

from markupsafe import Markup

from pytest_trainguard.memory.answers.timeline import COLOURS, CONTEXT_COLOUR
from pytest_trainguard.memory.answers.verdict import PART_NAMES
from pytest_trainguard.memory.replay.sizes import GIB, format_size
from pytest_trainguard.report.data import Prediction

CONTEXT = "CUDA context"
TINTS = {**{PART_NAMES[category]: colour for category, colour in COLOURS.items()}, CONTEXT: CONTEXT_COLOUR}
OTHER = "#999999"  # fragmentation, and what a later version may tell of
LINES = 5  # of the scale, at the most
NARROW = 3  # per cent: a phase under that is too short to be seen apart
ROOM = 1.04  # above the highest point
FAR = 3  # a budget of more than so many times what is needed would leave nothing to be seen of the rest


class Part(TypedDict):
    """A part of the bar; its size is in words, its width in per cent of the picture."""

    name: str
    colour: str
    size: str
    share: float
    width: float


class Bar(TypedDict):
    """What takes the memory at the peak, the largest part first, and where the budget's line stands."""

    parts: list[Part]
    budget: float


class Layer(TypedDict):
    """One of the stacked areas: the points of a polygon."""

    name: str
    colour: str
    points: Markup


class PhaseBegin(TypedDict):
    """Where a stretch of the trace begins, as the report has it."""

    at: int
    phase: str


class Phase(TypedDict):
    """A stretch of the trace."""

    name: str
    left: float
    width: float


class Areas(TypedDict):
    """Memory over the trace, lowest layer first; heights are from the top, those of the scale beside their words."""

    layers: list[Layer]
    reserved: Markup
    budget: float
    scale: list[tuple[str, float]]
    phases: list[Phase]


def draw_breakdown(one: Prediction) -> Bar:
    """What takes the memory at the peak, as one bar, with the budget on the same scale.

    Args:
        one: what was predicted of a trainer, as the report has it.
    """
    whole = _whole(one["needs"], one["budget"]["size"])
    parts = sorted(one["breakdown"].items(), key=lambda part: -part[1])
    return {
        "parts": [
            {"name": name, "colour": TINTS.get(name, OTHER), "size": format_size(size),
             "share": size / max(one["needs"], 1), "width": 100 * size / whole}
            for name, size in parts
            if size
        ],
        "budget": 100 * one["budget"]["size"] / whole,  # beyond 100: far outside the picture
    }  # fmt: skip


def draw_timeline(one: Prediction) -> Areas | None:
    """Memory over the trace as stacked areas; None where the report holds none.

    Args:
        one: what was predicted of a trainer, as the report has it.
    """
    told = one.get("over_time")
    if not told or not told["at"]:
        return None
    context = one["budget"]["context"]
    taken = [size + context for size in told["reserved"]]
    top = _whole(max(taken), one["budget"]["size"])
    width = max(told["events"] - 1, 1)
    across = [100 * at / width for at in told["at"]]

    def line(sizes: list[int]) -> list[tuple[float, float]]:  # in steps: memory is taken and given back at once
        places = zip(across, [*across[1:], 100.0], sizes, strict=True)
        return [(x, 100 - 100 * size / top) for start, end, size in places for x in (start, end)]

    layers: list[Layer] = []
    below = [0] * len(across)
    for name, sizes in {CONTEXT: [context] * len(across), **told["parts"]}.items():
        above = [low + size for low, size in zip(below, sizes, strict=True)]
        outline = line(above) + line(below)[::-1]
        layers.append({"name": name, "colour": TINTS.get(name, OTHER), "points": _points(outline)})
        below = above
    return {
        "layers": layers,
        "reserved": _points(line(taken)),
        "budget": 100 - 100 * one["budget"]["size"] / top,  # below 0: far above the picture
        "scale": [(words, 100 - 100 * size / top) for words, size in _scale(top)],
        "phases": _draw_phases(told["phases"], width),
    }


def _whole(needed: int, budget: int) -> float:
    """What a picture's whole width or height stands for, in bytes."""
    return max(needed, budget if budget <= FAR * needed else 0, 1) * ROOM


def _points(line: list[tuple[float, float]]) -> Markup:
    return Markup(" ".join(f"{x:.2f},{y:.2f}" for x, y in line))  # numbers alone: nothing to escape, never to be cut


def _scale(top: float) -> list[tuple[str, float]]:
    """Round sizes up to the top, a handful of them."""
    steps = (GIB * 2.0**power for power in itertools.count(-30))
    step = next(step for step in steps if top / step < LINES)
    return [(f"{count * step / GIB:g} GiB", count * step) for count in range(1, int(top / step) + 1)]


def _draw_phases(phases: list[PhaseBegin], width: int) -> list[Phase]:
    begins = [phase["at"] for phase in phases]
    ends = [*begins[1:], width]
    every: list[Phase] = [
        {"name": phase["phase"], "left": 100 * begin / width, "width": 100 * (end - begin) / width}
        for phase, begin, end in zip(phases, begins, ends, strict=True)
    ]
    return [phase for phase in every if phase["width"] >= NARROW]
