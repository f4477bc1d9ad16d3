"""Cases 11 to 20: the base model and the checkpoints."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from pytest_trainguard import (
    Finding,
    Guard,
    NotApplicable,
    checkpoints,
    edge_case,
    faults,
    recovers,
    rejects,
    stops,
    survives,
)
from pytest_trainguard.expect import Wording
from pytest_trainguard.subject import STEPS

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


@edge_case(
    11,
    "base model path does not exist",
    verdict="rejects",
    severity="major",
    brought_about="a path that isn't there, absolute and relative, offline",
    expects="rejects, naming the path, without a network wait",
)
def test_11_base_model_path_does_not_exist(guard: Guard) -> None:
    """`from_pretrained` takes a path that is not there for a name on a hub, and asks the network for it."""
    field = guard.needs("model")
    launched = guard.subject.production(field)
    is_path = isinstance(launched, str) and launched.startswith(("/", "./", "../", "~"))
    if is_path and not (guard.subject.pad.root / Path(launched).expanduser()).exists():
        raise Finding("read the production settings", f"{field.path} = {launched}: there is no such path")
    absolute = str(guard.folder / "models" / "none")
    outcomes = guard.run_all(
        [
            {"did": f"set {field.path} to {path}, which does not exist", "settings": {field.path: path},
             "fault": faults.offline()}
            for path in (absolute, "./models/none")
        ]
    )  # fmt: skip
    for outcome, path in zip(outcomes, (absolute, "models/none"), strict=True):
        asked = sorted({event["address"] for event in outcome.recording.of("network")})
        if asked:
            raise Finding(outcome.did, f"it asked the network for it: {', '.join(asked[:3])}", outcome.last_words)
        rejects(outcome, path, before="model")


@edge_case(
    14,
    "no checkpoint yet",
    verdict="survives/rejects",
    severity="major",
    brought_about="resume asked in a fresh folder; resume from a path that is missing",
    expects="survives: starts at step 0 and says so; a missing path is rejected, naming it",
)
def test_14_no_checkpoint_yet(guard: Guard) -> None:
    """A job that is always started with `--resume` has a first start too; a mistyped path must not look like one."""
    reference = guard.needs_checkpoints()
    spec = guard.subject.spec
    if isinstance(spec, Mapping) and "{resume_from}" not in spec["command"]:
        raise NotApplicable("its command cannot be told to resume: give it {resume_from}")
    fresh, missing = guard.folder / "fresh", guard.folder / "none" / "checkpoint-4"
    fresh.mkdir()
    first, second = guard.run_all(
        [
            {
                "did": "asked to resume in a fresh, empty output folder",
                "output_dir": fresh,
                "resume_from": fresh,
            },
            {"did": f"asked to resume from {missing}, which does not exist", "resume_from": missing},
        ]
    )
    if first.exit != 0 and guard.resume_point(fresh) is None:  # it is handed checkpoints, and a bare folder is none
        rejects(first, (str(fresh), fresh.name))
    else:
        survives(first, AFRESH)
        recovers(first, reference, from_scratch=True)
    rejects(second, (str(missing), missing.name))


@edge_case(
    20,
    "partial save",
    verdict="recovers",
    severity="critical",
    brought_about="the newest checkpoint cut at several byte offsets, each file in turn",
    expects="recovers from the last whole checkpoint",
)
def test_20_partial_save(guard: Guard) -> None:
    """A kill or a full disk in the middle of `torch.save` leaves a file that opens, and ends too early.

    The larger files are cut to nothing, in half and by one byte, small ones in half. A program that is handed the path
    of a checkpoint may also reject, naming the file or the checkpoint, and then has to carry on from the one before.
    One that has no other checkpoint may reject, or start afresh and say so.
    """
    reference = guard.needs_checkpoints()
    killed = guard.run(f"sent SIGKILL in step {STEPS}", fault=faults.kill(STEPS))
    saved = guard.checkpoints(killed.output_dir)
    if not saved:
        raise NotApplicable(f"no checkpoint in the output folder after {STEPS - 1} steps")
    newest, before = saved[-1], saved[:-1]
    cuts = _cuts(newest)
    requests = []
    for file, size in cuts:
        copy, name = guard.copy(killed.output_dir), file.relative_to(killed.output_dir)
        os.truncate(copy / name, size)
        cut = f"from {file.stat().st_size} to {size} bytes"
        did = f"cut {name}, of the newest checkpoint, {cut}, then started again to resume"
        requests.append({"did": did, "output_dir": copy, "resume": True})
    told = guard.resume_point(requests[0]["output_dir"]) != requests[0]["output_dir"]
    rejected = False
    for (file, _), outcome in zip(cuts, guard.run_all(requests), strict=True):
        if outcome.exit > 0 and not outcome.recording.steps and (told or not before):
            stops(outcome, (file.name, newest.name))
            rejected = True
        else:
            recovers(outcome, reference, from_scratch=not before)
            if len(outcome.losses) == len(reference.losses):
                survives(outcome, AFRESH)
    if rejected and before:
        copy = guard.copy(killed.output_dir)
        os.truncate(copy / newest.relative_to(killed.output_dir) / cuts[0][0].relative_to(newest), 0)
        earlier = copy / before[-1].relative_to(killed.output_dir)
        did = f"resumed from {before[-1].name}, the checkpoint before a damaged one"
        recovers(guard.run(did, output_dir=copy, resume_from=earlier), reference)


def _cuts(checkpoint: Path) -> list[tuple[Path, int]]:
    """The files of a checkpoint, largest first, and the sizes they are cut to."""
    sizes = {file: file.stat().st_size for file in checkpoints.files(checkpoint)}
    files = sorted((file for file in sizes if sizes[file] > 1), key=lambda file: -sizes[file])
    cuts: list[tuple[Path, int]] = []
    for place, file in enumerate(files):
        size, others = sizes[file], len(files) - place - 1
        thrice = size >= LARGE and len(cuts) + 3 + others <= CUTS
        cuts += [(file, to) for to in ((0, size // 2, size - 1) if thrice else (size // 2,))]
    return cuts[:CUTS]
