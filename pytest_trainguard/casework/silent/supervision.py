"""Targets that count: case 102."""

from __future__ import annotations

import math

from pytest_trainguard.casework.silent.look import Look, Problems, at, problem
from pytest_trainguard.casework.silent.pairing import says_the_next
from pytest_trainguard.harm import Problem
from pytest_trainguard.recorder.timeline import Event
from pytest_trainguard.verdicts.errors import NotApplicable

__all__ = ["find_endless", "find_unsupervised"]

BY_CHANCE = 1e-4  # what masks that are drawn at random leave out, they leave out now and then
SEVERAL = 2  # rows: one may be damaged
ENDS = 8  # pieces of text that are learnt: of fewer nothing follows
PIECE = 2  # targets that stand together: an answer, and no words that were drawn at random


def find_unsupervised(look: Look) -> Problems:
    """Batches, and texts, none of whose targets count, where those of others do.

    Multi-task training leaves whole losses out, masked language modelling leaves a text out by chance, pre-training
    leaves nothing out.

    Raises:
        NotApplicable: no loss over classes was taken of what a model put out.
    """
    events = look.of("supervised")
    if not events:
        raise NotApplicable("no loss over classes (cross_entropy, nll_loss) is taken of what its model puts out")
    empty = [event for event in events if _teaches_nothing(event)]
    first = events[0] if not empty else empty[0]
    where = f"{first['function']}{at(first['place'])}"
    if len(empty) == len(events):
        return [
            problem(
                "misleads",
                f"no target counts: in each of {len(events)} backward passes {where} ignores all of its targets "
                f"({first['total']} in the first), and the loss is {first['loss']:g}",
            )
        ]
    share = _share([event for event in events if event not in empty])
    empty = [event for event in empty if (1 - share) ** event["total"] < BY_CHANCE or math.isnan(event["loss"])]
    if empty:
        one = empty[0]
        return [
            problem(
                "misleads",
                f"all of {one['total']} targets of step {one['step'] + 1} are ignored by {where}, and the loss is "
                f"{one['loss']:g}, where in other batches {share:.0%} of them count: {len(empty)} of {len(events)} "
                "batches teach nothing",
            )
        ]
    return _find_bare_rows(events, share)


def _teaches_nothing(event: Event) -> bool:
    return not event["kept"] and event["alone"] and (event["loss"] == 0 or math.isnan(event["loss"]))


def _share(events: list[Event]) -> float:
    return float(sum(event["kept"] for event in events) / max(sum(event["total"] for event in events), 1))


def _find_bare_rows(events: list[Event], share: float) -> list[Problem]:
    """Texts without any, where in others one piece of text counts, or where so long a text has none by no chance."""
    texts = [event for event in events if event.get("rows") and event["alone"]]
    bare = {row for event in texts for row in event["bare"]}
    times = sum(len(event["bare"]) for event in texts)
    rows = sum(event["rows"] for event in texts)
    if len(bare) < SEVERAL or 2 * times > rows:
        return []
    meant = all(
        event["pieces"] == 1 and event["fewest"] >= PIECE for event in texts if event["rows"] > len(event["bare"])
    )
    chance = max((1 - share) ** event["width"] for event in texts)
    if not meant and chance > BY_CHANCE:
        return []
    first = next(event for event in texts if event["bare"])
    filled = sum(event["filled"] for event in texts)
    cut = f"; {filled} of them fill the whole length, so that what should count may have been cut off" if filled else ""
    return [
        problem(
            "unclear",
            f"none of the targets of {times} of {rows} texts counts in {first['function']}{at(first['place'])}, first "
            f"at step {first['step'] + 1}, while {share:.0%} of all do: these texts teach nothing{cut}; leave them "
            "out, and say how many they are",
        )
    ]


def find_endless(look: Look) -> Problems:
    """Texts whose end is there, and is never learnt: the model will not know when to stop.

    Only of what is to say the next token, and where the model's configuration names the token. A program may mean it.
    """
    by_line: dict[str, list[Event]] = {}
    for event in look.of("paired"):
        if event["ends"]:
            by_line.setdefault(event["place"], []).append(event)
    for place, events in by_line.items():
        pieces, followed, learnt = (sum(event["closed"][part] for event in events) for part in range(3))
        if pieces < ENDS or 2 * followed <= pieces or learnt or not says_the_next(events):
            continue
        named = ", ".join(map(str, events[0]["ends"]))
        return [
            problem(
                "unclear",
                f"{followed} of {pieces} pieces of text that {events[0]['function']}{at(place)} learns are followed by "
                f"the end of a text (eos_token_id {named}), and nowhere does it count as a target: the model learns "
                "what to say and never to stop. Where padding is the same token, ignore it by the attention mask and "
                "not by its number; where a template ends an answer, let its end count",
            )
        ]
    return []
