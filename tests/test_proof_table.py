"""The table at the end of the proof says no more than what was seen."""

from types import SimpleNamespace

import pytest

from tests.proof_table import NOTE, Proof

CASES = [SimpleNamespace(key=str(number), number=number, title="as it is called") for number in range(1, 81)]


def report(kind, case, outcome="passed", *, when="call", all=2, not_applicable=False):
    note = {"kind": kind, "case": str(case), "program": "Odd", "not_applicable": not_applicable, "all": all}
    return SimpleNamespace(user_properties=[(NOTE, note)], when=when, outcome=outcome)


def proof_of(*reports):
    proof = Proof()
    for one in reports:
        proof.pytest_runtest_logreport(one)
    return proof


def everything(but=(), **odd):
    numbers = range(1, 81)
    return proof_of(
        *(report("saboteur", n, all=160) for n in numbers), *(report("sound", n, all=160) for n in numbers if n != but),
        *([report("sound", but, all=160, **odd)] if but else []),
    )  # fmt: skip


def test_all_is_proven():
    proof = everything()
    assert proof.whole
    head, *lines, last = proof.lines(CASES)
    assert head.split()[-1] == "n/a"
    assert len(lines) == len(CASES)
    assert lines[40].split() == ["41", "as", "it", "is", "called", "1", "of", "1", "1", "0", "0"]
    assert last == "80 of 80 proven, none alive, no false alarm"


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ({"outcome": "failed"}, "NO: 79 of 80 proven, none alive, 1 false alarm"),
        ({"outcome": "failed", "when": "setup"}, "NO: 79 of 80 proven, none alive, 1 false alarm"),
        ({"not_applicable": True}, "NO: 79 of 80 proven, none alive, no false alarm"),
    ],
)
def test_one_sound_program_that_does_not_pass(odd, said):
    proof = everything(but=5, **odd)
    assert list(proof.lines(CASES))[-1] == said
    assert "NOT PROVEN" in list(proof.lines(CASES))[5]


def test_one_saboteur_alive():
    proof = proof_of(report("saboteur", 3, "failed"), report("sound", 3))
    assert proof.wrong == ["alive: case 3, Odd"]
    assert list(proof.lines(CASES))[-1] == "NO: 0 of 80 proven, 1 alive, no false alarm"


def test_a_part_of_the_proof_is_not_the_whole():
    assert not Proof().whole
    assert not proof_of(report("saboteur", 3)).whole
    assert not proof_of(report("saboteur", 3), report("sound", 3, when="teardown")).whole


def test_a_case_without_a_number_counts_too():
    without = SimpleNamespace(key="new", number=None, title="a new one")
    proof = proof_of(report("saboteur", "new"), report("sound", "new"))
    _, line, last = proof.lines([without])
    assert line.split() == ["a", "new", "one", "1", "of", "1", "1", "0", "0"]
    assert last == "1 of 1 proven, none alive, no false alarm"
