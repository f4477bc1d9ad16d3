"""Evaluations on validation sets of two sizes: how much goes into one forward pass, and what is held between them."""

from __future__ import annotations

import math
from pathlib import Path

from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.damage import data_files
from pytest_trainguard.launch.protocol import RunRequest
from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.verdicts.errors import Finding, NotApplicable

__all__ = ["check_held", "check_sizes", "evaluate_on"]

STEPS = 2  # optimizer steps, with an evaluation after them where that can be set
MOST_ROWS = 10_000  # that are made so that a share of them is large enough
TIME_LIMIT = 120.0  # seconds
MOST_OF_THEM = 0.7  # of the rows that were to be evaluated on: who draws a share draws about as many
GROWN = 3  # times as large: of a set four times as large
GROWN_WITH_IT = 3.9  # times as large: a pass that is always the same share of the set
LARGE_PASS = 16  # times the rows of a step: no evaluation batch that somebody chose
LARGE_ROW = 16  # times what goes in of a row: logits over a vocabulary, hidden states; not scores of classes


def evaluate_on(guard: Guard, few: int, many: int) -> tuple[Outcome, Outcome]:
    """Two runs that evaluate on so many rows.

    Raises:
        NotApplicable: it does not evaluate, or how many rows it evaluates on cannot be set.
    """
    small, large = guard.run_all([_request(guard, few), _request(guard, many)])
    for outcome in (small, large):
        if outcome.exit != 0 or outcome.timed_out:
            raise NotApplicable(f"{outcome.did}: {outcome.how}: it does not take a validation set of that size")
    seen = [_rows_in_all(outcome) for outcome in (small, large)]
    if not seen[0] or seen[1] < GROWN * seen[0] or seen[1] < many * MOST_OF_THEM:
        raise NotApplicable(
            f"{seen[0]} and {seen[1]} rows are seen in its evaluations, where {few} and {many} were given: name the "
            'settings, fields = {"validation_data": "...", "eval_every": "..."}'
        )
    return small, large


def _request(guard: Guard, rows: int) -> RunRequest:
    settings = guard.subject.settings
    guard.needs.data()
    every, file, share = (settings.role(name) for name in ("eval_every", "validation_data", "validation_fraction"))
    given: dict[str, object] = {every.path: STEPS} if every and every.allows(STEPS) else {}
    data: Path | None = None
    fraction = settings.tiny(share) if share else None
    if file is not None:
        other = guard.subject.make_validation(guard.folder / f"validation-{rows}")
        given[file.path] = str(data_files.repeat_rows(other or guard.needs.data(), guard.folder, rows))
    elif isinstance(fraction, float) and 0 < fraction < 1 and rows / fraction <= MOST_ROWS:
        data = data_files.repeat_rows(guard.needs.data(), guard.folder, math.ceil(rows / fraction))
    elif isinstance(fraction, int | float) and fraction:
        raise NotApplicable(
            f"of its rows it validates on {fraction:g}: {rows} to evaluate on are more than {MOST_ROWS} in all; a "
            'setting for its validation data would do, fields = {"validation_data": "..."}'
        )
    else:
        raise NotApplicable(
            "what it validates on cannot be made larger: name the setting for its validation data, "
            'fields = {"validation_data": "..."}'
        )
    did = f"evaluated on {rows} rows"
    return RunRequest(did, settings=given, data=data, steps=STEPS, census=True, time_limit=TIME_LIMIT)


def _rows_in_all(outcome: Outcome) -> int:
    return max((event["rows_so_far"] for event in outcome.recording.of("evaluated")), default=0)


def check_sizes(guard: Guard, small: Outcome, large: Outcome) -> None:
    """No forward pass of an evaluation takes the whole set, however large that is.

    Raises:
        Finding: one does.
    """
    most = [max(event["rows"] for event in outcome.recording.of("evaluated")) for outcome in (small, large)]
    whole = _rows_in_all(large)
    trained = max((max(step.batches, default=0) for step in large.recording.steps), default=0)
    if most[1] < GROWN_WITH_IT * most[0] or most[1] < whole / 2 or most[1] < LARGE_PASS * max(1, trained):
        return
    raise Finding(
        large.did,
        f"one forward pass of its evaluation takes {most[1]} rows, of {whole} in all (and {most[0]} where there are "
        f"fewer; a step trains on {trained}): memory grows with the validation set, and a real one does not fit. "
        "Evaluate in batches",
        large.last_words,
        grade="wastes",
    )


def check_held(small: Outcome, large: Outcome) -> None:
    """What is held from one forward pass to the next does not grow with the set by much more than a row's input.

    Raises:
        Finding: it does.
    """
    (few, _), (many, rows) = (_grown(outcome) for outcome in (small, large))
    given = max((e["given"] / e["rows"] for e in large.recording.of("evaluated") if e["rows"]), default=0.0)
    if not rows or many < GROWN * max(few, 1) * 0.5 or many / rows < LARGE_ROW * given:
        return
    raise Finding(
        large.did,
        f"its evaluation holds {many / 2**20:.1f} MiB more after {rows} rows than after its first batch, "
        f"{many / rows:.0f} bytes of each row (what goes in of one is {given:.0f}); on fewer rows {few / 2**20:.1f} "
        "MiB: every output is kept to the end. Keep what is counted: predictions, or sums",
        large.last_words,
        grade="wastes",
    )


def _grown(outcome: Outcome) -> tuple[int, int]:
    """The bytes by which all tensors grew in the evaluation that grew most, and over how many rows."""
    grown, first = (0, 0), (0, 0)
    for event in outcome.recording.of("evaluated"):
        if event["held"] is None:
            continue
        if event["number"] == 1:
            first = (event["held"], event["rows_so_far"])
        grown = max(grown, (event["held"] - first[0], event["rows_so_far"] - first[1]))
    return grown
