"""A verdict as a person reads it, under the test's name in pytest's output with -v and in other reports."""

from __future__ import annotations

import textwrap

from _pytest._code.code import ReprEntryNative, ReprExceptionInfo, ReprFileLocation, ReprTraceback

from pytest_trainguard.printing import printable
from pytest_trainguard.report.data import CaseVerdict

WIDTH = 14  # of the labels' column


def format_block(told: CaseVerdict) -> str:
    """What was done, what a good trainer does, what this one did, how to see it; as it may be printed."""
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
    lines, before = [printable(head)], ""
    for label, said in parts:
        text = printable(said)
        if text and (label, text) != ("output", before):  # several problems of one run have one output
            lines.append(textwrap.indent(text, " " * WIDTH).replace(" " * WIDTH, f"  {label:<{WIDTH - 2}}", 1))
        before = text if label == "output" else before
    return "\n".join(lines)


def represent_block(told: CaseVerdict, file: str) -> ReprExceptionInfo:
    """The verdict in the place of a traceback: reports of other plugins take a failure's message from there.

    It has to cross to another process under pytest-xdist, which only carries pytest's own forms.

    Args:
        told: the verdict.
        file: of the test.
    """
    message = f"{told.heading}: {told.trainer}: {(told.reason or told.verdict).splitlines()[0]}"
    whole = ReprTraceback([ReprEntryNative([format_block(told) + "\n"])], None, "native")
    return ReprExceptionInfo(whole, ReprFileLocation(file, 0, printable(message)))
