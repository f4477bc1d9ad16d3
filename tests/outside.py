"""Somebody's own trainers through the whole catalogue: `make outside PATH=...`, or `python -m tests.outside PATH`.

PATH is a checkout: a project whose `pyproject.toml`, `pytest.ini`, `tox.ini` or `setup.cfg` names trainers, or a folder
with several such projects below it. Each is run as its users run it, in this environment, with nothing written into it.
Prints a table in Markdown; exit 1 where a project came to no verdict. What a trainer is found to do is no failure here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SETTINGS_FILES = ("pyproject.toml", "pytest.ini", "tox.ini", "setup.cfg")
NAMES_TRAINERS = ("trainguard_trainers", "[tool.trainguard.trainers.")
GRADES = ("loses", "misleads", "wastes")
HEAD = ("trainer", "cases judged", "passed", "advice", *GRADES, "not judged", "lines of output", "seconds")
DEPTH = 3  # levels of folders below the path


def main(arguments: list[str]) -> int:
    """Try every project below a path, with further options of pytest's behind it."""
    if not arguments:
        print("usage: make outside PATH=folder", file=sys.stderr)
        return 2
    root = Path(arguments[0]).resolve()
    projects = list(find_projects(root, DEPTH))
    if not projects:
        print(f"{root}: no project in it names trainers, in {', '.join(SETTINGS_FILES)}", file=sys.stderr)
        return 2
    rows: list[list[str]] = []
    silent = 0
    for project in projects:
        print(f"--- {project}", file=sys.stderr, flush=True)
        report, output, seconds = run_preflight(project, arguments[1:])
        if not report.get("cases"):
            silent += 1
            print(output[-4000:], file=sys.stderr)
        rows += table_rows(project.name, report, output, seconds)
    print(f"\n| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    return 1 if silent else 0


def find_projects(folder: Path, depth: int) -> Iterator[Path]:
    """The folders that name trainers: this one, or else those below it, hidden ones left out."""
    if any(_names_trainers(folder / name) for name in SETTINGS_FILES):
        yield folder
    elif depth:
        for inner in sorted(folder.iterdir()):
            if inner.is_dir() and not inner.is_symlink() and not inner.name.startswith("."):
                yield from find_projects(inner, depth - 1)


def _names_trainers(file: Path) -> bool:
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    return any(name in text for name in NAMES_TRAINERS)


def run_preflight(project: Path, options: list[str]) -> tuple[dict[str, Any], str, float]:
    """One preflight of a project: its report, empty where there is none; what it printed; seconds."""
    with tempfile.TemporaryDirectory(prefix="outside-") as folder:
        file = Path(folder) / "report.json"
        command = [
            sys.executable, "-m", "pytest", "-m", "preflight", "-p", "no:cacheprovider",
            f"--basetemp={folder}/tmp", f"--preflight-report={file}", *options,
        ]  # fmt: skip
        started = time.monotonic()
        own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        ended = subprocess.run(
            command, cwd=project, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        seconds = time.monotonic() - started
        report = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return report, ended.stdout.decode(errors="replace"), seconds


def table_rows(project: str, report: dict[str, Any], output: str, seconds: float) -> Iterator[list[str]]:
    """A row for each trainer, and one for the project, whose lines and seconds are those of all of them."""
    cases = report.get("cases", [])
    for trainer in dict.fromkeys(case["trainer"] for case in cases):
        of_trainer = [case for case in cases if case["trainer"] == trainer]
        counts = Counter(case["grade"] or case["verdict"] for case in of_trainer)
        counted = [counts["passed"], counts["unclear"], *(counts[grade] for grade in GRADES)]
        took = sum(case["seconds"] for case in of_trainer)
        yield [trainer, *map(str, (sum(counted), *counted)), str(counts["error"]), "", f"{took:.0f}"]
    said = report.get("clearance", "no verdict")
    yield [f"{project}: {said}", *[""] * (len(HEAD) - 3), str(len(output.splitlines())), f"{seconds:.0f}"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
