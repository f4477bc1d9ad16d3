"""What the doctor found, on one screen."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from itertools import pairwise

from pytest_trainguard.adapters.working_folder import TOLD
from pytest_trainguard.catalog import EdgeCase
from pytest_trainguard.launch.protocol import RUN_STEPS
from pytest_trainguard.report.screen import WIDTH
from pytest_trainguard.report.terminal import format_keys
from pytest_trainguard.setup.applies import DoesNotApply
from pytest_trainguard.setup.doctor import Diagnosis, fits_an_epoch
from pytest_trainguard.setup.roles import Roles
from pytest_trainguard.setup.table import format_value

MOST_LINES = 60
INDENT = 13  # the column of what is said
MOST_FILES = 3
LAST_LINES = 12  # of what a program said that cannot be run


def format_diagnosis(found: Diagnosis) -> list[str]:
    """The lines of a screen for one trainer: at most `MOST_LINES`, of at most 80 columns."""
    steps = len(found.reference.recording.steps)
    lines = [f"{found.name}: {found.framework}; {steps} optimizer steps undisturbed in {found.reference.seconds:.1f} s"]
    if found.told:
        lines += _part("settings", found.told.partition(": ")[2].removeprefix("its settings are "))
    if found.works_in_output:
        lines += _part("output", TOLD.partition(": ")[2])
    if found.rows is None:
        lines += _part("data", 'none: name some, sample = "path/of/the/data"')
    lines += _format_roles(found.roles)
    lines += _part("saves", _tell_saves(found))
    if found.epoch is not None:
        lines += _part("epochs", _tell_epoch(found))
    lines += _part("repeats", f"no: {found.repeats}" if found.repeats else "yes: a second run has the same losses")
    lines += _part("resumes", _tell_resume(found))
    count = len(found.lacking)
    end = _part("takes", f"a preflight will take about {_in_words(found.seconds)}, on one process")
    lines += _part("cases", f"{found.cases - count} of {found.cases} apply; {count} would with")
    lines += format_lacking(found.lacking, MOST_LINES - len(lines) - len(end) - 2)
    return [*lines, *end]


def format_fault(name: str, reason: str, evidence: str) -> list[str]:
    """Why a trainer cannot be run: one block, with the last lines of what it said."""
    lines = textwrap.wrap(
        reason if reason.startswith(name) else f"{name}: {reason}", WIDTH, subsequent_indent="  ", max_lines=6,
        placeholder=" …", break_on_hyphens=False,
    )  # fmt: skip
    said = [line.rstrip() for line in evidence.splitlines() if line.strip()]
    return [*lines, *(f"  | {line[: WIDTH - 4]}" for line in said[-LAST_LINES:])]


def _part(name: str, text: str, most: int = 4) -> list[str]:
    """A thing and what is said of it, in lines of `WIDTH` columns."""
    head = f"  {name}".ljust(INDENT)
    return textwrap.wrap(
        text, WIDTH, initial_indent=head, subsequent_indent=" " * INDENT, max_lines=most, placeholder=" …",
        break_on_hyphens=False,
    )  # fmt: skip


def _format_roles(roles: Roles) -> list[str]:
    known = ", ".join(f"{role} = {path} ({value})" if role != path else f"{role} ({value})"
                      for role, (path, value) in roles.known.items())  # fmt: skip
    lines = _part("roles", known or "none is known by its name", 8)
    if roles.shown:
        lines += _part("add", f"fields = {format_value(roles.shown)}")
        lines += _part("", "(what these do was seen in short runs)")
    for role, path in roles.missing.items():
        if path:
            lines += _part("", f"{role}: did you mean {path!r}? fields = {format_value({role: path})}", 2)
    without = [role for role, path in roles.missing.items() if not path]
    return lines + (_part("no setting", ", ".join(without)) if without else [])


def _tell_saves(found: Diagnosis) -> str:
    if not found.files:
        return "nothing that is taken for a checkpoint: let it save in {output_dir}, or say where with checkpoints"
    shown = ", ".join(found.files[:MOST_FILES]) + (" …" if len(found.files) > MOST_FILES else "")
    if not found.saves:
        return f"{shown}; when, is not seen"
    gaps = {second - first for first, second in pairwise((0, *found.saves))}
    steps = ", ".join(map(str, found.saves))
    every = f", every {found.saves[0]} steps" if len(gaps) == 1 and len(found.saves) > 1 else ""
    return f"{shown}: after step{'s' if len(found.saves) > 1 else ''} {steps}{every}"


def _tell_epoch(found: Diagnosis) -> str:
    assert found.epoch is not None
    told = "says its table" if found.stated else "counted in a run of one epoch"
    said = f"one has {found.epoch} optimizer step{'s' if found.epoch > 1 else ''}, {told}"
    if fits_an_epoch(found.epoch) or found.rows is None or found.epoch <= RUN_STEPS:
        return said
    rows = found.rows * RUN_STEPS // found.epoch
    return f"{said}: shorter runs are quicker, rows = {max(rows, 1)}"


def _tell_resume(found: Diagnosis) -> str:
    if found.resumes:
        return f"no: {found.resumes}" if not found.repeats else "not to be told, since it does not repeat itself"
    if found.parts:
        return f"yes, but not exactly: {found.parts}"
    return "yes, exactly: its losses are those of the undisturbed run, to the bit"


def format_lacking(lacking: Sequence[DoesNotApply], room: int) -> list[str]:
    """Cases that would not apply, by their reason, those of most cases first; in so many lines."""
    groups: dict[str, list[EdgeCase]] = {}
    for one in lacking:
        groups.setdefault(one.reason.splitlines()[0], []).append(one.case)
    every = sorted(groups.items(), key=lambda group: -len(group[1]))
    lines: list[str] = []
    for place, (reason, cases) in enumerate(every):
        part = _wrap_reason(reason, cases)
        if len(lines) + len(part) > room - 1:
            return [*lines, f"{' ' * INDENT}and {len(every) - place} more reasons"]
        lines += part
    return lines


def _wrap_reason(reason: str, cases: Iterable[EdgeCase]) -> list[str]:
    keys = format_keys(cases).replace(",", ", ")
    return textwrap.wrap(
        f"{reason} (case {keys})", WIDTH, initial_indent=" " * INDENT + "- ", subsequent_indent=" " * (INDENT + 2),
        max_lines=3, placeholder=" …)", break_on_hyphens=False,
    )  # fmt: skip


def _in_words(seconds: float) -> str:
    if seconds < 90:
        return f"{max(10, round(seconds, -1)):.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
