"""Case 48 beside a first start that saves in a thread: what it writes meanwhile is not the second one's."""

import dataclasses
from pathlib import Path

import pytest
from pytest_trainguard.edge_cases.test_process import _without_files_of

from pytest_trainguard import Finding, Outcome, Recording, rejects

FOLDER = Path("/out")


def write(step, name, how="open"):
    return {"event": "write", "step": step, "path": str(FOLDER / name), "how": how}


HELD = {"event": "fault", "step": 2}
FIRST = Recording([write(2, ".lock"), HELD, write(2, ".tmp-2/state.pt"), write(2, "checkpoint-2", "rename")])
SECOND = Outcome(
    did="started again", exit=2, output="in use by process 7", output_bytes=19, recording=Recording([]),
    output_dir=FOLDER, before={".lock": (1, "a"), ".tmp-2/state.pt": (1, "half")},
    after={".lock": (1, "a"), "checkpoint-2/": (0, ""), "checkpoint-2/state.pt": (2, "whole")}, seconds=1.0, peak_rss=0,
    leftovers=(), timed_out=False, stack="", pid=8,
)  # fmt: skip


def test_what_the_first_one_wrote_is_left_out():
    with pytest.raises(Finding, match="it left in the output folder"):
        rejects(SECOND, "7")
    rejects(_without_files_of(FIRST, SECOND), "7")


@pytest.mark.parametrize(
    ("first", "changed"),
    [
        (FIRST, {"recording": Recording([write(0, "checkpoint-2/state.pt")])}),
        (FIRST, {"after": {**SECOND.after, "other.pt": (1, "b")}}),
        (Recording([write(2, "checkpoint-2/state.pt"), HELD]), {}),
    ],
    ids=["the second one wrote it too", "a file of nobody else's", "the first one stood still"],
)
def test_what_the_second_one_wrote_is_told(first, changed):
    with pytest.raises(Finding, match="it left in the output folder"):
        rejects(_without_files_of(first, dataclasses.replace(SECOND, **changed)), "7")
