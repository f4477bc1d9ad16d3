"""What a team lives with for now: the file of it, what a session may accept, and what it made of each entry."""

from __future__ import annotations

import datetime
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

from pytest_trainguard.harm import GRADES, Grade, Problem, rank
from pytest_trainguard.report import files
from pytest_trainguard.report.causes import find_key
from pytest_trainguard.report.data import Acceptance, AcceptanceState, CaseVerdict

FILE = "trainguard-accepted.toml"
TABLE = "accepted"
HEAD = """\
# What this project's preflight found and the team lives with for now: `pytest -m preflight --accept "why"` writes it.
# What is listed here is shown and counted, and is not NO-GO; anything else that is found is, or the same if it gets
# graver. Delete an entry once it is mended: a preflight says which are no longer needed. A line such as
# `expires = 2027-03-01` in an entry is its last day. Reasons, dates and expiries stay as they are; comments do not.
"""
TEXTS = ("trainer", "case", "cause", "grade", "reason")
KNOWN = (*TEXTS, "date", "expires")
# An exception's place in a file moves with every line that is added above it.
LINE = re.compile(r"(?<=@)(.+):\d+$")


@dataclass(frozen=True)
class Acceptances:
    """What may be accepted in one session.

    Attributes:
        entries: of the file.
        today: the day of the session.
        why: the reason that `--accept` gave for all that is found; empty without it.
    """

    entries: tuple[Acceptance, ...] = ()
    today: datetime.date = datetime.date.min
    why: str = ""

    def accept(self, problem: Problem, trainer: str, slug: str) -> bool:
        """Whether a problem is accepted: by an entry that holds, or by `--accept`, which lifts no expiry."""
        entry = self._find(problem, trainer, slug)
        if entry is None:
            return bool(self.why)
        return not self._is_over(entry) and (bool(self.why) or rank(problem.grade) >= rank(entry.grade))

    def list_new(self, verdicts: Iterable[CaseVerdict]) -> list[Acceptance]:
        """What `--accept` accepted and no entry covers: the entries for it, each cause of a case once."""
        new: dict[tuple[str, str, str], Acceptance] = {}
        for verdict, problem in _list_accepted(verdicts):
            key = (verdict.trainer, verdict.slug, _stable_cause(problem, verdict.slug))
            earlier = self._find(problem, verdict.trainer, verdict.slug)
            if earlier and rank(earlier.grade) <= rank(problem.grade):
                continue
            if key not in new or rank(problem.grade) < rank(new[key].grade):
                expires = earlier.expires if earlier else None
                new[key] = Acceptance(*key, problem.grade, self.why, self.today, expires)
        return list(new.values())

    def add(self, new: Iterable[Acceptance]) -> Acceptances:
        """With further entries, which replace those of the same trainer, case and cause."""
        entries = {_identify(entry): entry for entry in [*self.entries, *new]}
        return replace(self, entries=tuple(entries[key] for key in sorted(entries)))

    def judge(self, verdicts: Iterable[CaseVerdict]) -> list[Acceptance]:
        """Each entry, and each xfail mark that was met, with what the session made of it."""
        every = list(verdicts)
        by_case = {(verdict.trainer, verdict.slug): verdict for verdict in every}
        judged = [
            replace(entry, state=self._find_state(entry, by_case.get((entry.trainer, entry.case))))
            for entry in self.entries
        ]
        return judged + [acceptance for verdict in every if verdict.xfail for acceptance in _judge_mark(verdict)]

    def _find(self, problem: Problem, trainer: str, slug: str) -> Acceptance | None:
        """The entry for a problem, whatever grade it accepts, the gravest; one that is over only where no other is."""
        cause = _find_cause(problem, slug)
        found = [
            entry
            for entry in self.entries
            if (entry.trainer, entry.case) == (trainer, slug) and _covers(entry.cause, cause)
        ]
        return min(found, key=lambda entry: (self._is_over(entry), rank(entry.grade)), default=None)

    def _is_over(self, entry: Acceptance) -> bool:
        return entry.expires is not None and entry.expires < self.today

    def _find_state(self, entry: Acceptance, verdict: CaseVerdict | None) -> AcceptanceState:
        if verdict is None:
            return "open"
        met = [problem for problem in verdict.problems if _covers(entry.cause, _find_cause(problem, entry.case))]
        if not met:
            # A case that found something new may have ended there, and one that does not apply looked at nothing.
            return "unneeded" if verdict.verdict in ("passed", "advice", "accepted") else "open"
        if self._is_over(entry):
            return "expired"
        return "outgrown" if any(rank(problem.grade) < rank(entry.grade) for problem in met) else "used"


def _list_accepted(verdicts: Iterable[CaseVerdict]) -> Iterable[tuple[CaseVerdict, Problem]]:
    """What was accepted, and not for an xfail mark."""
    for verdict in verdicts:
        for problem in verdict.problems:
            if problem.verdict == "accepted" and not verdict.xfail:
                yield verdict, problem


def _judge_mark(verdict: CaseVerdict) -> list[Acceptance]:
    """What an xfail mark comes to: what was accepted for it, or that it is no longer needed."""
    accepted = [problem for problem in verdict.problems if problem.verdict == "accepted"]
    if accepted:
        return [
            Acceptance(verdict.trainer, verdict.slug, cause, problem.grade, verdict.xfail, state="used")
            for cause, problem in {_stable_cause(problem, verdict.slug): problem for problem in accepted[::-1]}.items()
        ]
    gravest = cast("Grade", verdict.severity)
    state: AcceptanceState = "unneeded" if verdict.verdict in ("passed", "advice") else "open"
    return [Acceptance(verdict.trainer, verdict.slug, f"case:{verdict.slug}", gravest, verdict.xfail, state=state)]


def _find_cause(problem: Problem, slug: str) -> str:
    return find_key(problem.cause.key if problem.cause else "", slug)


def _stable_cause(problem: Problem, slug: str) -> str:
    return LINE.sub(r"\1", _find_cause(problem, slug))


def _covers(accepted: str, found: str) -> bool:
    """Whether one cause is the other, or what is left of it: of several states that were not restored, fewer."""
    kind, _, parts = LINE.sub(r"\1", accepted).partition(":")
    other, _, left = LINE.sub(r"\1", found).partition(":")
    return kind == other and set(left.split("+")) <= set(parts.split("+"))


def _identify(entry: Acceptance) -> tuple[str, str, str]:
    return entry.trainer, entry.case, entry.cause


def read(path: Path) -> tuple[Acceptance, ...]:
    """The entries of a project's file; none where there is no file.

    Raises:
        ValueError: it cannot be read, or an entry is none; what is wrong, in one line.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except ValueError as error:  # of TOML, or of UTF-8
        raise ValueError(" ".join(str(error).split())) from None
    tables = content.pop(TABLE, [])
    if content or not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ValueError(f"holds something else than entries, [[{TABLE}]]")
    found: dict[tuple[str, str, str], Acceptance] = {}
    for place, table in enumerate(tables, 1):
        named = " ".join(str(table[key]) for key in ("trainer", "case") if key in table)
        where = f"entry {place}{f' ({named})' if named else ''}"
        wrong = find_fault(table)
        if wrong:
            raise ValueError(f"{where}: {wrong}")
        entry = Acceptance(**table)
        if _identify(entry) in found:
            raise ValueError(f"{where}: the cause {entry.cause} is in another entry too")
        found[_identify(entry)] = entry
    return tuple(found.values())


def find_fault(table: Mapping[str, object]) -> str:
    """What is wrong with an entry, in a few words; empty where nothing is."""
    unknown = [key for key in table if key not in KNOWN]
    if unknown:
        return f"unknown key {unknown[0]!r}; there are {', '.join(KNOWN)}"
    for key in (*TEXTS, "date"):
        if key not in table:
            return f"{key} is missing"
    for key in TEXTS:
        if not isinstance(table[key], str) or not str(table[key]).strip():
            return f"{key} is {table[key]!r}, and no text"
    if table["grade"] not in GRADES:
        return f"grade is {table['grade']!r}; there are {', '.join(GRADES)}"
    for key in ("date", "expires"):
        value = table.get(key, datetime.date.min)
        if not isinstance(value, datetime.date) or isinstance(value, datetime.datetime):
            return f"{key} is {value!r}, and no day: write it without quotes, 2027-03-01"
    return ""


def write(path: Path, entries: Iterable[Acceptance]) -> None:
    """Write the file, whole or not at all, sorted by trainer, case and cause.

    Raises:
        OSError: it cannot be written.
    """
    import tomli_w

    kept = [field.name for field in fields(Acceptance) if field.name in KNOWN]
    parts = [HEAD]
    for entry in sorted(entries, key=_identify):
        values: dict[str, Any] = asdict(entry)
        table = {key: values[key] for key in kept if values[key] is not None}
        parts.append(f"[[{TABLE}]]\n{tomli_w.dumps(table)}")
    files.replace_text(path, "\n".join(parts))
