"""Many steps of changing lengths: carried on from a few, and what they do to the allocator."""

import random

import pytest

from pytest_trainguard.memory import Event, Trace
from pytest_trainguard.memory.answers.fragmentation import (
    EXTRAPOLATED_STEPS,
    TRACED_STEPS,
    WARM_UP_STEPS,
    find_fragmentation,
)
from pytest_trainguard.memory.answers.verdict import Judgement
from pytest_trainguard.memory.replay.budget import parse_budget, resolve_budget
from pytest_trainguard.memory.replay.extrapolation import extend_steps, replay_steps, split_into_steps

MIB = 2**20


class Steps:
    """Writes a trace by hand."""

    def __init__(self):
        self.events, self.count, self.step = [], 0, 0

    def born(self, size, op="aten::mm"):
        self.count += 1
        event = Event("alloc", self.count, size, op=op, module="net", step=self.step)
        self.events.append(event)
        return event

    def died(self, event):
        self.events.append(Event("free", event.block, event.size, step=self.step))

    def trace(self):
        """The step of the last events is complete."""
        self.died(self.born(1024))
        return Trace(self.events)


def changing(each=lambda steps, number: None, count=TRACED_STEPS):
    """Weights, and in each step sixteen activations of another length and an input that stays until the next step."""
    made, chance, before = Steps(), random.Random(3), None
    made.born(64 * MIB)
    for number in range(count):
        size = 16 * MIB if number == 0 else round(chance.uniform(2, 15) * MIB)
        activations = [made.born(size) for _ in range(16)]
        entry = made.born(size // 16)
        if before:
            made.died(before)
        before = entry
        each(made, number)
        for one in activations:
            made.died(one)
        made.step += 1
    return made.trace()


def test_carried_on_steps_are_the_traced_ones_again():
    trace = changing()
    traced = split_into_steps(trace)
    assert len(traced) == TRACED_STEPS
    steps = extend_steps(traced, EXTRAPOLATED_STEPS, WARM_UP_STEPS, seed=1)
    assert len(steps) == EXTRAPOLATED_STEPS
    sizes = {tuple(sorted(move.size for move in moves if move.born)) for moves in steps[WARM_UP_STEPS:]}
    assert sizes == {tuple(sorted(e.size for e in events if e.kind == "alloc")) for events in traced[WARM_UP_STEPS:-1]}
    born = [move.block for moves in steps for move in moves if move.born]
    died = [move.block for moves in steps for move in moves if not move.born]
    assert len(set(born)) == len(born)
    assert len(set(died)) == len(died)
    # The weights, and the last step's input.
    assert len(set(born) - set(died)) == 2
    after = list(replay_steps(steps))
    assert max(one.allocated for one in after) <= (64 + 1) * MIB + 512


def test_another_seed_is_another_order_and_the_same_one_the_same():
    traced = split_into_steps(changing())
    one, same, other = (extend_steps(traced, EXTRAPOLATED_STEPS, WARM_UP_STEPS, seed) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_a_sound_program_comes_to_rest():
    found = find_fragmentation(changing())
    assert found.trouble is None
    assert found.rise <= MIB * found.scale
    assert found.peak == pytest.approx(8 * 2**30, rel=0.01)


def test_what_is_kept_is_named():
    found = find_fragmentation(changing(lambda steps, number: steps.born(4 * MIB, "aten::stack")))
    assert found.trouble.startswith("what is in use after a step grows: by ")
    assert "tensors of aten::stack in net, " in found.trouble


def test_a_buffer_that_grows_a_little_loses_what_it_had():
    kept = []

    def grow(steps, number):
        kept.append(steps.born((40 + number) * MIB))
        if number:
            steps.died(kept[-2])

    assert "goes on growing where no more is in use" in find_fragmentation(changing(grow)).trouble


def pinning(steps, number):
    """Every fourth of many pieces is held into the next step, which wants one large piece."""
    held = getattr(steps, "held", [])
    steps.held = []
    if number > WARM_UP_STEPS:
        steps.died(steps.born(120 * MIB))
    for one in held:
        steps.died(one)
    pieces = [steps.born(8 * MIB) for _ in range(28)] if number >= WARM_UP_STEPS else []
    for place, piece in enumerate(pieces):
        if place % 4:
            steps.died(piece)
        else:
            steps.held.append(piece)


def pinned():
    made = Steps()
    made.died(made.born(256 * MIB))
    for number in range(TRACED_STEPS):
        pinning(made, number)
        made.step += 1
    return made.trace()


def judgement(size, least):
    limit = resolve_budget(parse_budget(str(size)))
    return Judgement("FITS", limit, needs=least, least=least, allocated=2 * 2**30)


def test_free_memory_in_pieces_runs_out_under_the_budget_and_not_with_room():
    tight = find_fragmentation(pinned(), judgement(2**32, 2**32 - 2**20))
    assert tight.out_of_memory > WARM_UP_STEPS
    assert "though the longest batch fits by itself" in tight.trouble
    assert find_fragmentation(pinned(), judgement(2**33, 2**32)).trouble is None


def test_the_same_steps_fit_what_they_need():
    assert find_fragmentation(changing(), judgement(2**32, 2**32 - 2**20)).trouble is None


def test_too_few_steps_are_none():
    with pytest.raises(ValueError, match="only 4 optimizer steps were traced"):
        find_fragmentation(changing(count=4))
