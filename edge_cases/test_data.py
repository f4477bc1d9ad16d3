"""Cases 1 to 10: the training data."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pytest_trainguard import (
    Finding,
    Guard,
    NotApplicable,
    RunRequest,
    Wording,
    causes,
    edge_case,
    note,
    noting,
    rejects,
    settings,
    survives,
    wording,
)
from pytest_trainguard.casework import damaged_data
from pytest_trainguard.damage import data_files, row_values, wrong_values

BATCH = 8
FAR_OVER = 100  # times the limit
NOISE = 64 << 20  # bytes by which the peaks of two runs may differ
MOST_MEMORY = 4 << 30  # bytes; what a run that truncates nothing may take of the machine
TIMES_MEMORY = 2
LONG_READ = 60.0  # seconds to read the large file in
TRUNCATED = re.compile(
    r"truncat|\bcut\b|shorten|clipp|longer than|too long|over.?long|exceed|skipp|dropp|left out|filtered", re.I
)
SKIPPED = re.compile(r"skip|drop|ignor|omit|left out|leav|filter|discard|exclud|empty|blank", re.I)
COUNT_OF_ONE = re.compile(r"(?<![\w./-])1(?![\w/-]|\.\d)|\bone\b|\ba row\b", re.I)
SCRIPTS = "\N{GRINNING FACE} \u05e9\u05dc\u05d5\u05dd e\N{COMBINING ACUTE ACCENT} \ud55c\uae00 "
OTHER_SCRIPTS = "\N{ROCKET} \u0633\u0644\u0627\u0645 o\N{COMBINING DIAERESIS} \u6f22\u5b57 "
TAKEN_OUT = "these characters taken out"
ALTERED: dict[str, Callable[[str], str]] = {
    TAKEN_OUT: lambda text: text.encode("ascii", "ignore").decode(),
    "question marks in their place": lambda text: text.encode("ascii", "replace").decode(),
}
PLACEHOLDER = "\ue000trainguard\ue000"
SIZE = Wording("the file's size", re.compile(r"\d[\d.,_]*\s*(bytes|[KMGT]i?B)\b", re.I))
LIMIT = Wording("the limit on memory", re.compile(r"\bmemory\b|limit|available|\bRAM\b", re.I))


@edge_case(
    "empty-training-file",
    number=1,
    title="empty training file",
    verdict="rejects",
    severity="misleads",
    brought_about="zero bytes; blank lines only; no rows",
    expects="rejects, naming the file",
    fast=True,
)
def test_empty_training_file(guard: Guard) -> None:
    """An export that failed leaves a file of zero bytes; `pandas` writes a line of names and no rows."""
    variants = data_files.empty_data(guard.needs.data(), guard.folder)
    for variant, outcome in zip(variants, damaged_data.run_on_each(variants, guard), strict=True):
        with noting():
            rejects(outcome, tuple(dict.fromkeys((variant.file.name, variant.path.name))))


@edge_case(
    "fewer-examples-than-one-batch",
    number=2,
    title="fewer examples than one batch",
    verdict="survives/rejects",
    severity="misleads",
    brought_about="one row, batch size 8",
    expects="survives with at least one optimizer step, or rejects, naming both numbers",
    fast=True,
)
def test_fewer_examples_than_one_batch(guard: Guard) -> None:
    """`DataLoader(drop_last=True)` makes no batch of them: no step, or a division by zero steps in an epoch."""
    data, reference = guard.needs.data(), guard.reference.outcome
    size = guard.subject.settings.role("batch_size")
    batch = min(BATCH, int(size.bounds.get("le", BATCH))) if size else reference.recording.steps[0].examples
    if batch < 2:
        to_add = 'fields = {"batch_size": "..."}'
        mend = to_add if size is None and guard.subject.settings.fields else ""
        raise NotApplicable(f"it takes one example a step: name the setting, {to_add}", mend)
    outcome = guard.run(
        f"trained on one row with batch size {batch}",
        data=guard.subject.make_data(guard.folder / "few", 1),
        settings={size.path: batch} if size else {},
        time_limit=guard.patience,
    )
    both = (wording.number(1, "the number of rows", "one|a single"), wording.number(batch, "the batch size"))
    if outcome.exit == 0:
        survives(outcome)
    else:
        rejects(outcome, *(both if data_files.counts_rows(data) else ()))


@edge_case(
    "sequence-far-over-the-limit",
    number=3,
    title="sequence far over the limit",
    verdict="survives",
    severity="wastes",
    brought_about="a few rows at 100 × the limit, beside the same rows at 2 × the limit",
    expects="survives: truncated and counted; peak memory bounded by the limit",
)
def test_sequence_far_over_the_limit(guard: Guard) -> None:
    """One pasted log file in a column of sentences: attention over it takes 10,000 times the memory of a usual row.

    The first row, the last and one in the middle are lengthened, so that one of them is trained on, whichever are held
    out. Repeating its own words makes a row of at least as many tokens, or nodes of a graph, as it has words.
    """
    field = guard.needs.setting("max_length")
    value = settings.value_at(guard.subject.settings.base, field.path) or field.default
    limit = int(value) if isinstance(value, int | float) else 0
    if limit < 1:
        raise NotApplicable(f"{field.path} is not set: give it a number in the tiny settings")
    data = damaged_data.make_few_rows(guard)
    place = damaged_data.find_read_text(guard)
    last = len(row_values.read_named_rows(data)) - 1
    variants = [
        row_values.edit_value(
            data, guard.folder, f"lengthened {{field}} to {times * limit} words in {{line}} ({field.path} = {limit})",
            place, partial(wrong_values.repeat_words, words=times * limit), which=sorted({0, last // 2, last}),
        )
        for times in (2, FAR_OVER)
    ]  # fmt: skip
    near, far = guard.run_all(
        [
            RunRequest(each.did, data=each.path, time_limit=2 * guard.patience, memory_limit=MOST_MEMORY)
            for each in variants
        ]
    )
    survives(near)
    survives(far)
    longest, usual = (max(step.length for step in outcome.recording.steps) for outcome in (far, near))
    if longest > max(limit, usual):
        raise Finding(
            far.did, f"it was not truncated: {longest} tokens in a batch, where {field.path} = {limit}", grade="wastes"
        )
    grown = far.peak_rss - near.peak_rss
    allowed = NOISE + 8 * (variants[1].file.stat().st_size - variants[0].file.stat().st_size)
    if grown > allowed:
        raise Finding(
            far.did,
            f"its memory was not bounded by the limit: the peak grew by {grown >> 20} MiB over that of rows at "
            f"{2 * limit} words",
            far.last_words,
            grade="wastes",
        )
    if not _names_in_a_line(
        wording.unusual(far, guard.reference.outcome), TRUNCATED, re.compile(rf"(?<!\d)(?!{limit}\b)\d")
    ):
        told = (
            "it did not say how many rows were truncated: what was cut off, or whether the rows were dropped, nobody "
            "will know"
        )
        note(Finding(far.did, told, far.last_words, grade="unclear"))


@edge_case(
    "malformed-row",
    number=4,
    title="malformed row",
    verdict="rejects",
    severity="misleads",
    brought_about="bad syntax in the middle, a cut last line, NUL bytes; of a folder, one file that is NUL bytes "
    "throughout",
    expects="rejects, naming file and line",
    fast=True,
)
def test_malformed_row(guard: Guard) -> None:
    """A disk that was full cuts the last row; a power cut leaves NUL bytes; `except ValueError: continue` hides both.

    So does a thread for each file of a folder, which dies of the damaged one while the others have rows enough.

    Where the data has no lines (Parquet, `.pt`), the file is to be named. Who reads the right values of a record that
    has one too many has lost nothing.
    """
    data = damaged_data.find_read_data(guard)
    variants = [*data_files.corrupt_row(data, guard.folder), *data_files.damage_one_file(data, guard.folder)]
    for variant, outcome in zip(variants, damaged_data.run_on_each(variants, guard), strict=True):
        with noting():
            if variant.spare and outcome.exit == 0 and outcome.losses == guard.reference.outcome.losses:
                told = "it trained on the right values of that line, and says nothing of the one too many"
                raise Finding(outcome.did, told, outcome.last_words, grade="unclear", cause=causes.UNNAMED)
            rejects(outcome, *variant.naming)


@edge_case(
    "required-field-missing",
    number=5,
    title="required field missing",
    verdict="rejects",
    severity="misleads",
    brought_about="each required field in turn taken out of one row (of a table, its column); of the objects in a row, "
    "out of one of these",
    expects="rejects, naming file, line and field",
    fast=True,
)
def test_required_field_missing(guard: Guard) -> None:
    """`row.get("label", 0)` once turned every row of a renamed column into the first class.

    Required is a field that every row has and that training makes use of: with the field gone from every row, it no
    longer trains as before. A field that only some rows have is optional, and so is one without which every loss stays
    the same. A program that has a default for a field may also take it, as long as it says so, naming the row.
    The fields of nested objects are required likewise, where each of these has them: `messages[0].content`. At least
    one field must be required: a program that needs none has not read its data.
    """
    data, reference = damaged_data.find_read_data(guard), guard.needs.repeatable_run()
    fields = data_files.field_names(data)
    nested = row_values.nested_places(row_values.read_named_rows(data))
    places: list[row_values.Place] = [*((field,) for field in fields), *nested]
    variants = [data_files.drop_field(data, guard.folder, field) for field in fields]
    variants += [row_values.drop_in_a_row(data, guard.folder, place) for place in nested]
    unused = []
    for place, variant, outcome in zip(places, variants, damaged_data.run_on_each(variants, guard), strict=True):
        with noting():
            if outcome.exit == 0 and all(
                wording.names(wording.unusual(outcome, reference), name) for name in variant.naming
            ):
                continue
            if outcome.exit == 0:
                if damaged_data.trains_without(place, guard, reference):
                    unused.append(place)
                    continue
                same = "" if outcome.losses == reference.losses else ", with losses other than those of the whole data"
                raise Finding(
                    outcome.did,
                    f"{outcome.how}{same}, without reporting it: the row was dropped, or a default took the place of "
                    f"{variant.field!r}, which matters (without it in any row, training is not the same)",
                    outcome.last_words,
                )
            rejects(outcome, *variant.naming)
    if unused == places:
        shown = ", ".join(map(repr, map(row_values.format_place, places)))
        raise Finding(
            f"took each field in turn out of the data: {shown}",
            "it trained the same without any of them: it does not learn from its data",
        )


@edge_case(
    "required-field-empty",
    number=6,
    title="required field empty",
    verdict="rejects/survives",
    severity="misleads",
    brought_about="each required text or list in turn empty in one row, or nothing but blanks",
    expects="rejects, naming file, line and field, or skips and reports how many",
)
def test_required_field_empty(guard: Guard) -> None:
    """An answer that was never written becomes a row that teaches the model to say nothing.

    A field that is empty in some rows as they are may be so. A program may skip the row if it says so: which, or how
    many. An empty list with which it trains on, leaving no row out, is data: a graph without edges is a graph.
    """
    data, reference = damaged_data.find_read_data(guard), guard.needs.repeatable_run()
    rows = row_values.read_named_rows(data)
    variants = []
    for place in row_values.common_places(rows):
        for empty, words in wrong_values.empty_values(rows, place):
            did = f"made {{field}} {words} in {{line}}"
            variants.append((place, row_values.edit_value(data, guard.folder, did, place, _always(empty))))
    if not variants:
        raise NotApplicable("none of its rows' fields can be empty: this case is for rows with texts and lists")
    outcomes = damaged_data.run_on_each([variant for _, variant in variants], guard)
    for (place, variant), outcome in zip(variants, outcomes, strict=True):
        with noting():
            if outcome.exit != 0:
                rejects(outcome, variant.file.name, *variant.naming[1:-1], _or_empty(variant.field))
                continue
            survives(outcome)
            told = wording.unusual(outcome, reference)
            if not (
                _names_in_a_line(told, SKIPPED, COUNT_OF_ONE)
                or all(wording.names(told, n) for n in variant.naming[:-1])
                or damaged_data.takes_empty_lists(place, guard)
            ):
                damaged_data.require_unused(place, variant, outcome, guard, "trained on the row or dropped it")


@edge_case(
    "value-outside-its-vocabulary",
    number=7,
    title="value outside its vocabulary",
    verdict="rejects",
    severity="misleads",
    brought_about="one row with an unknown role or class, a label far over the number of classes, a negative one",
    expects="rejects, naming file, line and value (never a device-side assert)",
)
def test_value_outside_its_vocabulary(guard: Guard) -> None:
    """On a GPU a label out of range is a device-side assert, hours later, with no row and no value in it.

    A vocabulary is, by the data's own witness, a field of few different whole numbers, each in several rows; of text
    it is a field called role, label, class or the like. A number of rooms is none: what a program takes halves of, and
    learns otherwise from them, is a quantity, unless it is what is to be learnt.
    """
    data, reference = damaged_data.find_read_data(guard), guard.needs.repeatable_run()
    rows = row_values.read_named_rows(data)
    variants = []
    for place in row_values.common_places(rows):
        for value in wrong_values.unknown_values(rows, place, guard.subject.description.labels):
            did = f"set {{field}} to {value!r} in {{line}}"
            made = row_values.edit_value(data, guard.folder, did, place, _always(value))
            variants.append((place, value, made))
    if not variants:
        raise NotApplicable("its rows have no field of few different values: this case is for labels and roles")
    outcomes = damaged_data.run_on_each([variant for _, _, variant in variants], guard)
    for (place, value, variant), outcome in zip(variants, outcomes, strict=True):
        with noting():
            naming = (*variant.naming[:-1], _shown(value))
            if outcome.exit != 0:
                rejects(outcome, *naming)
                continue
            if all(wording.names(wording.unusual(outcome, reference), name) for name in naming):
                continue
            if not damaged_data.is_quantity(place, outcome, guard):
                damaged_data.require_unused(
                    place, variant, outcome, guard, "took the value for something else, or dropped the row"
                )


@edge_case(
    "wrong-type",
    number=8,
    title="wrong type",
    verdict="rejects",
    severity="misleads",
    brought_about="in one row a number, object, array, null or bool where text belongs, and the reverse; 1 where the "
    "sample has 1.0",
    expects="rejects, naming file, line, field and type or value; takes a whole number for a number",
)
def test_wrong_type(guard: Guard) -> None:
    """`str(row["text"])` makes training text of null and of an object: the model learns to write `None`.

    Null is taken where some row has it already, and every cell of a CSV is text, so that there only numbers can be
    of a wrong type. What a program does not make use of may be of any type. A number is one without a point as well:
    that is how JavaScript, jq and many a spreadsheet write 1.0.
    """
    data, reference = damaged_data.find_read_data(guard), guard.needs.repeatable_run()
    rows = row_values.read_named_rows(data)
    _take_whole_numbers(guard, data, rows)
    variants = []
    for place in row_values.common_places(rows):
        for value in wrong_values.values_of_other_types(
            [row_values.value_at(row, place) for row in rows], text_only=data_files.holds_cells(data)
        ):
            did = f"put {wrong_values.describe_type(value)[0]} ({json.dumps(value)}) into {{field}} in {{line}}"
            made = row_values.edit_value(data, guard.folder, did, place, _always(value))
            variants.append((place, value, made))
    if not variants:
        raise NotApplicable("its rows have neither texts nor numbers that could be of another type")
    outcomes = damaged_data.run_on_each([variant for _, _, variant in variants], guard)
    for (place, value, variant), outcome in zip(variants, outcomes, strict=True):
        with noting():
            old = row_values.value_at(rows[len(rows) // 2], place)
            if outcome.exit != 0:
                rejects(outcome, *variant.naming, _type_or_value(value, old))
            elif not all(wording.names(wording.unusual(outcome, reference), name) for name in variant.naming):
                damaged_data.require_unused(
                    place, variant, outcome, guard, "took the value for something else, or dropped the row"
                )


def _take_whole_numbers(guard: Guard, data: Path, rows: Sequence[dict[str, Any]]) -> None:
    """What is trained on with 1.0 in some row is trained on likewise with 1; where 1.0 is taken at all."""
    for place in row_values.whole_numbers(rows):
        did = "wrote {{field}} as {} in {{line}}"
        floats, whole = (
            row_values.edit_value(
                data, guard.folder, did.format(how), place, partial(wrong_values.whole_number, kind=kind)
            )
            for how, kind in (("a whole number with a point", float), ("a whole number without a point", int))
        )
        control, outcome = damaged_data.run_on_each([floats, whole], guard)
        if control.exit != 0 or outcome.losses == control.losses:
            continue
        with noting():
            if outcome.exit == 0:
                told = "its losses are others than with the same number written with a point"
                raise Finding(outcome.did, told, outcome.last_words)
            told = f"it does not take a whole number for a number: {outcome.how}"
            early = not outcome.recording.steps
            raise Finding(outcome.did, told, outcome.last_words, grade="unclear" if early else "wastes")


@edge_case(
    "unicode",
    number=9,
    title="Unicode",
    verdict="survives/rejects",
    severity="misleads",
    brought_about="emoji, right-to-left, combining marks, a byte order mark; bytes that are no UTF-8, a lone surrogate",
    expects="survives with text unaltered / rejects, naming file and line",
)
def test_unicode(guard: Guard) -> None:
    r"""`errors="ignore"`, or the machine's own encoding: the text that is trained on is not the text in the file.

    Whether text came through unaltered is seen in the losses: they must differ from those of the text without these
    characters, and with question marks for them; and equal those of the same text in JSON's `\u` escapes. A tokenizer
    that has one token for all that it does not know may use it.
    """
    data, reference = damaged_data.find_read_data(guard), guard.needs.repeatable_run()
    place = damaged_data.find_read_text(guard)
    everywhere = list(range(len(row_values.read_named_rows(data))))
    texts = {
        "emoji, Hebrew, Korean and combining marks": SCRIPTS,
        "other emoji, Arabic, Chinese and combining marks": OTHER_SCRIPTS,
        **{loss: alter(SCRIPTS) for loss, alter in ALTERED.items()},
    }
    variants = [
        row_values.edit_value(
            data, guard.folder, f"put {what} before {{field}} in {{line}}", place, _put_before(new),
            which=everywhere,
        )
        for what, new in texts.items()
    ]  # fmt: skip
    kept, other, *altered = damaged_data.run_on_each(variants, guard, steps=2)
    survives(kept)
    if kept.losses[0] != reference.losses[0]:  # else the beginning of a text is not read
        known = kept.losses != other.losses
        for what, outcome in zip(ALTERED, altered, strict=True):
            if kept.losses == outcome.losses and (known or what == TAKEN_OUT):
                raise Finding(kept.did, f"the text was altered: every loss is as with {what}", kept.last_words)
    for variant in data_files.escape_text(variants[0].path, guard.folder):
        with noting():
            outcome = guard.run(variant.did, data=variant.path, steps=2, time_limit=guard.patience)
            if outcome.losses != kept.losses:
                differ = "with the same text in JSON's \\u escapes its losses are others: the file is not read as UTF-8"
                raise Finding(kept.did, differ, outcome.last_words)
    for variant in data_files.add_byte_order_mark(data, guard.folder):
        with noting():
            outcome = guard.run(variant.did, data=variant.path, time_limit=guard.patience)
            survives(outcome)
            if outcome.losses != reference.losses:
                raise Finding(outcome.did, "its losses are not those without it: the first row was dropped, or altered")
    broken = _broken_texts(data, guard, place)
    for variant, outcome in zip(broken, damaged_data.run_on_each(broken, guard), strict=True):
        with noting():
            naming = variant.naming[:-1]
            if outcome.exit != 0:
                rejects(outcome, *naming)
            elif not all(wording.names(wording.unusual(outcome, reference), name) for name in naming):
                damaged_data.require_unused(
                    place, variant, outcome, guard, "put something else in its place, or dropped the row"
                )


@edge_case(
    "file-larger-than-memory",
    number=10,
    title="file larger than memory",
    verdict="survives/rejects",
    severity="wastes",
    brought_about=f"a file {TIMES_MEMORY} times as large as the memory that the run may have",
    expects="survives with bounded memory, or rejects, naming size and limit; never killed",
)
def test_file_larger_than_memory(guard: Guard) -> None:
    """`json.load`, `list(file)`, `pd.read_csv`: the whole file in memory, once in bytes and several times in objects.

    The limit is a real one (RLIMIT_DATA), over what is loaded: the lowest of several with which the undisturbed run
    comes to its end, and 32 MiB. What a mapped file takes does not count. The file is the trainer's own rows again and
    again, with long texts where it cuts them.
    """
    data = guard.needs.data()
    limit = damaged_data.find_memory_limit(guard)
    large = damaged_data.make_large_file(data, guard, TIMES_MEMORY * limit)
    try:
        outcome = guard.run(
            f"trained on {large.file.name} of {large.file.stat().st_size >> 20} MiB, with {limit >> 20} MiB of memory "
            "over what is loaded",
            data=large.path, steps=2, memory_limit=limit, time_limit=guard.patience + LONG_READ,
        )  # fmt: skip
    finally:
        large.file.unlink()  # pytest keeps a test's folder
    if outcome.exit > 0 and not outcome.recording.steps and not outcome.timed_out:
        rejects(outcome, large.file.name, SIZE, LIMIT)
    else:
        survives(outcome)


def _always(value: object) -> Callable[[object], object]:
    """An edit that puts a value in the place of whatever stands there."""
    return lambda old: value


def _put_before(text: str) -> Callable[[object], object]:
    """An edit that puts a text before the one that stands there."""
    return lambda old: f"{text}{old}"


def _shown(value: object) -> Wording:
    return Wording(f"the value {value!r}", re.compile(rf"(?<![\w.]){re.escape(str(value))}(?!\w|\.\d)"))


def _type_or_value(value: object, old: object) -> Wording:
    """Its type, the type that belongs there, or the value itself."""
    kinds = f"{wrong_values.describe_type(value)[1]}|{wrong_values.describe_type(old)[1]}"
    shown = f"{re.escape(repr(value))}|{re.escape(json.dumps(value))}"
    return Wording(
        f"its type ({wrong_values.describe_type(value)[0]})", re.compile(rf"\b(?:{kinds})s?\b|{shown}", re.I)
    )


def _or_empty(field: str | None) -> Wording:
    ways = (
        r"empty|blank|missing|nothing|\bno (?:text|content|value)",
        "''",
        '""',
        wording.field_name(field or "").pattern.pattern,
    )
    return Wording(f"{field!r}, nor that it is empty", re.compile("|".join(ways), re.I))


def _broken_texts(data: Path, guard: Guard, place: row_values.Place) -> list[data_files.Tampered]:
    """A text that is no UTF-8, and one with a lone surrogate; in Parquet there can be neither."""
    if not data_files.can_hold_broken_text(data):
        return []
    surrogate = b"\xed\xa0\xbd" if data_files.holds_cells(data) else b"\\ud83d"
    variants = []
    for what, raw in (("bytes that are no UTF-8 (FF FE)", b"\xff\xfe"), ("a lone surrogate (U+D83D)", surrogate)):
        did = f"put {what} into {{field}} in {{line}}"
        made = row_values.edit_value(
            data, guard.folder, did, place, lambda old: f"{str(old)[:2]}{PLACEHOLDER}{str(old)[2:]}"
        )
        row_values.replace_bytes(made.file, PLACEHOLDER.encode(), raw)
        variants.append(made)
    return variants


def _names_in_a_line(message: str, *patterns: re.Pattern[str]) -> bool:
    """Whether one line has them all."""
    return any(all(pattern.search(line) for pattern in patterns) for line in message.splitlines())
