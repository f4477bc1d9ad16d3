"""The catalogue: what an edge case is, how a test becomes one, and how the whole of it is read and printed.

A case's slug, number, title, severity, expectation and its test stand together, in one function of `edge_cases/`.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import pytest

from pytest_trainguard.harm import GRADES

Test = TypeVar("Test", bound=Callable[..., Any])

VERDICT_KINDS = ("rejects", "survives", "stops", "recovers")
BOUNDLESS = 10**9
SLUG = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@dataclass(frozen=True, eq=False)
class Family:
    """Cases that belong together, and the numbers that are theirs alone.

    Attributes:
        whose: as a message calls them.
        numbers: that their cases may have.
        categories: in order: the marker, which is also in the name of the test module (`test_data.py`), and the title.
    """

    whose: str
    numbers: range
    categories: dict[str, str]

    @property
    def span(self) -> str:
        """Its numbers in words."""
        last = self.numbers[-1]
        return f"{self.numbers[0]} to {last}" if last < BOUNDLESS else f"from {self.numbers[0]} on"


# No number means two things: what is reserved here stays free until its family comes.
CATALOGUE = Family(
    "the catalogue's",
    range(1, 101),
    {
        "data": "Data",
        "model": "Model and checkpoint",
        "memory": "GPU and memory",
        "config": "Configuration",
        "process": "Process and system",
        "queue": "Queue and files",
        "training": "Training flow",
        "code": "Code",
    },
)
OWN = Family("a project's own", range(1001, BOUNDLESS + 1), {"own": "The project's own"})
SILENT = Family("the silent errors'", range(101, 126), {"silent": "Silent errors"})
FAMILIES = (
    CATALOGUE,
    SILENT,
    Family("reserved for a family to come", range(126, 200), {}),
    Family("reserved for a family to come", range(201, 300), {}),
    OWN,
)
CATEGORIES = {name: title for family in FAMILIES for name, title in family.categories.items()}


@dataclass(frozen=True)
class EdgeCase:
    """One entry of the catalogue, or a project's own case.

    Attributes:
        slug: its identity for ever, as a command line names it: `partial-save`.
        title: what goes wrong.
        category: one of `CATEGORIES`.
        severity: the worst grade that it can give, of `harm.GRADES`.
        verdict: what a good trainer does: `rejects`, `survives`, `stops`, `recovers`; two are joined by a slash.
        brought_about: how the harness brings the condition about.
        expects: what a good trainer does, in one line.
        number: for display, where it has one; from its family's.
        family: whose numbers it may have.
        fast: it costs a few short runs, and is in the subset that `--fast` selects.
    """

    slug: str
    title: str
    category: str
    severity: str
    verdict: str
    brought_about: str
    expects: str
    number: int | None = None
    family: Family = OWN
    fast: bool = False

    @property
    def key(self) -> str:
        """What `--edge-case` takes for it: the number, or the slug where it has none."""
        return self.slug if self.number is None else str(self.number)

    @property
    def heading(self) -> str:
        """Number and title, as a person is told of it."""
        return self.title if self.number is None else f"{self.number} {self.title}"


def edge_case(
    slug: str,
    *,
    title: str,
    verdict: str,
    severity: str,
    brought_about: str,
    expects: str,
    number: int | None = None,
    category: str | None = None,
    fast: bool = False,
) -> Callable[[Test], Test]:
    """Make a test function an edge case: it runs once for each trainer, under `-m preflight` only.

    Args:
        slug: its identity, in lower case, words joined by hyphens: `partial-save`.
        title: what goes wrong.
        verdict: what a good trainer does: `rejects`, `survives`, `stops`, `recovers`; two are joined by a slash.
        severity: the worst grade that it can give, of `harm.GRADES`.
        brought_about: how the harness brings the condition about.
        expects: what a good trainer does, in one line.
        number: for display; a project's own begin at 1001.
        category: of a project's own case; `own` where none is named. In the catalogue it is that of the module.
        fast: it costs a few short runs, and is in the subset that `--fast` selects.

    Raises:
        ValueError: a slug that is none, or a verdict kind, severity or category that does not exist.
    """
    if not SLUG.fullmatch(slug):
        raise ValueError(f"edge case {slug!r}: a slug is words in lower case joined by hyphens, such as partial-save")
    if severity not in GRADES:
        raise ValueError(f"edge case {slug!r}: severity {severity!r} is not one of {', '.join(GRADES)}")
    if not set(verdict.split("/")) <= set(VERDICT_KINDS):
        raise ValueError(f"edge case {slug!r}: verdict kind {verdict!r} is not of {', '.join(VERDICT_KINDS)}")

    def mark(test: Test) -> Test:
        family, group = _place(slug, category, Path(inspect.getfile(inspect.unwrap(test))))
        case = EdgeCase(
            slug, title, group, severity, verdict, brought_about, expects, number=number, family=family, fast=fast
        )
        marked = pytest.mark.edge_case(case)(test)
        return getattr(pytest.mark, group)(pytest.mark.preflight(marked))  # type: ignore[no-any-return]

    return mark


def _place(slug: str, category: str | None, file: Path) -> tuple[Family, str]:
    """The family and the category of a case: in the catalogue its module says both."""
    if file.resolve().parent != catalogue_folder():
        group = category or "own"
        if group not in CATEGORIES:
            raise ValueError(f"edge case {slug!r}: category {group!r} is not one of {', '.join(CATEGORIES)}")
        return OWN, group
    group = file.stem.removeprefix("test_")
    if category is not None:
        raise ValueError(f"edge case {slug!r}: in the catalogue the module says the category: leave category= out")
    for family in FAMILIES:
        if group in family.categories:
            return family, group
    raise ValueError(f"edge case {slug!r}: {file.name} is of no category: name it in FAMILIES of catalog.py")


@lru_cache(maxsize=1)
def catalogue_folder() -> Path:
    """Where the catalogue's test modules are."""
    return Path(str(importlib.import_module("pytest_trainguard.edge_cases").__file__)).resolve().parent


def case_of(marks: Iterable[pytest.Mark]) -> EdgeCase | None:
    """The edge case among a test's marks."""
    for mark in marks:
        if mark.name == "edge_case" and mark.args and isinstance(mark.args[0], EdgeCase):
            return mark.args[0]
    return None


def module_names() -> list[str]:
    """The catalogue's test modules, in order."""
    families = [family for family in FAMILIES if family is not OWN]
    return [f"pytest_trainguard.edge_cases.test_{name}" for family in families for name in family.categories]


def read_tests() -> dict[EdgeCase, Callable[..., Any]]:
    """Every case of the catalogue with its test function: in order of number, then those that have none."""
    found = {}
    for name in module_names():
        for value in vars(importlib.import_module(name)).values():
            case = case_of(getattr(value, "pytestmark", []))
            if case:
                found[case] = value
    return dict(sorted(found.items(), key=lambda item: sort_key(item[0])))


def read_cases() -> list[EdgeCase]:
    """Every case of the catalogue: in order of number, then those that have none."""
    return list(read_tests())


def sort_key(case: EdgeCase) -> tuple[bool, int, str]:
    """For an order by number, those without one last."""
    return case.number is None, case.number or 0, case.slug


def format_table(cases: Iterable[EdgeCase]) -> str:
    """The catalogue as a table for a terminal."""
    columns = "{:>4}  {:<38} {:<38} {:<9} {:<17} {:<9} {}"
    lines = [columns.format("no", "slug", "edge case", "category", "verdict", "severity", "a good trainer")]
    for case in cases:
        number = "" if case.number is None else case.number
        told = (number, case.slug, case.title, case.category, case.verdict, case.severity, case.expects)
        lines.append(columns.format(*told))
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


TABLE_HEAD = """\
| # | slug | edge case | brought about by | a good trainer | verdict | severity |
|---|---|---|---|---|---|---|
"""


def format_page(cases: Iterable[EdgeCase]) -> str:
    """The catalogue in Markdown, a table for each category: what `edge_cases/README.md` holds."""
    every = list(cases)
    parts = [HEAD]
    for name, title in CATEGORIES.items():
        rows = [_row(case) for case in every if case.category == name]
        if rows:
            parts += [f"\n## {title}\n\nIn [test_{name}.py](test_{name}.py).\n\n", TABLE_HEAD, *rows]
    return "".join(parts)


def _row(case: EdgeCase) -> str:
    number = "" if case.number is None else case.number
    cells = (number, f"`{case.slug}`", case.title, case.brought_about, case.expects, case.verdict, case.severity)
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |\n"


if __name__ == "__main__":
    from pytest_trainguard import catalog  # the one that the cases are made with, which `__main__` is not

    print(catalog.format_page(catalog.read_cases()), end="")
