"""Memory over a trace as a picture: what stood there, stacked, with the budget and what the allocator had taken.

Drawn by matplotlib, for SVG and PNG alike: two formats from one drawing, and axes and legends that need no code here.
It is an extra (`plot`), since a verdict needs no picture; without it, that is said before anything is traced.
"""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pytest_trainguard.memory.answers.verdict import PART_NAMES, Judgement, format_headline
from pytest_trainguard.memory.replay.budget import Limit
from pytest_trainguard.memory.replay.sizes import GIB
from pytest_trainguard.memory.replay.trace import Trace
from pytest_trainguard.memory.replay.trace_replay import Replay, add_workspaces, replay_trace

PICTURE_POINTS = 1500  # across the picture
REPORT_POINTS = 240  # in the report, where a page is narrower
LETTER_WIDTH = 1 / 170  # width of a letter of a phase's name, as a share of the picture
FORMATS = (".svg", ".png")
# Told apart by people who see colours differently, and in print (P. Tol, "Colour schemes", the bright one).
COLOURS = {
    "weight": "#4477AA", "optimizer state": "#66CCEE", "gradient": "#CCBB44", "activation": "#EE6677",
    "input": "#228833", "temporary": "#AA3377", "workspace": "#BBBBBB",
}  # fmt: skip
CONTEXT_COLOUR = "#DDDDDD"


def check_timeline_path(path: Path) -> None:
    """Whether a timeline can be drawn there, before anything is traced.

    Raises:
        ValueError: it cannot, in one line.
    """
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{path}: a timeline is drawn as {' or '.join(FORMATS)}")
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"{path}: " + ("is a folder" if path.is_dir() else f"there is no folder {path.parent}"))
    if find_spec("matplotlib") is None:
        raise ValueError(f"{path}: drawing needs matplotlib: pip install 'pytest-trainguard[plot]'")


def sample_memory(
    trace: Trace, found: Replay, workspace: int = 0, points: int = PICTURE_POINTS
) -> dict[str, list[int]]:
    """Bytes by category at up to `points` events, of each stretch of the trace the one with most memory in use.

    Args:
        trace: what the program did.
        found: its replay.
        workspace: as in that replay.
        points: how many.

    Returns:
        by category (`PARTS`) a list; `reserved`, and `event`: which event of the trace each point stands for.
    """
    chosen = _highest(found, points)
    result: dict[str, list[int]] = {name: [] for name in (*PART_NAMES, "reserved", "event")}
    now: Counter[str] = Counter()
    born: dict[int, str] = {}
    events = add_workspaces(trace, workspace)
    for place, (index, event) in zip(range(len(found.allocated)), events, strict=False):
        if event.kind == "alloc" and event.size:
            born[event.block] = event.category
            now[event.category] += found.sizes[event.block]
        elif event.block in born:
            now[born.pop(event.block)] -= found.sizes[event.block]
        if place in chosen:
            for name in PART_NAMES:
                result[name].append(now[name])
            result["reserved"].append(found.reserved[place])
            result["event"].append(index)
    return result


def _highest(found: Replay, points: int) -> set[int]:
    count = len(found.allocated)
    stretch = max(1, -(-count // points))
    firsts = range(0, count, stretch)
    return {max(range(a, min(a + stretch, count)), key=found.allocated.__getitem__) for a in firsts}


def sample_for_report(trace: Trace, limit: Limit, points: int = REPORT_POINTS) -> dict[str, Any] | None:
    """Memory over a trace as plain values, for the report; sizes in bytes.

    Args:
        trace: what the program did.
        limit: the budget, which is no cap here: what the program wants is told.
        points: how many at the most.

    Returns:
        `events`, how many the trace has; `at`, the event that each point stands for; `parts`, by name (those of a
        breakdown) what is in use at each point; `reserved`, what the allocator has taken; `phases`, where each begins.
        None for a trace without events.
    """
    if not trace.events:
        return None
    sampled = sample_memory(trace, replay_trace(trace, workspace=limit.workspace), limit.workspace, points)
    return {
        "events": len(trace.events),
        "at": sampled["event"],
        "parts": {PART_NAMES[category]: sampled[category] for category in COLOURS if any(sampled[category])},
        "reserved": sampled["reserved"],
        "phases": [{"at": index, "phase": name} for index, name in find_phase_starts(trace)],
    }


def find_phase_starts(trace: Trace) -> list[tuple[int, str]]:
    """Where each phase begins: the event's index, and the phase."""
    found: list[tuple[int, str]] = []
    for index, event in enumerate(trace.events):
        if not found or event.phase != found[-1][1]:
            found.append((index, event.phase))
    return found


def draw_timeline(path: Path, trace: Trace, limit: Limit, judgement: Judgement) -> None:
    """Draw the timeline of a trace.

    Raises:
        OSError: the path cannot be written to.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    # Without a cap: what the program wants is seen to rise above the line of the budget.
    sampled = sample_memory(trace, replay_trace(trace, workspace=limit.workspace), limit.workspace)
    _stack(axes, sampled, limit)
    _label(axes, trace, limit, judgement)
    with rc_context({"svg.fonttype": "none"}):  # text as text: to be searched, and a quarter of the size
        figure.savefig(path, format=path.suffix[1:].lower(), dpi=120)


def _stack(axes: Any, sampled: dict[str, list[int]], limit: Limit) -> None:
    across = sampled["event"]
    names = [name for name in COLOURS if any(sampled[name])]
    heights = [[limit.context / GIB] * len(across), *([size / GIB for size in sampled[name]] for name in names)]
    labels = ["CUDA context", *(PART_NAMES[name] for name in names)]
    axes.stackplot(across, heights, labels=labels, colors=[CONTEXT_COLOUR, *(COLOURS[name] for name in names)])
    taken = [(size + limit.context) / GIB for size in sampled["reserved"]]
    axes.plot(across, taken, color="black", linewidth=0.8, label="taken from the driver")
    axes.axhline(limit.size / GIB, color="#CC3311", linestyle="--", linewidth=1.5, label=f"budget {limit.text}")


def _label(axes: Any, trace: Trace, limit: Limit, judgement: Judgement) -> None:
    axes.set_title(format_headline(judgement), loc="left", fontsize=11, pad=22)
    axes.set_xlabel("allocations and deaths of tensors, in order")
    axes.set_ylabel("GiB")
    axes.set_xlim(0, max(len(trace.events) - 1, 1))
    top = max(axes.get_ylim()[1], limit.size / GIB * 1.05)
    axes.set_ylim(0, top)
    begins = find_phase_starts(trace)
    ends = [index for index, _ in begins[1:]] + [len(trace.events)]
    for (index, name), end in zip(begins, ends, strict=True):
        axes.axvline(index, color="black", linewidth=0.4, alpha=0.5)
        if end - index > len(trace.events) * len(name) * LETTER_WIDTH:  # there is room for its name
            axes.text(index, top, f" {name}", fontsize=7, va="bottom", clip_on=False)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, reverse=True, fontsize=8)
