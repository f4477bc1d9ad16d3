"""A setting by a name that the program does not know, one slip away from one that it knows."""

from __future__ import annotations

import re

from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.contract.settings import Field
from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.verdicts import causes
from pytest_trainguard.verdicts.errors import Finding, NotApplicable
from pytest_trainguard.verdicts.kinds import rejects
from pytest_trainguard.verdicts.wording import field_name

__all__ = ["check", "choose_key", "misspell", "reaches"]

_ROLES = ("batch_size", "learning_rate", "max_length", "epochs")  # whose names slips were seen in
# A line that warns of a key, and does not only show all settings as they were given.
_WARNS = re.compile(
    r"unknown|unrecogni[sz]ed|unexpected|unused|not used|ignor|not (?:a )?(?:known|recogni[sz]ed|valid|allowed)|"
    r"invalid|no such|extra|undefined|did you mean|warn|mis-?spel|typo",
    re.I,
)


def choose_key(guard: Guard) -> tuple[str, str, object]:
    """A misspelt name of one of its settings, the right name, and a value that the setting might have.

    Raises:
        NotApplicable: nothing is known of its settings, which may then have any name.
    """
    settings = guard.subject.settings
    numbers = [field for field in settings.fields if field.kind in ("int", "float")]
    of_roles = [field for role in _ROLES if (field := settings.role(role)) in numbers and field is not None]
    field = next(iter([*of_roles, *numbers]), None)
    if field is None:
        raise NotApplicable(
            "no setting of it with a number is known, so that any name may be one of its own: name its settings, "
            "`config` of its class, or a settings file or {settings} in its table"
        )
    known = {path for one in settings.fields for path in (one.path, one.path.rpartition(".")[2])}
    parent, dot, name = field.path.rpartition(".")
    return f"{parent}{dot}{misspell(name, known)}", field.path, _other_value(guard, field)


def misspell(name: str, known: set[str]) -> str:
    """A name with one slip in it: two letters in the other order, or its last one twice; none of those that are known.

    It is not the beginning of the right one, which argparse takes for that.
    """
    swapped = [f"{name[:at]}{name[at + 1]}{name[at]}{name[at + 2 :]}" for at in range(len(name) - 2, 0, -1)]
    slips = [slip for slip in swapped if slip.replace("_", "") != name.replace("_", "") and slip.strip("_") == slip]
    return next(slip for slip in (*slips, name + name[-1], f"{name}{name[-1]}x") if slip not in known | {name})


def reaches(guard: Guard) -> bool:
    """Whether a setting that is given to an ordinary run comes to the program, whatever its name."""
    return guard.subject.description.takes_any_name


def check(outcome: Outcome, key: str, right: str) -> None:
    """It rejects the key by name, or trains on and warns of it by name.

    Raises:
        Finding: it took it in silence.
    """
    name = field_name(key.rpartition(".")[2])
    if outcome.exit != 0:
        rejects(outcome, name, before="model")
        return
    if any(name.pattern.search(line) and _WARNS.search(line) for line in outcome.message.splitlines()):
        return
    told = (
        f"exit 0, and not a word of {key}, which is none of its settings: whoever meant {right} trains with another "
        "value than he wrote, and does not learn of it. Reject names that are not known, and say which is meant"
    )
    raise Finding(outcome.did, told, outcome.last_words, cause=causes.UNCHECKED_SETTINGS)


def _other_value(guard: Guard, field: Field) -> object:
    value = guard.subject.settings.tiny(field)
    if isinstance(value, int | float) and not isinstance(value, bool) and field.allows(value * 2):
        return value * 2
    return value if value is not None else 1
