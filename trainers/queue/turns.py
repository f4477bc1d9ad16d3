"""Whose turn it is: the most urgent, but no priority waits for ever."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from trainers.queue.layout import PRIORITIES


def choose(waiting: Collection[str], passed_over: Mapping[str, int], bound: int) -> str | None:
    """The priority whose first file comes next.

    The first file of a priority waits for at most ``bound`` others, however many more urgent ones keep coming.
    A priority between has its turn one earlier, so that even a less urgent one, due at the same time and taken
    first, does not make it wait longer.

    Args:
        waiting: priorities in which a file waits.
        passed_over: for each, how many others were begun since its last one, while one waited.
        bound: 2 or more.
    """
    due = [
        priority
        for number, priority in enumerate(PRIORITIES)
        if priority in waiting and number > 0 and passed_over[priority] >= bound - (priority != PRIORITIES[-1])
    ]
    if due:
        return due[-1]
    return next((priority for priority in PRIORITIES if priority in waiting), None)


def after(chosen: str, waiting: Collection[str], passed_over: Mapping[str, int]) -> dict[str, int]:
    """``passed_over`` once a file of the chosen priority is begun."""
    return {
        priority: passed_over[priority] + 1 if priority in waiting and priority != chosen else 0
        for priority in PRIORITIES
    }
