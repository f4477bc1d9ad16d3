"""The report as one page for people: no script, nothing fetched, read from a file in any browser.

It is made of the report's data and of nothing else, so that one that was kept as JSON gives the same page later.
Whatever the page shows goes through `clean` and is then escaped: trainers print what they like.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TypedDict, cast

import jinja2
from markupsafe import Markup

from pytest_trainguard.catalog import CATALOGUE, CATEGORIES
from pytest_trainguard.report import pictures
from pytest_trainguard.report.data import Prediction, Word
from pytest_trainguard.report.json_report import CaseEntry, Coverage, Report, TrainerEntry

TEMPLATE = "page.html"
SLOWEST = 5
LONGEST = 6000  # characters of one text; of a longer one the middle is left out
ORDER: tuple[Word, ...] = (
    "failed",
    "error",
    "advice",
    "accepted",
    "passed",
    "not_applicable",
)  # of what a field of the grid stands for and leads to
# Colours and cursor movements of a terminal, titles of its window, and what else is not to be read: control characters
# (but for tab and new line), marks that turn the direction of what follows, halves of surrogate pairs.
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
UNREADABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class ShownCase(CaseEntry):
    """A case of the report, its anchor on the page and its heading."""

    id: str
    heading: str


class Cell(TypedDict):
    """How many of each verdict, the one that counts, and the first case that has it: where the field leads to."""

    passed: int
    failed: int
    not_applicable: int
    error: int
    judged: int
    verdict: str
    first: str


class Row(TypedDict):
    """A trainer's line of the grid."""

    trainer: TrainerEntry
    cells: list[Cell]
    all: Cell
    seconds: float


def clean(value: object) -> object:
    """A text without what a terminal would have obeyed, and short enough to be read; anything else as it is."""
    if not isinstance(value, str) or isinstance(value, Markup):  # the latter was put together from what is clean
        return value
    text = UNREADABLE.sub("", ESCAPES.sub("", re.sub("\r\n?", "\n", value)))
    left_out = len(text) - LONGEST
    if left_out <= 0:
        return text
    return f"{text[: LONGEST // 2]}\n… {left_out} characters left out …\n{text[-LONGEST // 2 :]}"


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


def _make_view(report: Report) -> dict[str, object]:
    """What the template shows, in the order in which it does."""
    cases = [_make_case(place, case) for place, case in enumerate(report["cases"])]
    having = {word: [case for case in cases if case["verdict"] == word] for word in ORDER}
    there = {case["category"]: CATEGORIES.get(case["category"], "") for case in cases}
    categories = CATALOGUE.categories | there
    return {
        "report": report,
        "why": report.get("why") or _format_counts(report["coverage"]),
        "categories": categories,
        "grid": [_make_row(trainer, cases, list(categories)) for trainer in report["trainers"]],
        "failed": having["failed"],
        "errors": _group(having["error"], lambda case: (case["trainer"], case["reason"])),
        "not_applicable": _group(having["not_applicable"], lambda case: case["reason"]),
        "passed": _group(having["passed"], lambda case: case["trainer"]),
        "slowest": sorted(cases, key=lambda case: -case["seconds"])[:SLOWEST],
        "total": sum(case["seconds"] for case in cases),
        "memory": [_make_memory(one) for one in report["memory"]],
    }


def _make_case(place: int, case: CaseEntry) -> ShownCase:
    heading = case["title"] if case["number"] is None else f"{case['number']} {case['title']}"
    later = {"expects": "", "evidence": ""}  # which a report of an earlier version lacks
    return cast(ShownCase, {**later, **case, "id": f"case-{place}", "heading": heading})


def _format_counts(coverage: Coverage) -> str:
    passed, failed, other = coverage["passed"], coverage["failed"], coverage["not_applicable"]
    return f"{passed} passed, {failed} failed, {other} not applicable"


def _make_row(trainer: TrainerEntry, cases: list[ShownCase], categories: list[str]) -> Row:
    own = [case for case in cases if case["trainer"] == trainer["name"]]
    cells = [_make_cell([case for case in own if case["category"] == category]) for category in categories]
    return {"trainer": trainer, "cells": cells, "all": _make_cell(own), "seconds": sum(case["seconds"] for case in own)}


def _make_cell(cases: list[ShownCase]) -> Cell:
    counts = Counter(case["verdict"] for case in cases)
    verdict = next((word for word in ORDER if counts[word]), "none")
    return {
        "passed": counts["passed"],
        "failed": counts["failed"],
        "not_applicable": counts["not_applicable"],
        "error": counts["error"],
        "judged": counts["passed"] + counts["failed"],
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
