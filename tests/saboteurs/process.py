"""Cases 41 to 50."""

import contextlib
import os
import random
import shutil
import tempfile
import time
from pathlib import Path

import torch

from tests.saboteurs.sound import Reject, Sound


class ForgetsOptimizer(Sound):
    """Restores the weights alone, as many a script does: AdamW's moments begin at zero again."""

    case = 41
    says = "parts from the undisturbed run at step"

    def restore(self, state, model, optimizer, scaler):
        model.load_state_dict(state["model"])
        torch.set_rng_state(state["rng"])


class ForgetsGenerator(Sound):
    """Restores weights and optimizer, but not the random generator that dropout draws from."""

    case = 41
    says = "parts from the undisturbed run at step"

    def restore(self, state, model, optimizer, scaler):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])


class IgnoresResume(Sound):
    """Takes the path to resume from, and never looks at it."""

    case = 41
    says = "began again at step 0"

    def load(self, resume_from):
        return None

    def save(self, output_dir, state):
        shutil.rmtree(output_dir / f"checkpoint-{state['step']}", ignore_errors=True)
        super().save(output_dir, state)


class LosesItsPlaceInTheData(Sound):
    """Starts over at the first row of the data after a resume."""

    case = 41
    says = "parts from the undisturbed run at step"

    def batches(self, rows, settings, start, stop):
        return super().batches(rows, settings, 0, stop - start)


class RenamesWithoutSync(Sound):
    """One file, written beside and renamed, as many a how-to says; never fsynced, and no copy of the one before."""

    case = 42
    says = "did not carry on|began again"

    def save(self, output_dir, state):
        torch.save(state, output_dir / "ckpt.pt.new")
        os.replace(output_dir / "ckpt.pt.new", output_dir / "ckpt.pt")

    def load(self, resume_from):
        path = resume_from / "ckpt.pt"
        return torch.load(path, weights_only=True) if path.exists() else None

    def checkpoints(self, output_dir):
        return [output_dir / "ckpt.pt"] if (output_dir / "ckpt.pt").exists() else []


class WritesInPlace(Sound):
    """Writes over the one checkpoint that it has: killed in the middle, it has none."""

    case = 42
    says = "did not carry on|began again"

    def save(self, output_dir, state):
        path = output_dir / "ckpt.pt"
        path.write_bytes(b"")  # opened and emptied, as open(path, "wb") does
        with path.open("wb") as out:
            torch.save(state, out)

    def load(self, resume_from):
        path = resume_from / "ckpt.pt"
        return torch.load(path, weights_only=True) if path.exists() else None

    def checkpoints(self, output_dir):
        return [output_dir / "ckpt.pt"] if (output_dir / "ckpt.pt").exists() else []


class TrustsTheNewestName(Sound):
    """Atomic by rename, never fsynced, and whatever bears the highest number is taken as whole."""

    case = 42
    says = "did not carry on"

    def sync(self, path):
        pass

    def whole(self, checkpoint):
        return torch.load(checkpoint / "state.pt", weights_only=True)


class FindsOutAtTheFirstSave(Sound):
    """Keeps its lock elsewhere, and writes to the output folder for the first time when it saves."""

    case = 46
    says = "it trained first"

    def lock(self, output_dir):
        return open(os.devnull)

    def unlock(self, output_dir, file):
        file.close()


class SavesWhereItMay(Sound):
    """Saves into a temporary folder where it may not write: the results are gone with the machine."""

    case = 46
    says = "a failure that nobody notices"

    def main(self, values, data, output_dir, *rest):
        if not os.access(output_dir, os.W_OK):
            output_dir = Path(tempfile.mkdtemp())
        return super().main(values, data, output_dir, *rest)


class CannotWrite(Sound):
    """Says that it cannot write, and not where."""

    case = 46
    says = "does not name '.*not-writable'"

    def lock(self, output_dir):
        try:
            return super().lock(output_dir)
        except Reject as error:
            raise Reject("permission denied") from error


class SampleForTheUnreadable(Sound):
    """Trains on a built-in sample where the data cannot be read."""

    case = 46
    says = "given data that it may not read: exit 0"

    def read_rows(self, path):
        if os.access(path, os.R_OK):
            return super().read_rows(path)
        numbers = random.Random(0)
        return [{"x": [numbers.random() for _ in range(4)], "y": n % 2} for n in range(64)]


class HasNoLock(Sound):
    """Two instances write to one folder."""

    case = 48
    says = "it trained first"

    def lock(self, output_dir):
        return open(os.devnull)


class LockNamesNobody(Sound):
    """Rejects the second start, but does not say whom to look for."""

    case = 48
    says = "does not name"

    def lock(self, output_dir):
        try:
            return super().lock(output_dir)
        except Exception as error:
            raise type(error)(f"{output_dir} is locked") from None


class LockFileOnly(Sound):
    """A lock that is the existence of a file: after a kill nobody can start until it is removed by hand."""

    case = 48
    says = "did not survive"

    def lock(self, output_dir):
        from tests.saboteurs.sound import Reject

        path = output_dir / "lock"
        if path.exists():
            raise Reject(f"{output_dir} is in use by process {path.read_text()}")
        path.write_text(str(os.getpid()))
        return open(os.devnull)

    def unlock(self, output_dir, file):
        (output_dir / "lock").unlink()


class LeavesItsWorkers(Sound):
    """A worker of its own making that nobody ends: it waits for work that never comes."""

    case = 49
    says = "processes were left"

    def batches(self, rows, settings, start, stop):
        if settings.num_workers and not os.fork():
            while True:
                time.sleep(1)
        return super().batches(rows, settings, start, stop)


class EndsItsWorkersOnSuccessOnly(Sound):
    """Cleans up at the end of the loop: an exception or a kill passes that line by."""

    case = 49
    says = "(?s)it failed.*processes were left|it was killed.*processes were left"

    def fit(self, settings, *args):
        import signal

        worker = os.fork()
        if not worker:
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()
            os._exit(0)
        super().fit(settings, *args)
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)


class SweepsTheFolder(Sound):
    """A stale lock is "taken over" by emptying the folder, checkpoints and all."""

    case = 41
    says = "began again at step 0"

    def lock(self, output_dir):
        if (output_dir / ".lock").exists():
            for entry in output_dir.iterdir():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        return super().lock(output_dir)
