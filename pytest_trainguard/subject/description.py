"""A trainer's settings as a case sees them: the fields, the roles that they play, and their values."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_trainguard.contract import settings
from pytest_trainguard.contract.settings import Field
from pytest_trainguard.launch.protocol import Description

SAVE_EVERY = 2  # steps between the checkpoints of an ordinary run, where the trainer has a setting for that


class TrainerSettings:
    """The settings of one trainer.

    Attributes:
        fields: of its settings type.
        base: the values of an ordinary run: the tiny ones, with checkpoints often enough for a short run.
    """

    def __init__(self, description: Description):
        self._description = description
        self.fields: tuple[Field, ...] = description.fields
        self.base: Mapping[str, object] = self._of_a_short_run()

    def _of_a_short_run(self) -> Mapping[str, object]:
        values = settings.merge(self._description.production, self._description.tiny)
        saving = self.role("save_every")
        return settings.merge(values, {saving.path: SAVE_EVERY}) if saving else values

    def role(self, name: str) -> Field | None:
        """The setting that plays a role; see `settings.ROLES`."""
        return settings.role(name, self.fields, self._description.roles)

    def production(self, field: Field) -> object:
        """A setting's value as it will be launched."""
        return _value_or_default(self._description.production, field)

    def tiny(self, field: Field) -> object:
        """A setting's value in an ordinary run."""
        return _value_or_default(self.base, field)


def _value_or_default(values: Mapping[str, object], field: Field) -> object:
    value = settings.value_at(values, field.path)
    return field.default if value is None else value
