"""`guard`: start runs of the trainer, disturbed or not, and look at what came of them."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

from pytest_trainguard import faults
from pytest_trainguard.adapters.command import WRITABLE, faults_in
from pytest_trainguard.contract import checkpoints, settings
from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.contract.settings import Field
from pytest_trainguard.faults import Fault
from pytest_trainguard.subject.subject import STEPS, Request, Started, Subject
from pytest_trainguard.verdicts.errors import CannotJudge, Finding, NotApplicable


class Guard:
    """One trainer in one test.

    Attributes:
        subject: the trainer as the harness sees it.
        folder: an empty folder of this test's own.
    """

    def __init__(self, subject: Subject, folder: Path):
        self.subject, self.folder = subject, folder
        self._copies = 0

    def run(self, did: str, **options: Any) -> Outcome:
        """Start a run, wait for its end.

        Args:
            did: what is done to it, in words; a finding begins with this.
            options: of `subject.Request`: `steps` (in all), `settings` (over the tiny ones), `data`, `output_dir` (a
                new one where none is given), `resume` (carry on in `output_dir`), `resume_from` (a path, as it is),
                `settings_file` (started by its command, with this file; see `settings_file()`),
                `fault`, `time_limit` in seconds, `memory_limit` in bytes over what is loaded, `small_disk` in
                bytes, `ordinary_user` (file permissions apply to it, also where pytest runs as root), `grace` in
                seconds for processes that end after the run, `env`, `census` (memory in use is counted after each
                step), `repeats` (several runs in one process, memory counted after each, nothing else recorded).

        Raises:
            NotApplicable: the fault is not possible in this program.
            CannotJudge: the undisturbed run fails, or this one could not be followed.
        """
        return self._judged(self.start(did, **options).outcome(), options.get("fault"))

    def start(self, did: str, **options: Any) -> Started:
        """Start a run and go on; see `run`."""
        self.reference()  # first: nothing can be said of a trainer that fails undisturbed
        return self.subject.start(Request(did, **options))

    def run_all(self, requests: list[dict[str, Any]], side_by_side: int = 2) -> list[Outcome]:
        """Several runs that have nothing to do with each other, a few at a time.

        Returns:
            outcomes in order, without those whose fault is not possible in this program.

        Raises:
            NotApplicable: none of the faults is possible.
        """
        outcomes: list[Outcome] = []
        passed_by: list[NotApplicable] = []
        for first in range(0, len(requests), side_by_side):
            batch = requests[first : first + side_by_side]
            started = [self.start(**request) for request in batch]
            for one, request in zip(started, batch, strict=True):
                try:
                    outcomes.append(self._judged(one.outcome(), request.get("fault")))
                except NotApplicable as reason:
                    passed_by.append(reason)
        if passed_by and not outcomes:
            raise passed_by[0]
        return outcomes

    def _judged(self, outcome: Outcome, fault: Fault | None) -> Outcome:
        if fault is None or fault.kind in ("offline", "gpus") or outcome.recording.fault_fired:
            return outcome
        if outcome.exit == 0 and fault.step > len(outcome.recording.steps) + 1:
            taken = f"the run ends after {len(outcome.recording.steps)} optimizer steps"
            raise NotApplicable(f"{fault} never happened: {taken}; let it take run.max_steps ({STEPS})")
        if outcome.exit == 0:
            raise NotApplicable(
                f"{fault} is not possible here: {_NO_DOOR.get(fault.where, 'no such event in the run')}"
            )
        evidence = outcome.stack if outcome.timed_out else outcome.output[-4000:]
        raise CannotJudge(f"{fault}: the run ended before that: {outcome.how}", evidence)

    def reference(self) -> Outcome:
        """The undisturbed run of `subject.STEPS` steps, made once for each trainer."""
        return self.subject.reference

    def with_losses(self) -> Outcome:
        """The undisturbed run, where its losses are seen.

        Raises:
            NotApplicable: no backward pass went through torch's own door.
        """
        reference = self.reference()
        if not any(step.losses for step in reference.recording.steps):
            raise NotApplicable(
                "its losses cannot be seen: call loss.backward(), and leave torch.autograd.backward as it is"
            )
        return reference

    def repeatable(self) -> Outcome:
        """The undisturbed run, once it is known that a second one has the same losses.

        Raises:
            NotApplicable: two undisturbed runs with one seed differ, so that equality says nothing; or none is seen.
        """
        reference = self.with_losses()
        if self.subject.second_reference.losses != reference.losses:
            raise NotApplicable("two undisturbed runs with the same seed differ: seed the program with run.seed")
        return reference

    @property
    def patience(self) -> float:
        """Seconds after which a short run is taken for hung: ten, and several times what the undisturbed one took."""
        return 10 + 4 * self.reference().seconds

    def needs(self, role: str) -> Field:
        """The setting that plays a role.

        Raises:
            NotApplicable: there is none, with what to add.
        """
        found = self.subject.role(role)
        if found is None:
            raise NotApplicable(f'no setting for the {role.replace("_", " ")}: name it, fields = {{"{role}": "..."}}')
        return found

    def settings_file(self) -> Path:
        """The tiny settings in a file, as the trainer's command takes them.

        Raises:
            NotApplicable: it has no command, or one that takes no settings file.
            CannotJudge: its command is none that could be started, or the file cannot be written.
        """
        command = self.subject.description["command"]
        if command is None:
            raise NotApplicable('no command line: name it, command = "python train.py --config {config} ..."')
        if "{config}" not in command:
            raise NotApplicable("its command takes no settings file: give it {config}")
        wrong = faults_in({"command": command})
        if wrong:
            raise CannotJudge(f"{self.subject.name}: {wrong}")
        name = self.subject.description["settings_name"]
        if Path(name).suffix not in WRITABLE:
            raise NotApplicable(f"its settings file is {name}, and this case knows {', '.join(WRITABLE)}")
        folder = self.folder / "whole"
        folder.mkdir(exist_ok=True)
        return Path(self.subject.call("settings_file", folder=str(folder), values=self.subject.base_settings))

    def data(self) -> Path:
        """The trainer's piece of data.

        Raises:
            NotApplicable: it has none.
        """
        if self.subject.data is None:
            raise NotApplicable('no data: give it a sample, sample = "path/of/the/data"')
        return self.subject.data

    def model(self, field: Field) -> Path:
        """A copy of a small base model, for the setting that names the model.

        Raises:
            NotApplicable: there is none at hand.
        """
        folder = self.folder / "model"
        made = self.subject.call("make_model", folder=str(folder))
        if made:
            return Path(made)
        set_to = settings.value_at(self.subject.base_settings, field.path)
        local = self.subject.pad.root / Path(set_to).expanduser() if isinstance(set_to, str) else None
        if local is None or not local.exists():
            raise NotApplicable("no small base model at hand: write make_model(folder), or name one in tiny")
        folder.mkdir(exist_ok=True)
        copy = shutil.copytree if local.is_dir() else shutil.copy
        return Path(copy(local, folder / local.name))

    def checkpoints(self, folder: Path) -> list[Path]:
        """The finished checkpoints in an output folder, oldest first, found as the trainer finds them."""
        if self.subject.description["own_checkpoints"]:
            found = self.subject.call("own_checkpoints", output_dir=str(folder))
            return [Path(path) for path in found]
        return checkpoints.find(folder)

    def resume_point(self, folder: Path) -> Path | None:
        """What the trainer is told to carry on from in an output folder; the folder itself where it chooses."""
        found = self.subject.call("resume_point", output_dir=str(folder))
        return Path(found) if found else None

    def needs_checkpoints(self) -> Outcome:
        """The undisturbed run, which saves before its end, and repeats itself.

        Raises:
            NotApplicable: it leaves no checkpoint, or none before its last step.
        """
        reference = self.repeatable()
        if not self.checkpoints(reference.output_dir):
            raise NotApplicable(
                "no checkpoint in the output folder after a run: save one, or say where it is with checkpoints()"
            )
        if self.first_save() >= STEPS:
            raise NotApplicable(
                f'no checkpoint before the last of {STEPS} steps: name the setting, fields = {{"save_every": "..."}}'
            )
        return reference

    @property
    def recoverable(self) -> bool:
        """Whether what `needs_checkpoints` asks for is there."""
        try:
            self.needs_checkpoints()
        except NotApplicable:
            return False
        return True

    def first_save(self) -> int:
        """Steps that were complete when the undisturbed run first wrote to a checkpoint (STEPS where it never did)."""
        reference = self.reference()
        named = [s for s in map(checkpoints.step_of, self.checkpoints(reference.output_dir)) if s is not None]
        written = [
            event["step"] for event in reference.recording.of("write") if event["how"] == "open" and event["step"] > 0
        ]
        return min([*written, *named], default=STEPS)

    def killed_late(self) -> Outcome:
        """A run that SIGKILL ended in its last step, when most was saved; made once for each trainer.

        Its folder is for all cases: start again, or damage something, in a `copy` of it.
        """
        kept = self.subject.kept
        if "killed late" not in kept:
            kept["killed late"] = self.run(f"sent SIGKILL in step {STEPS}", fault=faults.kill(STEPS))
        outcome: Outcome = kept["killed late"]
        return outcome

    def started_again(self, outcomes: list[Outcome]) -> list[Outcome]:
        """The second start of each run, in its output folder, asked to resume.

        Runs that left the same in their folders, to the last byte, have one second start between them, which is made
        once for each trainer: what a program that repeats itself makes of the same files is the same.
        """
        kept: dict[Any, Outcome] = self.subject.kept.setdefault("started again", {})
        did = "{}, then started again to resume".format
        new: dict[Any, Outcome] = {}
        for outcome in outcomes:
            if _files(outcome) not in kept:
                new.setdefault(_files(outcome), outcome)
        again = self.run_all([{"did": did(o.did), "output_dir": o.output_dir, "resume": True} for o in new.values()])
        kept.update(zip(new, again, strict=True))
        return [dataclasses.replace(kept[_files(outcome)], did=did(outcome.did)) for outcome in outcomes]

    def writes(self, step: int) -> int:
        """How many writes to the output folder follow `step` in the undisturbed run; 0 where none is seen."""
        return sum(event["step"] == step for event in self.reference().recording.of("write"))

    def copy(self, output_dir: Path) -> Path:
        """A copy of an output folder, to be tampered with."""
        self._copies += 1
        return Path(shutil.copytree(output_dir, self.folder / f"copy-{self._copies}" / "output", symlinks=True))

    def check_checkpoints(self, *outcomes: Outcome) -> None:
        """Every checkpoint that the runs left can be loaded, and every value in it is finite.

        Raises:
            Finding: one is not; with the file and the tensor.
        """
        good: set[tuple[int, str] | None] = self.subject.kept.setdefault("good files", set())  # by size and hash
        owners = {
            str(file): outcome
            for outcome in outcomes
            for checkpoint in self.checkpoints(outcome.output_dir)
            for file in checkpoints.files(checkpoint)
            if file.suffix in (".pt", ".pth", ".ckpt", ".bin", ".safetensors")
        }
        content = {
            file: outcome.after.get(os.path.relpath(file, outcome.output_dir)) for file, outcome in owners.items()
        }
        unknown = [file for file in owners if content[file] not in good]
        bad: dict[str, str] = self.subject.call("bad_tensors", files=unknown) if unknown else {}
        for file, what in bad.items():
            outcome = owners[file]
            name = Path(file).relative_to(outcome.output_dir)
            raise Finding(outcome.did, f"it left a checkpoint that is no good: {name}: {what}", outcome.last_words)
        good |= set(content.values()) - {None}


def _files(outcome: Outcome) -> frozenset[tuple[str, tuple[int, str]]]:
    return frozenset(outcome.after.items())


_NO_DOOR = {
    "build": "the program makes no model of torch modules",
    "move": "the program moves no model to a device",
    "read": "the program opens no data where Python sees it (at that time)",
    "sync": "the program never calls fsync in its output folder",
    "data": "the program takes no batch from a torch DataLoader",
    "save": "the program writes nothing to its output folder",
    "batch": "no floating-point number passes through its model",
    "gradient": "its model has no parameter that learns",
}
