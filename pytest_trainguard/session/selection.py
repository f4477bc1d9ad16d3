"""Which cases a session runs: what `--edge-case`, `--category` and `--fast` ask for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pytest_trainguard.catalog import OWN, EdgeCase

RANGE = re.compile(r"(\d+)(?:-(\d+))?")
NAME = re.compile(r"[A-Za-z]\S*")
SEE = "(pytest --catalogue lists them)"


@dataclass(frozen=True)
class NamedCases:
    """What `--edge-case` names.

    Attributes:
        numbers: as ranges; one number is a range of one.
        slugs: of cases, with or without a number.
    """

    numbers: tuple[range, ...]
    slugs: tuple[str, ...]

    def __contains__(self, case: EdgeCase) -> bool:
        return case.slug in self.slugs or any(case.number in numbers for numbers in self.numbers)

    def find_unknown(self, cases: Iterable[EdgeCase]) -> str:
        """What names none of the cases, in a few words with the nearest slug; empty where all is known.

        Args:
            cases: all that there are.
        """
        known = list(cases)
        unknown = _find_unknown_range(self.numbers, known)
        if unknown:
            return unknown
        slugs = [case.slug for case in known]
        return next((f"no case {slug!r}{_nearest(slug, slugs)} {SEE}" for slug in self.slugs if slug not in slugs), "")

    def find_unknown_number(self, catalogue: Iterable[EdgeCase]) -> str:
        """What no case can have as its number, told before a project's own are collected; empty where there is none.

        Args:
            catalogue: its cases; a project's own have higher numbers.
        """
        below = [numbers for numbers in self.numbers if numbers[-1] < OWN.numbers[0]]
        return _find_unknown_range(below, list(catalogue))


@dataclass(frozen=True)
class CaseSelection:
    """Which cases are to run.

    Attributes:
        named: by `--edge-case`; None where it was not given.
        categories: by `--category`; none for all.
        fast: only those that cost seconds.
    """

    named: NamedCases | None
    categories: frozenset[str]
    fast: bool

    @property
    def narrows(self) -> bool:
        """Whether it leaves anything out; then a test that is no case is not what was asked for."""
        return self.named is not None or bool(self.categories) or self.fast

    def takes(self, case: EdgeCase) -> bool:
        """Whether a case is to run."""
        return self._takes_slow(case) and (case.fast or not self.fast)

    def list_left_out(self, cases: Iterable[EdgeCase]) -> list[EdgeCase]:
        """Of the cases those that are not run for `--fast` alone."""
        return [case for case in cases if self._takes_slow(case) and not self.takes(case)]

    def _takes_slow(self, case: EdgeCase) -> bool:
        named = self.named is None or case in self.named
        return named and (not self.categories or case.category in self.categories)


def parse_cases(text: str) -> NamedCases:
    """What `41,64-66,partial-save` names.

    Raises:
        ValueError: it is not of that form.
    """
    numbers, slugs = [], []
    for part in (part.strip() for part in text.split(",")):
        if found := RANGE.fullmatch(part):
            numbers.append(_parse_range(part, int(found[1]), int(found[2] or found[1])))
        elif NAME.fullmatch(part):
            slugs.append(part)
        else:
            raise ValueError(f"{part!r} is neither a number nor a range such as 64-66 nor a slug such as partial-save")
    return NamedCases(tuple(numbers), tuple(slugs))


def _parse_range(part: str, first: int, last: int) -> range:
    if last < first:
        raise ValueError(f"{part!r} names no case: it ends before it begins")
    return range(first, last + 1)


def _find_unknown_range(ranges: Iterable[range], known: list[EdgeCase]) -> str:
    for numbers in ranges:
        if not any(case.number in numbers for case in known):
            return f"no case {_format_range(numbers)} {SEE}"
    return ""


def _format_range(numbers: range) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"in {numbers[0]}-{numbers[-1]}"


def _nearest(slug: str, slugs: list[str]) -> str:
    import difflib

    close = difflib.get_close_matches(slug, slugs, 1, cutoff=0.0)
    return f"; the nearest is {close[0]!r}" if close else ""
