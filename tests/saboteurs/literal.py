"""Cases 74, 75 and 78, statically: what a checker sees without running anything."""

from typing import TypedDict

from tests.saboteurs.sound import Sound


class Report(TypedDict):
    """What is told at the end."""

    loss: float
    steps: int


class ReadsAnotherKey(Sound):
    """The key is called otherwise where it is written."""

    case = 74
    grade = "wastes"
    says = "losss"

    def at_the_end(self, report: Report):
        return report["losss"]


class TakesAThirdOfTwo(Sound):
    """The pair had three parts once."""

    case = 75
    grade = "wastes"
    says = "out of bounds"

    def parts(self, settings):
        pair = (settings.batch_size, settings.hidden)
        return pair[2]


class DividesByNothing(Sound):
    """A constant that was a setting once."""

    case = 78
    grade = "wastes"
    says = "by zero"

    def per_second(self, steps: int):
        seconds = 0
        return steps / seconds
