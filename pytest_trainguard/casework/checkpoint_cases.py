"""What the cases of checkpoints share: their files, the entries in them, and what a second start must do."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from pytest_trainguard.contract import checkpoints, settings
from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.contract.settings import Field
from pytest_trainguard.damage.entries import find as find_entries
from pytest_trainguard.launch.protocol import RUN_STEPS
from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.verdicts.errors import NotApplicable
from pytest_trainguard.verdicts.kinds import recovers, stops, survives
from pytest_trainguard.verdicts.wording import Wording, word

STATE_FILE = re.compile(r"state|train|optim|sched|rng|random|scal|progress|manifest|meta", re.I)
WEIGHTS_FILE = re.compile(r"^(pytorch_)?(model|adapter)|weights|token|vocab", re.I)
LARGE = 4096  # bytes; a smaller file is cut at one place only
CUTS = 12  # places at which a checkpoint is cut, at most: each is a run
AFRESH = Wording(
    "a fresh start ('no checkpoint', 'from scratch', 'step 0')",
    re.compile(
        r"\bno (\w+ )*checkpoints?\b|nothing to resume|(checkpoints?|resume) (\w+ ){0,3}not found|from scratch|afresh|"
        r"from the (start|beginning)|\bfresh (start|run)|(start|begin)\w* (over|anew|fresh|new)|\bstep\W{0,3}0\b",
        re.I,
    ),
)


def is_told(guard: Guard, output_dir: Path) -> bool:
    """Whether the program is handed a checkpoint's path, and not the folder to choose from."""
    return guard.checkpoints.resume_point(output_dir) != output_dir


def rejects_or_recovers(outcome: Outcome, reference: Outcome, named: tuple[str, ...], before: list[Path]) -> None:
    """It stops before the first step, naming what is damaged, or carries on from the checkpoint before.

    Where there is none before, it may start afresh, and say so.
    """
    if outcome.exit > 0 and not outcome.recording.steps:
        stops(outcome, named)
        return
    recovers(outcome, reference, from_scratch=not before)
    if len(outcome.losses) == len(reference.losses):
        survives(outcome, AFRESH)


def with_newest(guard: Guard) -> tuple[Outcome, Outcome, Path]:
    """The undisturbed run, one that was killed in its last step, and the newest checkpoint that it left."""
    reference = guard.needs.checkpoints()
    killed = guard.checkpoints.killed_late()
    saved = guard.checkpoints.find(killed.output_dir)
    if not saved:
        raise NotApplicable(f"no checkpoint in the output folder after {RUN_STEPS - 1} steps")
    return reference, killed, saved[-1]


def adapter(guard: Guard, outcome: Outcome) -> Path | None:
    """The folder of the newest adapter that a run left, as peft saves it."""
    for folder in (*reversed(guard.checkpoints.find(outcome.output_dir)), outcome.output_dir):
        found = sorted(folder.rglob("adapter_config.json")) if folder.is_dir() else []
        if found:
            return found[0].parent
    return None


def both_bases(ours: Path, theirs: Path) -> Wording:
    """Both bases by their names; where they share one, that and what differs; or two shapes."""
    bases = []
    for folder in (ours, theirs):
        told = json.loads((folder / "adapter_config.json").read_bytes())
        bases.append(re.escape(str(told.get("base_model_name_or_path") or "base")))
    names = "".join(f"(?=.*{base})" for base in bases)
    differs = "" if bases[0] != bases[1] else r"(?=.*(shape|size|fingerprint|hash|another|other))"
    shapes = r"\d+, \d+\D.*\d+, \d+\D"
    return Wording("both bases, or both shapes", re.compile(rf"^{names}{differs}|{shapes}", re.I | re.M))


def entries(guard: Guard, checkpoint: Path, known: Sequence[str]) -> dict[Path, tuple[str, int]]:
    """The files of a checkpoint that have a whole number under a known name, and that name and number."""
    files = [str(file) for file in checkpoints.files(checkpoint)]
    found = guard.subject.server.call(find_entries, files, list(known))
    return {Path(file): next(iter(values.items())) for file, values in found.items()}


def small_files(checkpoint: Path) -> list[Path]:
    """The files of a checkpoint beside its weights, which are the largest."""
    files = checkpoints.files(checkpoint)
    largest = max(files, key=lambda file: file.stat().st_size)
    return [file for file in files if file != largest and not WEIGHTS_FILE.search(file.name)]


def largest_file(checkpoint: Path) -> int:
    """The size of a checkpoint's largest file, in bytes."""
    return max(file.stat().st_size for file in checkpoints.files(checkpoint))


def two_sizes(guard: Guard, field: Field) -> tuple[int, int] | None:
    """A setting's size in small, and twice or half of it, within its range."""
    own = settings.value_at(guard.subject.settings.base, field.path) or field.default
    if type(own) is not int:
        return None
    high = field.bounds.get("le", field.bounds.get("lt", 2 * own + 1))
    return own, 2 * own if 2 * own <= high else own // 2


def mismatch(name: str, own: int, other: int) -> Wording:
    """The setting with both values, or the tensor that is missing or of another shape."""
    with_both = rf"^(?=.*{word(name).pattern.pattern})(?=.*\b{own}\b)(?=.*\b{other}\b)"
    return Wording(
        f"the first mismatch: {name!r} with {own} and {other}, or the tensor that is missing or of another shape",
        re.compile(rf"{with_both}|size mismatch|shape|(missing|unexpected) key", re.I | re.M),
    )


def cuts(checkpoint: Path) -> list[tuple[Path, int]]:
    """The files of a checkpoint, largest first, and the sizes they are cut to."""
    sizes = {file: file.stat().st_size for file in checkpoints.files(checkpoint)}
    files = sorted((file for file in sizes if sizes[file] > 1), key=lambda file: -sizes[file])
    cuts: list[tuple[Path, int]] = []
    for place, file in enumerate(files):
        size, others = sizes[file], len(files) - place - 1
        thrice = size >= LARGE and len(cuts) + 3 + others <= CUTS
        cuts += [(file, to) for to in ((0, size // 2, size - 1) if thrice else (size // 2,))]
    return cuts[:CUTS]
