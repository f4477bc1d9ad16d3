"""Each row is held against its own target, each pixel and each token against theirs: case 103."""

from __future__ import annotations

from collections import Counter

from pytest_trainguard.casework.silent.look import Look, Problems, at, problem
from pytest_trainguard.recorder.timeline import Event

__all__ = ["find_other_targets", "find_other_tokens", "find_read_ahead", "find_turned_apart", "says_the_next"]

DISTINCT = 8  # rows of an epoch: fewer may be alike by chance
VARIED = 6  # different targets of an epoch: fewer come in the same number by chance in two epochs, though not in three
EPOCHS = 2
MOST = 0.5  # of the rows of an epoch
SEVERAL = 2  # rows with another target
TOKENS = 32  # targets that are compared
ALL, FEW = 0.95, 0.5  # of them


def find_other_targets(look: Look) -> Problems:
    """Whether rows have other targets in one epoch than in the next, though the targets of all rows are the same.

    Then targets were dealt out anew among the rows: one of the two was sorted, or shuffled, without the other. What is
    drawn for a row (an action, a pseudo-label) is not as often there in each epoch.
    """
    by_line: dict[str, list[Event]] = {}
    for event in look.of("paired"):
        by_line.setdefault(event["place"], []).append(event)
    found = []
    for place, events in by_line.items():
        pairs = [pair for event in events for pair in zip(event["rows"], event["targets"], strict=True)]
        epochs = _epochs(pairs, {event["rows"] for event in look.of("loader") if event["rows"]})
        if len(epochs) < EPOCHS or any(event["square"] for event in events):
            continue
        targets = [Counter(target for each in epoch.values() for target in each) for epoch in epochs]
        if any(each != targets[0] for each in targets) or (len(targets[0]) < VARIED and len(epochs) == EPOCHS):
            continue
        others = [row for row in _common(epochs) if any(epoch[row] != epochs[0][row] for epoch in epochs)]
        if len(others) >= SEVERAL:
            found.append(
                problem(
                    "misleads",
                    f"{len(others)} of {len(epochs[0])} rows are held against another target{at(place)} in one epoch "
                    f"than in another, though the targets of all rows are the same in each of {len(epochs)}: rows and "
                    "targets were put into another order without each other, and most are learnt with that of a "
                    "neighbour",
                )
            )
    return found


def _epochs(pairs: list[tuple[str, str]], sizes: set[int]) -> list[dict[str, list[str]]]:
    """The whole epochs at the start of a run, each row with its targets; none where most rows of two are not the same.

    Of a text that is padded in one batch, and in another the longest, one epoch may know another row than the next.

    Args:
        pairs: each row with its target, in the order in which they were trained on.
        sizes: of the data sets that were read; beside them an epoch may end where the first row comes again.
    """
    places: dict[str, int] = {}
    again = next((place for place, (row, _) in enumerate(pairs) if places.setdefault(row, place) != place), 0)
    for size in sorted({again, *sizes}, reverse=True):
        starts = range(0, len(pairs) - size + 1, size) if size >= DISTINCT else ()
        epochs = [_by_row(pairs[start : start + size]) for start in starts]
        if len(epochs) >= EPOCHS and sum(len(epochs[0][row]) for row in _common(epochs)) > MOST * size:
            return epochs
    return []


def _common(epochs: list[dict[str, list[str]]]) -> list[str]:
    """The rows that are in each epoch as often."""
    return [row for row, first in epochs[0].items() if all(len(each.get(row, ())) == len(first) for each in epochs)]


def _by_row(pairs: list[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row, target in sorted(pairs):
        found.setdefault(row, []).append(target)
    return found


def find_other_tokens(look: Look) -> Problems:
    """Whether the target of each token is that token itself, or the one after the next.

    A model that is to give back what it reads, or shifts its input by itself, is meant to: the first is told of
    as unclear where the model is not known to write on.
    """
    by_line: dict[str, list[Event]] = {}
    for event in look.of("paired"):
        by_line.setdefault(event["place"], []).append(event)
    shares = {place: _shares(events) for place, events in by_line.items()}
    known = {place: each for place, each in shares.items() if each}
    if any(each[1] > FEW for each in known.values()):
        return []  # what is said besides, of the token after the next, helps the first
    found = []
    for place, (same, _, after_next) in known.items():
        function = by_line[place][0]["function"]
        if after_next > ALL:
            found.append(
                problem(
                    "misleads",
                    f"{function}{at(place)} holds what is said at each token against the token after the next one "
                    f"({after_next:.0%} of the targets): targets are shifted twice, as where the model shifts them "
                    "itself",
                )
            )
        elif same > ALL:
            found.append(
                problem(
                    "misleads" if all(event["writes"] for event in by_line[place]) else "unclear",
                    f"{function}{at(place)} holds what is said at each token against this very token ({same:.0%} of "
                    "the targets), which the model has just read: where it is to say the next one, shift the targets "
                    "by one",
                )
            )
    return found


def find_read_ahead(look: Look) -> Problems:
    """Whether what is said at a token, which is to be the next one, depends on the tokens behind it."""
    return [
        problem(
            "misleads",
            f"what {event['module']}{at(event['place'])} says at {event['changed']} of {event['targets']} tokens "
            "changes with the tokens that come behind them, and the target of each is the very next token: the model "
            "reads what it is to say, and will not have it when it writes; mask what comes later (a causal mask)",
        )
        for event in look.of("ahead")
        if event["changed"]
    ]


def says_the_next(events: list[Event]) -> bool:
    """Whether the targets of these losses are the token after the one that each is said at."""
    shares = _shares(events)
    return bool(shares) and shares[1] > ALL


def _shares(events: list[Event]) -> list[float]:
    """How many targets are the token as many places on: 0, 1, 2; nothing where too few can be compared."""
    shares = []
    for by in range(3):
        same, compared = (sum(event["ahead"][by][part] for event in events) for part in (0, 1))
        if compared < TOKENS:
            return []
        shares.append(same / compared)
    return shares


def find_turned_apart(look: Look) -> Problems:
    """Whether a picture lies one way beside its target, and in another epoch another way: one was flipped by itself.

    Pictures of which the values change, too, are not recognised, and neither is what was cut out of them at random.
    """
    by_line: dict[str, dict[tuple[str, str, str], set[str]]] = {}
    for event in look.of("lies"):
        seen = by_line.setdefault(event["place"], {})
        for picture, target, beside in event["pictures"]:
            seen.setdefault((event["module"], picture, target), set()).add(beside)
    found = []
    for place, seen in by_line.items():
        count = sum(len(ways) > 1 for ways in seen.values())
        if count >= SEVERAL:
            found.append(
                problem(
                    "misleads",
                    f"{count} of {len(seen)} pictures lie beside their targets{at(place)} now one way and now another, "
                    "though both are the same but for flips and quarter turns: one of the two is flipped or turned at "
                    "random without the other, and most pixels are held against that of another place; draw once, and "
                    "do the same to both",
                )
            )
    return found
