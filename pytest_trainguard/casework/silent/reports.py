"""The loss that a program reports is the loss: case 120."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from pytest_trainguard import folders
from pytest_trainguard.casework.silent.look import ENOUGH, Look, Problems, at, problem
from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.recorder.timeline import Event
from pytest_trainguard.verdicts.errors import NotApplicable

__all__ = ["Reported", "find_factor", "find_losses", "find_mean_of_means", "read_reported"]

Reported = Mapping[str, Sequence[float]]  # by where it stands and what it is called, in order
LOGS = {".json", ".jsonl", ".log", ".txt"}
MOST_BYTES = 1 << 20  # of a log that is read
CLOSE = 0.02  # of a loss, beside what is rounded as it is printed
ROUNDED = 6e-5  # four places after the point
EXACT = 1e-4  # of a mean that is computed anew
APART = 3  # times what is rounded off: means that are told apart
SHOWN = 3  # losses in a message

_LOSS = re.compile(
    r"""(?<![\w.]) ((?:[a-z]+[ ])? (?:\w+[/_.-])*\w*loss\w*) ["']?
    \s* (?:is|was|[:=|])? \s* ["']? (-?\d+\.\d+ (?:e[+-]?\d+)? | -?\d+e[+-]?\d+)""",
    re.IGNORECASE | re.VERBOSE,
)


def read_reported(outcome: Outcome) -> dict[str, list[float]]:
    """What a run says of its losses: in what it prints, and in the logs that it writes."""
    found = {f"its output, {name}": values for name, values in find_losses(outcome.output).items()}
    for entry in folders.walk(outcome.output_dir):
        if Path(entry.name).suffix.lower() in LOGS:
            with contextlib.suppress(OSError), open(folders.open_file(entry.path), "rb") as file:
                text = file.read(MOST_BYTES).decode("utf-8", "replace")
                found.update({f"{entry.name}, {name}": values for name, values in find_losses(text).items()})
    return found


def find_losses(text: str) -> dict[str, list[float]]:
    """The numbers in a text that are called a loss, by their names."""
    found: dict[str, list[float]] = {}
    for match in _LOSS.finditer(text):
        found.setdefault(match[1], []).append(float(match[2]))
    return found


def find_factor(parts: Look, whole: Look, of_parts: Reported, of_whole: Reported) -> Problems:
    """Whether the loss that is reported is so many times what it is, where the rows of a step come in parts.

    What is reported of the same rows at once has to be the loss itself: neither a mean over several steps nor a sum of
    several losses says anything here.

    Args:
        parts: the run that accumulates gradients.
        whole: the same, with all rows of a step in one batch.
        of_parts: what the first run reports.
        of_whole: what the second run reports.

    Raises:
        NotApplicable: no loss is reported for each step, it is none of theirs, or the steps are not of as many rows.
    """
    steps, others = parts.recording.steps, whole.recording.steps
    alike = [n for n, (one, other) in enumerate(zip(steps, others, strict=False)) if one.examples == other.examples]
    if len(alike) < ENOUGH:
        raise NotApplicable("the steps of the two runs are not seen to be of the same rows")
    count = max(len(steps[n].losses) for n in alike)
    if count < 2 or any(len(others[n].losses) != 1 for n in alike):
        raise NotApplicable("its steps have one backward pass, whatever parts the rows are dealt out in")
    known = {name: _by_step(values, len(others)) for name, values in of_whole.items()}
    right = {n: v for n, v in known.items() if v and all(_is(v[k], others[k].loss) for k in alike)}
    told = {name: values for name in right if (values := _by_step(of_parts.get(name, []), len(steps)))}
    if not told:
        raise NotApplicable("no loss is seen in its output or its logs that is the loss of each step")
    losses = [steps[n].losses for n in alike]
    for name, values in told.items():
        said = _judge([values[n] for n in alike], [right[name][n] for n in alike], losses, count)
        if said:
            return [problem("misleads", f"the loss that it reports ({name}) {said}")]
    return []


def find_mean_of_means(look: Look, reported: Reported) -> Problems:
    """Whether a validation loss that is reported is the mean of its batches' means, though these are of unequal size.

    Weighed by rows or by targets, both are a mean of all of them. Told of as unclear: where rows are many, it is close.

    Args:
        look: a run that evaluates on batches of which the last is smaller.
        reported: what it reports.

    Raises:
        NotApplicable: no evaluation of such batches is seen.
    """
    found = []
    by_line: dict[str, dict[int, list[Event]]] = {}
    for event in look.of("mean"):
        by_line.setdefault(event["place"], {}).setdefault(event["step"], []).append(event)
    uneven = {p: w for p, w in by_line.items() if any(len({e["rows"] for e in each}) > 1 for each in w.values())}
    if not uneven:
        raise NotApplicable("no evaluation is seen of batches of unequal size, each with a loss of torch's")
    for place, windows in uneven.items():
        each = list(windows.values())
        plain = [fmean(e["value"] for e in events) for events in each]
        means = [[_weighed(events, by) for events in each] for by in ("rows", "targets")]
        apart = all(any(abs(p - r) > APART * _slack(r) for p, r in zip(plain, right, strict=True)) for right in means)
        names = [name for name, values in reported.items() if len(values) == len(each)]
        if not apart or any(_are(reported[name], right) for name in names for right in means):
            continue
        wrong = next((name for name in names if _are(reported[name], plain)), None)
        if wrong is not None:
            rows = [e["rows"] for e in each[0]]
            found.append(
                problem(
                    "unclear",
                    f"the validation loss that it reports ({wrong}) is the mean of its batches' means{at(place)}, "
                    f"{plain[0]:.4g}, and that of all {sum(rows)} rows is {means[0][0]:.4g}: the last batch, of "
                    f"{rows[-1]}, counts as much as one of {rows[0]}; weigh each mean by what it is of",
                )
            )
    return found


def _weighed(events: Sequence[Event], by: str) -> float:
    total = sum(event[by] for event in events)
    return float(sum(event["value"] * event[by] for event in events) / total) if total else float("nan")


def _slack(value: float) -> float:
    """How far what is printed may be off."""
    return EXACT * abs(value) + ROUNDED


def _are(told: Sequence[float], values: Sequence[float]) -> bool:
    return all(abs(one - other) <= _slack(other) for one, other in zip(told, values, strict=True))


def _judge(mine: list[float], whole: list[float], losses: list[tuple[float, ...]], count: int) -> str:
    """What is wrong with what is reported of the parts; empty where nothing is."""
    shown = " and ".join(", ".join(f"{value:.4g}" for value in values[:SHOWN]) for values in (mine, whole))
    told = f"of the same rows in {count} parts and at once it says {shown}"
    for factor in (float(count), 1 / count):
        if all(_is(one, other * factor) for one, other in zip(mine, whole, strict=True)):
            return f"is {factor:g} times the loss: {told}"
    shares = all(_is(sum(each), other) for each, other in zip(losses, whole, strict=True))
    if shares and all(_is(one, each[-1]) for one, each in zip(mine, losses, strict=True)):
        return f"is that of the last of {count} parts, after it was divided by {count}: {told}"
    return ""


def _by_step(values: Sequence[float], steps: int) -> list[float]:
    """One value for each step: the mean of several, where each part has one; none where they are no multiple."""
    if not values or not steps or len(values) % steps:
        return []
    each = len(values) // steps
    return [fmean(values[start : start + each]) for start in range(0, len(values), each)]


def _is(one: float, other: float) -> bool:
    return abs(one - other) <= CLOSE * abs(other) + ROUNDED
