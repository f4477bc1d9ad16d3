"""What several seeds of one trainer are worth together: means, spread, ensemble, gates.

`aggregate` is arithmetic on plain values; `read` gets those values from a seed's output folder and believes
nothing in it unseen.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from trainers.code import classification
from trainers.code.classification import LOGITS
from trainers.common.errors import reason

if TYPE_CHECKING:
    from numpy.typing import NDArray

FRACTIONS = ("f1", "best_f1", "best_threshold", "precision", "recall", "accuracy", "balanced_accuracy")
"""Scores from 0 to 1 of a seed's best validation; the loss stands beside them."""
AVERAGED = ("f1", "best_f1", "precision", "recall", "accuracy", "balanced_accuracy", "loss")
WIDTH = 79
THRESHOLDS = tuple(step / 20 for step in range(1, 20))
"""0.05 to 0.95, for the sweep."""
OPTIMISTIC = (
    "every best threshold, and the best_f1 that belongs to it, was chosen on the very rows that it is scored on: "
    "optimistic, on other rows expect less"
)
METADATA = "training_metadata.json"


class Predictions(NamedTuple):
    """What one seed says of the validation rows.

    Attributes:
        keys: int64 (rows,), one number for each row's code, the same in every run.
        labels: int64 (rows,), 0 or 1.
        logits: float (rows, 2).
    """

    keys: NDArray[Any]
    labels: NDArray[Any]
    logits: NDArray[Any]


@dataclass(frozen=True)
class SeedRun:
    """One seed of a series.

    Attributes:
        seed: its number.
        state: ``finished``; ``failed`` (its process did); ``damaged`` (it has finished, and its files are not as
            they must be); ``cut off`` (it can go on); ``not started``.
        why: one line on a seed that is failed or damaged.
        exit_code: of its process; None where this series did not start one.
        scores: of the best validation: `FRACTIONS`, ``loss`` (nats) and ``step``; empty unless finished.
        facts: ``checkpoint`` (the best one's folder name) and ``seconds`` (the time that its last start took).
        collapse_events: as the trainer noted them.
        predictions: at the best validation.
    """

    seed: int
    state: str
    why: str | None = None
    exit_code: int | None = None
    scores: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    collapse_events: Sequence[Mapping[str, Any]] = ()
    predictions: Predictions | None = None


class Different(Exception):
    """Seeds that were not validated on the same rows."""


# ---- arithmetic


def aggregate(runs: Sequence[SeedRun], *, min_mean_f1: float, max_std_f1: float) -> dict[str, Any]:
    """Everything that can be said of a series; JSON.

    Only finished seeds count, in the means and in the ensemble alike. Standard deviations are those of a
    sample (ddof = 1); one seed has none, and the gate on it does not apply then.

    Args:
        runs: the seeds, in any order.
        min_mean_f1: gate: the lowest mean of F1 at threshold 0.5.
        max_std_f1: gate: the highest standard deviation of it.

    Returns:
        ``passed``, ``failures`` (one line for each reason why not), ``seeds``, ``scores`` (mean and std of
        each), ``gates``, ``ensemble`` or ``ensemble_missing``, ``threshold_sweep``, ``collapse_events``,
        ``notes``.
    """
    counted = [run for run in runs if run.state == "finished"]
    scores = {name: _mean_and_std([run.scores[name] for run in counted]) for name in AVERAGED}
    gates = _gates(scores["f1"], len(counted), min_mean_f1, max_std_f1)
    ensemble, sweep, missing = None, None, "no seed has finished"
    if counted:
        try:
            labels, probabilities = ensemble_of(counted)
        except Different as difference:
            missing = str(difference)
        else:
            ensemble = {"seeds": [run.seed for run in counted], "rows": len(labels)}
            ensemble |= classification.scores(labels, probabilities)
            sweep = threshold_sweep(labels, probabilities)
    notes = [OPTIMISTIC]
    if ensemble is not None:
        notes += [f"ensemble: {warning}" for warning in classification.describe_flags(ensemble)]
        if len(set(labels)) == 1:
            notes.append(f"all {len(labels)} validation rows are of class {labels[0]}: F1 tells nothing")
    failures = [_told(run) for run in runs if run.state != "finished"]
    failures += [f"no ensemble: {missing}"] * bool(counted and ensemble is None)
    failures += [gate["told"] for gate in gates.values() if gate["passed"] is False]
    return {
        "passed": not failures,
        "failures": failures,
        "seeds": [_entry(run) for run in runs],
        "seeds_counted": len(counted),
        "scores": scores,
        "std": "of a sample (ddof = 1); null for one seed",
        "gates": gates,
        "ensemble": ensemble,
        "ensemble_missing": missing if ensemble is None else None,
        "threshold_sweep": sweep,
        "collapse_events": [{"seed": run.seed, **event} for run in runs for event in run.collapse_events],
        "notes": notes,
    }


def _mean_and_std(values: Sequence[float]) -> dict[str, float | None]:
    """Exact before they are rounded once: three times 0.85 has the mean 0.85."""
    return {
        "mean": float(statistics.mean(values)) if values else None,
        "std": statistics.stdev(values) if len(values) > 1 else None,
    }


def _gates(f1: Mapping[str, float | None], seeds: int, lowest: float, highest: float) -> dict[str, dict[str, Any]]:
    mean, std = f1["mean"], f1["std"]
    told_mean = "mean F1: no seed has one (min_mean_f1)"
    told_std = f"std F1: {seeds} finished {'seed' if seeds == 1 else 'seeds'}, the gate does not apply (max_std_f1)"
    if mean is not None:
        told_mean = f"mean F1 {mean:.4f} is {'at least' if mean >= lowest else 'under'} {lowest} (min_mean_f1)"
    if std is not None:
        told_std = f"std F1 {std:.4f} is {'at most' if std <= highest else 'over'} {highest} (max_std_f1)"
    return {
        "mean_f1": {
            "limit": lowest,
            "value": mean,
            "passed": mean is not None and mean >= lowest,
            "told": told_mean,
        },
        "std_f1": {
            "limit": highest,
            "value": std,
            "passed": std <= highest if std is not None else None,
            "told": told_std,
        },
    }


def _told(run: SeedRun) -> str:
    code = f", exit code {run.exit_code}" if run.exit_code else ""
    return f"seed {run.seed}: {run.state}{code}" + (f": {run.why}" if run.why else "")


def _entry(run: SeedRun) -> dict[str, Any]:
    return {
        "seed": run.seed,
        "state": run.state,
        "exit_code": run.exit_code,
        "why": run.why,
        **{name: run.scores.get(name) for name in (*FRACTIONS, "loss", "step")},
        **{name: run.facts.get(name) for name in ("checkpoint", "seconds")},
        "collapse_events": len(run.collapse_events),
    }


def ensemble_of(runs: Sequence[SeedRun]) -> tuple[list[int], list[float]]:
    """The mean of the seeds' softmax probabilities (Lakshminarayanan et al. 2017, deep ensembles).

    Args:
        runs: at least one, each with predictions; their rows may stand in any order.

    Returns:
        label, and probability of class 1, of each row, in the order of the rows' keys.

    Raises:
        Different: two of them have not the same rows with the same labels.
    """
    import numpy

    first = _in_order(runs[0])
    total = numpy.zeros(len(first.keys))
    for run in runs:
        each = _in_order(run)
        if not (numpy.array_equal(each.keys, first.keys) and numpy.array_equal(each.labels, first.labels)):
            raise Different(_difference(runs[0].seed, first, run.seed, each))
        # The softmax of two numbers; tanh overflows nowhere.
        total += 0.5 + 0.5 * numpy.tanh((each.logits[:, 1] - each.logits[:, 0]) / 2)
    return first.labels.tolist(), (total / len(runs)).tolist()


def _in_order(run: SeedRun) -> Predictions:
    """By key, and where two rows share their code, by label."""
    import numpy

    if run.predictions is None:
        raise Different(f"seed {run.seed} has no predictions")
    keys, labels, logits = run.predictions
    order = numpy.lexsort((labels, keys))
    return Predictions(keys[order], labels[order], logits[order].astype(numpy.float64))


def _difference(seed: int, one: Predictions, other_seed: int, other: Predictions) -> str:
    rows = Counter(zip(one.keys.tolist(), one.labels.tolist(), strict=True))
    other_rows = Counter(zip(other.keys.tolist(), other.labels.tolist(), strict=True))
    only, only_other = (rows - other_rows).total(), (other_rows - rows).total()
    return (
        f"the validation rows of seeds {seed} and {other_seed} differ: {only} only in that of {seed}, "
        f"{only_other} only in that of {other_seed} (other data, or another data_seed?)"
    )


def threshold_sweep(labels: Sequence[int], probabilities: Sequence[float]) -> dict[str, Any]:
    """F1, precision and recall of class 1 where rows over a threshold are called 1, at each of `THRESHOLDS`.

    Returns:
        ``points``, and the ``best`` of them by F1 (the first of several).
    """
    import numpy
    from sklearn.metrics import precision_recall_fscore_support  # type: ignore[import-untyped, unused-ignore]

    points: list[dict[str, float]] = []
    for threshold in THRESHOLDS:
        predictions = (numpy.asarray(probabilities) > threshold).astype(int)
        precision, recall, f1, _ = precision_recall_fscore_support(
            labels, predictions, labels=[0, 1], average=None, zero_division=0.0
        )
        numbers = {"f1": float(f1[1]), "precision": float(precision[1]), "recall": float(recall[1])}
        points.append({"threshold": threshold, **numbers})
    return {"points": points, "best": max(points, key=lambda point: point["f1"])}


# ---- the table


def table(made: Mapping[str, Any]) -> list[str]:
    """The summary for people: lines of at most 79 characters, on a terminal or not."""
    columns = ("loss", "F1", "best F1", "prec.", "recall", "bal.acc")
    names = ("loss", "f1", "best_f1", "precision", "recall", "balanced_accuracy")
    lines = [_row("seed", "step", columns, "time"), "-" * WIDTH]
    for seed in made["seeds"]:
        if seed["state"] == "finished":
            scores = [f"{seed[name]:.3f}" for name in names]
            lines.append(_row(str(seed["seed"]), str(seed["step"]), scores, _clock(seed["seconds"])))
        else:
            lines.append(_cut(f"{seed['seed']:>10}  {seed['state']}" + (f": {seed['why']}" if seed["why"] else "")))
    lines.append("-" * WIDTH)
    for which in ("mean", "std"):
        values = [made["scores"][name][which] for name in names]
        lines.append(_row(which, "", ["-" if value is None else f"{value:.3f}" for value in values], ""))
    if made["ensemble"] is not None:
        scores = ["-" if name == "loss" else f"{made['ensemble'][name]:.3f}" for name in names]
        lines.append(_row("ensemble", "", scores, ""))
        best = made["threshold_sweep"]["best"]
        lines.append(f"sweep of the ensemble: best F1 {best['f1']:.3f} at threshold {best['threshold']:.2f}")
    lines.append("best F1: at a threshold chosen on the rows it is scored on, so optimistic")
    lines += [_cut(f"note: {note}") for note in made["notes"] if note != OPTIMISTIC]
    if made["collapse_events"]:
        seeds = sorted({event["seed"] for event in made["collapse_events"]})
        lines.append(_cut(f"signs of collapse: {len(made['collapse_events'])}, in {', '.join(map(str, seeds))}"))
    for gate in made["gates"].values():
        word = {True: "passed", False: "MISSED", None: "none"}[gate["passed"]]
        lines.append(f"gate {word}: {gate['told']}")
    return lines


def _row(seed: str, step: str, scores: Sequence[str], clock: str) -> str:
    return (f"{seed:>10} {step:>9}" + "".join(f"{score:>8}" for score in scores) + f"{clock:>10}").rstrip()


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else line[: WIDTH - 3] + "..."


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


# ---- reading a seed's output folder


class Damaged(Exception):
    """A file of a seed is not as it must be; the message names it."""


def read(folder: Path, seed: int) -> SeedRun:
    """What a seed's output folder says; whatever is wrong with it becomes the state ``damaged`` and a line."""
    if not (folder / METADATA).exists():
        return SeedRun(seed, "not started")
    try:
        metadata = read_object(folder / METADATA)
        events = metadata.get("collapse_events", [])
        if not (isinstance(events, list) and all(isinstance(event, dict) for event in events)):
            raise Damaged(f"{METADATA}: collapse_events is no list of objects")
        if metadata.get("status") != "finished":
            return SeedRun(seed, "cut off", collapse_events=events)
        scores, facts = _scores(metadata), _facts(metadata)
        predictions = _predictions(folder / LOGITS, scores["step"])
    except Damaged as damage:
        return SeedRun(seed, "damaged", str(damage))
    return SeedRun(seed, "finished", scores=scores, facts=facts, collapse_events=events, predictions=predictions)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object in a file; NaN and infinity are no JSON.

    Raises:
        Damaged: it is not there, or is something else.
    """

    def refuse(literal: str) -> None:
        raise ValueError(literal)

    try:
        value = json.loads(path.read_bytes(), parse_constant=refuse)
    except OSError as error:
        raise Damaged(f"{path.name}: {reason(error)}") from None
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path.name}: bad JSON: {error}") from None
    if not isinstance(value, dict):
        raise Damaged(f"{path.name}: no JSON object")
    return value


def _scores(metadata: Mapping[str, Any]) -> dict[str, Any]:
    best = metadata.get("best")
    if not isinstance(best, dict):
        raise Damaged(f"{METADATA}: no scores (best is {best!r}): was no row held out?")
    for name in (*FRACTIONS, "loss"):
        value = best.get(name)
        if not _is_number(value) or value < 0 or (name != "loss" and value > 1):
            raise Damaged(f"{METADATA}: best {name} is {value!r}")
    step = best.get("step")
    if type(step) is not int:
        raise Damaged(f"{METADATA}: best step is {step!r}")
    return {name: best[name] for name in (*FRACTIONS, "loss", "step")}


def _facts(metadata: Mapping[str, Any]) -> dict[str, Any]:
    seconds, checkpoint = metadata.get("seconds"), metadata.get("best_checkpoint")
    if not _is_number(seconds):
        raise Damaged(f"{METADATA}: seconds is {seconds!r}")
    if not isinstance(checkpoint, str):
        raise Damaged(f"{METADATA}: best_checkpoint is {checkpoint!r}")
    return {"seconds": seconds, "checkpoint": checkpoint}


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf


def _predictions(path: Path, step: int) -> Predictions:
    """The saved logits of the best step.

    Raises:
        Damaged: they are not there, cut, of another step, type or shape, not finite; or a label is not 0 or 1.
    """
    import numpy
    from safetensors import SafetensorError, safe_open

    expected = {"logits": "F32", "labels": "I64", "keys": "I64"}
    try:
        with safe_open(str(path), "np") as stored:
            of_step = (stored.metadata() or {}).get("step")
            for name, kind in expected.items():
                found = stored.get_slice(name).get_dtype()
                if found != kind:
                    raise Damaged(f"{path.name}: {name} is {found}, not {kind}")
            keys, labels, logits = (stored.get_tensor(name) for name in ("keys", "labels", "logits"))
    except (SafetensorError, OSError) as error:
        line = reason(error) if isinstance(error, OSError) and error.strerror else str(error)
        raise Damaged(f"{path.name}: {line}") from None
    if of_step != str(step):
        raise Damaged(f"{path.name}: of step {of_step}, the best is step {step}")
    rows = len(labels) if labels.ndim == 1 else 0
    if not rows or keys.shape != (rows,) or logits.shape != (rows, 2):
        shapes = f"logits {logits.shape}, labels {labels.shape}, keys {keys.shape}"
        raise Damaged(f"{path.name}: {shapes}; expected (rows, 2), (rows,), (rows,)")
    if not numpy.isfinite(logits).all():
        raise Damaged(f"{path.name}: {int((~numpy.isfinite(logits)).sum())} logits are not finite")
    if not numpy.isin(labels, (0, 1)).all():
        raise Damaged(f"{path.name}: a label is neither 0 nor 1")
    return Predictions(keys, labels, logits)
