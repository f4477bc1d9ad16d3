"""A verdict as a person reads it, under the test's name in pytest's output."""

from __future__ import annotations

import textwrap

from pytest_trainguard.report.data import CaseVerdict

WIDTH = 14  # of the labels' column


def format_block(told: CaseVerdict) -> str:
    """What was done, what a good trainer does, what this one did, how to see it."""
    parts = [("not judged", told.reason), ("output", told.evidence)]
    if told.verdict == "failed":
        parts = [("done", told.did), ("expected", told.expects), ("happened", told.reason)]
        parts.append(("output", told.evidence))
    parts.append(("reproduce", told.alone))
    lines = [f"{told.heading} ({told.category}, {told.severity}): {told.trainer}"]
    for label, text in parts:
        if text:
            lines.append(textwrap.indent(text, " " * WIDTH).replace(" " * WIDTH, f"  {label:<{WIDTH - 2}}", 1))
    return "\n".join(lines)
