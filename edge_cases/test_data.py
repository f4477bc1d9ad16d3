"""Cases 1 to 10: the training data."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pytest_trainguard import Finding, Guard, NotApplicable, edge_case, rejects, survives
from pytest_trainguard.casework import data_cases as data_probe
from pytest_trainguard.contract import settings
from pytest_trainguard.damage import fields as row_values
from pytest_trainguard.damage import files as tamper
from pytest_trainguard.damage import values
from pytest_trainguard.verdicts import wording
from pytest_trainguard.verdicts.wording import Wording, names, number, unusual

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
ALTERED = {
    TAKEN_OUT: lambda text: text.encode("ascii", "ignore").decode(),
    "question marks in their place": lambda text: text.encode("ascii", "replace").decode(),
}
PLACEHOLDER = "\ue000trainguard\ue000"
SIZE = Wording("the file's size", re.compile(r"\d[\d.,_]*\s*(bytes|[KMGT]i?B)\b", re.I))
LIMIT = Wording("the limit on memory", re.compile(r"\bmemory\b|limit|available|\bRAM\b", re.I))


@edge_case(
    1,
    "empty training file",
    verdict="rejects",
    severity="major",
    brought_about="zero bytes; blank lines only; no rows",
    expects="rejects, naming the file",
    fast=True,
)
def test_01_empty_training_file(guard: Guard) -> None:
    """An export that failed leaves a file of zero bytes; `pandas` writes a line of names and no rows."""
    variants = tamper.empty(guard.data(), guard.folder)
    for variant, outcome in zip(variants, data_probe.trained_on(variants, guard), strict=True):
        rejects(outcome, tuple(dict.fromkeys((variant.file.name, variant.path.name))))


@edge_case(
    2,
    "fewer examples than one batch",
    verdict="survives/rejects",
    severity="major",
    brought_about="one row, batch size 8",
    expects="survives with at least one optimizer step, or rejects, naming both numbers",
    fast=True,
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
        rejects(outcome, number(1, "the number of rows", "one|a single"), number(batch, "the batch size"))


@edge_case(
    3,
    "sequence far over the limit",
    verdict="survives",
    severity="critical",
    brought_about="a few rows at 100 × the limit, beside the same rows at 2 × the limit",
    expects="survives: truncated and counted; peak memory bounded by the limit",
)
def test_03_sequence_far_over_the_limit(guard: Guard) -> None:
    """One pasted log file in a column of sentences: attention over it takes 10,000 times the memory of a usual row.

    The first row, the last and one in the middle are lengthened, so that one of them is trained on, whichever are held
    out. Repeating its own words makes a row of at least as many tokens, or nodes of a graph, as it has words.
    """
    field = guard.needs("max_length")
    limit = int(settings.value_at(guard.subject.base_settings, field.path) or field.default or 0)
    if limit < 1:
        raise NotApplicable(f"{field.path} is not set: give it a number in the tiny settings")
    data = data_probe.few(guard)
    place = data_probe.read_text(guard)
    last = len(row_values.read(data)) - 1
    variants = [
        row_values.edited(
            data, guard.folder, f"lengthened {{field}} to {times * limit} words in {{line}} ({field.path} = {limit})",
            place, lambda text, words=times * limit: values.repeated(text, words), which=sorted({0, last // 2, last}),
        )
        for times in (2, FAR_OVER)
    ]  # fmt: skip
    near, far = guard.run_all(
        [
            {"did": each.did, "data": each.path, "time_limit": 2 * guard.patience, "memory_limit": MOST_MEMORY}
            for each in variants
        ]
    )
    survives(near)
    survives(far)
    longest, usual = (max(step.length for step in outcome.recording.steps) for outcome in (far, near))
    if longest > max(limit, usual):
        raise Finding(far.did, f"it was not truncated: {longest} tokens in a batch, where {field.path} = {limit}")
    grown = far.peak_rss - near.peak_rss
    allowed = NOISE + 8 * (variants[1].file.stat().st_size - variants[0].file.stat().st_size)
    if grown > allowed:
        raise Finding(
            far.did,
            f"its memory was not bounded by the limit: the peak grew by {grown >> 20} MiB over that of rows at "
            f"{2 * limit} words",
            far.last_words,
        )
    if not _names_in_a_line(unusual(far, guard.reference()), TRUNCATED, re.compile(rf"(?<!\d)(?!{limit}\b)\d")):
        raise Finding(
            far.did,
            "it did not say how many rows were truncated: what was cut off, or whether the rows were dropped, nobody "
            "will know",
            far.last_words,
        )


@edge_case(
    4,
    "malformed row",
    verdict="rejects",
    severity="critical",
    brought_about="bad syntax in the middle, a cut last line, NUL bytes",
    expects="rejects, naming file and line",
    fast=True,
)
def test_04_malformed_row(guard: Guard) -> None:
    """A disk that was full cuts the last row; a power cut leaves NUL bytes; `except ValueError: continue` hides both.

    Where the data has no lines (Parquet, `.pt`), the file is to be named.
    """
    variants = tamper.malformed(guard.data(), guard.folder)
    for variant, outcome in zip(variants, data_probe.trained_on(variants, guard), strict=True):
        rejects(outcome, *variant.naming)


@edge_case(
    5,
    "required field missing",
    verdict="rejects",
    severity="critical",
    brought_about="each required field in turn taken out of one row (of a table, its column)",
    expects="rejects, naming file, line and field",
    fast=True,
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
    for variant, outcome in zip(variants, data_probe.trained_on(variants, guard), strict=True):
        if outcome.exit == 0 and all(names(unusual(outcome, reference), name) for name in variant.naming):
            required.append(variant.field)
            continue
        if outcome.exit == 0:
            if data_probe.is_unused(variant, guard, reference):
                continue
            same = "" if outcome.losses == reference.losses else ", with losses other than those of the whole data"
            raise Finding(
                outcome.did,
                f"{outcome.how}{same}, without reporting it: the row was dropped, or a default took the place of "
                f"{variant.field!r}, which matters (without it in any row, training is not the same)",
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


@edge_case(
    6,
    "required field empty",
    verdict="rejects/survives",
    severity="major",
    brought_about="each required text or list in turn empty in one row, or nothing but blanks",
    expects="rejects, naming file, line and field, or skips and reports how many",
)
def test_06_required_field_empty(guard: Guard) -> None:
    """An answer that was never written becomes a row that teaches the model to say nothing.

    A field that is empty in some rows as they are may be so. A program may skip the row if it says so: which, or how
    many.
    """
    data, reference = guard.data(), guard.repeatable()
    rows = row_values.read(data)
    variants = []
    for place in row_values.common(rows):
        for empty, words in values.empty(rows, place):
            did = f"made {{field}} {words} in {{line}}"
            variants.append((place, row_values.edited(data, guard.folder, did, place, lambda _, value=empty: value)))
    if not variants:
        raise NotApplicable("none of its rows' fields can be empty: this case is for rows with texts and lists")
    outcomes = data_probe.trained_on([variant for _, variant in variants], guard)
    for (place, variant), outcome in zip(variants, outcomes, strict=True):
        if outcome.exit != 0:
            rejects(outcome, variant.file.name, *variant.naming[1:-1], _or_empty(variant.field))
            continue
        survives(outcome)
        told = unusual(outcome, reference)
        if not (_names_in_a_line(told, SKIPPED, COUNT_OF_ONE) or all(names(told, n) for n in variant.naming[:-1])):
            data_probe.unless_unused(place, variant, outcome, guard, "trained on the row or dropped it")


@edge_case(
    7,
    "value outside its vocabulary",
    verdict="rejects",
    severity="critical",
    brought_about="one row with an unknown role or class, a label far over the number of classes, a negative one",
    expects="rejects, naming file, line and value (never a device-side assert)",
)
def test_07_value_outside_its_vocabulary(guard: Guard) -> None:
    """On a GPU a label out of range is a device-side assert, hours later, with no row and no value in it.

    A vocabulary is, by the data's own witness, a field of few different whole numbers, each in several rows; of text
    it is a field called role, label, class or the like.
    """
    data, reference = guard.data(), guard.repeatable()
    rows = row_values.read(data)
    variants = []
    for place in row_values.common(rows):
        for value in values.strangers(place, rows):
            did = f"set {{field}} to {value!r} in {{line}}"
            made = row_values.edited(data, guard.folder, did, place, lambda _, new=value: new)
            variants.append((place, value, made))
    if not variants:
        raise NotApplicable("its rows have no field of few different values: this case is for labels and roles")
    outcomes = data_probe.trained_on([variant for _, _, variant in variants], guard)
    for (place, value, variant), outcome in zip(variants, outcomes, strict=True):
        naming = (*variant.naming[:-1], _shown(value))
        if outcome.exit != 0:
            rejects(outcome, *naming)
        elif not all(names(unusual(outcome, reference), name) for name in naming):
            data_probe.unless_unused(
                place, variant, outcome, guard, "took the value for something else, or dropped the row"
            )


@edge_case(
    8,
    "wrong type",
    verdict="rejects",
    severity="major",
    brought_about="in one row a number, object, array, null or bool where text belongs, and the reverse",
    expects="rejects, naming file, line, field and type or value",
)
def test_08_wrong_type(guard: Guard) -> None:
    """`str(row["text"])` makes training text of null and of an object: the model learns to write `None`.

    Null is taken where some row has it already, and every cell of a CSV is text, so that there only numbers can be
    of a wrong type. What a program does not make use of may be of any type.
    """
    data, reference = guard.data(), guard.repeatable()
    rows = row_values.read(data)
    variants = []
    for place in row_values.common(rows):
        for value in values.of_other_types(
            [row_values.get(row, place) for row in rows], text_only=data.suffix == ".csv"
        ):
            did = f"put {values.type_of(value)[0]} ({json.dumps(value)}) into {{field}} in {{line}}"
            made = row_values.edited(data, guard.folder, did, place, lambda _, new=value: new)
            variants.append((place, value, made))
    if not variants:
        raise NotApplicable("its rows have neither texts nor numbers that could be of another type")
    outcomes = data_probe.trained_on([variant for _, _, variant in variants], guard)
    for (place, value, variant), outcome in zip(variants, outcomes, strict=True):
        old = row_values.get(rows[len(rows) // 2], place)
        if outcome.exit != 0:
            rejects(outcome, *variant.naming, _type_or_value(value, old))
        elif not all(names(unusual(outcome, reference), name) for name in variant.naming):
            data_probe.unless_unused(
                place, variant, outcome, guard, "took the value for something else, or dropped the row"
            )


@edge_case(
    9,
    "Unicode",
    verdict="survives/rejects",
    severity="major",
    brought_about="emoji, right-to-left, combining marks, a byte order mark; bytes that are no UTF-8, a lone surrogate",
    expects="survives with text unaltered / rejects, naming file and line",
)
def test_09_unicode(guard: Guard) -> None:
    r"""`errors="ignore"`, or the machine's own encoding: the text that is trained on is not the text in the file.

    Whether text came through unaltered is seen in the losses: they must differ from those of the text without these
    characters, and with question marks for them; and equal those of the same text in JSON's `\u` escapes. A tokenizer
    that has one token for all that it does not know may use it.
    """
    data, reference = guard.data(), guard.repeatable()
    place = data_probe.read_text(guard)
    everywhere = list(range(len(row_values.read(data))))
    texts = {
        "emoji, Hebrew, Korean and combining marks": SCRIPTS,
        "other emoji, Arabic, Chinese and combining marks": OTHER_SCRIPTS,
        **{loss: alter(SCRIPTS) for loss, alter in ALTERED.items()},
    }
    variants = [
        row_values.edited(
            data, guard.folder, f"put {what} before {{field}} in {{line}}", place, lambda old, new=new: new + old,
            which=everywhere,
        )
        for what, new in texts.items()
    ]  # fmt: skip
    kept, other, *altered = data_probe.trained_on(variants, guard, steps=2)
    survives(kept)
    if kept.losses[0] != reference.losses[0]:  # else the beginning of a text is not read
        known = kept.losses != other.losses
        for what, outcome in zip(ALTERED, altered, strict=True):
            if kept.losses == outcome.losses and (known or what == TAKEN_OUT):
                raise Finding(kept.did, f"the text was altered: every loss is as with {what}", kept.last_words)
    for variant in tamper.in_escapes(variants[0].path, guard.folder):
        outcome = guard.run(variant.did, data=variant.path, steps=2, time_limit=guard.patience)
        if outcome.losses != kept.losses:
            differ = "with the same text in JSON's \\u escapes its losses are others: the file is not read as UTF-8"
            raise Finding(kept.did, differ, outcome.last_words)
    for variant in tamper.with_byte_order_mark(data, guard.folder):
        outcome = guard.run(variant.did, data=variant.path, time_limit=guard.patience)
        survives(outcome)
        if outcome.losses != reference.losses:
            raise Finding(outcome.did, "its losses are not those without it: the first row was dropped, or altered")
    broken = _broken_texts(data, guard, place)
    for variant, outcome in zip(broken, data_probe.trained_on(broken, guard), strict=True):
        naming = variant.naming[:-1]
        if outcome.exit != 0:
            rejects(outcome, *naming)
        elif not all(names(unusual(outcome, reference), name) for name in naming):
            data_probe.unless_unused(
                place, variant, outcome, guard, "put something else in its place, or dropped the row"
            )


@edge_case(
    10,
    "file larger than memory",
    verdict="survives/rejects",
    severity="critical",
    brought_about=f"a file {TIMES_MEMORY} times as large as the memory that the run may have",
    expects="survives with bounded memory, or rejects, naming size and limit; never killed",
)
def test_10_file_larger_than_memory(guard: Guard) -> None:
    """`json.load`, `list(file)`, `pd.read_csv`: the whole file in memory, once in bytes and several times in objects.

    The limit is a real one (RLIMIT_AS), over what is loaded: the lowest of several with which the undisturbed run comes
    to its end, and 32 MiB. The file is the trainer's own rows again and again, with long texts where it cuts them.
    """
    data = guard.data()
    limit = data_probe.lowest_limit(guard)
    large = data_probe.large(data, guard, TIMES_MEMORY * limit)
    outcome = guard.run(
        f"trained on {large.file.name} of {large.file.stat().st_size >> 20} MiB, with {limit >> 20} MiB of memory over "
        "what is loaded",
        data=large.path, steps=2, memory_limit=limit, time_limit=guard.patience + LONG_READ,
    )  # fmt: skip
    if outcome.exit > 0 and not outcome.recording.steps and not outcome.timed_out:
        rejects(outcome, large.file.name, SIZE, LIMIT)
    else:
        survives(outcome)


def _shown(value: Any) -> Wording:
    return Wording(f"the value {value!r}", re.compile(rf"(?<![\w.]){re.escape(str(value))}(?!\w|\.\d)"))


def _type_or_value(value: Any, old: Any) -> Wording:
    """Its type, the type that belongs there, or the value itself."""
    kinds = f"{values.type_of(value)[1]}|{values.type_of(old)[1]}"
    shown = f"{re.escape(repr(value))}|{re.escape(json.dumps(value))}"
    return Wording(f"its type ({values.type_of(value)[0]})", re.compile(rf"\b(?:{kinds})s?\b|{shown}", re.I))


def _or_empty(field: str | None) -> Wording:
    ways = (
        r"empty|blank|missing|nothing|\bno (?:text|content|value)",
        "''",
        '""',
        wording.word(field or "").pattern.pattern,
    )
    return Wording(f"{field!r}, nor that it is empty", re.compile("|".join(ways), re.I))


def _broken_texts(data: Path, guard: Guard, place: row_values.Place) -> list[tamper.Tampered]:
    """A text that is no UTF-8, and one with a lone surrogate; in Parquet there can be neither."""
    if data.suffix == ".parquet":
        return []
    surrogate = b"\xed\xa0\xbd" if data.suffix == ".csv" else b"\\ud83d"
    variants = []
    for what, raw in (("bytes that are no UTF-8 (FF FE)", b"\xff\xfe"), ("a lone surrogate (U+D83D)", surrogate)):
        did = f"put {what} into {{field}} in {{line}}"
        made = row_values.edited(data, guard.folder, did, place, lambda old: old[:2] + PLACEHOLDER + old[2:])
        row_values.put_raw(made.file, PLACEHOLDER.encode(), raw)
        variants.append(made)
    return variants


def _names_in_a_line(message: str, *patterns: re.Pattern[str]) -> bool:
    """Whether one line has them all."""
    return any(all(pattern.search(line) for pattern in patterns) for line in message.splitlines())
