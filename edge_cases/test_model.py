"""Cases 11 to 20: the base model and the checkpoints."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from pytest_trainguard import (
    RUN_STEPS,
    Finding,
    Guard,
    NotApplicable,
    RunRequest,
    checkpoints,
    edge_case,
    faults,
    noting,
    recovers,
    rejects,
    stops,
    suffixes,
    survives,
    wording,
)
from pytest_trainguard.casework import damaged_checkpoints, mismatched_models
from pytest_trainguard.damage import checkpoints as damaged
from pytest_trainguard.damage import weights
from pytest_trainguard.damage.manifests import replace_file

MOST_FILES = 4  # files of a trainer's state that are removed, or corrupted, each in a run
MIGRATED = re.compile(r"migrat|convert|upgrad|older (format|version)|earlier (format|version)", re.I)
DAMAGES: dict[str, Callable[[Guard, Path], bool]] = {
    "cut in half": lambda guard, file: _cut(file, file.stat().st_size // 2),
    "cut the last byte off": lambda guard, file: _cut(file, file.stat().st_size - 1),
    "flipped a bit in each of some weights in": lambda guard, file: _flip_bits(guard, file),
}


@edge_case(
    "base-model-path-does-not-exist",
    number=11,
    title="base model path does not exist",
    verdict="rejects",
    severity="misleads",
    brought_about="a path that isn't there, absolute and relative, offline",
    expects="rejects, naming the path, without a network wait",
    fast=True,
)
def test_base_model_path_does_not_exist(guard: Guard) -> None:
    """`from_pretrained` takes a path that is not there for a name on a hub, and asks the network for it."""
    field = guard.needs.base_model_setting()
    launched = guard.subject.settings.production(field)
    path = launched if isinstance(launched, str) and launched.startswith(("/", "./", "../", "~")) else None
    if path and not (guard.subject.root / Path(path).expanduser()).exists():
        raise Finding(
            "read the production settings", f"{field.path} = {launched}: there is no such path", grade="wastes"
        )
    absolute = str(guard.folder / "models" / "none")
    outcomes = guard.run_all(
        [
            RunRequest(
                f"set {field.path} to {path}, which does not exist", settings={field.path: path}, fault=faults.offline()
            )
            for path in (absolute, "./models/none")
        ]
    )
    for outcome, path in zip(outcomes, (absolute, "models/none"), strict=True):
        with noting():
            asked = sorted({event["address"] for event in outcome.recording.of("network")})
            if asked:
                told = f"it asked the network for it: {', '.join(asked[:3])}"
                raise Finding(outcome.did, told, outcome.last_words, grade="wastes")
            rejects(outcome, path, before="model")


@edge_case(
    "corrupted-model-files",
    number=12,
    title="corrupted model files",
    verdict="rejects",
    severity="misleads",
    brought_about="the base model's weights cut in half, cut by a byte, and with bits flipped",
    expects="rejects, naming the file",
)
def test_corrupted_model_files(guard: Guard) -> None:
    """A download that broke off; a bit that fell over on a disk. One weight of 1e36 makes every loss NaN.

    The bits are those of the exponent in a few weights: in a number's last places none would see them, nor need to.
    """
    field = guard.needs.base_model_setting()
    model = guard.needs.base_model(field)
    sound = guard.run(f"set {field.path} to {model.name}, a small base model", settings={field.path: str(model)})
    if sound.exit != 0:
        last = (sound.last_words.splitlines() or [sound.how])[-1]
        raise NotApplicable(
            f"it does not start from {model}: make_model() is to make one that it takes ({last})",
            guard.needs.BASE_MODEL,
        )
    weights = [file for file in checkpoints.files(model) if suffixes.weights(file)][:MOST_FILES]
    if not weights:
        raise NotApplicable(f"no file of weights in {model}; known are {', '.join(suffixes.WEIGHTS)}")
    requests: list[RunRequest] = []
    files: list[str] = []
    for file in weights:
        for what, damage in DAMAGES.items():
            place = guard.folder / f"damaged-{len(requests) + 1}" / model.name
            place.parent.mkdir()
            shutil.copytree(model, place) if model.is_dir() else shutil.copy(model, place)
            damaged = place / file.relative_to(model) if model.is_dir() else place
            if damage(guard, damaged):
                did = f"{what} {file.name}, of the base model"
                requests.append(RunRequest(did, settings={field.path: str(place)}, time_limit=guard.patience))
                files.append(file.name)
    for name, outcome in zip(files, guard.run_all(requests), strict=True):
        with noting():
            rejects(outcome, name)


@edge_case(
    "adapter-of-another-base",
    number=13,
    title="adapter of another base",
    verdict="rejects",
    severity="misleads",
    brought_about="an adapter that was trained on a base of another size",
    expects="rejects, naming the adapter and both bases, or both shapes",
)
def test_adapter_of_another_base(guard: Guard) -> None:
    """With `strict=False` an adapter whose names or shapes do not fit is left out: what answers is the base alone.

    Adapters are known by peft's `adapter_config.json`, which tells their base.
    """
    field = guard.needs.setting("adapter")
    size = guard.needs.setting("hidden_size")
    sizes = mismatched_models.choose_two_sizes(guard, size)
    if sizes is None:
        raise NotApplicable(f"{size.path} is not set: give it a number in the tiny settings")
    other = guard.run(f"trained with {size.path} = {sizes[1]}", settings={size.path: sizes[1]})
    ours, theirs = (mismatched_models.find_adapter(guard, outcome) for outcome in (guard.reference.outcome, other))
    if ours is None or theirs is None:
        raise NotApplicable("no adapter_config.json in its output folder: save the adapter as peft does")
    own, outcome = guard.run_all(
        [
            RunRequest("went on from its own adapter", settings={field.path: str(ours)}),
            RunRequest(
                f"set {field.path} to an adapter of another base ({size.path} = {sizes[1]}, here {sizes[0]})",
                settings={field.path: str(theirs)},
            ),
        ]
    )
    if own.exit != 0:
        last = (own.last_words.splitlines() or [own.how])[-1]
        raise NotApplicable(f"{field.path} does not take the adapter that it saved in {ours.name}: {last}")
    rejects(outcome, str(theirs), mismatched_models.two_bases(ours, theirs))


@edge_case(
    "no-checkpoint-yet",
    number=14,
    title="no checkpoint yet",
    verdict="survives/rejects",
    severity="misleads",
    brought_about="resume asked in a fresh folder; resume from a path that is missing",
    expects="survives: starts at step 0 and says so; a missing path is rejected, naming it",
    fast=True,
)
def test_no_checkpoint_yet(guard: Guard) -> None:
    """A job that is always started with `--resume` has a first start too; a mistyped path must not look like one."""
    reference = guard.checkpoints.require_resume()
    if not guard.subject.description.resumes:
        to_add = 'give its command {resume_from}, or say its words for it, resume = "--resume"'
        raise NotApplicable(f"its command cannot be told to resume: {to_add}", to_add)
    told = guard.checkpoints.resume_point(reference.output_dir)  # a file's path, a folder's, or the output folder
    name = told.name if told and told != reference.output_dir else "checkpoint-4"
    fresh, missing = guard.folder / "fresh", guard.folder / "none" / name
    fresh.mkdir()
    asked = None if told and told.is_file() else fresh
    requests = [
        RunRequest(
            "asked to resume in a fresh, empty output folder", output_dir=fresh, resume_from=asked, resume=not asked
        ),
        RunRequest(f"asked to resume from {missing}, which does not exist", resume_from=missing),
    ]
    first, *second = guard.run_all(requests if guard.checkpoints.by_path else requests[:1])
    if (
        first.exit != 0 and guard.checkpoints.resume_point(fresh) is None
    ):  # it is handed checkpoints, and a bare folder is none
        rejects(first, (str(fresh), fresh.name))
    else:
        survives(first, damaged_checkpoints.FRESH_START)
        recovers(first, reference, from_scratch=True)
    for outcome in second:
        if outcome.exit != 0 or damaged_checkpoints.goes_to_its_path(guard):
            rejects(outcome, (str(missing), missing.name))


@edge_case(
    "checkpoint-folder-empty",
    number=15,
    title="checkpoint folder empty",
    verdict="survives/rejects",
    severity="loses",
    brought_about="the newest checkpoint's folder with nothing in it: alone, beside whole ones, and named",
    expects="survives: starts at step 0 and says so, or from the one before; a named one is rejected",
)
def test_checkpoint_folder_empty(guard: Guard) -> None:
    """`mkdir`, then the power goes; or a clean-up that removed the large files and left their folders."""
    reference = guard.checkpoints.require_resume()
    newest = guard.checkpoints.find(reference.output_dir)[-1]
    if not newest.is_dir():
        raise NotApplicable("its checkpoints are files: this case is for those that are folders")
    name = newest.relative_to(reference.output_dir)
    alone = guard.folder / "alone"
    (alone / name).mkdir(parents=True)
    named_alone = guard.folder / "named" / name  # another one: a program that starts afresh writes to the first
    named_alone.mkdir(parents=True)
    killed = guard.checkpoints.killed_late()
    whole = guard.checkpoints.find(killed.output_dir)
    beside = guard.copy(killed.output_dir)
    emptied = beside / whole[-1].relative_to(killed.output_dir)
    shutil.rmtree(emptied)
    emptied.mkdir()
    requests = [
        RunRequest(f"asked to resume where there is nothing but an empty folder {name}", output_dir=alone, resume=True),
        RunRequest(
            f"took all files out of {emptied.name}, the newest checkpoint, then started again to resume",
            output_dir=beside,
            resume=True,
        ),
        RunRequest(f"asked to resume from {named_alone}, an empty folder", resume_from=named_alone),
    ]
    first, second, *named = guard.run_all(requests if guard.checkpoints.by_path else requests[:2])
    if first.exit > 0:
        rejects(first, (name.name, alone.name))
    else:
        survives(first, damaged_checkpoints.FRESH_START)
        recovers(first, reference, from_scratch=True)
    if not damaged_checkpoints.chooses_its_checkpoint(guard, beside) or len(whole) == 1:
        damaged_checkpoints.rejects_or_recovers(second, reference, (emptied.name,), whole[:-1])
    else:
        recovers(second, reference)
    for outcome in named:
        if outcome.exit != 0 or damaged_checkpoints.goes_to_its_path(guard):
            rejects(outcome, name.name)


@edge_case(
    "trainer-state-missing",
    number=16,
    title="trainer state missing",
    verdict="rejects/recovers",
    severity="loses",
    brought_about="of the newest checkpoint each file of the trainer's state in turn removed, and the step count",
    expects="rejects, naming file or checkpoint, or recovers from the checkpoint before",
)
def test_trainer_state_missing(guard: Guard) -> None:
    """`state.get("step", 0)`: trained weights at step 0, warmed up for nothing, and three more epochs.

    The checkpoint is as if the program had saved it so: where it holds checksums, they fit. An older version of a
    program, which saved less, leaves such checkpoints.
    """
    reference, killed, newest = damaged_checkpoints.killed_with_newest(guard)
    steps = damaged_checkpoints.find_entries(guard, newest, checkpoints.STEP_NAMES)
    doomed = damaged_checkpoints.state_files(newest, list(steps))[:MOST_FILES]
    if not doomed and not steps:
        lacks = f"no file of {newest.name} is one of a trainer's state, or holds a step count to miss"
        raise damaged_checkpoints.not_to_be_changed(guard, [newest], lacks)
    requests, missing = [], []
    for file in doomed:
        copy = guard.copy(killed.output_dir)
        name = file.relative_to(killed.output_dir)
        replace_file(copy / name, None, within=copy)
        did = f"removed {name}, of the newest checkpoint, then started again to resume"
        requests.append(RunRequest(did, output_dir=copy, resume=True))
        missing.append((file.name, newest.name))
    for file, (key, _) in steps.items():
        copy = guard.copy(killed.output_dir)
        name = file.relative_to(killed.output_dir)
        guard.subject.server.call(damaged.drop_entry, str(copy / name), key, str(copy))
        did = f"took {key!r} out of {name}, of the newest checkpoint, then started again to resume"
        requests.append(RunRequest(did, output_dir=copy, resume=True))
        missing.append((file.name, newest.name))
    before = guard.checkpoints.find(killed.output_dir)[:-1]
    for named, outcome in zip(missing, guard.run_all(requests), strict=True):
        with noting():
            damaged_checkpoints.rejects_or_recovers(outcome, reference, named, before)


@edge_case(
    "trainer-state-corrupt",
    number=17,
    title="trainer state corrupt",
    verdict="rejects/recovers",
    severity="loses",
    brought_about="of the newest checkpoint: JSON cut in half, or another value; a step count of a wrong type",
    expects="rejects, naming file or checkpoint, or recovers from the checkpoint before",
)
def test_trainer_state_corrupt(guard: Guard) -> None:
    """Somebody mended a state file by hand, or a script wrote the step as text: `int(float(step))` hides it.

    A file that was cut in half no longer fits its checksum, where there is one. A value of another type does: whoever
    wrote it wrote the checksum too.
    """
    reference, killed, newest = damaged_checkpoints.killed_with_newest(guard)
    steps = damaged_checkpoints.find_entries(guard, newest, checkpoints.STEP_NAMES)
    state = damaged_checkpoints.state_files(newest, list(steps))
    written = [file for file in state if file.suffix == ".json"][:MOST_FILES]
    if not written and not steps:
        lacks = f"no file of {newest.name} is JSON of a trainer's state, or holds a step count"
        raise damaged_checkpoints.not_to_be_changed(guard, [newest], lacks)
    requests, corrupt = [], []

    def add(file: Path, did: str, change: Callable[[Path, Path], object]) -> None:
        copy = guard.copy(killed.output_dir)
        change(copy / file.relative_to(killed.output_dir), copy)
        did = f"{did}, of the newest checkpoint, then started again to resume"
        requests.append(RunRequest(did, output_dir=copy, resume=True))
        corrupt.append((file.name, newest.name))

    for file in written:
        add(file, f"cut {file.name} in half", lambda path, _: os.truncate(path, path.stat().st_size // 2))
        add(file, f"left an empty list in {file.name}", lambda path, copy: replace_file(path, b"[]", within=copy))
    for file, (key, step) in steps.items():
        for value in ("many", None, [step], step // 2 + 0.5):
            did = f"set {key!r} to {json.dumps(value)} in {file.name}"
            add(file, did, functools.partial(_set_entry, guard, key, value))
    before = guard.checkpoints.find(killed.output_dir)[:-1]
    for named, outcome in zip(corrupt, guard.run_all(requests), strict=True):
        with noting():
            damaged_checkpoints.rejects_or_recovers(outcome, reference, named, before)


@edge_case(
    "checkpoint-of-another-model",
    number=18,
    title="checkpoint of another model",
    verdict="rejects",
    severity="misleads",
    brought_about="a checkpoint trained at another hidden size, and at another number of layers",
    expects="rejects, naming the first mismatch: the setting with both values, or the tensor with both shapes",
)
def test_checkpoint_of_another_model(guard: Guard) -> None:
    """`strict=False` loads what fits: half of the model is trained, the other half is new, and nobody is told.

    A program may take the sizes from the checkpoint, if it says so, naming both.
    """
    reference = guard.checkpoints.require_resume()
    fields = [field for field in map(guard.subject.settings.role, ("hidden_size", "layers")) if field]
    changes = {field.path: values for field in fields if (values := mismatched_models.choose_two_sizes(guard, field))}
    if not changes:
        raise NotApplicable('no setting for the hidden size or the layers: name it, fields = {"hidden_size": "..."}')
    trained = guard.run_all(
        [
            # To its first save only: there must be steps left for the second start to take, or it rightly ends at once.
            RunRequest(f"trained with {path} = {other}", settings={path: other}, steps=guard.reference.first_save)
            for path, (_, other) in changes.items()
        ]
    )
    size = damaged_checkpoints.largest_size(guard.checkpoints.find(reference.output_dir)[-1])
    others = []
    for (path, (own, other)), outcome in zip(changes.items(), trained, strict=True):
        saved = guard.checkpoints.find(outcome.output_dir)
        if outcome.exit == 0 and saved and damaged_checkpoints.largest_size(saved[-1]) != size:
            others.append((path, own, other, outcome))
    if not others:
        raise NotApplicable(f"setting {', '.join(changes)} makes no other model: name the setting that does")
    outcomes = guard.run_all(
        [
            RunRequest(
                f"resumed, with {path} = {own}, from a checkpoint that was trained with {path} = {other}",
                output_dir=guard.copy(outcome.output_dir),
                resume=True,
            )
            for path, own, other, outcome in others
        ]
    )
    for (path, own, other, _), outcome in zip(others, outcomes, strict=True):
        with noting():
            mismatch = mismatched_models.mismatch(path.rpartition(".")[2], own, other)
            if outcome.exit == 0 and mismatch.pattern.search(wording.unusual(outcome, reference)):
                continue
            rejects(outcome, mismatch)


@edge_case(
    "old-checkpoint-format",
    number=19,
    title="old checkpoint format",
    verdict="rejects/recovers",
    severity="loses",
    brought_about="checkpoints marked as of the format version before",
    expects="rejects, naming both versions, or migrates, says so, and recovers",
)
def test_old_checkpoint_format(guard: Guard) -> None:
    """The run is preempted, the program updated meanwhile: last week's optimizer state is read by this week's code.

    What such a checkpoint holds, the program alone knows; that it is not of its own version, it must see. Its checksums
    fit: it was whole when the older program saved it.
    """
    reference = guard.checkpoints.require_resume()
    killed = guard.checkpoints.killed_late()
    saved = guard.checkpoints.find(killed.output_dir)
    marks = damaged_checkpoints.find_entries(guard, saved[-1], checkpoints.VERSION_NAMES) if saved else {}
    if not marks:
        known = checkpoints.VERSION_NAMES[0]
        lacks = f'its checkpoints state no version of their format: save and check one, "{known}": 1'
        raise damaged_checkpoints.not_to_be_changed(guard, saved, lacks)
    copy = guard.copy(killed.output_dir)
    for checkpoint in saved:
        for file, (key, version) in damaged_checkpoints.find_entries(
            guard, checkpoint, checkpoints.VERSION_NAMES
        ).items():
            place = copy / file.relative_to(killed.output_dir)
            guard.subject.server.call(damaged.set_entry, str(place), key, version - 1, str(copy))
    file, (key, version) = next(iter(marks.items()))
    did = f"marked the checkpoints as of format version {version - 1} ({key!r} in {file.name}, it was {version})"
    outcome = guard.run(f"{did}, then started again to resume", output_dir=copy, resume=True)
    both = (wording.number(version - 1, "the version it met"), wording.number(version, "the version it reads"))
    if outcome.exit > 0 and not outcome.recording.steps:
        stops(outcome, *both)
        return
    recovers(outcome, reference)
    told = wording.unusual(outcome, reference)
    if not MIGRATED.search(told) and not all(one.pattern.search(told) for one in both):
        raise Finding(
            outcome.did,
            f"it took a checkpoint of version {version - 1} for one of version {version}, and said nothing of it",
            outcome.last_words,
        )


@edge_case(
    "partial-save",
    number=20,
    title="partial save",
    verdict="recovers",
    severity="loses",
    brought_about="the newest checkpoint cut at several byte offsets, each file in turn",
    expects="recovers from the last whole checkpoint",
)
def test_partial_save(guard: Guard) -> None:
    """A kill or a full disk in the middle of `torch.save` leaves a file that opens, and ends too early.

    The larger files are cut to nothing, in half and by one byte, small ones in half. A program that is handed the path
    of a checkpoint may also reject, naming the file or the checkpoint, and then has to carry on from the one before.
    One that has no other checkpoint may reject, or start afresh and say so.
    """
    reference = guard.checkpoints.require_resume()
    killed = guard.checkpoints.killed_late()
    saved = guard.checkpoints.find(killed.output_dir)
    if not saved:
        said = f"no checkpoint in the output folder after {RUN_STEPS - 1} steps"
        raise NotApplicable(said, guard.needs.SAVE_EARLIER)
    newest, before = saved[-1], saved[:-1]
    cuts = damaged_checkpoints.choose_cuts(newest)
    requests, copies = [], []
    for file, size in cuts:
        copy, name = guard.copy(killed.output_dir), file.relative_to(killed.output_dir)
        os.truncate(copy / name, size)
        cut = f"from {file.stat().st_size} to {size} bytes"
        did = f"cut {name}, of the newest checkpoint, {cut}, then started again to resume"
        requests.append(RunRequest(did, output_dir=copy, resume=True))
        copies.append(copy)
    chooses = damaged_checkpoints.chooses_its_checkpoint(guard, copies[0])
    rejected = False
    for (file, _), outcome in zip(cuts, guard.run_all(requests), strict=True):
        with noting():
            if not chooses or not before:
                rejected = rejected or outcome.exit > 0
                damaged_checkpoints.rejects_or_recovers(outcome, reference, (file.name, newest.name), before)
            else:
                recovers(outcome, reference)
    if rejected and before and guard.checkpoints.by_path:
        copy = guard.copy(killed.output_dir)
        os.truncate(copy / newest.relative_to(killed.output_dir) / cuts[0][0].relative_to(newest), 0)
        earlier = copy / before[-1].relative_to(killed.output_dir)
        did = f"resumed from {before[-1].name}, the checkpoint before a damaged one"
        recovers(guard.run(did, output_dir=copy, resume_from=earlier), reference)


def _set_entry(guard: Guard, name: str, value: object, file: Path, within: Path) -> None:
    guard.subject.server.call(damaged.set_entry, str(file), name, value, str(within))


def _flip_bits(guard: Guard, file: Path) -> bool:
    return bool(guard.subject.server.call(weights.flip_bits, str(file)))


def _cut(file: Path, size: int) -> bool:
    os.truncate(file, size)
    return True
