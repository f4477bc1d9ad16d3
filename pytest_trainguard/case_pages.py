"""A page in Markdown for each case, made of its entry in the catalogue, its test's docstring and its guide.

`python -m pytest_trainguard.case_pages docs/cases` writes them; `make catalogue` does so.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path

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
TABLE_HEAD = """\
| # | case | how it is brought about | verdict | severity |
|---|---|---|---|---|
"""
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
    tests = catalog.read_tests()
    pages = {f"{case.slug}.md": format_page(case, test, guides) for case, test in tests.items()}
    return {"index.md": format_index(list(tests)), **pages}


def format_page(case: EdgeCase, test: Callable[..., object], guides: Path) -> str:
    """One case on one page."""
    why, how = split_guide(guides / f"{case.slug}.md")
    facts = f"`{case.slug}` · {CATEGORIES[case.category]} · verdict kind: {case.verdict} · severity: {case.severity}"
    parts = [
        f"# {case.heading}",
        facts + (" · in `--fast`" if case.fast else ""),
        f"## What is done\n\n{sentence(case.brought_about)}",
        inspect.getdoc(test) or "",
        why,
        f"## What a good trainer does\n\n{sentence(case.expects)}",
        explain_kinds(case.verdict),
        how,
        f"## Reproduce\n\n```console\n$ pytest -m preflight --edge-case {case.key}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def split_guide(path: Path) -> tuple[str, str]:
    """The two sections of a guide, why it matters and how to fix it; both empty where there is no guide."""
    if not path.is_file():
        return "", ""
    why, heading, how = path.read_text(encoding="utf-8").partition(HOW_TO_FIX)
    return why.strip(), (heading + how).strip()


def summarize_fix(guide: Path, framework: str) -> str:
    """The guide's own words for a framework, without code, or its general ones; empty where there is no guide."""
    general, *sections = re.split(r"^### ", split_guide(guide)[1], flags=re.M)
    named = {title.strip(): text for title, _, text in (section.partition("\n") for section in sections)}
    parts = [general.partition("\n")[2], named.get(framework, "")]
    prose = [re.sub(r"^```.*?^```$", "", part, flags=re.M | re.S).strip().partition("\n\n")[0] for part in parts]
    return " ".join(" ".join(part.split()) for part in prose if part)


def sentence(text: str) -> str:
    """An entry of the catalogue as a sentence."""
    return f"{text[0].upper()}{text[1:]}."


def explain_kinds(verdict: str) -> str:
    """What the kinds of a verdict mean, in one list."""
    return "\n".join(f"- **{kind}**: {KINDS[kind]}." for kind in verdict.split("/"))


def format_index(cases: list[EdgeCase]) -> str:
    """The page that leads to the others: a table for each category."""
    parts = [INDEX_HEAD, explain_kinds("/".join(KINDS)), "\n"]
    for name, title in CATEGORIES.items():
        rows = [_row(case) for case in cases if case.category == name]
        if rows:
            parts += [f"\n## {title}\n\n", TABLE_HEAD, *rows]
    return "".join(parts)


def _row(case: EdgeCase) -> str:
    number = "" if case.number is None else case.number
    cells = (number, f"[{case.title}]({case.slug}.md)", case.brought_about, case.verdict, case.severity)
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
