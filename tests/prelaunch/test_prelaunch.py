"""Of the post-mortem's six pre-launch checks, the three that no case of the catalogue makes by itself.

`pytest -m preflight` runs them with the catalogue, against each of the repository's own trainers.
"""

from __future__ import annotations

import json
import re
import time

from pytest_trainguard import Finding, Guard, NotApplicable, Wording, edge_case, rejects, survives

HOUR = 3600.0
FEW = 8  # rows
SIZE = r"[\d.]+ GiB"


@edge_case(
    "device-and-its-specification",
    number=1001,
    title="device and its specification",
    category="memory",
    verdict="survives",
    severity="unclear",
    brought_about="an undisturbed run",
    expects="says what it trains on, and how much memory that has",
)
def test_device_and_its_specification(guard: Guard) -> None:
    """A job that was meant for 80 GB ran on the 40 GB model of the same name, and failed at its first long batch."""
    outcome = guard.reference.outcome
    survives(outcome, Wording("the device and its memory", re.compile(rf"device: .*{SIZE}")))


@edge_case(
    "learning-rate-cache",
    number=1002,
    title="learning-rate cache",
    category="config",
    verdict="survives",
    severity="wastes",
    brought_about="learning rates found a week and an hour ago, tomorrow, and outside the range",
    expects="takes none of them, and one that is sound",
)
def test_learning_rate_cache(guard: Guard) -> None:
    """A rate that was found for another model a month before was taken for this one's."""
    if not {"find_learning_rate", "rate_cache"} <= {field.path for field in guard.subject.settings.fields}:
        raise NotApplicable("it searches for no learning rate: the code trainers do, with find_learning_rate")
    cache = guard.folder / "learning_rates.json"
    # A few rows, all in each of the hundred steps of a search, which finds a rate because there is something to learn.
    few = guard.subject.make_data(guard.folder / "few", FEW)
    searching = {"batch_size": FEW, "find_learning_rate": True, "rate_cache": str(cache)}
    settings = {**guard.subject.description.overfit, **searching}

    def expect(source: str, did: str, **change: float) -> None:
        """Alter what is cached, run, and look where the learning rate came from."""
        if cache.exists():
            entries = {key: {**entry, **change} for key, entry in json.loads(cache.read_text()).items()}
            cache.write_text(json.dumps(entries))
        outcome = guard.run(did, data=few, settings=settings)
        survives(outcome)
        told = json.loads((outcome.output_dir / "training_metadata.json").read_text())["learning_rate_from"]
        if told != source:
            raise Finding(did, f"its learning rate was {told}, not {source}", outcome.last_words)

    expect("found", "searched for the learning rate")
    now = time.time()
    expect("cached", "searched again, with a cache an hour old", found_at=now - HOUR)
    expect("found", "searched again, with a cache over a week old", found_at=now - 169 * HOUR)
    expect("found", "searched again, with a cache of tomorrow", found_at=now + 24 * HOUR)
    expect("found", "searched again, with a cached rate outside the range", rate=5.0)


@edge_case(
    "no-room-for-a-checkpoint",
    number=1003,
    title="no room for a checkpoint",
    category="process",
    verdict="rejects",
    severity="wastes",
    brought_about="an output folder on a real file system that is smaller than a checkpoint",
    expects="rejects before the first step, naming the folder",
)
def test_no_room_for_a_checkpoint(guard: Guard) -> None:
    """The first save came after three hours, and the disk had had no room for it from the beginning."""
    outcome = guard.run("given a file system of 32 KiB to write to", small_disk=32 << 10)
    if not outcome.small_disk:
        raise NotApplicable("a small file system takes the right to mount one")
    rejects(outcome, str(outcome.output_dir))
