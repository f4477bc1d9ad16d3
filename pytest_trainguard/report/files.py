"""The report's files: the suffix says which kind; looked at before anything runs, written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_trainguard.report import json_report

if TYPE_CHECKING:
    from pytest_trainguard.session.preflight import Preflight

SUFFIXES = (".json", ".html")


def finish(preflight: Preflight, session: pytest.Session) -> None:
    """At the end of a session: NO-GO becomes exit code 1, and reports are written where they were asked for."""
    if session.config.option.collectonly:
        return
    if session.exitstatus == 0 and preflight.clearance(0) == "NO-GO":
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    paths = session.config.option.preflight_report
    report = json_report.made(preflight, int(session.exitstatus)) if paths else {}
    for path in paths:
        try:
            write(Path(path), report)
        except OSError as error:  # it could be written when the session began; the summary is still to come
            preflight.report_problems.append(f"--preflight-report {path}: {error.strerror}")
            session.exitstatus = pytest.ExitCode.USAGE_ERROR


def check(path: Path, suffixes: tuple[str, ...] = SUFFIXES) -> None:
    """Whether a report can be written there, by writing nothing.

    Args:
        path: of the file.
        suffixes: those that it may have.

    Raises:
        ValueError: it cannot; why, in a few words.
    """
    if path.is_dir():
        raise ValueError("Is a directory")
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"the suffix says what is written: {' or '.join(suffixes)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(error.strerror) from None


def write(path: Path, report: dict[str, Any]) -> None:
    """Write the report, whole or not at all.

    Raises:
        OSError: the path cannot be written to.
    """
    if path.suffix.lower() == ".html":
        from pytest_trainguard.report import page

        text = page.made(report)
    else:
        text = json.dumps(report, indent=2, allow_nan=False) + "\n"
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)
