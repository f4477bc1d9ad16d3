"""How a run ended and what it left: `Outcome`, and the words for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from pytest_trainguard.isolation.policy import Elsewhere
from pytest_trainguard.recorder.timeline import Recording

# Files that frameworks and loggers write as they start, whatever comes of the run: logging, Hydra, TensorBoard,
# Lightning, Weights & Biases, MLflow, Aim.
LOGS = (
    "*.log",
    "*.log.*",
    ".hydra/*",
    "events.out.tfevents.*",
    "hparams.yaml",
    "lightning_logs/version_*/*.yaml",
    "lightning_logs/version_*/metrics.csv",
    "wandb/*",
    "mlruns/*",
    ".aim/*",
    "multirun.yaml",
)


@dataclass(frozen=True)
class Leftover:
    """A process that a run left behind: alive, or defunct."""

    pid: int
    command: str
    status: str


@dataclass(frozen=True)
class Outcome:
    """How a run ended, and what it left.

    Attributes:
        did: what was done, in words.
        exit: the exit code; negative, the signal that ended the process.
        output: what the run printed, standard output and error together; a long one without its middle.
        output_bytes: how much that was.
        recording: what torch did, step by step.
        output_dir: the folder that the run wrote to.
        before, after: the files of that folder then and now: path to size and content hash.
        seconds: wall time from start to end.
        peak_rss: the largest resident memory of the run's main process, in bytes.
        leftovers: processes that were still there after the run's end.
        timed_out: the harness's own time limit ended the run.
        stack: where every thread stood then.
        pid: the run's main process.
        logs: patterns of files that the trainer's framework writes by itself, beside those in `LOGS`.
        elsewhere: what it wrote outside of its own folders, as far as the harness held it; that is undone.
        idle: seconds from its last optimizer step to its end; 0 where it took none.
    """

    did: str
    exit: int
    output: str
    output_bytes: int
    recording: Recording
    output_dir: Path
    before: dict[str, tuple[int, str]]
    after: dict[str, tuple[int, str]]
    seconds: float
    peak_rss: int
    leftovers: tuple[Leftover, ...]
    timed_out: bool
    stack: str
    pid: int
    small_disk: bool = False
    logs: tuple[str, ...] = ()
    elsewhere: tuple[Elsewhere, ...] = ()
    idle: float = 0.0

    @property
    def stepping(self) -> bool:
        """Whether it was still taking optimizer steps at its end: it did not stand still for much longer than before.

        A step may take three times as long as the longest before it (not counting the first, which begins with the
        start), or a tenth of the run.
        """
        steps = self.recording.steps
        longest = max((step.seconds for step in steps[1:]), default=0.0)
        return bool(steps) and self.idle <= max(3 * longest, self.seconds / 10)

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the run's main process, and of the one that trained where that is another, as below a launcher."""
        return tuple(dict.fromkeys(pid for pid in (self.recording.pid, self.pid) if pid is not None))

    @property
    def losses(self) -> list[float]:
        """The loss of each optimizer step, in order."""
        return [step.loss for step in self.recording.steps]

    @property
    def message(self) -> str:
        """What the run printed, without the source lines of its tracebacks: what a person reads as the message."""
        return message_of(self.output)

    @property
    def complaint(self) -> str:
        """What the run said of its failure: the message; but of one with a traceback not what was printed before it.

        A program that prints its settings and its paths at every start has not named the one that made it crash.
        """
        before, found, rest = without_launcher(self.output).partition(_TRACEBACK)
        if not found:
            return self.message
        told = [line for line in message_of(before).splitlines() if _OF_AN_ERROR.search(line)]
        return "\n".join([*told, message_of(found + rest)])

    @property
    def how(self) -> str:
        """How it ended, in words: `exit 2 after 0 steps`, `killed by SIGSEGV after 3 steps`."""
        steps = len(self.recording.steps)
        after = f"after {steps} optimizer step{'' if steps == 1 else 's'}"
        if self.timed_out:
            return f"hung, and was ended by the harness {after} ({self.seconds:.0f} s)"
        return f"{exit_words(self.exit)} {after}"

    @property
    def last_words(self) -> str:
        """The last lines of the message, short enough for a terminal."""
        lines = [line.rstrip() for line in self.message.splitlines() if line.strip()]
        return "\n".join(line[:300] for line in lines[-4:])

    @property
    def failure(self) -> str:
        """What ended it, in its own words and one line: the exception's, else the last line that it printed.

        Of several tracebacks the last, but for those of a launcher, which only say that a process below it failed.
        """
        told = [lines for lines in map(_exception_lines, self.output.split(_TRACEBACK)[1:]) if lines]
        own = [lines for lines in told if not _LAUNCHERS_ERROR.search(lines[0])]
        lines = (own or told)[-1] if told else [line for line in self.last_words.splitlines()[-1:] if line]
        return " ".join(line.strip()[:300] for line in lines)

    def changed(self) -> list[str]:
        """The files of the output folder that this run added, changed or removed."""
        return sorted(name for name in {*self.before, *self.after} if self.before.get(name) != self.after.get(name))

    def left(self) -> list[str]:
        """The files that it added, changed or removed, without logs: what may pass for a checkpoint, or be half one."""
        changed = [name for name in self.changed() if not name.endswith("/")]
        return [name for name in changed if not self.is_log(name) and not self.is_lock(name)]

    def is_lock(self, name: str) -> bool:
        """Whether a file is what a run marks its folder with as its own: called a lock, and with hardly anything in it.

        One that is locked by the system need not be removed; to remove it is a race of its own.
        """
        size, _ = self.after.get(name) or self.before.get(name) or (0, "")
        return bool(_LOCK.search(name)) and size <= MOST_OF_A_LOCK

    def is_log(self, name: str) -> bool:
        """Whether a file, by its path from the folder that it is in, is one that frameworks and loggers write."""
        return any(fnmatch(f"/{name}", f"*/{pattern}") for pattern in [*LOGS, *self.logs])


def exit_words(code: int) -> str:
    """An exit code in words: `exit 1`, or the name of the signal."""
    if code >= 0:
        return f"exit {code}"
    import signal

    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


_LOCK = re.compile(r"(?:^|[/._-])(?:lock|lck)$|\.pid$", re.I)
MOST_OF_A_LOCK = 256  # bytes: a process's number, its host, when it began
_TRACEBACK = "Traceback (most recent call last):"
_LAUNCHERS_ERROR = re.compile(r"^[\w.]*(?:ChildFailedError|CalledProcessError|ProcessRaisedException)\b")
MOST_OF_AN_EXCEPTION = 4  # lines of its own text
_OF_AN_ERROR = re.compile(
    r"error|fatal|critical|fail|cannot|could not|can't|invalid|reject|refuse|incomplete|corrupt|damaged|broken|missing|"
    r"not found|no such|unreadable|mismatch",
    re.I,
)


def _exception_lines(after: str) -> list[str]:
    """The lines of the exception that ends a traceback, from what stands behind the traceback's head."""
    lines: list[str] = []
    for line in _without_progress(after).splitlines():
        if not lines and (not line.strip() or line.startswith(" ")):
            continue
        if not line.strip() or len(lines) == MOST_OF_AN_EXCEPTION:
            break
        lines.append(line)
    return lines


# What `accelerate launch` and `torchrun` say of a program that failed, after what it said itself.
_OF_A_LAUNCHER = re.compile(
    r'^  File "[^"]*(?:accelerate/commands/launch|torch/distributed/run)\.py", line.*'
    r"^(?:\w+\.)*(?:CalledProcessError|ChildFailedError)\b",
    re.M | re.S,
)
_RANK = re.compile(r"^\[rank\d+\]: ", re.M)  # put before each line of a traceback, where there are ranks
# Lines that tell of a failure without saying which; Hydra's repeats the whole command line.
_FAILED_BELOW = re.compile(
    r"^(?:[EW]\d{4} .*torch/distributed/elastic/|Error executing job with overrides: \[).*\n?", re.M
)


def without_launcher(output: str) -> str:
    """What was printed, without that in which a launcher, or Hydra, says that what it started has failed.

    That repeats the whole command, its paths and numbers included, and names nothing that was wrong.
    """
    output = _FAILED_BELOW.sub("", _RANK.sub("", output))
    before, found, last = output.rpartition(_TRACEBACK)
    return before if found and _OF_A_LAUNCHER.search(last) else output


def message_of(output: str) -> str:
    """What a person reads as the message: tracebacks without their frames, progress bars without their past."""
    lines, in_traceback = [], False
    for line in _without_progress(without_launcher(output)).splitlines():
        if line.startswith(_TRACEBACK):
            in_traceback = True
        elif in_traceback and line.startswith(" "):
            continue
        else:
            in_traceback = False
            lines.append(line)
    return "\n".join(lines)


def _without_progress(output: str) -> str:
    """Each line from where a progress bar began it last; in time that does not grow faster than the line."""
    *lines, last = output.split("\n")
    return "\n".join([*(line.removesuffix("\r").rpartition("\r")[2] for line in lines), last.rpartition("\r")[2]])
