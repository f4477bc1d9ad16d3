"""A small, sound training queue that works by folders, and its sabotaged twins; the standard library alone.

`python -m tests.saboteurs.folders CLASS --root FOLDER COMMAND` runs one of them. Its training reads the rows of a file
and writes the content's hash into a log. As with the training programs, a saboteur overrides one method, in the way
people really write it; `tests/saboteurs/queue.py` makes a trainer of each.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path


class FolderQueue:
    """The sound one."""

    case, says, grade = 0, "", ""
    ATTEMPTS, BOUND = 2, 1
    TAKES = 0.0  # seconds between a file's arrival in `processing` and its training
    WAITING = ("high", "inbox", "low")

    def __init__(self, root):
        self.root = root
        for name in (*self.WAITING, "processing", "done", "failed"):
            (root / name).mkdir(exist_ok=True)
        self.ledger = self.load()

    # --- its memory

    def load(self):
        """Told apart by what must be in it; made again from the folders where that is not so."""
        try:
            ledger = json.loads((self.root / "ledger.json").read_text())
            if self.is_ledger(ledger):
                return ledger
        except (OSError, ValueError):
            pass
        return self.rebuilt()

    def is_ledger(self, ledger):
        kinds = {"given": list, "trained": list, "attempts": dict, "told": list}
        return isinstance(ledger, dict) and all(isinstance(ledger.get(key), kind) for key, kind in kinds.items())

    def rebuilt(self):
        trained = [self.digest(path.read_bytes()) for path in (self.root / "done").iterdir()]
        return {"given": [], "trained": trained, "attempts": {}, "told": []}

    def save(self):
        beside = self.root / ".ledger"
        beside.write_text(json.dumps(self.ledger))
        os.replace(beside, self.root / "ledger.json")

    def tell(self, text):
        print(text, file=sys.stderr)
        self.ledger["told"].append(text)
        self.save()

    # --- what waits

    def entries(self, name):
        found = [path for path in (self.root / name).iterdir() if not path.name.startswith(".")]
        return sorted(found, key=lambda path: path.lstat().st_mtime)

    def choose(self, since_low):
        """The oldest of the most urgent; a low one where too many others have gone before it."""
        low = self.entries("low")
        if low and since_low >= self.BOUND:
            return low[0]
        return next((path for name in self.WAITING for path in self.entries(name)), None)

    def check_missing(self):
        waiting = {path.name for name in self.WAITING for path in self.entries(name)}
        for name in [name for name in self.ledger["given"] if name not in waiting]:
            self.ledger["given"].remove(name)
            self.tell(f"{name}: deleted while it waited")

    # --- one entry

    def digest(self, content):
        return hashlib.sha256(content).hexdigest()

    def handle(self, path):
        problem = self.problem(path)
        if problem:
            return self.reject(path, problem)
        try:
            digest = self.digest(path.read_bytes())
        except FileNotFoundError:
            return self.tell(f"{path.name}: gone before its turn")
        if path.name in self.ledger["given"]:
            self.ledger["given"].remove(path.name)
        if digest in self.ledger["trained"]:
            return self.duplicate(path)
        self.process(path, digest)

    def problem(self, path):
        if path.is_symlink():
            return "a symbolic link"
        return None if path.suffix == ".jsonl" else "not a .jsonl file"

    def reject(self, path, problem):
        self.move(path, "failed")
        self.tell(f"{path.name}: rejected: {problem}")

    def duplicate(self, path):
        self.move(path, "done")
        self.tell(f"{path.name}: the same content was trained already")

    def process(self, path, digest):
        current = self.move(path, "processing")
        if current is None:
            return
        try:
            self.train(current, digest)
        except FileNotFoundError:
            self.tell(f"{path.name}: gone while it was processed")
        except ValueError as error:
            self.failed(current, digest, error)
        else:
            self.ledger["trained"].append(digest)
            self.move(current, "done")
            self.tell(f"{path.name}: done")

    def train(self, path, digest):
        time.sleep(self.TAKES)
        for number, line in enumerate(path.read_text().splitlines(), 1):
            try:
                json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
        with (self.root / "trained.log").open("a") as log:
            log.write(f"{digest}\n")

    def failed(self, path, digest, error):
        attempts = self.ledger["attempts"][digest] = self.ledger["attempts"].get(digest, 0) + 1
        again = attempts < self.ATTEMPTS
        self.move(path, "inbox" if again else "failed")
        self.tell(f"{path.name}: attempt {attempts} failed: {error}")

    def move(self, path, folder):
        """Where it is then; None, and a word about it, where somebody else has moved it."""
        try:
            return path.rename(self.free(folder, path.name))
        except FileNotFoundError:
            self.tell(f"{path.name}: no longer there: moved by somebody else")
            return None

    def free(self, folder, name):
        path, number = self.root / folder / name, 1
        while os.path.lexists(path):
            number += 1
            path = self.root / folder / f"{Path(name).stem}~{number}{Path(name).suffix}"
        return path

    # --- commands

    def once(self):
        self.recover()
        self.check_missing()
        since_low = 0
        while (path := self.choose(since_low)) is not None:
            since_low = 0 if path.parent.name == "low" else since_low + 1
            self.handle(path)
        self.check_missing()  # also of what went while the others were trained

    def recover(self):
        """What a run that was killed left in the middle waits again."""
        for path in self.entries("processing"):
            self.move(path, "inbox")

    def add(self, file, priority):
        folder = {"normal": "inbox"}.get(priority, priority)
        path = self.free(folder, file.name)
        shutil.copy(file, path.with_name(f".{path.name}"))
        path.with_name(f".{path.name}").rename(path)
        self.ledger["given"].append(path.name)
        self.save()

    def retry(self):
        for path in self.entries("failed"):
            self.ledger["attempts"] = {}
            self.move(path, "inbox")
        self.save()

    def status(self):
        print(json.dumps(self.ledger))


# --- 51: deleted while queued


class DiesOfWhatIsGone(FolderQueue):
    """Lists everything at its start, and opens what it has listed."""

    case, says = 51, "good files are not done"
    grade = "wastes"

    def once(self):
        for path in [path for name in self.WAITING for path in self.entries(name)]:
            self.process(path, self.digest(path.read_bytes()))


class ForgetsWhatIsGone(FolderQueue):
    """Looks at the folders alone: what it was given and is not there was never given."""

    case, says = 51, "nothing was reported about file-1.jsonl"
    grade = "misleads"

    def check_missing(self):
        pass


# --- 52: moved while processed


class KnowsByName(FolderQueue):
    """Takes a new name for a new file."""

    case, says, TAKES = 52, "trained the same content twice", 0.3
    grade = "misleads"

    def digest(self, content):
        return str(time.monotonic_ns())


class ClearsUp(FolderQueue):
    """Takes what lies in `processing` at its start for the rest of a run that was killed, and clears it away."""

    case, says, TAKES = 52, "lost: file-0.jsonl", 0.3
    grade = "loses"

    def recover(self):
        for path in self.entries("processing"):
            path.unlink()


class StopsWithoutAWord(FolderQueue):
    """`except OSError` around everything: it stops, and says nothing of what."""

    case, says, TAKES = 52, "trained the same content twice", 0.3
    grade = "misleads"

    def move(self, path, folder):
        try:
            return path.rename(self.free(folder, path.name))
        except OSError:
            sys.exit("error: the queue's folder has a problem")


# --- 53: duplicate


class Overwrites(FolderQueue):
    """Moves over what is there."""

    case, says = 53, "lost: file-0.jsonl"
    grade = "loses"

    def free(self, folder, name):
        return self.root / folder / name


class TrainsAgain(FolderQueue):
    """Asks whether the name has been done before."""

    case, says = 53, "trained the same content twice"
    grade = "misleads"

    def duplicate(self, path):
        done = {done.name for done in self.entries("done")}
        if path.name in done:
            return super().duplicate(path)
        return self.process(path, self.digest(path.name.encode()))


class DropsDuplicates(FolderQueue):
    """Deletes the second one: nobody needs it twice."""

    case, says = 53, "nothing was reported about (one|other)-name.jsonl"
    grade = "unclear"

    def duplicate(self, path):
        path.unlink()


# --- 54: circular link


class FollowsByHand(FolderQueue):
    """Follows a link to wherever it leads."""

    case, says = 54, "hung"
    grade = "wastes"

    def problem(self, path):
        while path.is_symlink():
            path = path.parent / path.readlink()
        return super().problem(path)


class DiesOfALink(FolderQueue):
    """Asks for the age of what a link points to."""

    case, says = 54, "1 of 1 good files are not done"
    grade = "wastes"

    def entries(self, name):
        found = [path for path in (self.root / name).iterdir() if not path.name.startswith(".")]
        return sorted(found, key=lambda path: path.stat().st_mtime)


class PassesLinksBy(FolderQueue):
    """Takes regular files and looks at nothing else."""

    case, says = 54, "nothing was reported about a-link.jsonl"
    grade = "wastes"

    def entries(self, name):
        return [path for path in super().entries(name) if path.is_file() and not path.is_symlink()]


# --- 55: special characters


class MovesWithAShell(FolderQueue):
    """Has a shell move the file, the name unquoted."""

    case, says = 55, "a file whose name has spaces in it: it is not done"
    grade = "misleads"

    def move(self, path, folder):
        free = self.free(folder, path.name)
        subprocess.run(f"mv {path} {free}", shell=True, check=False)
        return free if free.exists() else path.rename(self.root / "failed" / path.name)


class ReadsAListing(FolderQueue):
    """Reads the names from another program's output, line by line."""

    case, says = 55, "a file whose name has a newline in it: it is not done"
    grade = "misleads"

    def entries(self, name):
        listed = subprocess.run(["ls", self.root / name], capture_output=True, text=True, check=True).stdout
        paths = [self.root / name / line for line in listed.splitlines()]
        return [path for path in paths if os.path.lexists(path)]


class TakesADashForAnOption(FolderQueue):
    """Hands the bare name to another program."""

    case, says = 55, "a file whose name has a leading dash: it is not done"
    grade = "misleads"

    def move(self, path, folder):
        free = self.free(folder, path.name)
        moved = subprocess.run(["mv", path.name, free], cwd=path.parent, capture_output=True, check=False)
        return path.rename(self.root / "failed" / path.name) if moved.returncode else free


class WritesItsLogInAscii(FolderQueue):
    """A log of the nineties, in which an emoji cannot be written."""

    case, says = 55, "a file whose name has an emoji in it: it is not done"
    grade = "misleads"

    def handle(self, path):
        try:
            path.name.encode("ascii")
        except UnicodeError:
            return self.reject(path, "a name that is not ASCII")
        super().handle(path)


# --- 56: no extension


class TrainsOnAnything(FolderQueue):
    """Whatever has lines has rows."""

    case, says = 56, "takes foreign for done"
    grade = "misleads"

    def problem(self, path):
        return "a symbolic link" if path.is_symlink() else None

    def train(self, path, digest):
        path.read_text(errors="replace").splitlines()


class LooksForItsSuffix(FolderQueue):
    """`glob("*.jsonl")`: what has another suffix lies there for ever."""

    case, says = 56, "nothing was reported about foreign"
    grade = "wastes"

    def entries(self, name):
        return [path for path in super().entries(name) if path.suffix == ".jsonl"]


# --- 57: nothing to retry


class TakesTheFirst(FolderQueue):
    """Retries the oldest one that failed."""

    case, says = 57, "exit 1"
    grade = "wastes"

    def retry(self):
        self.move(self.entries("failed")[0], "inbox")


class RetriesWhatDoesNotWait(FolderQueue):
    """Takes everything that does not wait for something to retry."""

    case, says = 57, "trained again"
    grade = "wastes"

    def retry(self):
        for path in [*self.entries("done"), *self.entries("failed")]:
            self.move(path, "inbox")
        self.ledger["trained"] = []
        self.save()


# --- 58: metadata


class TrustsItsLedger(FolderQueue):
    """Reads its state, which it has written itself after all."""

    case, says = 58, "emptied ledger.json .*good files are not done"
    grade = "wastes"

    def load(self):
        path = self.root / "ledger.json"
        return json.loads(path.read_text()) if path.exists() else self.rebuilt()


class TrustsItsTypes(FolderQueue):
    """What is JSON is its state."""

    case, says = 58, "put other types into ledger.json .*good files are not done"
    grade = "wastes"

    def is_ledger(self, ledger):
        return True


class StartsOver(FolderQueue):
    """A new state is an empty one, and so everything is to be trained."""

    case, says = 58, "trained the same content twice"
    grade = "misleads"

    def rebuilt(self):
        for path in self.entries("done"):
            path.rename(self.root / "inbox" / path.name)
        return {"given": [], "trained": [], "attempts": {}, "told": []}


class ClearsItsFolders(FolderQueue):
    """A queue whose state is lost is set up anew."""

    case, says = 58, "lost: file-"
    grade = "loses"

    def rebuilt(self):
        for path in self.entries("done"):
            path.unlink()
        return {"given": [], "trained": [], "attempts": {}, "told": []}


# --- 59: priority inversion


class OldestFirst(FolderQueue):
    """Priorities are folders, and it takes the oldest of all."""

    case, says = 59, "trained the one of low priority first"
    grade = "wastes"

    def choose(self, since_low):
        found = [path for name in self.WAITING for path in self.entries(name)]
        return min(found, key=lambda path: path.stat().st_mtime, default=None)


class StrictlyByPriority(FolderQueue):
    """What is low waits until nothing else does."""

    case, says = 59, "the low one ran after 2 others, the stated bound is 1"
    grade = "wastes"

    def choose(self, since_low):
        return super().choose(0)


# --- 60: endless retry


class TriesAtOnceAgain(FolderQueue):
    """What failed goes back to where it came from, and is the next."""

    case, says = 60, "hung"
    grade = "wastes"

    def failed(self, path, digest, error):
        self.move(path, "inbox")


class TriesEveryNight(FolderQueue):
    """What failed waits for the next turn, every time."""

    case, says = 60, "still is not among the failed"
    grade = "wastes"

    def failed(self, path, digest, error):
        self.move(path, "processing")


class GivesNoReason(FolderQueue):
    """It failed, and that is all."""

    case, says = 60, "does not say why"
    grade = "unclear"

    def failed(self, path, digest, error):
        super().failed(path, digest, "")


class RetriesByItself(FolderQueue):
    """Every start gives what failed another chance."""

    case, says = 60, "tried again, with nobody asking"
    grade = "wastes"

    def recover(self):
        super().recover()
        self.retry()


class DiesOfABadRow(FolderQueue):
    """No handler: the good file behind the bad one waits until Monday."""

    case, says = 60, "1 of 1 good files are not done"
    grade = "wastes"

    def failed(self, path, digest, error):
        raise error


# --- with trainings that torch does, whose steps are counted


class TrainsWithTorch(FolderQueue):
    """As sound as the sound one, with a process for each training."""

    def train(self, path, digest):
        command = [sys.executable, "-m", "tests.saboteurs.folder_training", path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            if not path.exists():
                raise FileNotFoundError(path)
            raise ValueError(done.stderr.strip().splitlines()[-1])


class TrainsTheMovedOneAgain(TrainsWithTorch):
    """What lies in `processing` at its start was never finished, whatever its log says."""

    case, says = 52, "trained the same content twice"
    grade = "misleads"

    def duplicate(self, path):
        self.process(path, self.digest(path.read_bytes()))


class TriesMoreOftenThanItSays(TrainsWithTorch):
    """Counts the failures from 0, and those of each night anew."""

    case, says = 60, "it was trained 4 times, the stated attempts are 2"
    grade = "wastes"

    def failed(self, path, digest, error):
        self.ledger["attempts"][digest] = self.ledger["attempts"].get(digest, 0) - 0.5
        super().failed(path, digest, error)


def twins(of=FolderQueue):
    """Every other queue, by name."""
    found = {}
    for cls in of.__subclasses__():
        found |= {cls.__name__: cls, **twins(cls)}
    return found


def main():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("queue", choices=["FolderQueue", *twins()])
    parser.add_argument("--root", type=Path, required=True)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("once", "retry", "status"):
        commands.add_parser(name)
    adding = commands.add_parser("add")
    adding.add_argument("file", type=Path)
    adding.add_argument("--priority", choices=["high", "normal", "low"], default="normal")
    arguments = vars(parser.parse_args())
    queue = globals()[arguments.pop("queue")](arguments.pop("root"))
    getattr(queue, arguments.pop("command"))(**arguments)


if __name__ == "__main__":
    main()
