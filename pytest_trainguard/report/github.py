"""What GitHub Actions shows of a preflight: the first screen as the job's summary, and findings at their lines.

The summary goes to the file that the environment names in GITHUB_STEP_SUMMARY; annotations are workflow commands among
what is printed, and only there where GITHUB_ACTIONS is set. Elsewhere nothing happens. Text of trainers is escaped for
both forms: a line that a trainer printed never becomes a command.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from pytest_trainguard.catalog import CATEGORIES
from pytest_trainguard.printing import disarm, is_in_actions
from pytest_trainguard.report.causes import CauseEntry, find_key
from pytest_trainguard.report.cleaning import clean_text, unlink
from pytest_trainguard.report.data import SessionResult
from pytest_trainguard.report.json_report import CaseEntry, Report, make_report
from pytest_trainguard.report.screen import format_fix

MOST_BYTES = 500_000  # of one summary; GitHub takes 1 MiB from a step, and nothing of what is larger
MOST_ANNOTATIONS = 10  # of one kind and step: GitHub shows no more
RAISED = re.compile(r"raises:[^@]+@(.+):(\d+)")  # the key of a cause
PLACE = re.compile(r"^(\S.*?\.pyi?):(\d+): ", re.M)  # in what the static checks found
FRAME = re.compile(r'File "([^"\n]+)", line (\d+)')
SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&!@])")


class Annotation(NamedTuple):
    """One finding at a line of the team's own.

    Attributes:
        level: `error`, or `warning` for what is no NO-GO.
        file: below the repository's folder.
        line: counted from 1.
    """

    level: str
    file: str
    line: int
    title: str
    message: str


class GitHub:
    """Publishes a session's preflight at its end; pytest calls its hook."""

    def __init__(self, summarize: Callable[[int], SessionResult], environment: Mapping[str, str] = os.environ):
        """Of one session.

        Args:
            summarize: what the session came to, given pytest's exit code.
            environment: the process's own.
        """
        self.summarize, self.environment = summarize, environment

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
    ) -> Generator[None, object, object]:
        """Around all that pytest tells at the end, trainers' words among it: only then come our own commands."""
        token, commands = secrets.token_hex(16), is_in_actions(self.environment)
        if commands:
            terminalreporter.write_line(f"::stop-commands::{token}")
        try:
            return (yield)
        finally:
            if commands:
                terminalreporter.write_line(f"::{token}::")
            self._publish(make_report(self.summarize(int(exitstatus))), terminalreporter, config.rootpath)

    def _publish(self, report: Report, reporter: pytest.TerminalReporter, root: Path) -> None:
        problem = write_summary(report, self.environment)
        lines = [*format_annotations(report, root, self.environment), *([problem] if problem else [])]
        for line in lines:
            reporter.write_line(line)


def is_wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether there is anything to publish to."""
    return bool(environment.get("GITHUB_STEP_SUMMARY")) or is_in_actions(environment)


def write_summary(report: Report, environment: Mapping[str, str] = os.environ) -> str:
    """Append the first screen to the job's summary, where there is one.

    Returns:
        What went wrong, in one line; empty where it is written, or none was asked for.
    """
    path = environment.get("GITHUB_STEP_SUMMARY")
    if not path:
        return ""
    try:
        with open(path, "a", encoding="utf-8") as summary:
            summary.write(format_summary(report))
    except OSError as error:
        return f"GITHUB_STEP_SUMMARY: {path}: {error.strerror}"
    return ""


def format_summary(report: Report) -> str:
    """The first screen in Markdown: the clearance, each cause once, the grid, what was not judged or does not apply."""
    head = [f"## Preflight: {report['clearance']}", escape_markdown(report["why"]), *_format_grid(report)]
    blocks: list[str] = []
    for verdict, title in (("failed", "NO-GO for"), ("advice", "Advice:"), ("accepted", "Accepted:")):
        causes = [cause for cause in report["causes"] if cause["verdict"] == verdict]
        if causes:
            told = [_format_cause(cause, report) for cause in causes]
            heading = f"{title} {len(causes)} cause{'s' if len(causes) > 1 else ''}"
            blocks += [f"### {heading}", *told] if verdict == "failed" else [_fold(heading, told)]
    for verdict, title in (("error", "Not judged"), ("not_applicable", "Not applicable")):
        cases = [case for case in report["cases"] if case["verdict"] == verdict]
        if cases:
            blocks.append(_fold(f"{title}: {len(cases)}", ["\n".join(_format_reasons(cases))]))
    return "\n\n".join([*head, *_cut(blocks)]) + "\n\n"


def escape_markdown(text: str) -> str:
    """A text of any origin in one line, of which nothing is taken for Markdown or HTML."""
    return SPECIAL.sub(r"\\\1", " ".join(clean_text(text).split()))


def format_annotations(report: Report, root: Path, environment: Mapping[str, str] = os.environ) -> list[str]:
    """The commands that put findings at the lines of the team's own files; none outside of GitHub Actions.

    Args:
        report: the report.
        root: pytest's root folder.
        environment: the process's own.
    """
    if not is_in_actions(environment):
        return []
    repository = Path(environment.get("GITHUB_WORKSPACE") or root)
    found = list(dict.fromkeys(_list_annotations(report, root, repository)))
    errors = [one for one in found if one.level == "error"][:MOST_ANNOTATIONS]
    warnings = [one for one in found if one.level != "error"][:MOST_ANNOTATIONS]
    return [format_command(one) for one in [*errors, *warnings]]


def format_command(one: Annotation) -> str:
    """An annotation as a workflow command, in one line."""
    properties = f"file={_escape_property(one.file)},line={one.line},title={_escape_property(one.title)}"
    return f"::{one.level} {properties}::{escape_data(one.message)}"


def escape_data(text: str) -> str:
    """A text as the message of a workflow command, of which no line can begin another."""
    return disarm(clean_text(text)).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escape_property(text: str) -> str:
    return escape_data(text).replace(":", "%3A").replace(",", "%2C")


def _list_annotations(report: Report, root: Path, repository: Path) -> Iterator[Annotation]:
    """One for each place that a finding names, those that are NO-GO first."""
    for cause in report["causes"]:
        level = "error" if cause["verdict"] == "failed" else "warning"
        if cause["verdict"] == "accepted":
            continue
        for file, line in _find_places(cause, report["cases"], root):
            shown = _relative_to(file, repository)
            if shown:
                title = f"{cause['trainer']}: {cause['title']}"
                yield Annotation(level, shown, line, title, f"{cause['did']}: {cause['happened']}\n{cause['alone']}")


def _find_places(cause: CauseEntry, cases: Iterable[CaseEntry], root: Path) -> list[tuple[Path, int]]:
    """The files and lines that the findings of a cause name."""
    raised = RAISED.fullmatch(cause["key"])
    places: dict[tuple[Path, int], None] = {}
    for case in cases:
        if case["trainer"] != cause["trainer"] or case["slug"] not in cause["cases"]:
            continue
        for problem in case["problems"]:
            found = find_key(problem["cause"], case["slug"]), problem["verdict"]
            if found != (cause["key"], cause["verdict"]):
                continue
            if raised:  # the key has the file's name alone; the traceback says where it is
                frames = FRAME.findall(problem["evidence"])
                named = [file for file, line in frames if (Path(file).name, line) == raised.groups()]
                places[root / (named[-1] if named else raised[1]), int(raised[2])] = None
            else:
                places.update({(root / file, int(line)): None for file, line in PLACE.findall(problem["happened"])})
    return [place for place in places if place[0].is_file()]


def _relative_to(file: Path, repository: Path) -> str:
    """A file as GitHub knows it; empty where it is none of the repository's."""
    path, folder = file.resolve(), repository.resolve()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else ""


def _format_cause(cause: CauseEntry, report: Report) -> str:
    """A cause as an entry of a list."""
    numbers = {case["slug"]: case["number"] for case in report["cases"]}
    cases = ", ".join(str(numbers.get(slug) or slug) for slug in cause["cases"])
    whose = f"{escape_markdown(cause['trainer'])}: " if len(report["trainers"]) > 1 else ""
    word = "case" if len(cause["cases"]) == 1 else f"{len(cause['cases'])} cases:"
    title = f"- **{cause['grade']}** {whose}{escape_markdown(cause['title'])} ({word} {cases})"
    told = [cause["did"], cause["happened"].partition("\n")[0]]
    lines = [title, f"  {escape_markdown(': '.join(part for part in told if part))}", f"  {_code(cause['alone'])}"]
    fix = format_fix(cause["guide"], cause["framework"])
    if fix:
        lines += [f"  How to fix it: {unlink(fix)}", f"  More: {_code('pytest --explain ' + cause['guide'])}"]
    return "  \n".join(lines)  # two blanks at an end are a line break


def _format_grid(report: Report) -> list[str]:
    """Trainers and categories as a table: what did not fail, of what was judged."""
    there = dict.fromkeys(case["category"] for case in report["cases"])
    categories = list(dict.fromkeys([*(name for name in CATEGORIES if name in there), *there]))
    rows = [["trainer", *categories, "n/a", "not judged"], ["---"] * (len(categories) + 3)]
    for trainer in report["trainers"]:
        own = [case for case in report["cases"] if case["trainer"] == trainer["name"]]
        counts = [sum(case["verdict"] == word for case in own) for word in ("not_applicable", "error")]
        cells = [_format_cell([case for case in own if case["category"] == name]) for name in categories]
        rows.append([escape_markdown(trainer["name"]), *cells, *map(str, counts)])
    return ["\n".join(f"| {' | '.join(row)} |" for row in rows)] if categories else []


def _format_cell(cases: list[CaseEntry]) -> str:
    judged = [case for case in cases if case["verdict"] not in ("error", "not_applicable")]
    good = [case for case in judged if case["verdict"] != "failed"]
    return f"{len(good)}/{len(judged)}" if judged else "-"


def _format_reasons(cases: Iterable[CaseEntry]) -> list[str]:
    """Cases by their reason, those of most cases first."""
    groups: dict[tuple[str, str], list[CaseEntry]] = {}
    for case in cases:
        groups.setdefault((case["trainer"], case["reason"].partition("\n")[0]), []).append(case)
    lines = []
    for (trainer, reason), group in sorted(groups.items(), key=lambda pair: -len(pair[1])):
        named = ", ".join(str(case["number"] or case["slug"]) for case in group)
        lines.append(f"- {escape_markdown(f'{trainer}: {reason}')} ({named})")
    return lines


def _fold(title: str, blocks: list[str]) -> str:
    return "\n\n".join([f"<details><summary>{title}</summary>", *blocks, "</details>"])


def _cut(blocks: list[str]) -> list[str]:
    """As many blocks as one summary may hold."""
    room = MOST_BYTES
    kept: list[str] = []
    for block in blocks:
        room -= len(block.encode())
        if room < 0:
            return [*kept, f"{len(blocks) - len(kept)} more: see the report"]
        kept.append(block)
    return kept


def _code(text: str) -> str:
    """A command as a span of code, whatever is in it."""
    flat = " ".join(clean_text(text).split())
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", flat)), default=0))
    return f"{ticks} {flat} {ticks}" if "`" in flat else f"{ticks}{flat}{ticks}"
