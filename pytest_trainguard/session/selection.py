"""Which cases a session runs: what `--edge-case`, `--category` and `--fast` ask for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pytest_trainguard.catalog import EdgeCase

RANGE = re.compile(r"(\d+)(?:-(\d+))?")
NAME = re.compile(r"[A-Za-z]\S*")


@dataclass(frozen=True)
class ChosenCases:
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
        """The first that names none of the cases, in a few words with what is nearest; empty where all are known.

        Args:
            cases: all that there are.
        """
        known = list(cases)
        for numbers in self.numbers:
            if not any(case.number in numbers for case in known):
                return f"no case {_format_range(numbers)} (pytest --catalogue lists them)"
        slugs = [case.slug for case in known]
        for slug in self.slugs:
            if slug not in slugs:
                return f"no case {slug!r}{_nearest(slug, slugs)} (pytest --catalogue lists them)"
        return ""


def parse_cases(text: str) -> ChosenCases:
    """What `41,64-66,partial-save` names.

    Raises:
        ValueError: it is not of that form.
    """
    numbers, slugs = [], []
    for part in (part.strip() for part in text.split(",")):
        found = RANGE.fullmatch(part)
        if found:
            first, last = int(found[1]), int(found[2] or found[1])
            if last < first:
                raise ValueError(f"{part!r} names no case: it ends before it begins")
            numbers.append(range(first, last + 1))
        elif NAME.fullmatch(part):
            slugs.append(part)
        else:
            raise ValueError(f"{part!r} is neither a number nor a range such as 64-66 nor a slug such as partial-save")
    return ChosenCases(tuple(numbers), tuple(slugs))


def _format_range(numbers: range) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"of {numbers[0]}-{numbers[-1]}"


def _nearest(slug: str, slugs: list[str]) -> str:
    import difflib

    close = difflib.get_close_matches(slug, slugs, 1, cutoff=0.0)
    return f": the nearest is {close[0]!r}" if close else ""
