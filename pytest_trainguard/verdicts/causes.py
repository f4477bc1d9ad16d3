"""The causes that findings of several cases can have in common, from what was observed of a run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

from pytest_trainguard.harm import Cause

if TYPE_CHECKING:
    from pytest_trainguard.contract.outcome import Outcome

__all__ = [
    "BEGINS_AGAIN",
    "FILE_ORDER",
    "HALF_WRITTEN",
    "HASH_ORDER",
    "HOLDS",
    "IGNORES_SIGTERM",
    "LATE_CHECKS",
    "LEAVES_FILES",
    "LEAVES_PROCESSES",
    "LEAVES_TEMPORARY",
    "NOTHING_SAVED",
    "NOT_FINITE",
    "NO_FSYNC",
    "SAVED_OTHERWISE",
    "SECOND_RESUME",
    "SWALLOWS",
    "UNCHECKED_SETTINGS",
    "UNCHECKED_STATE",
    "UNNAMED",
    "WANTS_NETWORK",
    "WRITES_ELSEWHERE",
    "find_crash",
    "resumes_otherwise",
]

BEGINS_AGAIN = Cause("resume:none", "a second start begins again at step 0", "killed")
NOTHING_SAVED = Cause("resume:nothing-saved", "it saves nothing: a kill loses all of its work", "killed")
SWALLOWS = Cause("exit-0", "it ends with exit 0 after a failure")
UNNAMED = Cause("unnamed", "its messages do not say what is wrong, and where")
LEAVES_PROCESSES = Cause("leaves-processes", "it leaves processes behind", "zombies")
LEAVES_FILES = Cause("leaves-files", "it writes to the output folder before it has checked what it was given")
LEAVES_TEMPORARY = Cause("leaves-temporary-files", "it leaves temporary files behind", "partial-save")
LATE_CHECKS = Cause("late-checks", "it builds the model before it checks what it was given")
NOT_FINITE = Cause("not-finite", "it goes on, or saves, where a loss or gradient is not finite", "nan-loss")
UNCHECKED_SETTINGS = Cause("unchecked-settings", "it does not check its settings", "learning-rate-0")
UNCHECKED_STATE = Cause("unchecked-state", "it does not check the state that it resumes from", "trainer-state-corrupt")
HALF_WRITTEN = Cause("half-written", "a save that breaks off leaves a checkpoint that cannot be loaded", "partial-save")
NO_FSYNC = Cause("no-fsync", "nothing that it saves is fsynced", "power-loss")
HASH_ORDER = Cause("resume:hash-order", "the order of a set of strings goes into its training", "killed")
FILE_ORDER = Cause("resume:file-order", "the order in which a folder is listed goes into its training", "killed")
SECOND_RESUME = Cause("resume:second", "what a resumed run saves cannot be resumed from", "killed")
SAVED_OTHERWISE = Cause("resume:saved", "what a resumed run saves is not what it would have saved", "killed")
WANTS_NETWORK = Cause("reach:network", "it reaches for other machines", "no-network")
WRITES_ELSEWHERE = Cause("reach:files", "it writes outside its output folder", "writes-elsewhere")
IGNORES_SIGTERM = Cause("ignores-sigterm", "it ignores SIGTERM", "reboot")
HOLDS = Cause("reach:held", "two runs of it cannot be side by side on one machine", "two-instances")
FRAME = re.compile(r'^\s*File "([^"]+)", line (\d+), in ', re.M)
ERROR = re.compile(r"^(?:\w+\.)*(\w*(?:Error|Exception|Exit|Interrupt|Warning))\b", re.M)
INSTALLED = re.compile(r"site-packages|dist-packages|/lib/python3|<frozen|<string>|pytest_trainguard")


def resumes_otherwise(states: Sequence[str]) -> Cause:
    """A resumed run that is not the undisturbed one: by what differs as it begins."""
    if not states:
        return Cause("resume:differs", "a resumed run is not the undisturbed one", "killed")
    key = "+".join(state.replace(" ", "-") for state in states)
    verb = "is" if len(states) == 1 else "are"
    return Cause(f"resume:{key}", f"{_listed(states)} {verb} not restored on a resume", "killed")


def find_crash(outcome: Outcome) -> Cause | None:
    """The exception that ended a run, by its type and its place in the team's own code."""
    from pytest_trainguard.contract.outcome import without_launcher  # where a run failed, it is there already

    _, found, traceback = without_launcher(outcome.output).rpartition("Traceback (most recent call last)")
    if not found:
        return None
    raised = ERROR.search(traceback)
    frames = [frame for frame in FRAME.findall(traceback) if not INSTALLED.search(frame[0])]
    if raised is None or not frames:
        return None
    file, line = frames[-1]
    place = f"{PurePath(file).name}:{line}"
    return Cause(f"raises:{raised[1]}@{place}", f"{raised[1]} at {place}")


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
