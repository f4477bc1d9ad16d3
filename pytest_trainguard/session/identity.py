"""Every case is told apart from every other: one slug and one number each, and the number from its own family's."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from pytest_trainguard.catalog import FAMILIES, OWN, EdgeCase, case_of


def check_identities(items: Iterable[pytest.Item]) -> list[EdgeCase]:
    """The cases of these tests, each once.

    Raises:
        pytest.UsageError: two have one slug or number, or a number is another family's.
    """
    places: dict[int, str] = {}  # by the identity of the object: a case runs once for each trainer
    cases: list[EdgeCase] = []
    for item in items:
        case = case_of(item.iter_markers())
        if case and id(case) not in places:
            places[id(case)] = _name_place(item)
            cases.append(case)
    _check_unique(cases, places)
    for case in cases:
        problem = explain_number(case)
        if problem:
            raise pytest.UsageError(f"{places[id(case)]}: {problem}")
    return cases


def _name_place(item: pytest.Item) -> str:
    return f"{item.nodeid.partition('::')[0]}::{getattr(item, 'originalname', item.name)}"


def _check_unique(cases: list[EdgeCase], places: dict[int, str]) -> None:
    slugs: dict[str, EdgeCase] = {}
    numbers: dict[int, EdgeCase] = {}
    for case in cases:
        other = slugs.setdefault(case.slug, case)
        if other is not case:
            raise pytest.UsageError(f"two cases have the slug {case.slug}: {places[id(other)]} and {places[id(case)]}")
        other = case if case.number is None else numbers.setdefault(case.number, case)
        if other is not case:
            both = f"{places[id(other)]} and {places[id(case)]}"
            raise pytest.UsageError(
                f"two cases have the number {case.number}: {both}; {_advise(case if case.family is OWN else other)}"
            )


def explain_number(case: EdgeCase) -> str:
    """What is wrong with a case's number, in a few words; empty where nothing is."""
    if case.number is None or case.number in case.family.numbers:
        return ""
    holder = next((family for family in FAMILIES if case.number in family.numbers), None)
    taken = f"numbers {holder.span} are {holder.whose}" if holder else "it is nobody's"
    return f"case {case.slug} cannot have the number {case.number}: {taken}; {_advise(case)}"


def _advise(case: EdgeCase) -> str:
    return f"{case.family.whose} cases have numbers {case.family.span}, or none"
