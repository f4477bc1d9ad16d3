"""The report's files: the suffix says which kind; looked at before anything runs, written whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pytest_trainguard.report.json_report import Report

SUFFIXES = (".json", ".html")


def write_all(paths: Sequence[str], report: Report) -> list[str]:
    """Write the report to each of these files.

    Returns:
        A line for each that could not be written.
    """
    problems = []
    for path in paths:
        try:
            write(Path(path), report)
        except OSError as error:  # it could be written when the session began; the summary is still to come
            problems.append(f"{path}: {error.strerror}")
    return problems


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


def write(path: Path, report: Report) -> None:
    """Write the report, whole or not at all.

    Raises:
        OSError: the path cannot be written to.
    """
    if path.suffix.lower() == ".html":
        from pytest_trainguard.report import page

        text = page.render_page(report)
    else:
        text = json.dumps(report, indent=2, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, text)


def replace_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all; what cannot be encoded becomes a question mark.

    The folder may be one that others write to: the file is made beside its place, under a name that nobody can know
    before, and never where something, such as a link, stands already.

    Raises:
        OSError: it cannot be written there.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    made = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with open(made, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
        os.replace(beside, path)
    except BaseException:  # an interruption too: nothing is left beside
        beside.unlink(missing_ok=True)
        raise
