from collections import Counter
from pathlib import Path

import pytest

from pytest_trainguard.memory.answers.tracing import Tracing
from pytest_trainguard.subject.launchpad import Launchpad

PROGRAMS = "tests.memory.programs"


class Composition:
    """What stood on the device at the trace's peak, and at the peak of each phase; counted anew, without rounding."""

    def __init__(self, trace):
        alive, now, self.peak, self.at, self.of_phase = {}, 0, 0, None, Counter()
        for event in trace.events:
            now += event.size if event.kind == "alloc" else -event.size
            alive[event.block] = event
            if event.kind == "free":
                del alive[event.block]
            self.of_phase[event.phase] = max(self.of_phase[event.phase], now)
            if now > self.peak:
                self.peak, self.at, there = now, event, dict(alive)
        self.parts = Counter()
        for event in there.values():
            self.parts[event.category] += event.size
        self.left = now

    def __getitem__(self, category):
        return self.parts[category]


@pytest.fixture(scope="session")
def pad(tmp_path_factory):
    root = Path(__file__).parent.parent.parent
    pad = Launchpad(root, tmp_path_factory.mktemp("memory"), [str(root)], 300.0)
    yield pad
    pad.close()


@pytest.fixture(scope="session")
def tracing(pad):
    """One of the programs, to be traced."""
    made = {}

    def tracing(name, **options):
        key = repr((name, options))
        if key not in made:
            made[key] = Tracing(pad.subject(name, f"{PROGRAMS}.{name}"), **options)
        return made[key]

    return tracing


@pytest.fixture(scope="session")
def composition():
    return Composition
