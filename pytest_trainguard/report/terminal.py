"""The end of a preflight in the terminal: trainers × categories, what did not apply, GO or NO-GO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby

import pytest

from pytest_trainguard.catalog import CATALOGUE, CATEGORIES, EdgeCase
from pytest_trainguard.report.data import CaseVerdict, SessionResult
from pytest_trainguard.report.json_report import explain_clearance, merge_predictions

SLOWEST = 5


def write_summary(result: SessionResult, reporter: pytest.TerminalReporter) -> None:
    """Write the summary to pytest's terminal."""
    verdicts = sorted(result.verdicts, key=lambda verdict: (verdict.trainer, verdict.order))
    reporter.section("preflight", sep="=")
    for line, markup in format_grid(verdicts):
        reporter.write_line(line, **markup)
    _write_not_applicable(verdicts, reporter)
    _write_memory(verdicts, reporter)
    _write_failures(verdicts, reporter)
    _write_slowest(verdicts, reporter)
    _write_clearance(result, reporter)


def format_grid(verdicts: Sequence[CaseVerdict]) -> list[tuple[str, dict[str, bool]]]:
    """Lines and their markup: for each trainer and category, how many passed of how many were judged."""
    names = list(dict.fromkeys(verdict.trainer for verdict in verdicts))
    width = max([len(name) for name in names], default=7)
    there = {verdict.category for verdict in verdicts}
    categories = [name for name in CATEGORIES if name in CATALOGUE.categories or name in there]
    head = " ".join([" " * width, *(f"{column:>9}" for column in [*categories, "n/a", "error"])])
    lines = [(head, {"bold": True})]
    for name in names:
        own = [verdict for verdict in verdicts if verdict.trainer == name]
        total = Counter(verdict.verdict for verdict in own)
        cells = [*(_format_cell(own, category) for category in categories), total["not_applicable"], total["error"]]
        good = not total["failed"] and not total["error"]
        row = " ".join([name.ljust(width), *(f"{cell:>9}" for cell in cells)])
        lines.append((row, {"green" if good else "red": True}))
    return lines


def _format_cell(verdicts: Sequence[CaseVerdict], category: str) -> str:
    counts = Counter(verdict.verdict for verdict in verdicts if verdict.category == category)
    judged = counts["passed"] + counts["failed"]
    return f"{counts['passed']}/{judged}" if judged else "-"


def _write_not_applicable(verdicts: Sequence[CaseVerdict], reporter: pytest.TerminalReporter) -> None:
    for verdict in verdicts:
        if verdict.verdict == "not_applicable":
            reporter.write_line(f"not applicable: {verdict.heading}: {verdict.trainer}: {verdict.reason}")


def _write_memory(verdicts: Sequence[CaseVerdict], reporter: pytest.TerminalReporter) -> None:
    """What was predicted of each trainer's GPU memory."""
    found = merge_predictions(verdicts)
    if not found:
        return
    from pytest_trainguard.memory.answers.prediction import format_prediction

    for one in found:
        first, *rest = format_prediction(one)
        good = {"FITS": {"green": True}, "TIGHT": {"yellow": True}}.get(one["verdict"], {"red": True})
        reporter.write_line(f"GPU memory: {one['trainer']}: {first}", **good)
        for line in rest:
            reporter.write_line(line)


def _write_failures(verdicts: Sequence[CaseVerdict], reporter: pytest.TerminalReporter) -> None:
    for verdict in verdicts:
        if verdict.verdict in ("failed", "error"):
            first = verdict.reason.splitlines()[0] if verdict.reason else ""
            reporter.write_line(f"{verdict.verdict.upper()} {verdict.heading}: {verdict.trainer}: {first}", red=True)
            reporter.write_line(f"       {verdict.alone}")


def _write_slowest(verdicts: Sequence[CaseVerdict], reporter: pytest.TerminalReporter) -> None:
    if len(verdicts) > SLOWEST:
        slowest = sorted(verdicts, key=lambda verdict: -verdict.seconds)[:SLOWEST]
        shown = "; ".join(f"{v.heading}: {v.trainer} {v.seconds:.1f} s" for v in slowest)
        reporter.write_line(f"slowest: {shown}")


def _write_clearance(result: SessionResult, reporter: pytest.TerminalReporter) -> None:
    if result.left_out:
        shown = format_keys(result.left_out)
        reporter.write_line(f"left out by --fast, {len(result.left_out)} cases: {shown}: run them without it")
    for problem in result.problems:
        reporter.write_line(f"ERROR: {problem}", red=True)
    markup = {"bold": True, "green" if result.clearance == "GO" else "red": True}
    reporter.write_line(f"{result.clearance}: {explain_clearance(result)}", **markup)


def format_keys(cases: Iterable[EdgeCase]) -> str:
    """Cases in few words, as `--edge-case` takes them: `8,41-43,partial-save`."""
    every = list(cases)
    numbers = sorted(case.number for case in every if case.number is not None)
    # Numbers that follow each other are as far from their places in the list.
    runs = [[number for _, number in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    ranges = [f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    return ",".join([*ranges, *(case.slug for case in every if case.number is None)])
