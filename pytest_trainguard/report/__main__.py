"""The page of a report that was kept as JSON: `python -m pytest_trainguard.report report.json report.html`.

Exit code 0 where it was written, 2 where it could not be.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from pytest_trainguard.report.json_report import Report


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m pytest_trainguard.report", description="Write the page of a report that was kept as JSON."
    )
    parser.add_argument("report", metavar="REPORT.json", type=Path)
    parser.add_argument("page", metavar="PAGE.html", type=Path)
    asked = parser.parse_args(arguments)
    from pytest_trainguard.report import files

    try:
        files.check(asked.page, (".html",))
    except ValueError as error:
        return _bad(f"{asked.page}: {error}")
    try:
        files.write(asked.page, _read(asked.report))
    except ValueError as error:
        return _bad(f"{asked.report}: {error}")
    except OSError as error:
        return _bad(f"{error.filename}: {error.strerror}")
    return 0


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
        raise ValueError(f"no JSON: {error}") from None
    if not isinstance(report, dict) or "clearance" not in report:
        raise ValueError("no preflight report")
    if report.get("version") != VERSION:
        raise ValueError(f"its version is {report.get('version')}, this program reads {VERSION}")
    return cast("Report", report)


def _bad(reason: str) -> int:
    print(f"error: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
