"""Reports that were kept as JSON: their page, what is new in one, and several put together.

`python -m pytest_trainguard.report report.json report.html` writes the page of a report.
`python -m pytest_trainguard.report diff old.json new.json` says what is new, what is gone and what is still there.
`python -m pytest_trainguard.report merge a.json b.json -o all.json` puts a preflight together that was spread over
several machines.

Exit code 0; 1 where `diff` finds something new that is NO-GO, and where what `merge` writes is NO-GO; 2 where something
could not be read, written or put together.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pytest_trainguard.printing import printable

if TYPE_CHECKING:
    from pytest_trainguard.report.json_report import Report

PROGRAM = "python -m pytest_trainguard.report"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is asked for; the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command, rest = (given[0], given[1:]) if given[:1] in (["diff"], ["merge"]) else ("page", given)
    try:
        return {"diff": _diff, "merge": _merge, "page": _page}[command](rest)
    except ValueError as error:
        return _bad(str(error))
    except OSError as error:
        return _bad(f"{error.filename}: {error.strerror}")


def _page(arguments: list[str]) -> int:
    """Write the page of a report."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Write the page of a report that was kept as JSON.",
        epilog="`diff OLD.json NEW.json` says what is new; `merge A.json B.json -o OUT.json` puts reports together.",
    )
    parser.add_argument("report", metavar="REPORT.json", type=Path)
    parser.add_argument("page", metavar="PAGE.html", type=Path)
    asked = parser.parse_args(arguments)
    _check(asked.page, (".html",))
    _write(asked.page, _read(asked.report), str(asked.report))
    return 0


def _diff(arguments: list[str]) -> int:
    """Print what is new in a report."""
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} diff", description="Say what is new in a report; exit code 1 where something new is NO-GO."
    )
    parser.add_argument("old", metavar="OLD.json", type=Path)
    parser.add_argument("new", metavar="NEW.json", type=Path)
    asked = parser.parse_args(arguments)
    from pytest_trainguard.report import differences

    old, new = _read(asked.old), _read(asked.new)
    try:
        difference = differences.compare_reports(old, new)
        bars = [] if old["bar"] == new["bar"] else [f"the bar was {old['bar']}, now it is {new['bar']}"]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not both are as schema.json says: {type(error).__name__}: {error}") from error
    _print("\n".join([*bars, *differences.format_difference(difference)]))
    return int(difference.is_worse)


def _merge(arguments: list[str]) -> int:
    """Put reports together, and write what they come to."""
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} merge", description="Put the reports of one preflight together; exit code 1 where it is NO-GO."
    )
    parser.add_argument("reports", metavar="REPORT.json", type=Path, nargs="+")
    parser.add_argument(
        "-o", "--output", metavar="PATH", type=Path, action="append", required=True, help=".json or .html (repeatable)"
    )
    asked = parser.parse_args(arguments)
    from pytest_trainguard.report import files, merge
    from pytest_trainguard.report.json_report import headline

    for path in asked.output:
        _check(path, files.SUFFIXES)
    reports = {str(path): _read(path) for path in asked.reports}
    try:
        merged = merge.merge_reports(reports)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not all are as schema.json says: {type(error).__name__}: {error}") from error
    for path in asked.output:
        _write(path, merged, "what they come to")
    for note in merged["notes"]:
        _print(note)
    _print(headline(merged))
    return int(merged["clearance"] == "NO-GO")


def _check(path: Path, suffixes: tuple[str, ...]) -> None:
    """Whether a report can be written there.

    Raises:
        ValueError: it cannot; in one line.
    """
    from pytest_trainguard.report import files

    try:
        files.check(path, suffixes)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _write(path: Path, report: Report, name: str) -> None:
    """Write a report.

    Raises:
        OSError: it cannot be written there.
        ValueError: the report is not as the schema says; in one line, which begins with its name.
    """
    from pytest_trainguard.report import files

    try:
        files.write(path, report)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _read(path: Path) -> Report:
    """Read a report.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is none, or one of another version; in one line.
    """
    from pytest_trainguard.report.json_report import VERSION

    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: no JSON: {error}") from None
    if not isinstance(report, dict) or "clearance" not in report:
        raise ValueError(f"{path}: no preflight report")
    if report.get("version") != VERSION:
        raise ValueError(f"{path}: its version is {report.get('version')}, this program reads {VERSION}")
    return cast("Report", report)


def _print(text: str) -> None:
    print(printable(text))


def _bad(reason: str) -> int:
    print(printable(f"error: {reason}"), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
