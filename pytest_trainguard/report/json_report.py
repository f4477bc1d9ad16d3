"""The machine-readable report. Its form is `schema.json` beside this file, and has a version."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
import platform
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_trainguard import catalog

if TYPE_CHECKING:
    from pytest_trainguard.session import Preflight

VERSION = 1
CASE_KEYS = (
    "number",
    "title",
    "category",
    "severity",
    "trainer",
    "verdict",
    "reason",
    "seconds",
    "did",
    "alone",
)


def finish(preflight: Preflight, session: pytest.Session) -> None:
    """At the end of a session: NO-GO becomes exit code 1, and the report is written where one was asked for."""
    listing = session.config.option.collectonly
    if not listing and session.exitstatus == 0 and preflight.clearance(0) == "NO-GO":
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    path = session.config.option.preflight_report
    if path and not listing:
        try:
            write(Path(path), made(preflight, int(session.exitstatus)))
        except OSError as error:  # it could be written when the session began; the summary is still to come
            preflight.report_problem = f"--preflight-report {path}: {error.strerror}"
            session.exitstatus = pytest.ExitCode.USAGE_ERROR


def made(preflight: Preflight, exitstatus: int) -> dict[str, Any]:
    """The report as plain values."""
    order = {name: place for place, name in enumerate(preflight.trainers)}
    verdicts = sorted(preflight.verdicts, key=lambda v: (order.get(v["trainer"], len(order)), v["number"]))
    counts = Counter(verdict["verdict"] for verdict in verdicts)
    names = dict.fromkeys([*preflight.trainers, *(verdict["trainer"] for verdict in verdicts)])
    return {
        "version": VERSION,
        "clearance": preflight.clearance(exitstatus),
        "trainers": [_trainer(name, preflight.trainers.get(name), verdicts) for name in names],
        "memory": memory(verdicts),
        "cases": [{key: verdict[key] for key in CASE_KEYS} for verdict in verdicts],
        "coverage": {
            "catalogue": len(catalog.read()),
            "selected": len(verdicts),
            "judged": counts["passed"] + counts["failed"],
            "passed": counts["passed"],
            "failed": counts["failed"],
            "not_applicable": counts["not_applicable"],
            "error": counts["error"],
        },
        "environment": {
            "pytest_trainguard": _version("pytest-trainguard"),
            "pytest": pytest.__version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cpus": os.cpu_count(),
            "torch": _version("torch"),
            "gpu_budget": preflight.budget,
        },
    }


def memory(verdicts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was predicted of each trainer's GPU memory; what several cases found out of one, put together."""
    found: dict[str, dict[str, Any]] = {}
    for verdict in verdicts:
        if verdict["memory"]:
            earlier = found.get(verdict["trainer"], {"largest_settings": {}})
            largest = {**earlier["largest_settings"], **verdict["memory"]["largest_settings"]}
            found[verdict["trainer"]] = {
                "trainer": verdict["trainer"],
                **verdict["memory"],
                "largest_settings": largest,
            }
    return list(found.values())


def _trainer(name: str, spec: object, verdicts: list[dict[str, Any]]) -> dict[str, Any]:
    own = [verdict for verdict in verdicts if verdict["trainer"] == name]
    errors = [verdict["reason"] for verdict in own if verdict["verdict"] == "error"]
    failed = any(verdict["verdict"] == "failed" for verdict in own)
    verdict = "error" if errors else "failed" if failed else "passed" if own else "not_applicable"
    return {
        "name": name,
        "source": spec if isinstance(spec, str) else "command",
        "verdict": verdict,
        "reason": errors[0] if errors else "",
    }


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def check(path: Path) -> None:
    """Whether a report can be written there, by writing nothing.

    Raises:
        OSError: it cannot.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path.parent):
        pass


def write(path: Path, report: dict[str, Any]) -> None:
    """Write the report whole or not at all.

    Raises:
        OSError: the path cannot be written to.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n")
    os.replace(beside, path)
