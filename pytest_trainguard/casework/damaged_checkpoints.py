"""What the cases of damaged checkpoints share: their files, the entries in them, and what a second start must do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pytest_trainguard.contract import checkpoints
from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.damage import checkpoints as damaged
from pytest_trainguard.launch.protocol import RUN_STEPS
from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.verdicts import causes
from pytest_trainguard.verdicts.errors import NotApplicable
from pytest_trainguard.verdicts.kinds import recovers, stops, survives
from pytest_trainguard.verdicts.wording import Wording

__all__ = [
    "FRESH_START",
    "choose_cuts",
    "chooses_its_checkpoint",
    "find_entries",
    "goes_to_its_path",
    "killed_with_newest",
    "largest_size",
    "not_to_be_changed",
    "rejects_or_recovers",
    "state_files",
]  # fmt: skip

STATE_FILE = re.compile(r"state|train|optim|sched|rng|random|scal|progress|manifest|meta", re.I)
WEIGHTS_FILE = re.compile(r"^(pytorch_)?(model|adapter)|weights|token|vocab", re.I)
LARGE = 4096  # bytes; a smaller file is cut at one place only
CUTS = 12  # places at which a checkpoint is cut, at most: each is a run
FRESH_START = Wording(
    "a fresh start ('no checkpoint', 'from scratch', 'step 0')",
    re.compile(
        r"\bno (\w+ )*checkpoints?\b|nothing to resume|(checkpoints?|resume) (\w+ ){0,3}not found|from scratch|afresh|"
        r"from the (start|beginning)|\bfresh (start|run)|(start|begin)\w* (over|anew|fresh|new)|\bstep\W{0,3}0\b",
        re.I,
    ),
)


def chooses_its_checkpoint(guard: Guard, output_dir: Path) -> bool:
    """Whether the program is given the folder to choose from, and not handed a checkpoint's path."""
    return guard.checkpoints.resume_point(output_dir) == output_dir


def goes_to_its_path(guard: Guard) -> bool:
    """Whether the program carries on from the path that it is given, and not from what is in its output folder alone.

    To one that looks there by itself no path says anything, be it there or not.
    """
    reference = guard.checkpoints.require_resume()
    elsewhere = guard.copy(guard.checkpoints.killed_late().output_dir)
    path = guard.checkpoints.resume_point(elsewhere)
    tried = guard.run(f"asked to resume from {path}, beside a fresh output folder", resume_from=path)
    return tried.exit != 0 or len(tried.recording.steps) < len(reference.recording.steps)


def killed_with_newest(guard: Guard) -> tuple[Outcome, Outcome, Path]:
    """The undisturbed run, one that was killed in its last step, and the newest checkpoint that it left.

    Raises:
        NotApplicable: it left none.
    """
    reference = guard.checkpoints.require_resume()
    killed = guard.checkpoints.killed_late()
    saved = guard.checkpoints.find(killed.output_dir)
    if not saved:
        said = f"no checkpoint in the output folder after {RUN_STEPS - 1} steps"
        raise NotApplicable(said, guard.needs.SAVE_EARLIER)
    return reference, killed, saved[-1]


def rejects_or_recovers(outcome: Outcome, reference: Outcome, named: tuple[str, ...], before: Sequence[Path]) -> None:
    """It stops before the first step, naming what is damaged, or carries on from the checkpoint before.

    Where there is none before, it may start afresh, and say so.

    Args:
        outcome: the second start.
        reference: the undisturbed run.
        named: names of what is damaged, of which a message has to name one.
        before: the checkpoints that are older than the damaged one.

    Raises:
        Finding: it did otherwise.
    """
    if outcome.exit > 0 and not outcome.recording.steps:
        stops(outcome, named)
        return
    recovers(outcome, reference, from_scratch=not before, damaged=causes.UNCHECKED_STATE)
    if len(outcome.losses) == len(reference.losses):
        survives(outcome, FRESH_START)


def find_entries(guard: Guard, checkpoint: Path, names: Sequence[str]) -> dict[Path, tuple[str, int]]:
    """The files of a checkpoint that have a whole number under one of some names, and that name and number."""
    files = [str(file) for file in checkpoints.files(checkpoint)]
    found = guard.subject.server.call(damaged.find_entries, files, list(names))
    return {Path(file): next(iter(values.items())) for file, values in found.items()}


def not_to_be_changed(guard: Guard, saved: Sequence[Path], lacks: str) -> NotApplicable:
    """That a case can change nothing in some checkpoints: what they lack, or that they hold what is never unpickled."""
    files = [str(file) for checkpoint in saved for file in checkpoints.files(checkpoint)]
    own = guard.subject.server.call(damaged.own_classes, files)
    if not own:
        return NotApplicable(lacks)
    file, classes = next(iter(own.items()))
    return NotApplicable(
        f"{Path(file).name} holds objects of classes ({', '.join(classes[:3])}), for which it would have to be "
        "unpickled, and is not: save them as tables, vars(args)",
        f"save objects in checkpoints as tables, vars(args), not {classes[0]}",
    )


def state_files(checkpoint: Path, known: Sequence[Path] = ()) -> list[Path]:
    """The files of a checkpoint that hold a trainer's state: by their names, or among those that are `known` to.

    Its weights, which are the largest, are none.
    """
    files = checkpoints.files(checkpoint)
    largest = max(files, key=lambda file: file.stat().st_size)
    others = [file for file in files if file != largest and not WEIGHTS_FILE.search(file.name)]
    return [file for file in others if file in known or STATE_FILE.search(file.name)]


def largest_size(checkpoint: Path) -> int:
    """The size of a checkpoint's largest file, in bytes."""
    return max(file.stat().st_size for file in checkpoints.files(checkpoint))


def choose_cuts(checkpoint: Path) -> list[tuple[Path, int]]:
    """The files of a checkpoint, largest first, and the sizes they are cut to, in bytes: `CUTS` at most."""
    sizes = {file: file.stat().st_size for file in checkpoints.files(checkpoint)}
    files = sorted((file for file in sizes if sizes[file] > 1), key=lambda file: -sizes[file])
    cuts: list[tuple[Path, int]] = []
    for place, file in enumerate(files):
        size, others = sizes[file], len(files) - place - 1
        thrice = size >= LARGE and len(cuts) + 3 + others <= CUTS
        cuts += [(file, to) for to in ((0, size // 2, size - 1) if thrice else (size // 2,))]
    return cuts[:CUTS]
