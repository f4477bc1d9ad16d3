"""The end of a preflight in the terminal: trainers × categories, what did not apply, GO or NO-GO."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby

import pytest

from pytest_trainguard.catalog import CATALOGUE, CATEGORIES, EdgeCase
from pytest_trainguard.printing import printable
from pytest_trainguard.report.data import CaseVerdict, Prediction, SessionResult
from pytest_trainguard.report.json_report import Report, headline, make_report, merge_predictions, tells_open
from pytest_trainguard.report.screen import MOST_GROUPS, WIDTH, format_causes, format_reasons

SLOWEST = 5
MOST_LINES = 60  # of a whole run's output, pytest's own lines among them; with -v there is no limit
PYTESTS_OWN = 11  # lines of pytest's before and after
DOTS = 48  # tests in a line of pytest's progress, beside a file's name
MOST_FORMS = 4  # trainers of which it is told how they are given their settings
LONGEST_NAME = 14  # of a trainer, in the grid
Markup = dict[str, bool]
Line = tuple[str, Markup]
MOST_NOTES = 3
PLAIN: Markup = {}
MARKUP: dict[str, Markup] = {"failed": {"red": True}, "advice": {"yellow": True}, "accepted": {}}


def write_summary(result: SessionResult, reporter: pytest.TerminalReporter) -> None:
    """Write the summary to pytest's terminal."""
    reporter.section("preflight", sep="=")
    for line, markup in format_summary(result, verbose=reporter.verbosity > 0):
        reporter.write_line(printable(line), **markup)


def format_summary(result: SessionResult, verbose: bool) -> list[Line]:
    """The lines of the summary: so many that all of pytest's output has `MOST_LINES`, or every one if `verbose`."""
    report = make_report(result)
    verdicts = sorted(result.verdicts, key=lambda verdict: (verdict.trainer, verdict.order))
    # Where no case was left, one line says so.
    head = (format_grid(verdicts) if verdicts else []) + _format_memory(merge_predictions(verdicts))
    foot = [*_format_acceptances(result), *_format_open(report, result.problems, verbose)]
    foot += [*_format_slowest(verdicts), *_format_left_out(result), *_format_notes(result)]
    foot += [*_format_forms(result), *_format_isolation(result)]
    rest = [(line, PLAIN) for line in foot] + _format_clearance(result, report)
    progress = -(-len(verdicts) // DOTS) + len({verdict.category for verdict in verdicts})
    room = MOST_LINES - PYTESTS_OWN - progress - len(head) - len(rest)
    causes = format_causes(report, 10**6 if verbose else room)
    return [*head, *((line, MARKUP[verdict]) for line, verdict in causes), *rest]


def format_grid(verdicts: Sequence[CaseVerdict]) -> list[Line]:
    """Lines and their markup: for each trainer and category, how many passed of how many were judged."""
    names = list(dict.fromkeys(verdict.trainer for verdict in verdicts))
    there = {verdict.category for verdict in verdicts}
    categories = [name for name in CATEGORIES if name in CATALOGUE.categories or name in there]
    rows = [["", *categories, "n/a", "error"]]
    colours = []
    for name in names:
        own = [verdict for verdict in verdicts if verdict.trainer == name]
        total = Counter(verdict.verdict for verdict in own)
        cells = [*(_format_cell(own, category) for category in categories), total["not_applicable"], total["error"]]
        rows.append([name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…", *map(str, cells)])
        colours.append({"green" if not total["failed"] and not total["error"] else "red": True})
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    wide = sum(widths) + 2 * (len(widths) - 1) <= WIDTH
    lines = [("  " if wide else " ").join(_align(row, widths)).rstrip() for row in rows]
    return list(zip(lines, [{"bold": True}, *colours], strict=True))


def _align(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """The first cell to the left, the others to the right."""
    first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
    return [first.strip().ljust(widths[0]), *others]


def _format_cell(verdicts: Sequence[CaseVerdict], category: str) -> str:
    counts = Counter(verdict.verdict for verdict in verdicts if verdict.category == category)
    good = counts["passed"] + counts["advice"] + counts["accepted"]
    judged = good + counts["failed"]
    return f"{good}/{judged}" if judged else "-"


def _format_open(report: Report, problems: Sequence[str], verbose: bool) -> list[str]:
    """What was not judged, and what does not apply: by reason."""
    most = 10**6 if verbose else MOST_GROUPS
    # What the team has to mend is told below, as an error; of a trainer of which nothing could be judged nothing else.
    errors = [case for case in report["cases"] if case["verdict"] == "error" and case["reason"] not in problems]
    failing = {case["trainer"] for case in report["cases"] if case["verdict"] == "error"}
    judged = {case["trainer"] for case in report["cases"] if case["verdict"] not in ("error", "not_applicable")}
    others = [
        case
        for case in report["cases"]
        if case["verdict"] == "not_applicable" and case["trainer"] not in failing - judged
    ]
    lines = format_reasons(errors, lambda count: f"not judged: {count}", most)
    return lines + format_reasons(others, lambda count: f"not applicable: {count}; they would apply with", most)


def _format_acceptances(result: SessionResult) -> list[str]:
    """Of what the team has accepted that which wants a look: each trainer's and state's in one line, by case."""
    told = {
        "unneeded": "accepted and no longer needed",
        "outgrown": "graver than it was accepted",
        "expired": "accepted until a day that is over",
    }
    lines = []
    for state, words in told.items():
        for trainer in dict.fromkeys(entry.trainer for entry in result.acceptances if entry.state == state):
            causes: dict[str, list[str]] = {}
            for entry in result.acceptances:
                if (entry.trainer, entry.state) == (trainer, state):
                    day = f" on {entry.expires}" if state == "expired" else ""
                    causes.setdefault(entry.case, []).append(f"{entry.cause}{day}")
            shown = ", ".join(f"{case} ({', '.join(keys)})" for case, keys in causes.items())
            line = f"{words}: {trainer}: {shown}"
            lines += textwrap.wrap(
                line, WIDTH, subsequent_indent="  ", max_lines=3, placeholder=" …", break_on_hyphens=False
            )
    return lines


def _format_memory(predicted: Sequence[Prediction]) -> list[Line]:
    """What was predicted of each trainer's GPU memory."""
    if not predicted:
        return []
    from pytest_trainguard.memory.answers.prediction import format_prediction

    lines: list[Line] = []
    for one in predicted:
        first, *rest = format_prediction(one)
        good: Markup = {"FITS": {"green": True}, "TIGHT": {"yellow": True}}.get(one["verdict"], {"red": True})
        lines += [(f"GPU memory: {one['trainer']}: {first}", good), *((line, PLAIN) for line in rest)]
    return lines


def _format_slowest(verdicts: Sequence[CaseVerdict]) -> list[str]:
    if len(verdicts) <= SLOWEST or all(verdict.verdict in ("error", "not_applicable") for verdict in verdicts):
        return []
    slowest = sorted(verdicts, key=lambda verdict: -verdict.seconds)[:SLOWEST]
    several = len({verdict.trainer for verdict in verdicts}) > 1
    shown = [f"{v.heading}{f', {v.trainer}' if several else ''} {v.seconds:.1f} s" for v in slowest]
    return textwrap.wrap(f"slowest: {'; '.join(shown)}", WIDTH, subsequent_indent="  ", max_lines=2, placeholder=" …")


def _format_left_out(result: SessionResult) -> list[str]:
    if not result.left_out:
        return []
    flag = next((name for name in result.narrowed if name.endswith("-fast")), "--fast")
    shown = f"left out by {flag}, {len(result.left_out)} cases: {format_keys(result.left_out)}: run them without it"
    return textwrap.wrap(shown, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def _format_forms(result: SessionResult) -> list[str]:
    return [line for form in result.forms[:MOST_FORMS] for line in textwrap.wrap(form, WIDTH, subsequent_indent="  ")]


def _format_notes(result: SessionResult) -> list[str]:
    shown = [textwrap.shorten(note, 2 * WIDTH, placeholder=" …") for note in result.notes[:MOST_NOTES]]
    more = len(result.notes) - len(shown)
    return [*shown, *([f"and {more} more files that cannot be loaded"] if more else [])]


def _format_isolation(result: SessionResult) -> list[str]:
    return textwrap.wrap(result.isolation, WIDTH, subsequent_indent="  ", max_lines=2, placeholder=" …")


def _format_clearance(result: SessionResult, report: Report) -> list[Line]:
    told = [
        line
        for problem in result.problems
        for line in textwrap.wrap(f"ERROR: {problem}", WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    ]
    lines: list[Line] = [(line, {"red": True}) for line in told]
    colours = {"GO": "green", "GO WITH ADVICE": "yellow", "NO-GO": "red"}
    markup = {"bold": True, colours[result.clearance]: True}
    if tells_open(report):
        markup = {"bold": True, "yellow": True}
    return [*lines, (headline(report), markup)]


def format_keys(cases: Iterable[EdgeCase]) -> str:
    """Cases in few words, as `--edge-case` takes them: `8,41-43,partial-save`."""
    every = list(cases)
    numbers = sorted(case.number for case in every if case.number is not None)
    # Numbers that follow each other are as far from their places in the list.
    runs = [[number for _, number in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    ranges = [f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    return ",".join([*ranges, *(case.slug for case in every if case.number is None)])
