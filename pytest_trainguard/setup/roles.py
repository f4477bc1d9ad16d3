"""Which settings play which roles: by their names, and where no name tells, by what they do in a short run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pytest_trainguard.contract import settings
from pytest_trainguard.contract.nearest import nearest
from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.contract.settings import Field
from pytest_trainguard.launch.protocol import RUN_STEPS
from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.subject.reference import find_saves
from pytest_trainguard.verdicts.errors import VerdictError

ALIKE = 0.8  # of a setting's name and one that is known for a role: `save_evry` and `save_every` are
MOST_TRIED = 4  # settings for each role, with a run each
FEW_STEPS = 2
OFTEN = 3  # steps between checkpoints, another number than an ordinary run's
TRIED = ("batch_size", "learning_rate", "save_every", "max_length")  # roles that a run can show
# What a setting is that plays a role, where it is no number.
KINDS = {
    **dict.fromkeys(("model", "validation_data", "precision", "device", "adapter", "optimizer"), ("str", "choice")),
    **dict.fromkeys(("checkpointing", "fused"), ("bool",)),
}
_SAVING = ("save", "ckpt", "checkpoint", "snapshot")


@dataclass(frozen=True)
class Roles:
    """The roles of a trainer's settings.

    Attributes:
        known: by the trainer's own word or by their names: role to setting and its value in an ordinary run.
        shown: those that a run showed: role to setting.
        missing: the others, with the setting that may be meant; empty for none.
    """

    known: dict[str, tuple[str, object]]
    shown: dict[str, str]
    missing: dict[str, str]


def find_roles(guard: Guard) -> Roles:
    """The roles of a trainer's settings; short runs are started where names do not tell. Its first run was made."""
    own = guard.subject.settings
    known: dict[str, tuple[str, object]] = {}
    taken: set[str] = set()
    for role in settings.ROLES:
        field = own.role(role)
        if field is not None:
            taken.add(field.path)
            if role != "model" or guard.needs.takes_base_model(field):
                known[role] = (field.path, own.tiny(field))
    free = [field for field in own.fields if field.path not in taken]
    shown: dict[str, str] = {}
    for role in TRIED:
        if role not in known and role not in guard.subject.description.roles:
            found = _try_all(guard, role, [field for field in free if field.path not in shown.values()])
            if found is not None:
                shown[role] = found.path
    left = [field for field in free if field.path not in shown.values()]
    missing = {
        role: find_meant(role, left)
        for role in settings.ROLES
        if role not in known and role not in shown and role not in guard.subject.description.roles
    }
    return Roles(known, shown, missing)


def find_meant(role: str, free: Sequence[Field]) -> str:
    """The setting whose name is most like those that are known for a role; empty where none is like them."""
    fits = [field.path for field in free if field.kind in (*KINDS.get(role, ("int", "float")), "other")]
    plain = {path.rpartition(".")[2]: path for path in reversed(fits)}
    for name in settings.ROLES[role]:
        found = nearest(name, plain, ALIKE)
        if found:
            return plain[found]
    return ""


def _try_all(guard: Guard, role: str, free: Sequence[Field]) -> Field | None:
    """The setting of which a run shows that it plays a role; None where none does."""
    own, reference = guard.subject.settings, guard.reference.outcome
    for field in list(_candidates(role, free, own.tiny, reference))[:MOST_TRIED]:
        value = own.tiny(field)
        assert isinstance(value, int | float)
        other = _another(role, value)
        steps = RUN_STEPS if role == "save_every" else FEW_STEPS
        try:
            outcome = guard.run(f"set {field.path} = {other}", settings={field.path: other}, steps=steps)
        except VerdictError:
            continue
        if outcome.exit == 0 and _follows(guard, role, value, other, reference, outcome):
            return field
    return None


def _candidates(
    role: str, free: Sequence[Field], value_of: Callable[[Field], object], reference: Outcome
) -> Iterator[Field]:
    """The settings that may play a role, the likeliest first."""
    numbers: list[tuple[Field, int | float]] = []
    for field in free:
        value = value_of(field)
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 and not field.choices:
            numbers.append((field, value))
    first = reference.recording.steps[0]
    if role == "learning_rate":
        rates = {rate for step in reference.recording.steps for rate in step.lr}
        fits = [field for field, value in numbers if any(abs(value - rate) <= 1e-9 * value for rate in rates)]
        yield from fits or [field for field, value in numbers if isinstance(value, float) and value < 1]
    elif role == "save_every":
        whole = [field for field, value in numbers if isinstance(value, int)]
        yield from sorted(whole, key=lambda field: not any(word in field.path.lower() for word in _SAVING))
    else:
        seen = max(first.batches, default=0) if role == "batch_size" else first.length
        yield from (field for field, value in numbers if isinstance(value, int) and value == seen)


def _another(role: str, value: int | float) -> int | float:
    """Another value for a setting, with which a run goes on as before."""
    if role == "save_every":
        return OFTEN
    if role == "learning_rate":
        return value / 2
    return int(value) // 2 if value > 1 else 2


def _follows(guard: Guard, role: str, value: float, other: float, reference: Outcome, outcome: Outcome) -> bool:
    """Whether a run did what another value of a setting asks for, where the setting plays the role."""
    if not outcome.recording.steps:
        return False
    was, now = reference.recording.steps[0], outcome.recording.steps[0]
    if role == "learning_rate":
        pairs = [(a, b) for a, b in zip(was.lr, now.lr, strict=False) if a > 0]
        return any(abs(b / a - other / value) < 1e-6 for a, b in pairs)
    if role == "batch_size":
        return max(now.batches, default=0) == other
    if role == "max_length":
        return now.length == other
    saves = set(find_saves(guard.subject, outcome))
    wanted = set(range(OFTEN, RUN_STEPS + 1, OFTEN))
    # The last step may be saved whatever the setting is.
    return wanted <= saves and not (saves - wanted - {RUN_STEPS}) and saves != set(guard.reference.saves)
