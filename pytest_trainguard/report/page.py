"""The report as one page for people: no script, nothing fetched, read from a file in any browser.

It is made of the report's data and of nothing else, so that one that was kept as JSON gives the same page later.
Whatever the page shows goes through `clean` and is then escaped: trainers print what they like.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from pytest_trainguard.catalog import CATEGORIES
from pytest_trainguard.report import pictures

TEMPLATE = "page.html"
SLOWEST = 5
LONGEST = 6000  # characters of one text; of a longer one the middle is left out
ORDER = ("failed", "error", "passed", "not_applicable")  # of what a field of the grid stands for and leads to
# Colours and cursor movements of a terminal, titles of its window, and what else is not to be read: control characters
# (but for tab and new line), marks that turn the direction of what follows, halves of surrogate pairs.
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
UNREADABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(value: object) -> object:
    """A text without what a terminal would have obeyed, and short enough to be read; anything else as it is."""
    if not isinstance(value, str) or isinstance(value, Markup):  # the latter was put together from what is clean
        return value
    text = UNREADABLE.sub("", ESCAPES.sub("", re.sub("\r\n?", "\n", value)))
    left_out = len(text) - LONGEST
    if left_out <= 0:
        return text
    return f"{text[: LONGEST // 2]}\n… {left_out} characters left out …\n{text[-LONGEST // 2 :]}"


def made(report: dict[str, Any]) -> str:
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
        return environment.get_template(TEMPLATE).render(_view(report))
    except (KeyError, TypeError, AttributeError, jinja2.UndefinedError) as error:
        raise ValueError(f"it is not as schema.json says: {type(error).__name__}: {error}") from error


def _view(report: dict[str, Any]) -> dict[str, Any]:
    """What the template shows, in the order in which it does."""
    cases = [{"expects": "", "evidence": "", **case, "id": f"case-{n}"} for n, case in enumerate(report["cases"])]
    of = {verdict: [case for case in cases if case["verdict"] == verdict] for verdict in ORDER}
    categories = CATEGORIES | {case["category"]: CATEGORIES.get(case["category"], "") for case in cases}
    return {
        "report": report,
        "why": report.get("why") or _counted(report["coverage"]),
        "categories": categories,
        "grid": [_row(trainer, cases, categories) for trainer in report["trainers"]],
        "failed": of["failed"],
        "errors": _grouped(of["error"], "trainer", "reason"),
        "not_applicable": _grouped(of["not_applicable"], "reason"),
        "passed": _grouped(of["passed"], "trainer"),
        "slowest": sorted(cases, key=lambda case: -case["seconds"])[:SLOWEST],
        "total": sum(case["seconds"] for case in cases),
        "memory": [_memory(one) for one in report["memory"]],
    }


def _counted(coverage: dict[str, Any]) -> str:
    return ", ".join(f"{coverage[name]} {name.replace('_', ' ')}" for name in ("passed", "failed", "not_applicable"))


def _row(trainer: dict[str, Any], cases: list[dict[str, Any]], categories: dict[str, str]) -> dict[str, Any]:
    own = [case for case in cases if case["trainer"] == trainer["name"]]
    cells = [_cell([case for case in own if case["category"] == category]) for category in categories]
    return {"trainer": trainer, "cells": cells, "all": _cell(own), "seconds": sum(case["seconds"] for case in own)}


def _cell(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """How many of each verdict, the one that counts, and the first case that has it: where the field leads to."""
    counts = {one: sum(case["verdict"] == one for case in cases) for one in ORDER}
    verdict = next((one for one in ORDER if counts[one]), "none")
    first = next((case["id"] for case in cases if case["verdict"] == verdict), "")
    return {**counts, "judged": counts["passed"] + counts["failed"], "verdict": verdict, "first": first}


def _grouped(cases: list[dict[str, Any]], *keys: str) -> list[list[dict[str, Any]]]:
    """Those that have the same values, together."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for case in cases:
        groups.setdefault(tuple(case[key] for key in keys), []).append(case)
    return list(groups.values())


def _memory(one: dict[str, Any]) -> dict[str, Any]:
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
        "breakdown": pictures.breakdown(one),
        "picture": pictures.timeline(one),
        "largest": [(there["what"], format_size(there["bytes"])) for there in one["largest"][:3]],
        "fits": {setting: found.words for setting, found in largest.items()},
        "alternatives": [{**other, "size": format_size(other["needs"])} for other in one["alternatives"]],
        "measured": one["measured"] and {
            **one["measured"], **{name: format_size(one["measured"][name]) for name in ("allocated", "reserved")},
        },
        "predicted": {name: format_size(one[name]) for name in ("allocated", "reserved")},
    }  # fmt: skip
