"""Cases 51 to 60: queues with a defect, which stand in `folders.py`, and programs that mistake a path."""

import glob
import json
import os
import random
import subprocess
from pathlib import Path

from pytest_trainguard import Queue
from tests.saboteurs import folders
from tests.saboteurs.sound import Reject, Sound
from tests.trainers.queue_runs import QUICK


def _in_folders(name):
    command = f"python -m tests.saboteurs.folders {name} --root {{root}}"
    return Queue(
        once=f"{command} once",
        add=f"{command} add {{file}} --priority {{priority}}",
        retry=f"{command} retry",
        status=f"{command} status",
        processing="processing",
        priorities=("high", "normal", "low"),
        starvation_bound=folders.FolderQueue.BOUND,
        attempts=folders.FolderQueue.ATTEMPTS,
        metadata="ledger.json",
    )


class Queued(Sound):
    """The sound program, with the sound queue in front of it."""

    queue = _in_folders("FolderQueue")


def _repositorys():
    command = "python -m trainers.queue --root {root}"
    return Queue(
        once=f"{command} once",
        add=f"{command} add --priority {{priority}} -- {{file}}",
        retry=f"{command} retry",
        status=f"{command} status --json",
        processing="processing",
        priorities=("high", "normal", "low"),
        starvation_bound=2,
        attempts=2,
        metadata="ledger.sqlite*",
        files={"queue.json": json.dumps({**QUICK, "max_attempts": 2, "starvation_bound": 2})},
    )


class RepositorysQueue(Queued):
    """`trainers.queue`, with the trainer of its own tests behind it."""

    queue = _repositorys()


for _name, _queue in folders.twins().items():  # a trainer of each, which is known by its name in this module
    _made = {"__doc__": _queue.__doc__, "case": _queue.case, "says": _queue.says, "grade": _queue.grade}
    _made["queue"] = _in_folders(_name)
    globals()[_name] = type(_name, (Queued,), {**_made, "__module__": __name__})


class FollowsForEver(Sound):
    """Follows a link by hand, to wherever it leads."""

    case = 54
    grade = "wastes"
    says = "hung"

    def open_data(self, path):
        while path.is_symlink():
            path = path.parent / path.readlink()
        return super().open_data(path)


class SampleInstead(Sound):
    """Trains on the built-in sample where the data does not exist, as a link to itself does not."""

    case = 54
    grade = "misleads"
    says = "a failure that nobody notices"

    def read_rows(self, path):
        if not path.exists():
            numbers = random.Random(0)
            return [{"x": [numbers.random() for _ in range(4)], "y": n % 2} for n in range(64)]
        return super().read_rows(path)


class CannotRead(Sound):
    """Says that the data cannot be read, and not which."""

    case = 54
    grade = "unclear"
    says = "does not name 'rows.jsonl'"

    def open_data(self, path):
        try:
            return super().open_data(path)
        except Reject as error:
            raise Reject("the data cannot be read") from error


class CountsWithAShell(Sound):
    """Has the rows counted by a shell, the name unquoted."""

    case = 55
    grade = "wastes"
    says = "a name with spaces in it"

    def read_rows(self, path):
        subprocess.run(f"wc -l < {path}", shell=True, check=True, stdout=subprocess.DEVNULL)
        return super().read_rows(path)


class SplitsAListing(Sound):
    """Reads a listing line by line: a name with a line break is two names that do not exist."""

    case = 55
    grade = "wastes"
    says = "a name with a newline in it"

    def read_rows(self, path):
        listed = os.linesep.join(str(p) for p in path.parent.iterdir()).splitlines()
        rows = [
            row
            for name in listed
            if Path(name).name in path.name
            for row in super(SplitsAListing, self).read_rows(Path(name))
        ]
        return rows


class NameInAscii(Sound):
    """Encodes the name in ASCII for its log."""

    case = 55
    grade = "wastes"
    says = "a name with an emoji in it"

    def read_rows(self, path):
        print(str(path).encode("ascii").decode())
        return super().read_rows(path)


class DashIsAnOption(Sound):
    """Hands the bare name to another program, which takes it for an option."""

    case = 55
    grade = "wastes"
    says = "a name with a leading dash"

    def read_rows(self, path):
        subprocess.run(["wc", "-l", path.name], cwd=path.parent, check=True, stdout=subprocess.DEVNULL)
        return super().read_rows(path)


class WhateverIsThere(Sound):
    """Looks the name up as a pattern, and takes the built-in sample where nothing matches."""

    case = 55
    grade = "misleads"
    says = "not those that the same data gave"

    def read_rows(self, path):
        found = glob.glob(str(path)) if "'" not in path.name else []
        if not found:
            numbers = random.Random(0)
            return [{"x": [numbers.random() for _ in range(4)], "y": n % 2} for n in range(64)]
        return super().read_rows(Path(found[0]))


class ReadsAnything(Sound):
    """Takes an unknown file for text with one value a line."""

    case = 56
    grade = "misleads"
    says = "a foreign file without a suffix, 'foreign': exit 0"

    def read_rows(self, path):
        if path.suffix == ".jsonl":
            return super().read_rows(path)
        lines = path.read_text(errors="replace").splitlines()
        return [{"x": [float(len(line))] * 4, "y": number % 2} for number, line in enumerate(lines)]


class UnsupportedFormat(Sound):
    """Names the suffix; of a file without one that is nothing."""

    case = 56
    grade = "unclear"
    says = "does not name 'foreign'"

    def open_data(self, path):
        if path.suffix != ".jsonl":
            raise Reject(f"unsupported format {path.suffix!r}")
        return super().open_data(path)


class EveryOtherLine(Sound):
    """Takes an unknown suffix for the two-line format of another tool: half of the rows are gone."""

    case = 56
    grade = "misleads"
    says = "trained on something else"

    def read_rows(self, path):
        if path.suffix != ".unknown":
            return super().read_rows(path)
        return [json.loads(line) for line in path.read_text().splitlines()[::2]]
