"""Cases 1 to 10: the training data."""

from __future__ import annotations

import re

from pytest_trainguard import Finding, Guard, NotApplicable, Outcome, edge_case, rejects, survives
from pytest_trainguard.expect import Wording, names
from pytest_trainguard.faults import data as tamper

BATCH = 8


@edge_case(
    1,
    "empty training file",
    verdict="rejects",
    severity="major",
    brought_about="zero bytes; blank lines only; no rows",
    expects="rejects, naming the file",
)
def test_01_empty_training_file(guard: Guard) -> None:
    """An export that failed leaves a file of zero bytes; `pandas` writes a line of names and no rows."""
    variants = tamper.empty(guard.data(), guard.folder)
    for variant, outcome in zip(variants, _trained_on(variants, guard), strict=True):
        rejects(outcome, tuple(dict.fromkeys((variant.file.name, variant.path.name))))


@edge_case(
    2,
    "fewer examples than one batch",
    verdict="survives/rejects",
    severity="major",
    brought_about="one row, batch size 8",
    expects="survives with at least one optimizer step, or rejects, naming both numbers",
)
def test_02_fewer_examples_than_one_batch(guard: Guard) -> None:
    """`DataLoader(drop_last=True)` makes no batch of them: no step, or a division by zero steps in an epoch."""
    guard.data()
    reference = guard.reference()
    size = guard.subject.role("batch_size")
    batch = min(BATCH, int(size.bounds.get("le", BATCH))) if size else reference.recording.steps[0].examples
    if batch < 2:
        raise NotApplicable('it takes one example a step: name the setting, fields = {"batch_size": "..."}')
    outcome = guard.run(
        f"trained on one row with batch size {batch}",
        data=guard.subject.make_data(guard.folder / "few", 1),
        settings={size.path: batch} if size else {},
        time_limit=guard.patience,
    )
    if outcome.exit == 0:
        survives(outcome)
    else:
        rejects(outcome, _number(1, "the number of rows", "one|a single"), _number(batch, "the batch size"))


@edge_case(
    4,
    "malformed row",
    verdict="rejects",
    severity="critical",
    brought_about="bad syntax in the middle, a cut last line, NUL bytes",
    expects="rejects, naming file and line",
)
def test_04_malformed_row(guard: Guard) -> None:
    """A disk that was full cuts the last row; a power cut leaves NUL bytes; `except ValueError: continue` hides both.

    Where the data has no lines (Parquet, `.pt`), the file is to be named.
    """
    variants = tamper.malformed(guard.data(), guard.folder)
    for variant, outcome in zip(variants, _trained_on(variants, guard), strict=True):
        rejects(outcome, *variant.naming)


@edge_case(
    5,
    "required field missing",
    verdict="rejects",
    severity="critical",
    brought_about="each required field in turn taken out of one row (of a table, its column)",
    expects="rejects, naming file, line and field",
)
def test_05_required_field_missing(guard: Guard) -> None:
    """`row.get("label", 0)` once turned every row of a renamed column into the first class.

    Required is a field that every row has and that training makes use of: with the field gone from every row, it no
    longer trains as before. A field that only some rows have is optional, and so is one without which every loss stays
    the same. A program that has a default for a field may also take it, as long as it says so, naming the row.
    At least one field must be required: a program that needs none has not read its data.
    """
    data, reference = guard.data(), guard.repeatable()
    fields = tamper.fields(data)
    variants = [tamper.without(data, guard.folder, field) for field in fields]
    required = []
    for variant, outcome in zip(variants, _trained_on(variants, guard), strict=True):
        if outcome.exit == 0 and all(names(_unusual(outcome, reference), name) for name in variant.naming):
            required.append(variant.field)
            continue
        if outcome.exit == 0:
            if _is_unused(variant, guard, reference):
                continue
            same = "" if outcome.losses == reference.losses else ", its losses not those of the whole data"
            raise Finding(
                outcome.did,
                f"{outcome.how}{same}, and not a word of it: the row was dropped, or a default took the place of "
                f"{variant.field!r}, which matters (with it gone from every row, training is not the same)",
                outcome.last_words,
            )
        rejects(outcome, *variant.naming)
        required.append(variant.field)
    if not required:
        shown = ", ".join(map(repr, fields))
        raise Finding(
            f"took each field in turn out of the data: {shown}",
            "it trained the same without any of them: it does not learn from its data",
        )


def _is_unused(variant: tamper.Tampered, guard: Guard, reference: Outcome) -> bool:
    """Without the field in any row, every loss is as before."""
    assert variant.field is not None
    everywhere = tamper.without(guard.data(), guard.folder, variant.field, everywhere=True)
    outcome = guard.run(everywhere.did, data=everywhere.path, time_limit=guard.patience)
    return outcome.exit == 0 and outcome.losses == reference.losses


def _unusual(outcome: Outcome, reference: Outcome) -> str:
    """What a run printed that the undisturbed one did not."""
    usual = set(reference.message.splitlines())
    return "\n".join(line for line in outcome.message.splitlines() if line not in usual)


def _trained_on(variants: list[tamper.Tampered], guard: Guard) -> list[Outcome]:
    return guard.run_all([{"did": each.did, "data": each.path, "time_limit": guard.patience} for each in variants])


def _number(number: int, of: str, in_words: str = "") -> Wording:
    """A number that stands by itself, and not in a path or in another number; or its words."""
    alone = rf"(?<![\w./-]){number}(?![\w/-]|\.\d)"
    words = rf"|\b(?:{in_words})\b" if in_words else ""
    return Wording(f"{of} ({number})", re.compile(alone + words, re.I))
