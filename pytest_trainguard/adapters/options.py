"""Settings as words of a command line: `--key value`, `--key=value` or `key=value`."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from pytest_trainguard.adapters.help_text import Help, Option
from pytest_trainguard.contract.settings import Field

FORMS = ("--key value", "--key=value", "key=value")
_PLAIN = re.compile(r"[\w./:@%+\-]*")  # what neither Hydra nor YAML takes for anything but a text


def form_of(told: Help) -> str | None:
    """The form that a program's `--help` tells; None where it tells none.

    Every program with options takes `--key=value`, and there no value, as `-1`, is taken for an option.
    """
    if told.fields:
        return "key=value"
    return "--key=value" if told.options else None


def leaves(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Each setting of nested ones by its dotted path."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def spread(
    values: Mapping[str, object],
    form: str,
    fields: Sequence[Field],
    options: Sequence[Option],
    without: Collection[str],
) -> list[str]:
    """The words that give a program those settings which differ from its own defaults.

    Args:
        values: the settings, nested or by dotted path.
        form: one of `FORMS`.
        fields: what is known of its settings, with their defaults.
        options: what it says of its options.
        without: the paths of settings that are given otherwise.
    """
    defaults = {field.path: field.default for field in fields if field.default is not None}
    by_name = {name: option for option in reversed(options) for name in option.names}
    words: list[str] = []
    for path, value in leaves(values):
        option = by_name.get(path)
        known = option.field.path if option else path
        if known in without or path in without or _same(value, defaults.get(known)):
            continue
        if value is None and form != "key=value":
            continue  # no word says that an option has no value
        words += _words(path, value, form, option)
    return words


def _same(value: object, default: object) -> bool:
    """Whether a value is the program's own default, where that is known."""
    return default is not None and type(value) is type(default) and value == default


def _words(path: str, value: object, form: str, option: Option | None) -> list[str]:
    """The words of one setting."""
    if form == "key=value":
        return [f"{path}={in_yaml(value)}"]
    flag = option.flag if option else f"--{path}"
    if option and option.bare and isinstance(value, bool):
        chosen = flag if value else option.off
        return [chosen] if chosen else []
    if option and option.several and isinstance(value, list | tuple):
        return [flag, *map(as_text, value)]
    return [f"{flag}={as_text(value)}"] if form == "--key=value" else [flag, as_text(value)]


def as_text(value: object) -> str:
    """A value as a program reads it from a word; a float so that YAML takes it for one."""
    if isinstance(value, float):
        digits, e, exponent = repr(value).partition("e")
        return f"{digits}.0e{exponent}" if e and "." not in digits else repr(value)
    return str(value)


def in_hydra(text: str) -> str:
    """A text as Hydra's grammar reads it: in quotes all is as it stands, but quotes and backslashes before them."""
    if text and _PLAIN.fullmatch(text):
        return text
    return '"' + re.sub(r'(\\*)("|$)', lambda end: end[1] * 2 + ('\\"' if end[2] else ""), text) + '"'


def in_yaml(value: object) -> str:
    """A value as Hydra and OmegaConf read it."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return value if value and _PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return f"[{','.join(map(in_yaml, value))}]"
    return as_text(value)
