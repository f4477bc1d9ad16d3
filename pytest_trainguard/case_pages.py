"""A page in Markdown for each case, made of its entry in the catalogue, its test's docstring and its guide.

`python -m pytest_trainguard.case_pages docs/cases` writes them; `make catalogue` does so.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_trainguard import catalog
from pytest_trainguard.catalog import CATEGORIES, EdgeCase

GUIDES = Path("edge_cases", "guides")
HOW_TO_FIX = "## How to fix it"
KINDS = {
    "rejects": "exits non-zero with a message that names the cause, before the first optimizer step, and leaves the "
    "output folder as it found it",
    "survives": "trains on to the end, and the result is right",
    "stops": "ends non-zero soon after the fault with a message that names it; the last good checkpoint is complete, "
    "finite and loadable; no child process, lock or temporary file is left behind",
    "recovers": "a second start carries on, and from there its losses equal those of the undisturbed run, bit for bit",
}
INDEX_HEAD = """\
# The cases

Each case starts your program, makes one thing go wrong, and compares what the program did with what a good trainer
does. There are four kinds of expectation:

"""


def main(arguments: list[str]) -> int:
    """Write the pages into the folder that is named; the exit code."""
    if len(arguments) != 1:
        print("usage: python -m pytest_trainguard.case_pages FOLDER", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    pages = format_pages(GUIDES)
    for left in {path.name for path in folder.glob("*.md")} - set(pages):
        (folder / left).unlink()
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8")
    return 0


def format_pages(guides: Path) -> dict[str, str]:
    """Every page, the index too: file name to text.

    Args:
        guides: the folder of the guides, `SLUG.md` each; a case without one gets a page without "How to fix it".
    """
    tests = read_tests()
    pages = {f"{slug_of(test)}.md": format_page(case, test, guides) for case, test in tests.items()}
    return {"index.md": format_index(tests), **pages}


def read_tests() -> dict[EdgeCase, Callable[..., Any]]:
    """Every case of the catalogue with its test function, in order of number."""
    found = {}
    for name in catalog.modules():
        for value in vars(importlib.import_module(name)).values():
            case = catalog.case_of(getattr(value, "pytestmark", []))
            if case:
                found[case] = value
    return dict(sorted(found.items(), key=lambda item: item[0].number))


def slug_of(test: Callable[..., Any]) -> str:
    """The name of a case's page: that of its test function, without its number."""
    return re.sub(r"^test_(\d+_)?", "", test.__name__).replace("_", "-")


def format_page(case: EdgeCase, test: Callable[..., Any], guides: Path) -> str:
    """One case on one page."""
    slug = slug_of(test)
    why, how = split_guide(guides / f"{slug}.md")
    facts = f"`{slug}` · {CATEGORIES[case.category]} · verdict kind: {case.verdict} · severity: {case.severity}"
    parts = [
        f"# {case.number} {case.title}",
        facts + (" · in `--fast`" if case.fast else ""),
        f"## What is done\n\n{sentence(case.brought_about)}",
        inspect.getdoc(test) or "",
        why,
        f"## What a good trainer does\n\n{sentence(case.expects)}",
        explain_kinds(case.verdict),
        how,
        f"## Reproduce\n\n```console\n$ pytest -m preflight --edge-case {case.number}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def split_guide(path: Path) -> tuple[str, str]:
    """The two sections of a guide, why it matters and how to fix it; both empty where there is no guide."""
    if not path.is_file():
        return "", ""
    why, heading, how = path.read_text(encoding="utf-8").partition(HOW_TO_FIX)
    return why.strip(), (heading + how).strip()


def sentence(text: str) -> str:
    """An entry of the catalogue as a sentence."""
    return f"{text[0].upper()}{text[1:]}."


def explain_kinds(verdict: str) -> str:
    """What the kinds of a verdict mean, in one list."""
    return "\n".join(f"- **{kind}**: {KINDS[kind]}." for kind in verdict.split("/"))


def format_index(tests: dict[EdgeCase, Callable[..., Any]]) -> str:
    """The page that leads to the others: a table for each category."""
    parts = [INDEX_HEAD, explain_kinds("/".join(KINDS)), "\n"]
    for name, cases in itertools.groupby(tests, key=lambda case: case.category):
        parts.append(f"\n## {CATEGORIES[name]}\n\n| # | case | how it is brought about | verdict | severity |\n")
        parts.append("|---|---|---|---|---|\n")
        parts.extend(_row(case, slug_of(tests[case])) for case in cases)
    return "".join(parts)


def _row(case: EdgeCase, slug: str) -> str:
    cells = (case.number, f"[{case.title}]({slug}.md)", case.brought_about, case.verdict, case.severity)
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
