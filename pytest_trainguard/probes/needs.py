"""What a case needs of a trainer; where the trainer lacks it, `NotApplicable` says what to add."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from pytest_trainguard.adapters.settings_files import WRITABLE
from pytest_trainguard.adapters.tables import faults_in_class_command
from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.contract.settings import Field, merge
from pytest_trainguard.launch import questions
from pytest_trainguard.rows import suffixes
from pytest_trainguard.subject.reference import Reference
from pytest_trainguard.subject.subject import Subject
from pytest_trainguard.verdicts.errors import CannotJudge, NotApplicable

REGISTRIES = ("transformers", "timm", "diffusers", "sentence_transformers", "huggingface_hub", "open_clip", "peft")
IN_EVERY_PROGRAM = ("batch_size", "learning_rate")  # roles that some setting plays, where there are any


class Needs:
    """What one trainer has; each method raises NotApplicable where it has not, with what to add.

    Attributes:
        SEED, SAVE_EARLIER, SHOW_LOSSES, BASE_MODEL: what a team can mend, as `NotApplicable.mend` says it.
    """

    SEED = "seed the program with run.seed"
    SAVE_EARLIER = 'let it save before its last step, fields = {"save_every": "..."}'
    SHOW_LOSSES = "let loss.backward() or torch.autograd.grad be seen"
    BASE_MODEL = "let make_model(folder) make a small base model that it takes"

    def __init__(self, subject: Subject, folder: Path):
        self._subject, self._folder = subject, folder
        self._reference = Reference.shared(subject)

    def setting(self, role: str) -> Field:
        """The setting that plays a role (`settings.ROLES`).

        Raises:
            NotApplicable: there is none.
        """
        found = self._subject.settings.role(role)
        if found is None and role == "model":
            found = next((field for field in self._subject.settings.fields if self._local_model(field)), None)
        if found is None:
            to_add = f'fields = {{"{role}": "..."}}'
            known = role in IN_EVERY_PROGRAM and self._subject.settings.fields  # it is among them by another name
            raise NotApplicable(
                f"no setting for the {role.replace('_', ' ')}: name it, {to_add}", to_add if known else ""
            )
        return found

    def base_model_setting(self) -> Field:
        """The setting that says which base model is started from, by its place or by its name in a registry.

        Raises:
            NotApplicable: there is none: the one that is called the model's names an architecture, as `LSTM`.
        """
        field = self.setting("model")
        if not self.takes_base_model(field):
            raise NotApplicable(
                f"no setting for a base model: {field.path} = {self._subject.settings.tiny(field)!r} names an "
                'architecture; name it where there is one, fields = {"model": "..."}'
            )
        return field

    def takes_base_model(self, field: Field) -> bool:
        """Whether what the setting for the model names has files: it is a path, or the name of one in a registry.

        A plain word is such a name where the program has loaded a library that reads registries, or its trainer makes
        base models.
        """
        settings = self._subject.settings
        named = [value for value in (settings.tiny(field), settings.production(field)) if isinstance(value, str)]
        if self._subject.description.roles.get("model") == field.path or not any(named):
            return True
        if any("/" in value or (self._subject.root / value).exists() for value in named if value):
            return True
        self._reference.make()  # what it has loaded is known then
        if set(self._reference.modules) & set(REGISTRIES):
            return True
        own = self._folder / "own-model"
        return self._subject.server.ask(questions.make_model, own) is not None

    def data(self) -> Path:
        """The trainer's piece of data.

        Raises:
            NotApplicable: it has none.
        """
        if self._subject.data is None:
            raise NotApplicable('no data: give it a sample, sample = "path/of/the/data"')
        return self._subject.data

    def losses(self) -> Outcome:
        """The undisturbed run, where its losses are seen.

        Raises:
            NotApplicable: neither a backward pass nor `torch.autograd.grad` went through torch's own door.
        """
        outcome = self._reference.outcome
        if not any(step.losses for step in outcome.recording.steps):
            raise NotApplicable(
                "its losses cannot be seen: call loss.backward() or torch.autograd.grad, and leave these as they are",
                self.SHOW_LOSSES,
            )
        return outcome

    def repeatable_run(self) -> Outcome:
        """The undisturbed run, once it is known that a second one has the same losses.

        Raises:
            NotApplicable: two undisturbed runs with one seed differ, so that equality says nothing; or none is seen.
            CannotJudge: the second one fails.
        """
        outcome = self.losses()
        if self._reference.require_second().losses != outcome.losses:
            raise NotApplicable(f"two undisturbed runs with the same seed differ: {self.SEED}", self.SEED)
        return outcome

    def checkpoints(self) -> Outcome:
        """The undisturbed run, which saves before its end, and repeats itself.

        Raises:
            NotApplicable: it leaves no checkpoint, or none before its last step.
        """
        outcome = self.repeatable_run()
        if not self._subject.find_checkpoints(outcome.output_dir):
            raise NotApplicable(
                "no checkpoint in the output folder after a run: save one, or say where it is with checkpoints()",
                "let it save a checkpoint in run.output_dir, or say where it is with checkpoints()",
            )
        steps = len(outcome.recording.steps)
        if self._reference.first_save >= steps:
            raise NotApplicable(
                f'no checkpoint before the last of {steps} steps: name the setting, fields = {{"save_every": "..."}}',
                self.SAVE_EARLIER,
            )
        return outcome

    def output(self) -> None:
        """Something in its output folder, which another run could write over and a wrong folder would lose.

        Raises:
            NotApplicable: the undisturbed run writes nothing there.
        """
        if not self._reference.outcome.changed():
            raise NotApplicable("it writes nothing to its output folder: have it write there, run.output_dir")

    def settings_file(self, values: Mapping[str, object] | None = None, folder: Path | None = None) -> Path:
        """The tiny settings in a file, as the trainer's command takes them.

        Args:
            values: over them.
            folder: where the file is to be; one of this test's own where none is named.

        Raises:
            NotApplicable: it has no command, or one that takes no settings file.
            CannotJudge: its command is none that could be started, or the file cannot be written.
        """
        subject, described = self._subject, self._subject.description
        if described.command is None:
            raise NotApplicable('no command line: name it, command = "python train.py --config {config} ..."')
        if "{config}" not in described.command:
            raise NotApplicable("its command takes no settings file: give it {config}")
        # A table was looked at before anything ran.
        wrong = faults_in_class_command(described.command) if isinstance(subject.spec, str) else None
        if wrong:
            raise CannotJudge(f"{subject.name}: {wrong}")
        if Path(described.settings_name).suffix not in WRITABLE:
            known = ", ".join(WRITABLE)
            raise NotApplicable(f"its settings file is {described.settings_name}, and this case knows {known}")
        folder = folder or self._folder / "whole"
        folder.mkdir(exist_ok=True)
        whole = merge(subject.settings.base, values or {})
        return subject.server.ask(questions.settings_file, folder, whole)

    def base_model(self, field: Field) -> Path:
        """A copy of a small base model, for the setting that names the model.

        Raises:
            NotApplicable: there is none at hand.
        """
        folder = self._folder / "model"
        made = self._subject.server.ask(questions.make_model, folder)
        if made:
            return made
        local = self._local_model(field)
        if local is None:
            raise NotApplicable(
                "no small base model at hand: write make_model(folder), or name one in tiny", self.BASE_MODEL
            )
        folder.mkdir(exist_ok=True)
        copy = shutil.copytree if local.is_dir() else shutil.copy
        return Path(copy(local, folder / local.name))

    def _local_model(self, field: Field) -> Path | None:
        """The model that a setting names by its place on this disk, as it is tried or else as it is launched.

        Of a setting that is not called the model's: a folder of weights and their configuration.
        """
        settings = self._subject.settings
        called = settings.role("model") == field
        for set_to in (settings.tiny(field), settings.production(field)):
            local = self._subject.root / Path(set_to).expanduser() if isinstance(set_to, str) and set_to else None
            if local is not None and local.exists() and (called or _holds_weights(local)):
                return local
        return None


def _holds_weights(path: Path) -> bool:
    """Whether a folder is a model's: its configuration and its weights."""
    return (path / "config.json").is_file() and any(suffixes.weights(file) for file in path.iterdir())
