"""Syllogisms with their answers, by a seeded generator: chat rows whose answers are right by construction.

    python -m trainers.chat.syllogisms --rows 20000 --level hard syllogisms.jsonl

A syllogism has two premises and a conclusion, each a statement about two of three terms: *A* all are, *E* none
are, *I* some are, *O* some are not. The kinds of its statements (the mood) and the places of the term that both
premises share (the figure, 1 to 4) make 256 forms. Whether a form is valid follows from the classical rules on
distributed terms (any introduction to logic; Copi, *Introduction to Logic*, chapter 6): 15 forms are, and 24 where
every term is taken to name something (existential import). The tests hold that against all models of three sets.

Every row has a ``group``, its form: rows of one form are held out together, so that a validation asks for forms
that were never trained on.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from trainers.common import files
from trainers.common.process import Run, supervise

Level = Literal["easy", "hard"]
KINDS = "AEIO"
FIGURES = {1: ("MP", "SM"), 2: ("PM", "SM"), 3: ("MP", "MS"), 4: ("PM", "MS")}
"""Subject and predicate of the major and of the minor premise: S and P are the conclusion's, M is the middle term."""
DISTRIBUTED = {"A": (True, False), "E": (True, True), "I": (False, False), "O": (False, True)}
"""Whether a statement of a kind speaks of all that its subject, and its predicate, name."""

WORDINGS = {
    "A": ("All {0} are {1}", "Every one of the {0} is among the {1}", "Only {1} are {0}"),
    "E": ("No {0} are {1}", "There are no {0} among the {1}", "Not one of the {0} is among the {1}"),
    "I": ("Some {0} are {1}", "There are {0} among the {1}", "At least one of the {0} is among the {1}"),
    "O": ("Some {0} are not {1}", "Not all {0} are {1}", "At least one of the {0} is not among the {1}"),
}
NAMES = (
    "actors", "bakers", "birds", "boats", "books", "bridges", "cats", "clouds", "cooks", "dancers", "doctors",
    "dogs", "drivers", "farmers", "fish", "flowers", "foxes", "friends", "gardens", "guests", "horses", "hunters",
    "islands", "judges", "kings", "lakes", "lawyers", "lions", "lovers", "miners", "nurses", "owls", "painters",
    "pilots", "plants", "poets", "priests", "rabbits", "rivers", "sailors", "seals", "singers", "snakes",
    "soldiers", "students", "tailors", "teachers", "tigers", "towers", "trees", "visitors", "walkers", "whales",
    "winners", "witches", "wolves", "workers", "writers",
)  # fmt: skip
STARTS, MIDDLES, ENDS = ("bl", "d", "fr", "gl", "k", "m", "pl", "s", "t", "v"), "aeiou", ("ck", "ft", "mp", "p", "x")
INSTRUCTION = "Name the mood and figure of the syllogism, and say whether its conclusion follows."
IMPORT = " Take every term to name at least one thing."


class Form(NamedTuple):
    """Mood (the kinds of major premise, minor premise and conclusion) and figure."""

    mood: str
    figure: int

    def __str__(self) -> str:
        return f"{self.mood}-{self.figure}"

    @property
    def statements(self) -> tuple[tuple[str, str, str], ...]:
        """Kind, subject and predicate of major premise, minor premise and conclusion."""
        terms = (*FIGURES[self.figure], "SP")
        return tuple((kind, *pair) for kind, pair in zip(self.mood, terms, strict=True))

    def is_valid(self, existential_import: bool) -> bool:
        """Whether the conclusion follows, by the rules.

        Args:
            existential_import: every term names something.
        """
        major, minor, conclusion = (
            dict(zip(terms, DISTRIBUTED[kind], strict=True)) for kind, *terms in self.statements
        )
        negative = [kind in "EO" for kind in self.mood]
        particular = [kind in "IO" for kind in self.mood]
        return (
            (major["M"] or minor["M"])  # the premises must share something
            and (major["P"] or not conclusion["P"])  # nothing is said of all that no premise says of all
            and (minor["S"] or not conclusion["S"])
            and negative[0] + negative[1] == negative[2]  # never two; and one, if and only if the conclusion is one
            and (existential_import or not particular[2] or any(particular[:2]))  # "some are" needs something to be
        )


FORMS = tuple(Form("".join(mood), figure) for figure in FIGURES for mood in itertools.product(KINDS, repeat=3))


@functools.cache
def _forms(valid: bool, existential_import: bool) -> list[Form]:
    return [form for form in FORMS if form.is_valid(existential_import) == valid]


def rows(level: Level, seed: int) -> Iterator[dict[str, Any]]:
    """Rows without end, as many valid as not; the same seed makes the same ones.

    Args:
        level: ``easy`` writes the terms as textbooks do, S, M and P, the major premise first; ``hard`` gives them
            names, half of them made up, has the premises in either order, and existential import in every other row.
        seed: of the draws.
    """
    chance = random.Random(f"{level} {seed}")
    while True:
        with_import = level == "hard" and chance.random() < 0.5
        wanted = chance.random() < 0.5
        form = chance.choice(_forms(wanted, with_import))
        yield _row(form, with_import, level, chance)


def _row(form: Form, with_import: bool, level: Level, chance: random.Random) -> dict[str, Any]:
    names = dict(zip("SPM", _names(level, chance), strict=True))
    *premises, conclusion = (
        chance.choice(WORDINGS[kind]).format(names[subject], names[predicate])
        for kind, subject, predicate in form.statements
    )
    if level == "hard" and chance.random() < 0.5:
        premises.reverse()
    question = f"{'. '.join(premises)}. Therefore: {conclusion[0].lower()}{conclusion[1:]}."
    answer = f"{form}, {'valid' if form.is_valid(with_import) else 'invalid'}."
    return {
        "messages": [
            {"role": "system", "content": INSTRUCTION + IMPORT * with_import},
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ],
        "group": str(form),
    }


def _names(level: Level, chance: random.Random) -> Sequence[str]:
    if level == "easy":
        return "SPM"
    if chance.random() < 0.5:
        return chance.sample(NAMES, 3)
    made: list[str] = []
    while len(made) < 3:
        name = f"{chance.choice(STARTS)}{chance.choice(MIDDLES)}{chance.choice(ENDS)}{chance.choice(MIDDLES)}s"
        if name not in made:
            made.append(name)
    return made


def write_jsonl(path: Path, count: int, level: Level = "easy", seed: int = 0) -> None:
    """Write ``count`` rows of `rows`, whole or not at all.

    Raises:
        TrainingFailed: the file cannot be written.
    """
    files.write_json_lines(path, itertools.islice(rows(level, seed), count))


def write_longest(path: Path, count: int, length: int) -> None:
    """Write rows whose answers have at least ``length`` tokens: what a batch of the longest rows is made of.

    Raises:
        TrainingFailed: the file cannot be written.
    """
    files.write_json_lines(path, itertools.repeat(_listing(length), count))


def write_varied(path: Path, count: int, length: int, seed: int) -> None:
    """Write rows whose answers have all lengths up to about ``length`` tokens, most of them short.

    Raises:
        TrainingFailed: the file cannot be written.
    """
    chance = random.Random(seed)
    files.write_json_lines(path, [_listing(1 + round(chance.random() ** 4 * length / 2)) for _ in range(count)])


def _listing(count: int) -> dict[str, list[dict[str, str]]]:
    answer = " ".join(itertools.islice(itertools.cycle(NAMES), count))
    return {
        "messages": [{"role": "user", "content": "Which names are there?"}, {"role": "assistant", "content": answer}]
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m trainers.chat.syllogisms", description="Write syllogisms as chat rows.", allow_abbrev=False
    )
    parser.add_argument("path", type=Path, metavar="FILE", help="a .jsonl file; replaced if it is there")
    parser.add_argument("--rows", type=_count, default=20_000, metavar="N", help="default %(default)s")
    parser.add_argument("--level", choices=get_args(Level), default="easy", help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default %(default)s")
    flags = parser.parse_args(argv)

    def body(run: Run) -> None:
        run.stage = f"writing {flags.path}"
        write_jsonl(flags.path, flags.rows, flags.level, flags.seed)
        run.say(f"{flags.rows} rows in {flags.path}")

    return supervise("trainers.chat.syllogisms", body)


def _count(text: str) -> int:
    count = int(text)
    if not 1 <= count <= 100_000_000:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1 to 100000000")
    return count


if __name__ == "__main__":
    sys.exit(main())
