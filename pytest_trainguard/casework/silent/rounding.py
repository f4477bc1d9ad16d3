"""The step arrives in the dtype: case 118."""

from __future__ import annotations

from pytest_trainguard.casework.silent.look import Look, Problems, at, problem
from pytest_trainguard.recorder.timeline import Event
from pytest_trainguard.verdicts.errors import NotApplicable

__all__ = ["find_rounded_off"]

FULL = 0.5  # of the learning rate that it warms up to: from there on a step counts
STEPS = 5  # at that rate, at least
LOST = 0.9  # of the elements with a gradient: more keep each of their bits
LIMITS = {"bfloat16": 256, "float16": 2048}  # where counting by ones ends


def find_rounded_off(look: Look) -> Problems:
    """Steps that are smaller than the weights' dtype can hold, and counters of steps that stand still.

    An optimizer of somebody's own may round at random, or keep what was rounded off: of such a one some elements move.

    Raises:
        NotApplicable: no weights of 16 bits are stepped at the full learning rate, and no optimizer counts its steps.
    """
    by_optimizer: dict[int, list[Event]] = {}
    for event in look.of("rounded"):
        by_optimizer.setdefault(event["optimizer"], []).append(event)
    found, looked_at = [], False
    for events in by_optimizer.values():
        counted = [event for event in events if "counter" in event]
        driven = _at_full_rate(events)
        looked_at |= len(counted) >= STEPS or len(driven) >= STEPS
        found += [*_find_lost(driven), *_find_miscounted(counted)]
    if not looked_at:
        raise NotApplicable(
            f"none of its optimizers counts its steps, and none takes {STEPS} steps at the full learning rate with "
            "weights of 16 bits"
        )
    return found


def _at_full_rate(events: list[Event]) -> list[Event]:
    full = max([event["full"] for event in events] + [event["lr"] for event in events])
    return [event for event in events if event["elements"] and event["lr"] >= FULL * full > 0]


def _find_lost(events: list[Event]) -> Problems:
    if len(events) < STEPS or any(event["master"] for event in events):
        return []
    kept, elements = (sum(event[key] for event in events) for key in ("kept", "elements"))
    if kept < elements and (not events[0]["plain"] or kept <= LOST * elements):
        return []
    first = events[0]
    return [
        problem(
            "misleads",
            f"{kept / elements:.0%} of the {first['dtype']} weights that get a gradient keep each of their bits in "
            f"{len(events)} steps of {first['name']}{at(first['place'])} at a learning rate of {first['lr']:g}: the "
            "step is smaller than half of what they can tell apart, and is rounded off; keep the weights in float32, "
            "and compute in 16 bits with torch.autocast",
        )
    ]


def _find_miscounted(events: list[Event]) -> Problems:
    if len(events) < STEPS:
        return []
    first, last = events[0], events[-1]
    where = f"the counter of {last['name']}{at(last['place'])}"
    if last["counted_in"] in LIMITS:
        return [
            problem(
                "misleads",
                f"{where} is a {last['counted_in']}, which cannot count beyond {LIMITS[last['counted_in']]}: from "
                "there on it stands still, and each step is corrected as if it were that one; count in float32",
            )
        ]
    if first["counter"] == last["counter"]:
        return [
            problem(
                "misleads",
                f"{where} stands still: it is {last['counter']:g} after each of {len(events)} steps, so that each is "
                "corrected as if it were that one",
            )
        ]
    return []
