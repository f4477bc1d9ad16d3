"""What the cases of training data share: pieces of it, runs on broken copies of it, whether a field is made use of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_trainguard.casework import relabelled
from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.damage import data_files, row_values, wrong_values
from pytest_trainguard.damage.data_files import Tampered
from pytest_trainguard.damage.row_values import Place
from pytest_trainguard.launch.protocol import RUN_STEPS, RunRequest
from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.rows.forms import Row
from pytest_trainguard.verdicts.errors import Finding, NotApplicable

__all__ = [
    "find_memory_limit", "find_read_data", "find_read_text", "is_quantity", "make_few_rows", "make_large_file",
    "require_unused", "run_on_each", "takes_empty_lists", "trains_without",
]  # fmt: skip

# A time (`2024-01-31 09:30`, `31 Jan 2024`), a file (`a/b.png`), an identifier (`user_12`).
_CODE = re.compile(r"(?=.*\d)[\d\W_]*(?:[A-Za-z]{1,4}[\d\W_]+)?|[!-~]*[\d/\\][!-~]*")
WORDS = 3  # of a name, at most
FEW = 8  # rows to each text, on average: then they are names
ROOM = 32 << 20  # bytes for a batch of long rows, beside what a run takes with short ones
MEMORY_LIMITS = [mebibytes << 20 for mebibytes in (32, 64, 128, 256)]
LONG_TEXT = 1 << 19  # characters: some hundred rows, and so not many to validate on
LONG_CELL = 1 << 16  # Python's csv module takes twice that


def make_few_rows(guard: Guard) -> Path:
    """So few rows that a run sees them all; the path of the data.

    Raises:
        NotApplicable: the trainer has no data.
    """
    guard.needs.data()
    examples = guard.reference.outcome.recording.steps[0].examples or 1
    rows = max(6, min(guard.subject.description.rows, examples * RUN_STEPS // 2))
    data = guard.subject.make_data(guard.folder / "few", rows)
    assert data is not None
    return data


@dataclass(frozen=True)
class ReadRows:
    """How many of its rows a trainer's undisturbed run gets to."""

    count: int


def find_read_data(guard: Guard) -> Path:
    """The data; where the run does not get to its middle, as with a stream, so many rows that it does.

    What is damaged stands in the middle, or at the end. Of a row that is never read no program can say anything.

    Raises:
        NotApplicable: the trainer has no data.
    """
    data, rows = guard.needs.data(), guard.subject.description.rows
    read = guard.subject.findings.get(ReadRows, lambda: ReadRows(_count_read_rows(guard, rows)))
    return data if read.count == rows else _make_first_rows(guard, read.count)


def _count_read_rows(guard: Guard, rows: int) -> int:
    """All, halved as long as every loss stays the same; all where one row would do, since then none is made use of."""
    count = rows
    while count > 1:
        half = count // 2
        did = f"trained on the first {half} rows of its data alone"
        outcome = guard.run(did, data=_make_first_rows(guard, half), time_limit=guard.patience)
        if outcome.exit != 0 or outcome.losses != guard.reference.outcome.losses:
            return count
        count = half
    return rows


def _make_first_rows(guard: Guard, rows: int) -> Path:
    folder = guard.folder / f"first-{rows}"
    made = folder / guard.needs.data().name if folder.exists() else guard.subject.make_data(folder, rows)
    assert made is not None
    return made


def find_read_text(guard: Guard) -> Place:
    """The place of the longest text that training makes use of, and that may be any text.

    What is to be learnt, what is one of a few words in all rows, and what is a time, a number of something or a file is
    a name: a program is right to refuse others.

    Raises:
        NotApplicable: there is no text, or none without which training is another.
    """
    data, reference = guard.needs.data(), guard.needs.repeatable_run()
    rows = row_values.read_named_rows(data)
    found = [place for place in row_values.text_places(rows) if not _is_name(place, rows, guard)]
    if not found:
        raise NotApplicable("the texts in its rows are names, of which there are a few: this case is for texts")
    for place in found:
        gone = row_values.drop_value(data, guard.folder, place)
        outcome = guard.run(gone.did, data=gone.path, steps=1, time_limit=guard.patience)
        if outcome.exit != 0 or outcome.losses[:1] != reference.losses[:1]:
            return place
    shown = ", ".join(map(row_values.format_place, found))
    raise NotApplicable(f"its losses are the same without the text in its rows ({shown}): this case is for texts")


def _is_name(place: Place, rows: Sequence[Row], guard: Guard) -> bool:
    field = row_values.field_of_place(place)
    is_learnt = field == guard.subject.description.labels or field.lower() in relabelled.LABELS
    different = {str(row_values.value_at(row, place)) for row in rows}
    few = 2 if is_learnt else FEW  # what is learnt may be an answer in words, too
    is_short = all(len(text.split()) <= WORDS for text in different)  # a prompt may be the same in all rows
    return (is_short and few * len(different) <= len(rows)) or all(map(_CODE.fullmatch, different))


def find_memory_limit(guard: Guard) -> int:
    """The lowest of some memory limits with which the undisturbed run comes to its end, and `ROOM`; in bytes.

    Raises:
        NotApplicable: it needs more than all of them.
    """
    for limit in MEMORY_LIMITS:
        did = f"trained with {limit >> 20} MiB of memory over what is loaded"
        outcome = guard.run(did, steps=2, memory_limit=limit)
        if outcome.exit == 0 and outcome.losses:
            return limit + ROOM
    raise NotApplicable(
        f"two steps take more than {MEMORY_LIMITS[-1] >> 20} MiB over what is loaded: make the tiny settings smaller"
    )


def make_large_file(data: Path, guard: Guard, size: int) -> Tampered:
    """The data's own rows again and again; with long texts where they are cut, so that they are not too many.

    Args:
        data: the trainer's.
        guard: of the trainer.
        size: in bytes, at least.

    Raises:
        NotApplicable: the data is not read row by row, or has no text to be cut.
    """
    rows = row_values.read_named_rows(data)
    if guard.subject.settings.role("max_length"):
        place = find_read_text(guard)
        length = LONG_CELL if data_files.holds_cells(data) else LONG_TEXT
        texts = [str(row_values.value_at(row, place)) for row in rows]
        long = [(text + "\n") * -(-length // (len(text) + 1)) for text in texts]
        rows = [row_values.replace_value(row, place, text) for row, text in zip(rows, long, strict=True)]
    return data_files.grow_file(data, guard.folder, rows, size)


def require_unused(place: Place, variant: Tampered, outcome: Outcome, guard: Guard, instead: str) -> None:
    """A run that said nothing is at fault, unless every loss is as before without the field in any row.

    Args:
        place: where in a row the variant was changed.
        variant: what was trained on.
        outcome: of that run.
        guard: of the trainer.
        instead: what it did in place of a word: "trained on it, or dropped it".

    Raises:
        Finding: the field matters.
    """
    gone = row_values.drop_value(find_read_data(guard), guard.folder, place)
    without = guard.run(gone.did, data=gone.path, time_limit=guard.patience)
    if without.exit != 0 or without.losses != guard.reference.outcome.losses:
        raise Finding(
            outcome.did,
            f"{outcome.how}, without reporting it: it {instead}, although {variant.field!r} matters (without it in any "
            "row, training is not the same)",
            outcome.last_words,
        )


def is_quantity(place: Place, outcome: Outcome, guard: Guard) -> bool:
    """Whether a program that trained on a far number at a place counts with the numbers there: rooms, or years.

    Then a half more is another number to it, neither an error nor rounded, and so the losses are others. Nothing is
    taken for a quantity that is to be learnt, or is called like that: as a target of a sigmoid a half would do as well.
    """
    field = row_values.field_of_place(place)
    if field == guard.subject.description.labels or field.lower() in {*wrong_values.VOCABULARIES, *relabelled.LABELS}:
        return False
    try:
        more = row_values.edit_value(find_read_data(guard), guard.folder, "made {field} a half more", place, _half_more)
    except (NotApplicable, ValueError, TypeError):  # no number, or a table's column of whole ones
        return False
    half = guard.run(more.did, data=more.path, time_limit=guard.patience)
    return _trains_on(half, guard.reference.outcome) and half.losses != outcome.losses


def _half_more(value: object) -> object:
    more = float(str(value)) + 0.5
    return str(more) if isinstance(value, str) else more


def takes_empty_lists(place: Place, guard: Guard) -> bool:
    """Whether an empty list at a place is data like any other: no edges of a graph, no hashtags of a text.

    It is where the program trains on to finite losses, other ones than with the lists as they are, and leaves no row
    out. With the list empty in every row none can be left out. With it empty in every other row, as many examples are
    in each step, and the losses are others than without these rows. Either is enough: a batch of nothing but empty
    lists may be too little for a sound program, and where all lists of a batch are joined the examples are theirs.

    A list of objects, as the messages of a chat, is a row's content, and no row without content is data.
    """
    data, reference = find_read_data(guard), guard.reference.outcome
    rows = row_values.read_named_rows(data)
    lists = [row_values.value_at(row, place) for row in rows]
    if not all(isinstance(each, list) and not any(isinstance(part, dict) for part in each) for each in lists):
        return False
    every_other = range(0, len(rows), 2)
    did = "made {field} an empty list in {line}"
    all_empty = row_values.edit_value(data, guard.folder, did, place, lambda _: [], which=range(len(rows)))
    some_empty = row_values.edit_value(data, guard.folder, did, place, lambda _: [], which=every_other)
    others_alone = data_files.drop_rows(data, guard.folder, every_other)._replace(did="left out every other row")
    with_none, with_some, without = run_on_each([all_empty, some_empty, others_alone], guard)
    if _trains_on(with_none, reference):
        return True
    kept = [step.examples for step in with_some.recording.steps] == [s.examples for s in reference.recording.steps]
    return kept and with_some.losses != without.losses and _trains_on(with_some, reference)


def _trains_on(outcome: Outcome, reference: Outcome) -> bool:
    """Whether it ends well, after as many steps, with finite losses that are others than those of the reference."""
    as_many = len(outcome.losses) == len(reference.losses)
    return outcome.exit == 0 and as_many and outcome.recording.finite and outcome.losses != reference.losses


def trains_without(place: Place, guard: Guard, reference: Outcome) -> bool:
    """Whether every loss is as before without that place in any row."""
    everywhere = row_values.drop_value(find_read_data(guard), guard.folder, place)
    outcome = guard.run(everywhere.did, data=everywhere.path, time_limit=guard.patience)
    return outcome.exit == 0 and outcome.losses == reference.losses


def run_on_each(variants: Sequence[Tampered], guard: Guard, steps: int = RUN_STEPS) -> list[Outcome]:
    """A run on each variant, to so many optimizer steps."""
    return guard.run_all(
        [RunRequest(each.did, data=each.path, steps=steps, time_limit=guard.patience) for each in variants]
    )
