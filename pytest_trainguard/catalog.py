"""The catalogue: what an edge case is, how a test becomes one, and how the whole of it is read and printed.

A case's number, title, severity, expectation and its test stand together, in one function of `edge_cases/`.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

Test = TypeVar("Test", bound=Callable[..., Any])

# In catalogue order, ten cases each: the marker, which is also the test module's name, and the title.
CATEGORIES = {
    "data": "Data",
    "model": "Model and checkpoint",
    "memory": "GPU and memory",
    "config": "Configuration",
    "process": "Process and system",
    "queue": "Queue and files",
    "training": "Training flow",
    "code": "Code",
}
VERDICT_KINDS = ("rejects", "survives", "stops", "recovers")
SEVERITIES = ("critical", "major", "minor")
OWN = 81  # the first number that is not the catalogue's own


@dataclass(frozen=True)
class EdgeCase:
    """One entry of the catalogue.

    Attributes:
        number: its identity for ever; 1 to 80 are the catalogue's, from 81 on a team's own.
        title: what goes wrong.
        category: one of `CATEGORIES`.
        severity: `critical` (a run or its results are lost), `major` (time is lost), `minor`.
        verdict: what a good trainer does: `rejects`, `survives`, `stops`, `recovers`; two are joined by a slash.
        brought_about: how the harness brings the condition about.
        expects: what a good trainer does, in one line.
        fast: it costs a few short runs, and is in the subset that `--fast` selects.
    """

    number: int
    title: str
    category: str
    severity: str
    verdict: str
    brought_about: str
    expects: str
    fast: bool = False


def edge_case(
    number: int,
    title: str,
    *,
    verdict: str,
    severity: str,
    brought_about: str,
    expects: str,
    category: str | None = None,
    fast: bool = False,
) -> Callable[[Test], Test]:
    """Make a test function an edge case: it runs once for each trainer, under `-m preflight` only.

    Raises:
        ValueError: a number, verdict kind, severity or category that does not exist.
    """
    if category is None and 0 < number < OWN:
        category = list(CATEGORIES)[(number - 1) // 10]
    if category not in CATEGORIES:
        raise ValueError(f"edge case {number}: category {category!r} is not one of {', '.join(CATEGORIES)}")
    if severity not in SEVERITIES:
        raise ValueError(f"edge case {number}: severity {severity!r} is not one of {', '.join(SEVERITIES)}")
    if not set(verdict.split("/")) <= set(VERDICT_KINDS):
        raise ValueError(f"edge case {number}: verdict kind {verdict!r} is not of {', '.join(VERDICT_KINDS)}")
    case = EdgeCase(number, title, category, severity, verdict, brought_about, expects, fast)

    def mark(test: Test) -> Test:
        marked = pytest.mark.edge_case(case)(test)
        return getattr(pytest.mark, category)(pytest.mark.preflight(marked))  # type: ignore[no-any-return]

    return mark


def case_of(marks: Iterable[pytest.Mark]) -> EdgeCase | None:
    """The edge case among a test's marks."""
    for mark in marks:
        if mark.name == "edge_case" and mark.args and isinstance(mark.args[0], EdgeCase):
            return mark.args[0]
    return None


def modules() -> list[str]:
    """The catalogue's test modules, in order."""
    return [f"pytest_trainguard.edge_cases.test_{category}" for category in CATEGORIES]


def read() -> list[EdgeCase]:
    """Every case of the catalogue, in order of number."""
    cases = []
    for name in modules():
        for value in vars(importlib.import_module(name)).values():
            case = case_of(getattr(value, "pytestmark", []))
            if case:
                cases.append(case)
    return sorted(cases, key=lambda case: case.number)


def numbers(text: str) -> set[int]:
    """The numbers that `41,64-66` names.

    Raises:
        ValueError: it is not of that form.
    """
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ValueError(f"{part.strip()!r} is neither a number nor a range such as 64-66")
        if dash and int(last) < int(first):
            raise ValueError(f"{part.strip()!r} names no case: it ends before it begins")
        found.update(range(int(first), int(last or first) + 1))
    return found


def printed(cases: Iterable[EdgeCase]) -> str:
    """The catalogue as a table for a terminal."""
    lines = [f"{'no':>3}  {'edge case':<38} {'category':<9} {'verdict':<17} {'severity':<9} a good trainer"]
    for case in cases:
        columns = f"{case.number:>3}  {case.title:<38} {case.category:<9} {case.verdict:<17} {case.severity:<9}"
        lines.append(f"{columns} {case.expects}")
    return "\n".join(lines)


HEAD = """\
# The edge cases

Written by `make catalogue` from the cases themselves: what is to be changed here stands at the head of each test.
`pytest --catalogue` prints the same in a terminal.

Four verdict kinds:

- **rejects**: exits non-zero with a message that names the offending thing, before the first optimizer step, and leaves
  the output folder as it found it.
- **survives**: trains on to the end, and the result is right.
- **stops**: ends non-zero soon after the fault with a message that names it; the last good checkpoint is whole, finite
  and loadable; no child process, lock or temporary file is left.
- **recovers**: a second start carries on, and from there its losses equal those of the undisturbed run, to the bit.
"""


def page(cases: Iterable[EdgeCase]) -> str:
    """The catalogue in Markdown, a table for each category: what `edge_cases/README.md` holds."""
    parts = [HEAD]
    for name, category in itertools.groupby(cases, key=lambda case: case.category):
        parts.append(f"\n## {CATEGORIES[name]}\n\nIn [test_{name}.py](test_{name}.py).\n\n")
        parts.append(
            "| # | edge case | brought about by | a good trainer | verdict | severity |\n|---|---|---|---|---|---|\n"
        )
        parts.extend(_row(case) for case in category)
    return "".join(parts)


def _row(case: EdgeCase) -> str:
    cells = (case.number, case.title, case.brought_about, case.expects, case.verdict, case.severity)
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |\n"


if __name__ == "__main__":
    from pytest_trainguard import catalog  # the one that the cases are made with, which `__main__` is not

    print(catalog.page(catalog.read()), end="")
