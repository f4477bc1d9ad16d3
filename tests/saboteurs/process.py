"""Cases 41 to 50."""

import contextlib
import os
import random
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import torch

from tests.saboteurs.sound import Failure, Reject, Rows, Sound


class ForgetsOptimizer(Sound):
    """Restores the weights alone, as many a script does: AdamW's moments begin at zero again."""

    case = 41
    grade = "misleads"
    says = "parts from the undisturbed run at step"

    def restore(self, state, model, optimizer, scaler):
        model.load_state_dict(state["model"])
        torch.set_rng_state(state["rng"])


class OrderOfASet(Sound):
    """The number of a label is its place in a set of strings: another one in each new process."""

    case = 41
    grade = "misleads"
    says = "another training than the undisturbed run's where strings hash otherwise"

    def read_rows(self, path):
        rows = super().read_rows(path)
        labels = list({str(row["y"]) for row in rows})
        return [{**row, "y": labels.index(str(row["y"]))} for row in rows]


class ForgetsGenerator(Sound):
    """Restores weights and optimizer, but not the random generator that dropout draws from."""

    case = 41
    grade = "misleads"
    says = "parts from the undisturbed run at step"

    def restore(self, state, model, optimizer, scaler):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])


class IgnoresResume(Sound):
    """Takes the path to resume from, and never looks at it."""

    case = 41
    grade = "loses"
    says = "began again at step 0"

    def load(self, resume_from):
        return None

    def save(self, output_dir, state):
        shutil.rmtree(output_dir / f"checkpoint-{state['step']}", ignore_errors=True)
        super().save(output_dir, state)


class LosesItsPlaceInTheData(Sound):
    """Starts over at the first row of the data after a resume."""

    case = 41
    grade = "misleads"
    says = "parts from the undisturbed run at step"

    def batches(self, rows, settings, start, stop):
        return super().batches(rows, settings, 0, stop - start)


class RenamesWithoutSync(Sound):
    """One file, written beside and renamed, as many a how-to says; never fsynced, and no copy of the one before."""

    case = 42
    grade = "loses"
    says = "did not carry on|began again"

    def save(self, output_dir, state):
        torch.save(state, output_dir / "ckpt.pt.new")
        os.replace(output_dir / "ckpt.pt.new", output_dir / "ckpt.pt")

    def load(self, resume_from):
        path = resume_from / "ckpt.pt"
        return torch.load(path, weights_only=True) if path.exists() else None

    def checkpoints(self, output_dir):
        return [output_dir / "ckpt.pt"] if (output_dir / "ckpt.pt").exists() else []


class RenamesWithoutSyncEverySix(RenamesWithoutSync):
    """The same with a rhythm of its own: a short run sees one save, and a run of twice the length the next."""

    def save(self, output_dir, state):
        if state["step"] % 6 == 0:
            super().save(output_dir, state)


class WritesInPlace(Sound):
    """Writes over the one checkpoint that it has: killed in the middle, it has none."""

    case = 42
    grade = "loses"
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
    grade = "loses"
    says = "did not carry on"

    def sync(self, path):
        pass

    def whole(self, checkpoint):
        return torch.load(checkpoint / "state.pt", weights_only=True)


class AsksWhetherThePidLives(Sound):
    """A lock that is a PID: a living process of that number is taken for the run, whatever it is."""

    case = 43
    grade = "loses"
    says = "did not carry on: exit 2"

    def lock(self, output_dir):
        path = output_dir / "run.pid"
        if path.exists():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(path.read_text()), 0)
                raise Reject(f"{output_dir} is in use by process {path.read_text()}")
        path.write_text(str(os.getpid()))
        return open(os.devnull)

    def unlock(self, output_dir, file):
        (output_dir / "run.pid").unlink()
        file.close()


class KeepsItsCheckpointsInTmp(Sound):
    """The fast local disk is for checkpoints; what is in the output folder are links."""

    case = 43
    grade = "loses"
    says = "did not carry on|began again at step 0"

    def save(self, output_dir, state):
        fast = Path(tempfile.mkdtemp(prefix="fast-"))
        super().save(fast, state)
        name = f"checkpoint-{state['step']}"
        (output_dir / name).symlink_to(fast / name)

    def checkpoints(self, output_dir):
        return self.saved(output_dir)[::-1]


class SavesInTheHandler(Sound):
    """Saves in the signal's handler, in the middle of a step, as the step that is not done yet."""

    case = 43
    grade = "misleads"
    says = "parts from the undisturbed run|it took"

    def fit(self, settings, rows, output_dir, *rest):
        self.output_dir = output_dir
        super().fit(settings, rows, output_dir, *rest)

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        import signal

        def save_and_exit(*_):
            self.save(self.output_dir, self.state(model, optimizer, scaler, number))
            raise SystemExit(143)

        signal.signal(signal.SIGTERM, save_and_exit)
        super().step(model, optimizer, scaler, batch, settings, number, device)


class SavesInPlaceOnSigterm(Sound):
    """Its last save is in a hurry: straight into the final folder, and the grace ends in the middle."""

    case = 43
    grade = "loses"
    says = "did not carry on"

    def fit(self, settings, rows, output_dir, *rest):
        self.output_dir, self.asked = output_dir, False
        import signal

        def note(*_):
            self.asked = True

        signal.signal(signal.SIGTERM, note)
        super().fit(settings, rows, output_dir, *rest)

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        super().step(model, optimizer, scaler, batch, settings, number, device)
        if self.asked:
            final = self.output_dir / f"checkpoint-{number}"
            final.mkdir()
            for part, value in self.state(model, optimizer, scaler, number).items():
                torch.save(value, final / f"{part}.pt")
            raise SystemExit(143)

    def whole(self, checkpoint):
        if (checkpoint / "state.pt").exists():
            return super().whole(checkpoint)
        return {part: torch.load(checkpoint / f"{part}.pt", weights_only=True)
                for part in ("step", "model", "optimizer", "scaler", "rng")}  # fmt: skip


class ReadErrorWithoutAName(Sound):
    """Passes on what the system says of a failed read: there is no file's name in it."""

    case = 44
    grade = "unclear"
    says = "the data was opened: its message does not name"

    def read_rows(self, path):
        try:
            return super().read_rows(path)
        except OSError as error:
            raise Reject(error) from error


class WriteErrorWithoutAName(Sound):
    """Cleans up, and lets the system's error through."""

    case = 44
    grade = "unclear"
    says = "the save after step 3 began: its message does not name"

    def save(self, output_dir, state):
        try:
            super().save(output_dir, state)
        except Failure as error:
            raise Failure(error.__cause__) from None


class TrainsOnWhatItCouldRead(Sound):
    """Rows behind the bad sector are left out."""

    case = 44
    grade = "misleads"
    says = "the data was opened: exit 0"

    def read_rows(self, path):
        try:
            return super().read_rows(path)
        except OSError as error:
            print(f"warning: {path}: {error}")
            return [{"x": [0.5, 0.5, 0.5, 0.5], "y": 1}, {"x": [-0.5, -0.5, 0.5, 0.5], "y": 0}]


class SaveIsOnlyAWarning(Sound):
    """Training is what counts; the next save may work."""

    case = 44
    grade = "misleads"
    says = "the save after step 3 (began|was fsynced): exit 0"

    def save(self, output_dir, state):
        try:
            super().save(output_dir, state)
        except Failure as error:
            print(f"warning: {error}")


class ReadsAgain:
    """For saboteurs: reads each row from its file when a batch needs it."""

    def read_rows(self, path):
        self.path = path
        return super().read_rows(path)

    def batches(self, rows, settings, start, stop):
        loader = super().batches(rows, settings, start, stop)
        loader.dataset.__class__ = type("Again", (Rows,), {"__getitem__": lambda _, index: self.again(index)})
        return loader

    def again(self, index):
        if not self.path.exists():
            raise Failure(f"{self.path} is gone")
        return Rows(Sound.read_rows(self, self.path), self.max_length)[index]


class WaitsForTheMount(ReadsAgain, Sound):
    """Network mounts come back, sooner or later."""

    case = 45
    grade = "wastes"
    says = "it hung"

    def again(self, index):
        while not self.path.exists():
            time.sleep(0.1)
        return super().again(index)


class ConnectionLost(ReadsAgain, Sound):
    """Ends, and does not say which of five mounts it was."""

    case = 45
    grade = "unclear"
    says = "does not name"

    def again(self, index):
        try:
            return super().again(index)
        except Failure:
            raise Failure("connection lost") from None


class PadsWhatItCannotRead(ReadsAgain, Sound):
    """A row that cannot be read is a row of zeros: the batch keeps its shape, and training goes on."""

    case = 45
    grade = "misleads"
    says = "trained on other rows"

    def again(self, index):
        try:
            return super().again(index)
        except Failure:
            return torch.zeros(self.max_length), torch.tensor(0)


class FindsOutAtTheFirstSave(Sound):
    """Keeps its lock elsewhere, and writes to the output folder for the first time when it saves."""

    case = 46
    grade = "wastes"
    says = "it trained first"

    def lock(self, output_dir):
        return open(os.devnull)

    def unlock(self, output_dir, file):
        file.close()


class SavesWhereItMay(Sound):
    """Saves into a temporary folder where it may not write: the results are gone with the machine."""

    case = 46
    grade = "misleads"
    says = "a failure that nobody notices"

    def main(self, values, data, output_dir, *rest):
        if not os.access(output_dir, os.W_OK):
            output_dir = Path(tempfile.mkdtemp())
        return super().main(values, data, output_dir, *rest)


class CannotWrite(Sound):
    """Says that it cannot write, and not where."""

    case = 46
    grade = "unclear"
    says = "does not name '.*not-writable'"

    def lock(self, output_dir):
        try:
            return super().lock(output_dir)
        except Reject as error:
            raise Reject("permission denied") from error


class SampleForTheUnreadable(Sound):
    """Trains on a built-in sample where the data cannot be read."""

    case = 46
    grade = "misleads"
    says = "given data that it may not read: exit 0"

    def read_rows(self, path):
        if os.access(path, os.R_OK):
            return super().read_rows(path)
        numbers = random.Random(0)
        return [{"x": [numbers.random() for _ in range(4)], "y": n % 2} for n in range(64)]


class NewestByTime(Sound):
    """`max(glob("checkpoint-*"), key=os.path.getmtime)`, from many a how-to."""

    case = 47
    grade = "loses"
    says = "it took 6 steps to the end, with times in order 2"

    def saved(self, output_dir):
        return sorted(super().saved(output_dir), key=os.path.getmtime, reverse=True)


class KeepsTheNewestByTime(Sound):
    """Removes all but the two checkpoints that were written last, by their times."""

    case = 47
    grade = "loses"
    says = "its last checkpoint, checkpoint-8, is gone"

    def save(self, output_dir, state):
        super().save(output_dir, state)
        for old in sorted(self.saved(output_dir), key=os.path.getmtime, reverse=True)[2:]:
            shutil.rmtree(old)


class WatchesTheWallClock(Sound):
    """A watchdog on the clock on the wall: when that is set, a step took a day."""

    case = 47
    grade = "wastes"
    says = "set the clock on by a day.*did not survive: exit 1"

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        begun = time.time()
        super().step(model, optimizer, scaler, batch, settings, number, device)
        if time.time() - begun > settings.hang_timeout:
            raise Failure(f"step {number} took longer than {settings.hang_timeout} seconds")


class TellsTheWallClock(Sound):
    """Durations are differences of times of day."""

    case = 47
    grade = "unclear"
    says = "its output tells a negative time"

    def fit(self, *args):
        begun = time.time()
        super().fit(*args)
        print(f"training took {time.time() - begun:.1f} s")


class HasNoLock(Sound):
    """Two instances write to one folder."""

    case = 48
    grade = "loses"
    says = "two runs write over each other"

    def lock(self, output_dir):
        return open(os.devnull)


class LockNamesNobody(Sound):
    """Rejects the second start, but does not say whom to look for."""

    case = 48
    grade = "unclear"
    says = "does not name"

    def lock(self, output_dir):
        try:
            return super().lock(output_dir)
        except Exception as error:
            raise type(error)(f"{output_dir} is locked") from None


class LockFileOnly(Sound):
    """A lock that is the existence of a file: after a kill nobody can start until it is removed by hand."""

    case = 48
    grade = "wastes"
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
    grade = "wastes"
    says = "process(es were| was) left: PID .*, forked from the run itself"

    def batches(self, rows, settings, start, stop):
        if settings.num_workers and not os.fork():
            while True:
                time.sleep(1)
        return super().batches(rows, settings, start, stop)


class EndsItsWorkersOnSuccessOnly(Sound):
    """Cleans up at the end of the loop: an exception or a kill passes that line by."""

    case = 49
    grade = "wastes"
    says = "(?s)it (failed|was killed).*process(es were| was) left"

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
    grade = "loses"
    says = "began again at step 0"

    def lock(self, output_dir):
        if (output_dir / ".lock").exists():
            for entry in output_dir.iterdir():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        return super().lock(output_dir)


class WaitsForTheLock(Sound):
    """`flock(file, LOCK_SH)`: waits, without a word, for as long as it takes."""

    case = 50
    grade = "wastes"
    says = "hold locks on the data: it hung"

    def shared(self, file, path):
        import fcntl

        fcntl.flock(file, fcntl.LOCK_SH)
        return file


class TemporarilyUnavailable(Sound):
    """The system's words for a lock that is held name no file."""

    case = 50
    grade = "unclear"
    says = "hold locks on the data: its message does not name"

    def shared(self, file, path):
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            raise Reject(error) from error
        return file


class LeavesTheLockedFileOut(Sound):
    """What somebody else is writing is left out this time."""

    case = 50
    grade = "misleads"
    says = "hold locks on the data: exit 0, but it trained on other rows"

    def read_rows(self, path):
        try:
            return super().read_rows(path)
        except Reject as error:
            print(f"warning: {error}")
            return [{"x": [0.5, 0.5, 0.5, 0.5], "y": 1}, {"x": [-0.5, -0.5, 0.5, 0.5], "y": 0}] * 8


class BlocksOnTheFoldersLock(Sound):
    """The lock on the output folder is waited for too, however old it is."""

    case = 50
    grade = "wastes"
    says = "held locks on its files.*it hung"

    def lock(self, output_dir):
        import fcntl

        file = open(output_dir / ".lock", "a+")  # noqa: SIM115 (held for the life of the run)
        fcntl.flock(file, fcntl.LOCK_EX)
        return file


# --- beside the 80: what is reached for, and written, elsewhere


class AsksAServer(Sound):
    """Tells a tracker's server of its start, and goes on where that does not answer."""

    case = "no-network"
    grade = "unclear"
    says = r"it wanted tracker\.example:443 \(tests/saboteurs/process\.py:\d+\)"

    def main(self, *arguments):
        import socket

        try:
            socket.create_connection(("tracker.example", 443), timeout=5).close()
        except OSError:
            print("warning: the tracker does not answer")
        return super().main(*arguments)


class AsksThisMachine(Sound):
    """Its tracker listens on this machine, outside of the run."""

    case = "no-network"
    grade = "unclear"
    says = r"it wanted 127\.0\.0\.1:5000"

    def main(self, *arguments):
        import socket

        with socket.socket() as tracker:
            tracker.connect_ex(("127.0.0.1", 5000))
        return super().main(*arguments)


class CopiesToABucket(Sound):
    """Has a command copy what was saved to a bucket."""

    case = "no-network"
    grade = "unclear"
    says = r"`aws s3 cp .*` \(tests/saboteurs/process\.py:\d+\)"

    def main(self, settings, data, output_dir, *rest):
        code = super().main(settings, data, output_dir, *rest)
        subprocess.run(f"aws s3 cp {output_dir} s3://bucket --recursive || true", shell=True, check=False)
        return code


class SavesBestInTheProject(Sound):
    """The best checkpoint's path was written into the program."""

    case = "writes-elsewhere"
    grade = "loses"
    says = (
        r"it wrote best-of-all\.pt \(tests/saboteurs/process\.py:\d+\), not in its output folder: two runs side by side"
    )

    def main(self, *arguments):
        code = super().main(*arguments)
        torch.save({"best": 1}, "best-of-all.pt")
        return code


class ResultsInTheHomeFolder(Sound):
    """Appends its result to a file in the home folder."""

    case = "writes-elsewhere"
    grade = "loses"
    says = r"results-of-runs\.txt \(tests/saboteurs/process\.py:\d+\), not in its output folder"

    def main(self, *arguments):
        code = super().main(*arguments)
        with Path("~/results-of-runs.txt").expanduser().open("a") as file:
            file.write("0.9\n")
        return code


class LeavesSettingsInTmp(Sound):
    """Leaves its settings in the machine's temporary folder, before it begins."""

    case = "writes-elsewhere"
    grade = "unclear"
    says = "it wrote /tmp/last-settings-of-train.json .*, outside its output folder"

    def main(self, *arguments):
        Path("/tmp/last-settings-of-train.json").write_text("{}")
        return super().main(*arguments)


class TakesAPort(Sound):
    """Shows its progress on a port that is written into the program."""

    case = 48
    grade = "unclear"
    says = r"it holds port 28765 \(tests/saboteurs/process\.py:\d+\)"

    def main(self, *arguments):
        import socket

        with socket.create_server(("127.0.0.1", 28765)):
            return super().main(*arguments)


class LocksTheMachine(Sound):
    """One run at a time on this machine, by a lock in the temporary folder that all share."""

    case = 48
    grade = "unclear"
    says = r"a lock on /tmp/train-of-this-machine\.lock"

    def main(self, *arguments):
        import fcntl

        with open("/tmp/train-of-this-machine.lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            return super().main(*arguments)
