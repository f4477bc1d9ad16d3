"""The end of a preflight in the terminal: trainers × categories, what did not apply, GO or NO-GO."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from pytest_trainguard.catalog import CATEGORIES
from pytest_trainguard.report.json_report import memory, why

if TYPE_CHECKING:
    from pytest_trainguard.session.preflight import Preflight

SLOWEST = 5


def write(preflight: Preflight, reporter: Any, exitstatus: int) -> None:
    """Write the summary to pytest's terminal."""
    verdicts = sorted(preflight.verdicts, key=lambda verdict: (verdict["trainer"], verdict["number"]))
    reporter.section("preflight", sep="=")
    for line, markup in grid(verdicts):
        reporter.write_line(line, **markup)
    _not_applicable(verdicts, reporter)
    _memory(verdicts, reporter)
    for verdict in verdicts:
        if verdict["verdict"] in ("failed", "error"):
            first = verdict["reason"].splitlines()[0] if verdict["reason"] else ""
            word = "FAILED" if verdict["verdict"] == "failed" else "ERROR"
            reporter.write_line(
                f"{word} {verdict['number']} {verdict['title']}: {verdict['trainer']}: {first}", red=True
            )
            reporter.write_line(f"       {verdict['alone']}")
    slowest = sorted(verdicts, key=lambda verdict: -verdict["seconds"])[:SLOWEST]
    if len(verdicts) > SLOWEST:
        shown = "; ".join(f"{v['number']} {v['title']}: {v['trainer']} {v['seconds']:.1f} s" for v in slowest)
        reporter.write_line(f"slowest: {shown}")
    _clearance(preflight, reporter, exitstatus)


def grid(verdicts: list[dict[str, Any]]) -> list[tuple[str, dict[str, bool]]]:
    """Lines and their markup: for each trainer and category, how many passed of how many were judged."""
    names = list(dict.fromkeys(verdict["trainer"] for verdict in verdicts))
    width = max([len(name) for name in names], default=7)
    columns = [*CATEGORIES, "n/a", "error"]
    lines: list[tuple[str, dict[str, bool]]] = []
    lines.append((" ".join([" " * width, *(f"{column:>9}" for column in columns)]), {"bold": True}))
    for name in names:
        own = [verdict for verdict in verdicts if verdict["trainer"] == name]
        cells = []
        for category in CATEGORIES:
            counts = Counter(verdict["verdict"] for verdict in own if verdict["category"] == category)
            judged = counts["passed"] + counts["failed"]
            cells.append(f"{counts['passed']}/{judged}" if judged else "-")
        total = Counter(verdict["verdict"] for verdict in own)
        cells += [str(total["not_applicable"]), str(total["error"])]
        good = not total["failed"] and not total["error"]
        lines.append(
            (
                " ".join([name.ljust(width), *(f"{cell:>9}" for cell in cells)]),
                {"green" if good else "red": True},
            )
        )
    return lines


def _not_applicable(verdicts: list[dict[str, Any]], reporter: Any) -> None:
    for verdict in verdicts:
        if verdict["verdict"] == "not_applicable":
            reporter.write_line(
                f"not applicable: {verdict['number']} {verdict['title']}: {verdict['trainer']}: {verdict['reason']}"
            )


def _memory(verdicts: list[dict[str, Any]], reporter: Any) -> None:
    """What was predicted of each trainer's GPU memory."""
    found = memory(verdicts)
    if not found:
        return
    from pytest_trainguard.memory.answers.prediction import format_prediction

    for one in found:
        first, *rest = format_prediction(one)
        good = {"FITS": {"green": True}, "TIGHT": {"yellow": True}}.get(one["verdict"], {"red": True})
        reporter.write_line(f"GPU memory: {one['trainer']}: {first}", **good)
        for line in rest:
            reporter.write_line(line)


def _clearance(preflight: Preflight, reporter: Any, exitstatus: int) -> None:
    clearance = preflight.clearance(exitstatus)
    if preflight.left_out:
        shown = ranges(preflight.left_out)
        reporter.write_line(f"left out by --fast, {len(preflight.left_out)} cases: {shown}: run them without it")
    for problem in preflight.report_problems:
        reporter.write_line(f"ERROR: {problem}", red=True)
    markup = {"bold": True, "green" if clearance == "GO" else "red": True}
    reporter.write_line(f"{clearance}: {why(preflight, exitstatus)}", **markup)


def ranges(numbers: set[int]) -> str:
    """Numbers in few words, as `--edge-case` takes them: `8,41-43`."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)
