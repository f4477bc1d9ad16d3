"""Predictions held against GPU memory that others measured and published.

    python -m benchmarks.memory.published                      # the table, median and 95th percentile by family
    python -m benchmarks.memory.published predict [--only TEXT]  # predict anew, and write it into published.csv

`published.csv` holds facts: who measured what, on which card and torch, and the bytes; beside them what is predicted. A
row is `strict`, or `weak` with the reason: only strict ones are scored.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles

from benchmarks.memory import published_jobs
from pytest_trainguard.memory.answers.tracing import tracing
from pytest_trainguard.memory.replay import cards
from pytest_trainguard.memory.replay.device import Device
from pytest_trainguard.memory.replay.trace_replay import replay_trace

PATH = Path(__file__).parent / "published.csv"
STEPS = 3
GIB = 2**30
# As the sources name them; those of `cards` where they are among them.
CARDS = {
    "A100-40": cards.CARDS["a100-40gb"].device, "A100-80": cards.CARDS["a100-80gb"].device,
    "H100": cards.CARDS["h100"].device, "L40S": cards.CARDS["l40s"].device,
    "3090": Device("NVIDIA GeForce RTX 3090", (8, 6), int(23.7 * GIB)),
    "B200": Device("NVIDIA B200", (10, 0), 178 * GIB),
}  # fmt: skip
Row = dict[str, str]


def main() -> int:
    """Print the table, or predict anew; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory.published", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("do", nargs="?", choices=("show", "predict"), default="show")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose job has this in its name")
    asked = parser.parse_args()
    rows = read_rows()
    if asked.do == "predict":
        predict_rows(rows, asked.only)
    print("\n".join(format_rows([row for row in rows if asked.only in row["job"]])))
    return 0


def read_rows(path: Path = PATH) -> list[Row]:
    """The rows of the file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_rows(rows: list[Row], path: Path = PATH) -> None:
    """Write them back."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def predict_rows(rows: list[Row], only: str) -> None:
    """Predict the rows whose job has `only` in its name, and is one of the repository's; into the file, row by row."""
    wanted = [row for row in rows if only in row["job"] and row["job"] in published_jobs.JOBS]
    with tracing("benchmarks.memory.published_jobs:Job") as traced:
        for row in wanted:
            traced.device = CARDS[row["card"]]
            traced.subject.description = replace(traced.subject.description, production={"job": row["job"]})
            row["predicted"] = row["why"] = ""
            trace = traced.trace(steps=STEPS)
            if trace.unknown:
                row["why"] = f"UNKNOWN: {trace.unknown}"
            else:
                found = replay_trace(trace, workspace=cards.find_workspace_size(traced.device.capability))
                peaks = {"allocated": found.peak_allocated, "reserved": found.peak_reserved}
                row["predicted"] = str(peaks[row["counter"]])
            print(f"{row['job']:<45} {row['predicted'] or row['why']}", file=sys.stderr, flush=True)
            write_rows(rows)


def find_error(row: Row) -> float | None:
    """By which part of what was measured the prediction is too high; None where there is none."""
    return int(row["predicted"]) / int(row["published"]) - 1 if row["predicted"] else None


def format_rows(rows: list[Row]) -> list[str]:
    """The table in Markdown, and the scores."""
    lines = ["| family | job | card | published, GB | predicted, GB | error | |", "|---" * 7 + "|"]
    for row in rows:
        error = find_error(row)
        predicted = "" if error is None else f"{int(row['predicted']) / 1e9:.3f}"
        said = "UNKNOWN" if error is None else f"{error:+.2%}"
        remark = "; ".join(part for part in (row["keep"] if row["keep"] != "strict" else "", row["why"]) if part)
        lines.append(
            f"| {row['family']} | {row['job']} | {row['card']} | {int(row['published']) / 1e9:.3f} | {predicted} | "
            f"{said} | {remark} |"
        )
    return [*lines, "", *format_scores(rows)]


def format_scores(rows: list[Row]) -> list[str]:
    """How large the errors of strict rows are, by family: what the documentation quotes."""
    strict = [row for row in rows if row["keep"] == "strict"]
    lines = ["| strict rows of | rows | UNKNOWN | median error | 95th percentile | lowest | highest |",
              "|---" * 7 + "|"]  # fmt: skip
    for family in dict.fromkeys(row["family"] for row in strict):
        lines.append(_score(family, [row for row in strict if row["family"] == family]))
    return [*lines, _score("all", strict)]


def _score(name: str, rows: Iterable[Row]) -> str:
    errors = [find_error(row) for row in rows]
    known = [error for error in errors if error is not None]
    unknown = len(errors) - len(known)
    if not known:
        return f"| {name} | {len(errors)} | {unknown} | | | | |"
    sizes = [abs(error) for error in known]
    high = quantiles(sizes, n=20, method="inclusive")[-1] if len(sizes) > 1 else sizes[0]
    return (
        f"| {name} | {len(errors)} | {unknown} | {median(sizes):.2%} | {high:.2%} | {min(known):+.2%} | "
        f"{max(known):+.2%} |"
    )


if __name__ == "__main__":
    sys.exit(main())
