"""The report as data, from which each of its files is written. Its form is `schema.json` beside this file."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import time
from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from pytest_trainguard import catalog

if TYPE_CHECKING:
    from pytest_trainguard.session.preflight import Preflight

VERSION = 1
CASE_KEYS = (
    "slug",
    "number",
    "title",
    "category",
    "severity",
    "expects",
    "trainer",
    "verdict",
    "reason",
    "seconds",
    "did",
    "evidence",
    "alone",
)


def made(preflight: Preflight, exitstatus: int) -> dict[str, Any]:
    """The report as plain values."""
    order = {name: place for place, name in enumerate(preflight.trainers)}
    verdicts = sorted(preflight.verdicts, key=lambda v: (order.get(v["trainer"], len(order)), v["number"]))
    counts = Counter(verdict["verdict"] for verdict in verdicts)
    names = dict.fromkeys([*preflight.trainers, *(verdict["trainer"] for verdict in verdicts)])
    return {
        "version": VERSION,
        "clearance": preflight.clearance(exitstatus),
        "why": why(preflight, exitstatus),
        "left_out": sorted(preflight.left_out),
        "trainers": [_trainer(name, preflight.trainers.get(name), verdicts) for name in names],
        "memory": memory(verdicts),
        "cases": [{key: verdict[key] for key in CASE_KEYS} for verdict in verdicts],
        "coverage": {
            "catalogue": len(catalog.read_cases()),
            "selected": len(verdicts),
            "judged": counts["passed"] + counts["failed"],
            "passed": counts["passed"],
            "failed": counts["failed"],
            "not_applicable": counts["not_applicable"],
            "error": counts["error"],
        },
        "environment": {
            "date": datetime.fromtimestamp(preflight.began).astimezone().isoformat(timespec="seconds"),
            "command": shlex.join(["pytest", *map(str, preflight.config.invocation_params.args)]),
            "seconds": round(time.time() - preflight.began, 1),
            "pytest_trainguard": _version("pytest-trainguard"),
            "pytest": pytest.__version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cpus": os.cpu_count(),
            "torch": _version("torch"),
            "gpu_budget": preflight.budget,
        },
    }


def why(preflight: Preflight, exitstatus: int) -> str:
    """What stands behind GO or NO-GO, in one line."""
    counts = Counter(verdict["verdict"] for verdict in preflight.verdicts)
    told = [
        f"{counts['passed']} passed",
        f"{counts['failed']} failed",
        f"{counts['not_applicable']} not applicable",
    ]
    if counts["error"]:
        told.append(f"{counts['error']} not judged")
    if exitstatus == pytest.ExitCode.INTERRUPTED:
        told.append("interrupted before the end")
    elif not preflight.judged:
        told.append("nothing was judged")
    among = f" (of what {preflight.narrowed} left)" if preflight.narrowed else ""
    return ", ".join(told) + among


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
