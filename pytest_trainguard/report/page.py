"""The report as one page for people: nothing is fetched, it is read from a file in any browser.

It is made of the report's data and of the guides alone, so that one that was kept as JSON gives the same page later.
Whatever the page shows goes through `clean` and is then escaped: trainers print what they like. Its one script filters
what is there; the page allows that script by its hash, and no other.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import TypedDict, cast

import jinja2
from markupsafe import Markup, escape

from pytest_trainguard.catalog import CATALOGUE, CATEGORIES
from pytest_trainguard.harm import GRADES, MEANINGS
from pytest_trainguard.report import pictures
from pytest_trainguard.report.causes import CauseEntry, find_key
from pytest_trainguard.report.cleaning import clean, clean_text, unlink
from pytest_trainguard.report.data import Prediction, Word
from pytest_trainguard.report.json_report import CaseEntry, Coverage, ProblemEntry, Report, TrainerEntry
from pytest_trainguard.report.screen import format_fix

TEMPLATE = "page.html"
SCRIPT = "page.js"
SLOWEST = 5
ORDER: tuple[Word, ...] = (
    "failed",
    "error",
    "advice",
    "accepted",
    "passed",
    "not_applicable",
)  # of what a field of the grid stands for and leads to
GOOD: tuple[Word, ...] = ("passed", "advice", "accepted")  # what a field counts as such


class ShownCase(CaseEntry):
    """A case of the report, its anchor on the page, once there is one for it, and its heading."""

    id: str
    heading: str


class ShownFinding(TypedDict):
    """What one case found of one cause; `id` is empty where the case's anchor is at another cause."""

    case: ShownCase
    id: str
    grade: str
    problems: list[ProblemEntry]


class ShownCause(CauseEntry):
    """A cause of the report, how to fix it, and what its cases found."""

    fix: Markup
    findings: list[ShownFinding]
    categories: list[str]


class Cell(TypedDict):
    """How many of each verdict, the one that counts, and the first case that has it: where the field leads to."""

    counts: Counter[str]
    good: int
    judged: int
    verdict: str
    first: str


class Row(TypedDict):
    """A trainer's line of the grid."""

    trainer: TrainerEntry
    cells: list[Cell]
    all: Cell
    seconds: float


def render_page(report: Report) -> str:
    """The page.

    Args:
        report: as `schema.json` says.

    Raises:
        ValueError: it is not as the schema says.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=clean,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    try:
        return environment.get_template(TEMPLATE).render(_make_view(report))
    except (KeyError, TypeError, AttributeError, jinja2.UndefinedError) as error:
        raise ValueError(f"it is not as schema.json says: {type(error).__name__}: {error}") from error


def read_script() -> tuple[str, str]:
    """The page's one script, and the source expression by which a Content-Security-Policy allows it and no other."""
    text = Path(__file__).with_name(SCRIPT).read_text(encoding="utf-8")
    digest = hashlib.sha256(text.encode()).digest()
    return text, f"'sha256-{base64.b64encode(digest).decode()}'"


def _make_view(report: Report) -> dict[str, object]:
    """What the template shows."""
    cases = [_make_case(place, case) for place, case in enumerate(report["cases"])]
    having = {word: [case for case in cases if case["verdict"] == word] for word in ORDER}
    there = {case["category"]: CATEGORIES.get(case["category"], "") for case in cases}
    categories = CATALOGUE.categories | there
    causes = _make_causes(report["causes"], cases)
    unknown = _group(having["not_applicable"], lambda case: case["reason"])
    script, allowed = read_script()
    return {
        "report": {"why": _format_counts(report["coverage"]), "notes": [], "left_out": [], "acceptances": [], **report},
        "script": Markup(script),  # ours, and to the letter what the hash is of
        "script_source": Markup(allowed),
        "causes": {word: [cause for cause in causes if cause["verdict"] == word] for word in ORDER},
        "categories": categories,
        "filters": {
            "grade": [grade for grade in GRADES if any(cause["grade"] == grade for cause in causes)],
            "category": [name for name in categories if name in there],
            "trainer": [trainer["name"] for trainer in report["trainers"]],
        },
        "meanings": {grade: MEANINGS[grade] for grade in GRADES if any(cause["grade"] == grade for cause in causes)},
        "grid": [_make_row(trainer, cases, list(categories)) for trainer in report["trainers"]],
        "errors": _group(having["error"], lambda case: (case["trainer"], case["reason"])),
        "not_applicable": sorted(unknown, key=lambda group: -len(group)),
        "passed": _group(having["passed"], lambda case: case["trainer"]),
        "slowest": sorted(cases, key=lambda case: -case["seconds"])[:SLOWEST],
        "total": sum(case["seconds"] for case in cases),
        "memory": [_make_memory(one) for one in report["memory"]],
    }


def _make_case(place: int, case: CaseEntry) -> ShownCase:
    heading = case["title"] if case["number"] is None else f"{case['number']} {case['title']}"
    later = {"expects": "", "evidence": "", "framework": ""}  # which the schema does not require
    return cast(ShownCase, {**later, **case, "id": f"case-{place}", "heading": heading})


def _format_counts(coverage: Coverage) -> str:
    passed, failed, other = coverage["passed"], coverage["failed"], coverage["not_applicable"]
    return f"{passed} passed, {failed} failed, {other} not applicable"


def _make_causes(entries: Iterable[CauseEntry], cases: list[ShownCase]) -> list[ShownCause]:
    """The causes with what their cases found; a case's anchor stands at the first of its causes."""
    placed = {case["id"] for case in cases if case["verdict"] == "error"}  # they stand among what was not judged
    causes = []
    for entry in entries:
        own = [case for case in cases if case["trainer"] == entry["trainer"] and case["slug"] in entry["cases"]]
        findings: list[ShownFinding] = []
        for case in own:
            problems = [
                problem
                for problem in case["problems"]
                if find_key(problem["cause"], case["slug"]) == entry["key"] and problem["verdict"] == entry["verdict"]
            ]
            anchor = "" if case["id"] in placed else case["id"]
            placed.add(case["id"])
            grade = problems[0]["grade"] if problems else entry["grade"]
            findings.append({"case": case, "id": anchor, "grade": grade, "problems": _shorten(problems)})
        categories = list(dict.fromkeys(case["category"] for case in own))
        fix = _format_fix(format_fix(entry["guide"], entry["framework"]))
        causes.append(cast(ShownCause, {**entry, "fix": fix, "findings": findings, "categories": categories}))
    return causes


def _shorten(problems: list[ProblemEntry]) -> list[ProblemEntry]:
    """Several problems of one run have one output: it is shown once."""
    shown: set[str] = set()
    short: list[ProblemEntry] = []
    for problem in problems:
        short.append(cast(ProblemEntry, {**problem, "evidence": ""}) if problem["evidence"] in shown else problem)
        shown.add(problem["evidence"])
    return short


def _format_fix(text: str) -> Markup:
    """A guide's sentences, with what they name as code set as such, and links as their words."""
    plain = str(escape(clean_text(unlink(text))))
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", plain))


def _make_row(trainer: TrainerEntry, cases: list[ShownCase], categories: list[str]) -> Row:
    own = [case for case in cases if case["trainer"] == trainer["name"]]
    cells = [_make_cell([case for case in own if case["category"] == category]) for category in categories]
    return {"trainer": trainer, "cells": cells, "all": _make_cell(own), "seconds": sum(case["seconds"] for case in own)}


def _make_cell(cases: list[ShownCase]) -> Cell:
    counts = Counter[str](case["verdict"] for case in cases)
    verdict = next((word for word in ORDER if counts[word]), "none")
    good = sum(counts[word] for word in GOOD)
    return {
        "counts": counts,
        "good": good,
        "judged": good + counts["failed"],
        "verdict": verdict,
        "first": next((case["id"] for case in cases if case["verdict"] == verdict), ""),
    }


def _group(cases: list[ShownCase], key: Callable[[ShownCase], Hashable]) -> list[list[ShownCase]]:
    """Those that have the same key, together."""
    groups: dict[Hashable, list[ShownCase]] = {}
    for case in cases:
        groups.setdefault(key(case), []).append(case)
    return list(groups.values())


def _make_memory(one: Prediction) -> Prediction:
    """What was predicted of a trainer, in words and pictures."""
    from pytest_trainguard.memory.answers.search import Largest
    from pytest_trainguard.memory.answers.verdict import Judgement, format_headline
    from pytest_trainguard.memory.replay.sizes import format_size

    largest = {
        found["setting"]: Largest(
            found["value"], None, found["beyond"], found["exact"], found["traces"], found["unknown"]
        )
        for found in one["largest_settings"].values()
    }
    return {
        **one,
        "headline": format_headline(Judgement.from_dict(one)),
        "limit": format_size(one["budget"]["size"]),
        "breakdown": pictures.draw_breakdown(one),
        "picture": pictures.draw_timeline(one),
        "largest": [(there["what"], format_size(there["bytes"])) for there in one["largest"][:3]],
        "fits": {setting: found.words for setting, found in largest.items()},
        "alternatives": [{**other, "size": format_size(other["needs"])} for other in one["alternatives"]],
        "measured": one["measured"] and {
            **one["measured"], **{name: format_size(one["measured"][name]) for name in ("allocated", "reserved")},
        },
        "predicted": {name: format_size(one[name]) for name in ("allocated", "reserved")},
    }  # fmt: skip
