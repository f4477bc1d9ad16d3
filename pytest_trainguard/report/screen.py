"""The first screen: each cause once, what would make more cases apply; as many lines as there is room for."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from pytest_trainguard import case_pages, catalog
from pytest_trainguard.report.causes import CauseEntry
from pytest_trainguard.report.json_report import CaseEntry, Report

WIDTH = 80
INDENT = " " * 10  # the column of the grades
MOST_GROUPS = 4  # of reasons why cases were not judged, or do not apply
FIX_LINES = 4
ADVICE = "HYDRA_FULL_ERROR=1"  # with which Hydra ends whatever an exception said


@dataclass
class Block:
    """What is told of one thing, the most important lines first.

    Attributes:
        levels: groups of lines; a later group is shown only where there is room for it, in all blocks alike.
    """

    levels: list[list[str]]
    shown: list[str] = field(default_factory=list)


def format_causes(report: Report, room: int) -> list[tuple[str, str]]:
    """The causes of what was found, a line each at least: lines with the verdict that they stand for.

    Args:
        report: the report.
        room: lines that there are.
    """
    single = len(report["trainers"]) == 1
    numbers = {case["slug"]: case["number"] for case in report["cases"]}
    lines: list[tuple[str, str]] = []
    parts = []
    for verdict, heading in (("failed", "NO-GO for"), ("advice", "advice"), ("accepted", "accepted")):
        causes = [cause for cause in report["causes"] if cause["verdict"] == verdict]
        if causes:
            blocks = [_make_block(cause, numbers, single, brief=verdict != "failed") for cause in causes]
            count = f"{len(causes)} cause{'s' if len(causes) > 1 else ''}"
            title = f"{heading} {count}" if verdict == "failed" else f"{heading}: {count}"
            parts.append((verdict, title, blocks))
    _fill([block for _, _, blocks in parts for block in blocks], room - len(parts) - 1)
    for verdict, title, blocks in parts:
        lines.append((f"{title}:", verdict))
        lines += [(line, verdict) for block in blocks for line in block.shown]
    left_out = sum(not block.shown for _, _, blocks in parts for block in blocks)
    if left_out:
        lines.append((f"{left_out} more: see them with -v, or --preflight-report report.html", "failed"))
    return lines


def _fill(blocks: Sequence[Block], room: int) -> None:
    """Show of each block what there is room for, level by level."""
    for level in range(max((len(block.levels) for block in blocks), default=0)):
        for block in blocks:
            lines = block.levels[level] if level < len(block.levels) else []
            if lines and len(lines) <= room and (level == 0 or block.shown):
                block.shown += lines
                room -= len(lines)


def _make_block(cause: CauseEntry, numbers: dict[str, int | None], single: bool, brief: bool) -> Block:
    cases = _format_cases([(numbers.get(slug), slug) for slug in cause["cases"]])
    whose = "" if single else f"{cause['trainer']}: "
    title = f"{cause['grade']:<10}{whose}{cause['title']} ({cases})"
    fix = format_fix(cause["guide"], cause["framework"])
    levels = [_wrap(title, 2)]
    if brief:
        return Block([*levels, _wrap(f"{INDENT}{_first_line(cause['happened'])}", 2), [_reproduce(cause)]])
    told = _wrap(f"{INDENT}{cause['did']}: {_first_line(cause['happened'])}", 3)
    explained = [f"{INDENT}more: pytest --explain {cause['guide']}"] if fix else []
    advised = _wrap(f"{INDENT}fix: {fix}", FIX_LINES) if fix else []
    return Block([*levels, [_reproduce(cause)], told, explained, advised])


def _reproduce(cause: CauseEntry) -> str:
    return f"{INDENT}{cause['alone']}"


def _first_line(text: str) -> str:
    """The first line of a text, with the one after it where that is announced, as a place in the sources is."""
    lines = text.splitlines()
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1]) if lines else ""


def _format_cases(cases: Sequence[tuple[int | None, str]]) -> str:
    names = [str(slug if number is None else number) for number, slug in cases]
    if len(names) == 1:
        return f"case {names[0]}"
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"{len(names)} cases: {', '.join(names[:8])}{more}"


def format_fix(slug: str, framework: str) -> str:
    """How to fix what a case found, in a few sentences and for a framework; empty where there is no guide."""
    guide = catalog.catalogue_folder() / "guides" / f"{slug}.md"
    return case_pages.summarize_fix(guide, framework)


def format_reasons(cases: Iterable[CaseEntry], title: Callable[[int], str], most: int = MOST_GROUPS) -> list[str]:
    """Cases of one verdict by their reason, those of most cases first."""
    groups: dict[str, list[CaseEntry]] = {}
    for case in cases:
        groups.setdefault(_first_line(case["reason"]), []).append(case)
    every = sorted(groups.items(), key=lambda group: -len(group[1]))
    lines = [title(sum(len(group) for _, group in every))] if every else []
    for reason, group in every[:most]:
        named = dict.fromkeys((case["number"], case["slug"]) for case in group)
        # Why nothing can be judged is told to its end, where there is room.
        most_lines = 5 if group[0]["verdict"] == "error" and len(every) <= 2 else 2
        lines += _wrap(f"  {reason} ({_format_cases(list(named))})", most_lines)
        said = _last_said(group[0]["evidence"])
        if said and said not in reason:  # what could not be judged has its reason in the program's last words
            lines += _wrap(f"    {said}", 1)
    if len(every) > most:
        lines.append(f"  and {len(every) - most} more reasons: -v shows them")
    return lines


def _last_said(evidence: str) -> str:
    """The last line of what a program said, without what a progress bar wrote over, nor a launcher's advice."""
    lines = (line.rpartition("\r")[2].strip() for line in reversed(evidence.rstrip("\r\n").split("\n")))
    return next((line for line in lines if line and ADVICE not in line), "")


def _wrap(text: str, most: int) -> list[str]:
    """A text in lines of `WIDTH` columns, continued under its own indentation; what is too much ends in an ellipsis."""
    words = text.lstrip(" ")
    indent = " " * (len(text) - len(words))
    return textwrap.wrap(
        words, WIDTH, initial_indent=indent, subsequent_indent=indent or INDENT, max_lines=most, placeholder=" …",
        break_on_hyphens=False,
    )  # fmt: skip
