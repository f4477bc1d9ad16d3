"""Syllogisms: their answers are held against every model of three sets."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from trainers.chat import syllogisms
from trainers.chat.syllogisms import FORMS, Form

# An individual is in some of the three sets or in none: eight kinds of individuals. Which kinds there are at all is
# everything that a statement of the four kinds can tell apart: 256 models.
INDIVIDUALS = [frozenset(names) for count in range(4) for names in itertools.combinations("SPM", count)]
MODELS = [model for count in range(9) for model in itertools.combinations(INDIVIDUALS, count)]


def holds(kind: str, subject: str, predicate: str, model: tuple[frozenset[str], ...]) -> bool:
    subjects = [individual for individual in model if subject in individual]
    inside = [individual for individual in subjects if predicate in individual]
    return {
        "A": len(inside) == len(subjects),
        "E": not inside,
        "I": bool(inside),
        "O": len(inside) < len(subjects),
    }[kind]


def follows(form: Form, existential_import: bool) -> bool:
    *premises, conclusion = form.statements
    return all(
        holds(*conclusion, model)
        for model in MODELS
        if all(holds(*premise, model) for premise in premises)
        and (not existential_import or all(any(name in individual for individual in model) for name in "SPM"))
    )


@pytest.mark.parametrize(("existential_import", "count"), [(False, 15), (True, 24)])
def test_the_rules_agree_with_every_model(existential_import: bool, count: int) -> None:
    assert len(MODELS) == 256
    assert len(set(FORMS)) == 256
    by_rule = {str(form) for form in FORMS if form.is_valid(existential_import)}
    by_models = {str(form) for form in FORMS if follows(form, existential_import)}
    assert by_rule == by_models
    assert len(by_rule) == count


def test_forms_that_have_names() -> None:
    barbara, darapti, undistributed = Form("AAA", 1), Form("AAI", 3), Form("AAA", 2)
    assert barbara.is_valid(False)
    assert (darapti.is_valid(False), darapti.is_valid(True)) == (False, True)
    assert not undistributed.is_valid(True)


def pattern(wording: str) -> re.Pattern[str]:
    return re.compile(wording.format(r"(?P<s>\w+)", r"(?P<p>\w+)"), re.I)


READ = {kind: [pattern(wording) for wording in wordings] for kind, wordings in syllogisms.WORDINGS.items()}


def read(sentence: str) -> tuple[str, str, str]:
    found = [
        (kind, match["s"], match["p"])
        for kind, patterns in READ.items()
        for pattern in patterns
        if (match := pattern.fullmatch(sentence))
    ]
    # "Some x are not y" is read in one way only, since no name is "not y".
    assert len(found) == 1, (sentence, found)
    return found[0]


@pytest.mark.parametrize("level", ["easy", "hard"])
def test_the_text_says_what_the_answer_is_of(level: syllogisms.Level) -> None:
    seen: Counter[str] = Counter()
    for row in itertools.islice(syllogisms.rows(level, seed=5), 1500):
        system, user, assistant = (message["content"] for message in row["messages"])
        premises, _, conclusion = user.removesuffix(".").partition(". Therefore: ")
        statements = [read(sentence) for sentence in premises.split(". ")]
        kind, minor, major = read(conclusion)
        first = next(statement for statement in statements if major in statement[1:])
        second = next(statement for statement in statements if minor in statement[1:])
        middle = ({*first[1:]} - {major}).pop()
        letters = {minor: "S", major: "P", middle: "M"}
        figure = (letters[first[1]] + letters[first[2]], letters[second[1]] + letters[second[2]])
        number = next(number for number, terms in syllogisms.FIGURES.items() if terms == figure)
        form = Form(first[0] + second[0] + kind, number)
        word = "valid" if follows(form, syllogisms.IMPORT in system) else "invalid"
        assert assistant == f"{form}, {word}."
        assert row["group"] == str(form)
        seen[word] += 1
    assert 0.4 < seen["valid"] / 1500 < 0.6


def test_the_same_seed_makes_the_same_file(tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        command = [str(tmp_path / f"{name}.jsonl"), "--rows", "50", "--level", "hard", "--seed", seed]
        assert syllogisms.main(command) == 0
    first, again, other = ((tmp_path / f"{name}.jsonl").read_bytes() for name in "abc")
    assert first == again != other
    assert len(list(map(json.loads, first.splitlines()))) == 50


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert syllogisms.main([str(tmp_path / "none" / "x.jsonl"), "--rows", "1"]) == 1
    assert "cannot save" in capsys.readouterr().err


def test_the_longest_rows_are_long(tmp_path: Path) -> None:
    syllogisms.write_longest(tmp_path / "long.jsonl", 3, 500)
    rows = [json.loads(line) for line in (tmp_path / "long.jsonl").read_text().splitlines()]
    assert [len(row["messages"][-1]["content"].split()) for row in rows] == [500] * 3
