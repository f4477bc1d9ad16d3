"""The learning curves of a series as one picture: how each seed learned, and all of them on average."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trainers.common import files
from trainers.common.errors import reason

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
"""Told apart with any colour vision (Okabe and Ito 2008); without black, which is the mean's, and yellow."""
MEAN, INK, FAINT = "#1b1b1b", "#3c3c3c", "#d9d9d9"
MOST_NAMES = 12
"""Seeds with a line of their own in the legend."""
MOST_POINTS = 30
"""Points of a line that are shown as such."""
INCHES, DOTS_PER_INCH = (13.0, 5.0), 120


class Point(NamedTuple):
    """One value at one optimizer step."""

    step: int
    value: float


@dataclass
class Curve:
    """What one seed's ``metrics.jsonl`` tells.

    Attributes:
        seed: its number.
        state: ``finished``, or why not.
        training: training losses in nats, as logged.
        validation: validation losses in nats.
        f1: validation F1 at threshold 0.5.
        best_step: the step of the best checkpoint, if known.
    """

    seed: int
    state: str = "finished"
    training: list[Point] = field(default_factory=list)
    validation: list[Point] = field(default_factory=list)
    f1: list[Point] = field(default_factory=list)
    best_step: int | None = None

    @property
    def name(self) -> str:
        """For the legend."""
        return f"seed {self.seed}" + ("" if self.state == "finished" else f" ({self.state})")


def read(path: Path, curve: Curve) -> str | None:
    """Fill ``curve`` from a ``metrics.jsonl``.

    Returns:
        None, or in one line what is wrong with the file; the curve then ends before it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None if curve.state != "finished" else f"{path.name}: no such file"
    except OSError as error:
        return f"{path.name}: {reason(error)}"
    except UnicodeDecodeError as error:
        return f"{path.name}: not UTF-8 at byte {error.start}"
    for number, line in enumerate(lines, 1):
        try:
            _take(curve, json.loads(line))
        except (ValueError, TypeError, KeyError, RecursionError):
            return f"{path.name}, line {number}: no record of a step"
    return None


def _take(curve: Curve, record: dict[str, Any]) -> None:
    step, kind, loss = record["step"], record["kind"], record["loss"]
    values = [step, loss, record["f1"] if kind == "validation" else 0]
    if type(step) is not int or not all(type(value) in (int, float) and abs(value) < math.inf for value in values):
        raise ValueError
    if kind == "train":
        curve.training.append(Point(step, loss))
    elif kind == "validation":
        curve.validation.append(Point(step, loss))
        curve.f1.append(Point(step, values[2]))


def smoothed(points: Sequence[Point], records: int) -> list[Point]:
    """The running mean over so many records (odd), the step in its middle; over those there are at both ends.

    Centred, since an exponential mean would show each turn later than it came.
    """
    values, half = [point.value for point in points], records // 2
    windows = [values[max(0, index - half) : index + half + 1] for index in range(len(values))]
    return [Point(point.step, math.fsum(window) / len(window)) for point, window in zip(points, windows, strict=True)]


def mean_of(curves: Sequence[Sequence[Point]]) -> list[Point]:
    """The mean at those steps that all the curves have."""
    if not curves:
        return []
    tables = [dict(curve) for curve in curves]
    steps = sorted(set.intersection(*(set(table) for table in tables)))
    return [Point(step, math.fsum(table[step] for table in tables) / len(tables)) for step in steps]


def draw(path: Path, curves: Sequence[Curve], *, title: str, min_mean_f1: float) -> None:
    """Replace ``path`` by the picture, a PNG.

    Args:
        path: where to.
        curves: one for each seed that has begun; the mean is that of the finished ones.
        title: over the picture.
        min_mean_f1: is drawn as a line into the F1 panel.

    Raises:
        TrainingFailed: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    longest = max((len(curve.training) for curve in curves), default=0)
    records = longest // 40 * 2 + 1  # a twentieth of the run, odd
    smooth = [replace(curve, training=smoothed(curve.training, records)) for curve in curves]
    colours = _colours(len(curves))
    layout = ConstrainedLayoutEngine(h_pad=0.09, w_pad=0.09)  # inches
    figure = Figure(figsize=INCHES, dpi=DOTS_PER_INCH, facecolor="white", layout=layout)
    FigureCanvasAgg(figure)
    training, validation, f1 = figure.subplots(1, 3)
    _panel(training, "Training loss" + (f", mean of {records} records" if records > 1 else ""), "cross-entropy (nats)")
    _panel(validation, "Validation loss", "cross-entropy (nats)")
    _panel(f1, "Validation F1 at threshold 0.5", "F1 (0 to 1)")
    if records > 1 and len(curves) <= len(PALETTE):  # the noise of many seeds would hide all of them
        for curve, colour in zip(curves, colours, strict=True):
            training.plot(*_columns(curve.training), color=colour, linewidth=0.6, alpha=0.18)
    _lines(training, smooth, [curve.training for curve in smooth], colours)
    for axes, lines in ((validation, [curve.validation for curve in curves]), (f1, [curve.f1 for curve in curves])):
        _lines(axes, curves, lines, colours)
        _rings(axes, curves, lines, colours)
    _limits(smooth, training, validation, f1, min_mean_f1)
    _legend(figure, curves, colours)
    figure.suptitle(title, x=0.006, ha="left", fontsize=13, fontweight="bold", color=INK)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    files.write_bytes(path, buffer.getvalue())


def _panel(axes: Axes, title: str, unit: str) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_title(title, loc="left", fontsize=11, color=INK, pad=9)
    axes.set_xlabel("optimizer step", color=INK)
    axes.set_ylabel(unit, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=9, length=3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#9a9a9a")


def _colours(count: int) -> list[Any]:
    """As many as there are seeds: the palette, or a colour map where it is too short."""
    if count <= len(PALETTE):
        return list(PALETTE[:count])
    from matplotlib import colormaps

    return [colormaps["viridis"](0.92 * index / (count - 1)) for index in range(count)]


def _lines(axes: Axes, curves: Sequence[Curve], lines: Sequence[Sequence[Point]], colours: Sequence[Any]) -> None:
    """One line a seed, and over them the mean of those that have finished."""
    for curve, line, colour in zip(curves, lines, colours, strict=True):
        # Few points are shown as points: a line of one point would be nothing at all.
        marker = "o" if len(line) <= MOST_POINTS else ""
        axes.plot(
            *_columns(line), color=colour, linewidth=1.5, alpha=0.85, linestyle=_dashes(curve), marker=marker,
            markersize=3.4, zorder=3,
        )  # fmt: skip
    finished = [line for curve, line in zip(curves, lines, strict=True) if curve.state == "finished"]
    if len(finished) > 1:
        mean = mean_of(finished)
        marker = "o" if len(mean) == 1 else ""
        axes.plot(*_columns(mean), color=MEAN, linewidth=2.6, solid_capstyle="round", marker=marker, zorder=5)


def _rings(axes: Axes, curves: Sequence[Curve], lines: Sequence[Sequence[Point]], colours: Sequence[Any]) -> None:
    """Where each seed's best checkpoint is."""
    for curve, line, colour in zip(curves, lines, colours, strict=True):
        best = [point for point in line if point.step == curve.best_step]
        axes.plot(
            *_columns(best), linestyle="none", marker="o", markersize=9, markerfacecolor="none",
            markeredgecolor=colour, markeredgewidth=1.8, zorder=6,
        )  # fmt: skip


def _dashes(curve: Curve) -> Any:
    return "solid" if curve.state == "finished" else (0, (4, 2))


def _columns(points: Sequence[Point]) -> tuple[list[int], list[float]]:
    return [point.step for point in points], [point.value for point in points]


def _limits(curves: Sequence[Curve], training: Axes, validation: Axes, f1: Axes, min_mean_f1: float) -> None:
    """The same steps in each panel, the same losses in both loss panels; one that diverged squeezes no other."""
    last = max((point.step for curve in curves for point in (*curve.training, *curve.validation)), default=1)
    for axes in (training, validation, f1):
        axes.set_xlim(0, last * 1.03)
    shown = [curve for curve in curves if curve.state == "finished"] or curves
    losses = [point.value for curve in shown for point in (*curve.training, *curve.validation)]
    if losses:
        room = 0.06 * (max(losses) - min(losses)) or 0.05
        for axes in (training, validation):
            axes.set_ylim(max(0.0, min(losses) - room), max(losses) + room)
    lowest = min((point.value for curve in curves for point in curve.f1), default=0.0)
    f1.set_ylim(max(0.0, math.floor(10 * min(lowest, min_mean_f1) - 0.5) / 10) - 0.03, 1.03)
    f1.axhline(min_mean_f1, color="#8a8a8a", linewidth=1.1, linestyle=(0, (2, 2)), zorder=2)
    f1.annotate(
        f"gate: mean at least {min_mean_f1:g}",
        (1, min_mean_f1),
        xycoords=("axes fraction", "data"),
        xytext=(-3, 4 if min_mean_f1 < 0.93 else -11),
        textcoords="offset points",
        ha="right",
        fontsize=8.5,
        color="#6a6a6a",
    )


def _legend(figure: Figure, curves: Sequence[Curve], colours: Sequence[Any]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour, linewidth=2, linestyle=_dashes(curve))
        for curve, colour in zip(curves, colours, strict=True)
    ]
    names = [curve.name for curve in curves]
    if len(names) > MOST_NAMES:
        handles = [handles[0], handles[-1]]
        names = [f"{names[0]} (the first)", f"{names[-1]} (the last of {len(names)})"]
    finished = sum(curve.state == "finished" for curve in curves)
    if finished > 1:
        handles.append(Line2D([], [], color=MEAN, linewidth=3))
        names.append(f"mean of {finished} finished seeds")
    if any(curve.best_step is not None for curve in curves):
        handles.append(
            Line2D([], [], linestyle="none", marker="o", markersize=8, markerfacecolor="none", markeredgecolor=INK)
        )
        names.append("best checkpoint")
    columns = min(len(names), 5)
    figure.legend(handles, names, loc="outside lower left", ncols=columns, frameon=False, fontsize=9.5, labelcolor=INK)
