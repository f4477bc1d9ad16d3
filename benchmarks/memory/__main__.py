"""Predictions of GPU memory, made before a GPU is seen, and held against what one then says.

    python -m benchmarks.memory predict benchmarks/memory/predictions.json    # anywhere; commit it before the next
    python -m benchmarks.memory measure measured.json                         # on a GPU, with nothing else on it
    python -m benchmarks.memory compare benchmarks/memory/predictions.json measured.json

Each job is a fresh process, three steps long, with the same versions. Under the budgets the allocator is capped, so
that one large card stands for smaller ones. Workspaces may be calibrated on `jobs.CALIBRATED`; the others are scored.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.memory import jobs
from pytest_trainguard.memory import parse_budget
from pytest_trainguard.memory.answers.measure import MEASURED_STEPS, measure_on_gpu
from pytest_trainguard.memory.answers.prediction import Prediction
from pytest_trainguard.memory.answers.present_gpu import find_gpu
from pytest_trainguard.memory.answers.tracing import Tracing, tracing
from pytest_trainguard.memory.answers.verdict import judge_trace
from pytest_trainguard.memory.replay.budget import Limit, resolve_budget
from pytest_trainguard.verdicts.errors import CannotJudge

BUDGETS = ("24GiB", "40GiB")
EDGES = ("roberta-base bf16", "roberta-large bf16", "bert-eager fp32", "resnet-50 fp32", "sage fp32")  # largest batch
CARD = "h100"
COUNTERS = ("allocated", "reserved")
GIB = 2**30
Result = dict[str, Any]


def main() -> int:
    """Predict, measure or compare; the exit code."""
    asked = _arguments()
    if asked.do == "compare":
        print("\n".join(compared(_read(asked.predictions), _read(asked.measured))))
        return 0
    work = predicted if asked.do == "predict" else measured
    if asked.do == "measure":
        present = find_gpu()
        if present is None:
            print("error: there is no GPU to measure on (or nvidia-ml-py is missing)", file=sys.stderr)
            return 2
        print(present.words)
    found: dict[str, Result] = {}
    for name, (trainer, settings) in jobs.configurations().items():
        if asked.only in name:
            found[name] = {"half": _half(settings), "settings": settings, **_one(name, trainer, settings, work)}
            asked.out.write_text(json.dumps(found, indent=1) + "\n")  # each time: what is there is not lost
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="do", required=True)
    for name, words in (("predict", "without a GPU"), ("measure", "on one")):
        command = commands.add_parser(name, help=words)
        command.add_argument("out", type=Path, help="the JSON file to write")
        command.add_argument("--only", default="", metavar="TEXT", help="jobs whose name has this in it")
    command = commands.add_parser("compare", help="print the table and the scores")
    command.add_argument("predictions", type=Path)
    command.add_argument("measured", type=Path)
    return parser.parse_args()


def _half(settings: Result) -> str:
    return "calibrated" if settings["architecture"] in jobs.CALIBRATED else "scored"


def _one(name: str, trainer: str, settings: Result, work: Callable[[str, Tracing, Result], Result]) -> Result:
    began = time.monotonic()
    try:
        with tracing(f"benchmarks.memory.jobs:{trainer}", device=_limit(CARD).device) as traced:
            # one trainer, many jobs
            traced.subject.description = replace(traced.subject.description, production=settings)
            result = work(name, traced, settings)
    except CannotJudge as error:
        result = {"unknown": str(error)}
    said = result.get("unknown") or f"{result['allocated'] / GIB:.2f} GiB allocated"
    print(f"{name:<45} {said}  ({time.monotonic() - began:.0f} s)", flush=True)
    return result


def _limit(text: str) -> Limit:
    return resolve_budget(parse_budget(text))


def predicted(name: str, traced: Tracing, settings: Result) -> Result:
    """Of one job: the peaks, the verdicts under the budgets, and for some the largest batch under each."""
    trace = traced.trace(steps=MEASURED_STEPS)
    whole = judge_trace(trace, _limit(CARD))
    if whole.verdict == "UNKNOWN":
        return {"unknown": whole.reason}
    # The budgets are emulated on the one card: its workspaces and kernels, less memory.
    limits = {text: Limit(text, _limit(text).size, _limit(CARD).device) for text in BUDGETS}
    result: Result = {
        "torch": trace.torch, "allocated": whole.allocated, "reserved": whole.reserved, "needs": whole.needs,
        "seconds": traced.figures["seconds"], "peak_rss": traced.figures["peak_rss"], "notes": trace.notes,
        "verdicts": {text: judge_trace(trace, limit).verdict for text, limit in limits.items()},
    }  # fmt: skip
    if name in EDGES:
        result["largest"] = {}
        for text, limit in limits.items():
            found = Prediction(traced.subject.settings, traced.trace, limit).find_largest("batch_size")
            result["largest"][text] = found[1].value if found else None
    return result


def measured(name: str, traced: Tracing, settings: Result) -> Result:
    """The same of one job, as the GPU says."""
    whole = measure_on_gpu(traced, None)
    result: Result = {
        "allocated": whole.allocated, "reserved": whole.reserved, "requested": whole.requested, "active": whole.active,
        "exit": whole.exit, "ooms": whole.ooms,
        "verdicts": {text: measure_on_gpu(traced, _limit(text).cap).verdict for text in BUDGETS},
    }  # fmt: skip
    if name in EDGES:
        result["largest"] = {text: edge(traced, _limit(text).cap, settings["batch_size"]) for text in BUDGETS}
    return result


def edge(traced: Tracing, cap: int, start: int) -> int:
    """The largest batch that really trains under a cap, by bisection; 0 where not even one row does."""

    def fits(batch: int) -> bool:
        return measure_on_gpu(traced, cap, {"batch_size": batch}).verdict == "FITS"

    low, high = 0, start
    while fits(high):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def compared(predictions: dict[str, Result], seen: dict[str, Result]) -> list[str]:
    """The table in Markdown, and the scores of the jobs that nothing was calibrated on."""
    lines = ["| job | allocated | measured | error | reserved | measured | error | 24 GiB | 40 GiB |", "|---" * 9 + "|"]
    lines += [_row(name, predictions[name], seen[name]) for name in predictions if name in seen]
    both = [(predictions[name], seen[name]) for name in predictions if name in seen]
    known = [(ours, theirs) for ours, theirs in both if "unknown" not in ours and "unknown" not in theirs]
    scored = [(ours, theirs) for ours, theirs in known if ours["half"] == "scored"]
    lines += ["", f"{len(known)} of {len(both)} jobs known, {len(scored)} of them scored:"]
    for counter in COUNTERS:
        lines.append(f"- {counter}: {_spread([_error(ours, theirs, counter) for ours, theirs in scored])}")
    return [*lines, *_verdicts(scored), *_edges(known)]


def _row(name: str, ours: Result, theirs: Result) -> str:
    unknown = ours.get("unknown") or theirs.get("unknown")
    if unknown:
        return f"| {name} | {unknown} |" + " |" * 7
    cells = []
    for counter in COUNTERS:
        cells += [f"{ours[counter] / GIB:.2f}", f"{theirs[counter] / GIB:.2f}", f"{_error(ours, theirs, counter):+.1%}"]
    cells += [f"{ours['verdicts'][text]} / {theirs['verdicts'][text]}" for text in BUDGETS]
    return f"| {name} | {' | '.join(cells)} |"


def _error(ours: Result, theirs: Result, counter: str) -> float:
    return float(ours[counter] / theirs[counter] - 1)


def _spread(errors: list[float]) -> str:
    if not errors:
        return "nothing to score"
    sizes = [abs(error) for error in errors]
    high = quantiles(sizes, n=20, method="inclusive")[-1] if len(sizes) > 1 else sizes[0]
    return f"median error {median(sizes):.1%}, 95th percentile {high:.1%}, mean signed {sum(errors) / len(errors):+.1%}"


def _verdicts(scored: Iterable[tuple[Result, Result]]) -> list[str]:
    asked = [(ours["verdicts"][text], theirs["verdicts"][text]) for ours, theirs in scored for text in BUDGETS]
    fits = [(ours != "OUT OF MEMORY", theirs != "OUT OF MEMORY") for ours, theirs in asked if theirs != "UNKNOWN"]
    count = max(len(fits), 1)
    return [
        f"- false 'fits': {sum(ours and not theirs for ours, theirs in fits) / count:.1%} of {len(fits)}",
        f"- false 'out of memory': {sum(theirs and not ours for ours, theirs in fits) / count:.1%} of {len(fits)}",
    ]


def _edges(known: Iterable[tuple[Result, Result]]) -> list[str]:
    pairs = [(ours["largest"][text], theirs["largest"][text]) for ours, theirs in known
             if "largest" in ours and "largest" in theirs for text in BUDGETS]  # fmt: skip
    errors = [(ours or 0) / theirs - 1 for ours, theirs in pairs if theirs]
    return [f"- largest batch: {_spread(errors)}"]


def _read(path: Path) -> dict[str, Result]:
    found: dict[str, Result] = json.loads(path.read_text())
    return found


if __name__ == "__main__":
    sys.exit(main())
