"""Reading does not write: case 112."""

from __future__ import annotations

from pytest_trainguard.casework.silent.look import Look, Problems, at, problem
from pytest_trainguard.verdicts.errors import CannotJudge, NotApplicable

__all__ = ["find_written"]


def find_written(look: Look) -> Problems:
    """Data sets in which a row becomes another one as it is read.

    Both has to be seen: that under the same random states a row is not what it was, and that something which the data
    set holds has changed. A cache that is filled, or a generator that goes on, has one of them only.

    Raises:
        NotApplicable: nothing was read through torch's loader that can be read again.
        CannotJudge: reading it again failed.
    """
    events = look.of("reread")
    if not events:
        raise NotApplicable("it reads no data set that has indices through torch's data loader")
    read = [event for event in events if "same" in event]
    if not read:
        raise CannotJudge(f"the rows of {events[0]['data']} could not be read again in a copy of the process")
    found = []
    for event in read:
        if event["same"] or not event["changed"]:
            continue
        rows = ", ".join(map(str, event["rows"]))
        told = (
            f"reading changes what is stored: rows {rows} of {event['data']}{at(event['place'])}, read again under the "
            f"same random state, are others, and {event['changed'][0]} is {event['after']}, where it was "
            f"{event['before']} before"
        )
        if event["stays"]:
            found.append(problem("misleads", f"{told}: each epoch trains on what the one before made of the rows"))
        else:
            found.append(
                problem(
                    "unclear",
                    f"{told}: its worker processes forget that after each epoch; without any, each epoch would train "
                    "on what the one before made of the rows",
                )
            )
    return found
