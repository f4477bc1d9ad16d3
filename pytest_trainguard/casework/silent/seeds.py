"""The labels count, and nothing else tells what they are; the seed counts: case 125."""

from __future__ import annotations

from pytest_trainguard.casework.silent.look import ENOUGH, Look, Problems, at, problem
from pytest_trainguard.recorder.timeline import Event
from pytest_trainguard.verdicts.errors import NotApplicable

__all__ = ["find_fixed", "find_same_draws", "find_unlabelled"]

DRAWN = {"RandomSampler", "SubsetRandomSampler", "WeightedRandomSampler"}  # torch's, that draw their order
AGAIN = 2  # times that a row is seen on average: where each is new, it may be changed as it is read
TOLD = 0.25  # of the rows: fewer that are new may be rows that the other run did not come to


def find_unlabelled(plain: Look, relabelled: Look, rows: int) -> Problems:
    """Whether other labels change no loss, or change what goes in.

    What goes in may follow from the labels where these are what is generated, or teach a decoder: only where each row
    has one target is it told of.

    Args:
        plain: the run on the rows as they are.
        relabelled: the same, with the labels of the rows exchanged.
        rows: how many rows the data have.

    Raises:
        NotApplicable: no loss is seen, or the run with other labels takes too few steps.
    """
    before, after = ([step.loss for step in look.recording.steps] for look in (plain, relabelled))
    pairs = [(one, other) for one, other in zip(before, after, strict=False) if one == one]
    if len(pairs) < ENOUGH:
        raise NotApplicable(f"the loss of {len(pairs)} steps is seen, and {ENOUGH} are needed to see it change")
    if all(one == other for one, other in pairs):
        place = at(next((event["place"] for event in plain.of("loss") if event["learns"]), ""))
        return [
            problem(
                "misleads",
                f"the labels do not count{place}: each of {len(pairs)} losses is what it was ({pairs[0][0]:.6g}, "
                f"..., {pairs[-1][0]:.6g}), though most rows have the label of another one now",
            )
        ]
    return _find_told(plain, relabelled, rows)


def _find_told(plain: Look, relabelled: Look, rows: int) -> Problems:
    """Rows that go in otherwise, where only their label is another: then there are more of them than the data have."""
    if not _is_one_each(plain):
        return []
    known, others = ({row for event in look.training_passes for row in event["rows"]} for look in (plain, relabelled))
    new, seen = len(known | others) - rows, sum(len(event["rows"]) for event in plain.training_passes)
    if len(known) > rows or seen < AGAIN * len(known) or new < TOLD * rows:
        return []
    first = relabelled.training_passes[0]
    return [
        problem(
            "misleads",
            f"what goes into the model{at(first['place'])} tells the label: with the labels exchanged between its "
            f"{rows} rows, and nothing else changed, {new} rows that were not there before go in",
        )
    ]


def _is_one_each(look: Look) -> bool:
    """Each loss that is learnt from has one target for each row."""
    scored = [event for event in look.of("loss") if event["learns"]]
    batches = {len(event["rows"]) for event in look.training_passes}
    return bool(scored) and all(_fits(event, batches) for event in scored)


def _fits(event: Event, batches: set[int]) -> bool:
    target = event["target"]
    return bool(target) and target[0] in batches and target[1:] in ([], [1])


def find_same_draws(look: Look) -> Problems:
    """Whether each step draws the random numbers of the one before, as where a seed is set in each."""
    firsts: dict[int, Event] = {}
    for event in look.training_passes:
        firsts.setdefault(event["step"], event)
    began = [event["began"] for event in firsts.values() if event["draws"]]
    if len(began) < max(ENOUGH, len(firsts)) or len(set(began)) > 1:
        return []
    first = next(iter(firsts.values()))
    return [
        problem(
            "misleads",
            f"each of {len(began)} steps draws the same random numbers{at(first['place'])}: torch's random state is "
            "the same whenever a training pass begins, so that dropout, or noise, is the same each time; seed once, as "
            "the run begins, and put nothing back before a step",
        )
    ]


def find_fixed(plain: Look, seeded: Look) -> Problems:
    """Whether a program that draws random numbers draws the same ones, whatever seed it is given.

    A program may fix its seed by intent.
    """
    pairs = list(zip(plain.recording.steps, seeded.recording.steps, strict=False))
    states = [(one.states.get("torch"), other.states.get("torch")) for one, other in pairs]
    if len(pairs) < ENOUGH or any(one is None or one != other for one, other in states):
        return []
    drops = any(on for event in plain.training_passes for on in event["modes"].values())
    drawn = {event["sampler"] for event in plain.of("loader")} & DRAWN
    if (not drops and not drawn) or any(one.loss != other.loss for one, other in pairs):
        return []
    return [
        problem(
            "unclear",
            f"the seed does not count: torch's random state and the loss are at each of {len(pairs)} steps what they "
            "are with the seed 0; runs with other seeds are one run, and how far they differ says nothing: seed with "
            "run.seed",
        )
    ]
