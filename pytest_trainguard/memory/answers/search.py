"""The largest value of a setting that fits, to the exact number: each trial is a trace of the very value asked about.

What was traced only says where to look next: first a line through the sums, then, from two traces on, storages whose
sizes are interpolated from them (`interpolation`), which holds across the knees where the peak moves to another moment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pytest_trainguard.memory.answers.verdict import Judgement

MISSES_BEFORE_HALVING = 3  # guesses that did not halve the bracket; from then on it is halved
FARTHEST_FACTOR = 16  # times what was traced, or guessed: nothing farther is believed
MOST_TRACES = 12  # traces; a search that has not closed by then says how far it came
FIXED_PARTS = ("weights", "gradients", "optimizer state", "CUDA context", "workspaces")  # what no batch makes larger


def _no_idea(value: int) -> bool | None:
    """Nothing was traced that would say."""
    return None


@dataclass
class Largest:
    """What a search came to.

    Attributes:
        value: the largest that fits; None where not even the smallest does.
        judgement: of that value; of the smallest where none fits.
        beyond: the smallest that was traced and does not fit, or is not allowed; None where none was met.
        exact: it is the next after `value`.
        traces: how many were made for it.
        unknown: why it could not be found out, where that is so.
    """

    value: int | None = None
    judgement: Judgement | None = None
    beyond: int | None = None
    exact: bool = False
    traces: int = 0
    unknown: str = ""

    @property
    def words(self) -> str:
        """What fits, in words."""
        if self.unknown:
            return f"not known ({self.unknown})"
        if self.value is None:
            return "none fits" if self.exact else f"below {self.beyond}"
        if self.beyond is None:
            return f"at least {self.value} ({self.traces} traces made)"
        return str(self.value) if self.exact else f"{self.value} ({self.beyond} does not)"


@dataclass
class _Bracket:
    """The largest value known to fit, and the smallest known not to, in steps of the setting."""

    fits: int
    fails: int
    known: dict[int, Judgement] = field(default_factory=dict)

    def add(self, value: int, judgement: Judgement) -> None:
        self.known[value] = judgement
        if judgement.fits:
            self.fits = max(self.fits, value)
        else:
            self.fails = min(self.fails, value)

    @property
    def width(self) -> int | None:
        """From what fits to what does not; None until both were traced."""
        return self.fails - self.fits if {self.fits, self.fails} <= self.known.keys() else None

    @property
    def middle(self) -> int:
        return (self.fits + self.fails) // 2

    @property
    def open(self) -> bool:
        return self.fails - self.fits > 1


def find_largest(
    judge: Callable[[int], Judgement],
    start: int,
    first: Judgement,
    *,
    smallest: int = 1,
    highest: int | None = None,
    step: int = 1,
    at_most: int = MOST_TRACES,
    expected: Callable[[int], bool | None] = _no_idea,
) -> Largest:
    """The largest value that fits, between `smallest` and `highest`.

    Args:
        judge: traces a value and holds it against the budget.
        start: a value that was judged already, a multiple of `step`.
        first: what came of it.
        smallest: the least that the setting allows.
        highest: the most; None where there is no upper end.
        step: what values have to be a multiple of.
        at_most: how many traces may be made.
        expected: whether a value should fit, going by what was traced; None where that says nothing.
    """
    if first.verdict == "UNKNOWN":
        return Largest(unknown=first.reason)
    end = highest // step + 1 if highest is not None else 2**62
    bracket = _Bracket(-(-smallest // step) - 1, max(end, start // step + 1))
    bracket.add(start // step, first)
    traces, missed = 0, 0
    while bracket.open and traces < at_most:
        width = bracket.width
        halves = missed >= MISSES_BEFORE_HALVING
        value = bracket.middle if halves else _choose_next(bracket, lambda one: expected(one * step))
        judgement = judge(value * step)
        traces += 1
        if judgement.verdict == "UNKNOWN":
            return Largest(traces=traces, unknown=judgement.reason)
        bracket.add(value, judgement)
        # What keeps missing on one side halves nothing.
        missed += width is not None and bracket.fails - bracket.fits > width / 2 + 1
    found = bracket.known.get(bracket.fits)
    exact, met = not bracket.open, not bracket.open or bracket.fails in bracket.known
    beyond = bracket.fails * step if met else None
    if found is None:
        return Largest(None, bracket.known[min(bracket.known)], beyond, exact, traces)
    return Largest(bracket.fits * step, found, beyond, exact, traces)


def _choose_next(bracket: _Bracket, expected: Callable[[int], bool | None]) -> int:
    """The value to try next: where what was traced says, but never outside the bracket."""
    low, high = bracket.fits + 1, bracket.fails - 1
    guess = max(low, min(high, _find_crossing(bracket), FARTHEST_FACTOR * max(bracket.known)))
    if expected(guess) is None:
        return guess
    return max(low, min(high, _find_edge(guess, bracket, lambda value: bool(expected(value)))))


def _find_edge(guess: int, bracket: _Bracket, fits: Callable[[int], bool]) -> int:
    """The largest value that is expected to fit: away from the guess in ever longer strides, then by bisection."""
    low, high = bracket.fits, min(bracket.fails, FARTHEST_FACTOR * (guess + 1))
    value, stride = guess, 1
    while low < value < high:
        if fits(value):
            low, value = value, value + stride
        else:
            high, value = value, value - stride
        stride *= 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _find_crossing(bracket: _Bracket) -> int:
    """Where what was traced, extrapolated in a straight line, meets the budget; rounded down."""
    ends = [value for value in (bracket.fits, bracket.fails) if value in bracket.known]
    one = ends[0]
    judgement = bracket.known[one]
    others = ends[1:] or sorted(bracket.known.keys() - ends, key=lambda value: abs(value - one))
    if not others:
        fixed = sum(judgement.breakdown.get(name, 0) for name in FIXED_PARTS)
        slope = max(judgement.least - fixed, 1) / max(one, 1)
    else:
        slope = (judgement.least - bracket.known[others[0]].least) / (one - others[0])
    if slope <= 0:  # nothing to be learned from it
        return one * 2 if judgement.fits else one // 2
    return int((one - _find_excess(judgement) / slope) // 1)


def _find_excess(judgement: Judgement) -> int:
    """Bytes by which a value is over the budget; below zero where it fits."""
    return judgement.least - judgement.limit.size
