"""What the cases of training data share: pieces of it, runs on broken copies of it, whether a field is made use of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.damage import fields as row_values
from pytest_trainguard.damage import files as tamper
from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.subject.subject import STEPS
from pytest_trainguard.verdicts.errors import Finding, NotApplicable

ROOM = 32 << 20  # bytes for a batch of long rows, beside what a run takes with short ones
MEMORY_LIMITS = [mebibytes << 20 for mebibytes in (32, 64, 128, 256)]
LONG_TEXT = 1 << 19  # characters: some hundred rows, and so not many to validate on
LONG_CELL = 1 << 16  # Python's csv module takes twice that


def few(guard: Guard) -> Path:
    """So few rows that a run sees them all."""
    guard.data()
    examples = guard.reference().recording.steps[0].examples or 1
    rows = max(6, min(guard.subject.description["rows"], examples * STEPS // 2))
    made = guard.subject.make_data(guard.folder / "few", rows)
    assert made is not None
    return made


def read_text(guard: Guard) -> row_values.Place:
    """The place of the longest text that training makes use of."""
    data, reference = guard.data(), guard.repeatable()
    found = row_values.texts(row_values.read(data))
    for place in found:
        gone = row_values.without(data, guard.folder, place)
        outcome = guard.run(gone.did, data=gone.path, steps=1, time_limit=guard.patience)
        if outcome.exit != 0 or outcome.losses[:1] != reference.losses[:1]:
            return place
    shown = ", ".join(map(row_values.named, found))
    raise NotApplicable(f"its losses are the same without the text in its rows ({shown}): this case is for texts")


def lowest_limit(guard: Guard) -> int:
    """The lowest of some memory limits with which the undisturbed run comes to its end, and `ROOM`; in bytes."""
    for limit in MEMORY_LIMITS:
        did = f"trained with {limit >> 20} MiB of memory over what is loaded"
        outcome = guard.run(did, steps=2, memory_limit=limit)
        if outcome.exit == 0 and outcome.losses:
            return limit + ROOM
    raise NotApplicable(
        f"two steps take more than {MEMORY_LIMITS[-1] >> 20} MiB over what is loaded: make the tiny settings smaller"
    )


def large(data: Path, guard: Guard, size: int) -> tamper.Tampered:
    """The data's own rows again and again; with long texts where they are cut, so that they are not too many."""
    rows = row_values.read(data)
    if guard.subject.role("max_length"):
        place = read_text(guard)
        texts = [row_values.get(row, place) for row in rows]
        length = LONG_CELL if data.suffix == ".csv" else LONG_TEXT
        long = [(text + "\n") * -(-length // (len(text) + 1)) for text in texts]
        rows = [row_values.put(row, place, text) for row, text in zip(rows, long, strict=True)]
    return tamper.grown(data, guard.folder, rows, size)


def unless_unused(
    place: row_values.Place, variant: tamper.Tampered, outcome: Outcome, guard: Guard, instead: str
) -> None:
    """A run that said nothing is at fault, unless every loss is as before without the field in any row.

    Raises:
        Finding: the field matters.
    """
    gone = row_values.without(guard.data(), guard.folder, place)
    without = guard.run(gone.did, data=gone.path, time_limit=guard.patience)
    if without.exit != 0 or without.losses != guard.reference().losses:
        raise Finding(
            outcome.did,
            f"{outcome.how}, without reporting it: it {instead}, although {variant.field!r} matters (without it in any "
            "row, training is not the same)",
            outcome.last_words,
        )


def is_unused(variant: tamper.Tampered, guard: Guard, reference: Outcome) -> bool:
    """Without the field in any row, every loss is as before."""
    assert variant.field is not None
    everywhere = tamper.without(guard.data(), guard.folder, variant.field, everywhere=True)
    outcome = guard.run(everywhere.did, data=everywhere.path, time_limit=guard.patience)
    return outcome.exit == 0 and outcome.losses == reference.losses


def trained_on(variants: list[tamper.Tampered], guard: Guard, **options: Any) -> list[Outcome]:
    """A run on each variant, with options of `Guard.run`."""
    options["time_limit"] = guard.patience
    return guard.run_all([{"did": each.did, "data": each.path, **options} for each in variants])
