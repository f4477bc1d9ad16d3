"""Files of the project that fail to load and hold none of its cases: a preflight tells of them, and goes on.

A test file that needs a package which is not here, a script called `test_model.py` that reads its command line: what
they are is no matter of the catalogue's. It is another where the team names paths, or where the file may hold cases of
its own: then pytest's error stands.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from pytest_trainguard.session.options import asks_for_preflight

_OWN_CASES = re.compile(rb"preflight|edge_case|trainguard")
_NO_SOURCES = ("venv", "node_modules", "site-packages", "__pycache__")


def forgive_conftest(config: pytest.Config) -> bool:
    """Whether a preflight goes on although a conftest at the beginning failed: no path is named on the command line.

    Collection meets the same conftest again, and tells of it.
    """
    given = config.known_args_namespace
    return asks_for_preflight(given.markexpr or "") and not given.file_or_dir


def load_or_leave(
    collector: pytest.Collector, told: list[str]
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Around the collection of one file or folder of the project's: where it fails, it is left out and told of.

    Args:
        collector: of the file or folder.
        told: a line for each that was left out is added.
    """
    failed: BaseException
    try:
        report = yield
    except SystemExit as error:  # a script that begins to run as it is imported
        failed = error
    else:
        call = getattr(report, "call", None)
        if not report.failed or call is None or call.excinfo is None:
            return report
        failed = call.excinfo.value
    path, config = collector.path, collector.config
    paths_named = config.args_source is pytest.Config.ArgsSource.ARGS and config.args
    if paths_named or _may_hold_cases(path):
        if isinstance(failed, SystemExit):
            raise failed
        return report
    name = os.path.relpath(_find_file(failed) or path, config.rootpath)
    told.append(f"{name} cannot be loaded, and was left out: {_tell(failed)}")
    # A folder whose conftest failed is collected without it.
    found = list(collector.collect()) if isinstance(collector, pytest.Directory) else []
    return pytest.CollectReport(collector.nodeid, "passed", None, found)


def _may_hold_cases(path: Path) -> bool:
    return any(_OWN_CASES.search(file.read_bytes()) for file in _sources(path))


def _sources(path: Path) -> Iterator[Path]:
    """The test files and conftests at or below a path."""
    if path.is_file():
        yield path
        return
    for folder, below, files in os.walk(path):
        below[:] = [name for name in below if not name.startswith(".") and name not in _NO_SOURCES]
        for name in files:
            if name.endswith(".py") and ("test" in name):
                yield Path(folder, name)


def _find_file(error: BaseException) -> Path | None:
    """The conftest that failed, where it was one."""
    path = getattr(error, "path", None)
    return path if isinstance(path, Path) else None


def _tell(error: BaseException) -> str:
    """The error that a file ended in, in one line."""
    cause = getattr(error, "cause", None) or error.__cause__ or error  # of a conftest's, of a module's
    lines = str(cause).strip().splitlines()
    if isinstance(cause, pytest.Collector.CollectError):  # the error itself is the last line of what pytest says
        return lines[-1].removeprefix("E").strip() if lines else "CollectError"
    return f"{type(cause).__name__}: {lines[0]}" if lines else type(cause).__name__
