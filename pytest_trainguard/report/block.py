"""A verdict as a person reads it, under the test's name in pytest's output with -v and in other reports."""

from __future__ import annotations

import textwrap

from pytest_trainguard.report.data import CaseVerdict

WIDTH = 14  # of the labels' column


def format_block(told: CaseVerdict) -> str:
    """What was done, what a good trainer does, what this one did, how to see it."""
    head = f"{told.heading} ({told.category}{f', {told.grade}' if told.grade else ''}): {told.trainer}"
    if told.verdict == "error":
        parts: list[tuple[str, str]] = [("not judged", told.reason), ("output", told.evidence)]
    else:
        parts = [("expected", told.expects)]
    shown = ""
    for problem in told.problems:
        if problem.did != shown:
            parts.append(("done", problem.did))
            shown = problem.did
        label = "happened" if problem.grade == told.grade else str(problem.grade)
        parts += [(label, problem.said), ("output", problem.evidence)]
    parts.append(("reproduce", told.alone))
    lines, before = [head], ""
    for label, text in parts:
        if text and (label, text) != ("output", before):  # several problems of one run have one output
            lines.append(textwrap.indent(text, " " * WIDTH).replace(" " * WIDTH, f"  {label:<{WIDTH - 2}}", 1))
        before = text if label == "output" else before
    return "\n".join(lines)
