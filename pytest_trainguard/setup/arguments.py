"""Which of a program's arguments are the run's own: its data, its output folder, its steps, what it resumes from.

They are recognised by their names, in what the program prints with `--help` and in what its source declares.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_trainguard.adapters.help_text import Help, Option
from pytest_trainguard.contract import settings
from pytest_trainguard.contract.settings import Field
from pytest_trainguard.setup.sources import Source

_COUNT = r"(?:max|num|n|total|train|nb|number_of)"
_TRAIN = r"(?:train|training|data|dataset)"
_KIND = r"(?:data|dataset|file|files|path|set|dir|folder|csv|json|jsonl|parquet|tsv|txt)"
# What a run is given, and the names that arguments for it have; the first pattern that fits anything counts.
NAMES: dict[str, tuple[str, ...]] = {
    "output_dir": (
        r"out(?:put)?s?(?:_?(?:dir|directory|folder|path|root))?",
        r"(?:save|ckpt|checkpoints?|run|work|exp|experiment|results?|default_root)_?(?:dir|directory|folder|to|root)",
        r"(?:save|ckpt|checkpoint)_?path|save|log_?dir|model_dir",
    ),
    "max_steps": (
        rf"{_COUNT}_?(?:train(?:ing)?_?)?(?:optim(?:izer|ization)?_?)?(?:steps?|iters?|iterations|updates|batches)",
        r"steps?|iters?|iterations|updates|train_steps|training_steps",
    ),
    "resume_from": (
        r"resume(?:_from(?:_checkpoint|_ckpt|_path)?|_path|_ckpt|_checkpoint)?",
        r"(?:load|restore|continue|restart|init|start)_?(?:from|from_checkpoint|checkpoint|ckpt)",
        r"from_checkpoint|ckpt_path|checkpoint_path|checkpoint|ckpt|restore|resume_training|continue",
    ),
    "data": (
        rf"{_TRAIN}(?:_{_KIND})?|{_TRAIN}{_KIND}",
        r"inputs?(?:_?(?:data|file|path|dir))?|corpus(?:_?(?:file|path))?|csv|jsonl|file|files|path",
    ),
    "seed": (r"(?:random_|manual_|global_|rng_)?seed|seed_everything",),
    "config": (r"(?:config|cfg|conf|settings)(?:_?(?:file|path))?|(?:train|training)_config",),
}
EPOCHS = r"(?:num|n|max|total|nb)_?(?:train_?)?epochs?|epochs?"


@dataclass(frozen=True)
class Found:
    """The arguments that were recognised.

    Attributes:
        words: of the command, with their placeholders, in an order that the program takes.
        resume: words that are added on a resume alone; empty where `words` has the path, or it cannot resume.
        places: the placeholders that there are, with the name of the argument of each.
        missing: arguments without which it does not start, and for which no value is known.
        spare: the options that are settings, as `{settings}` will give them.
    """

    words: tuple[str, ...]
    resume: str
    places: dict[str, str]
    missing: tuple[str, ...]
    spare: tuple[Field, ...]


def find_arguments(told: Help, positional: Sequence[str], source: Source | None, has_settings_file: bool) -> Found:
    """What a run's own arguments are called.

    Args:
        told: what its `--help` says.
        positional: the names of arguments that stand without one.
        source: the program's source, where it is known.
        has_settings_file: the project has one that the program could be given.
    """
    options = told.options or tuple(Option(field, field.path) for field in told.fields)
    places = _match([option.names or (option.field.path,) for option in options], options, has_settings_file)
    words: list[str] = []
    missing: list[str] = []
    for name in positional:
        place = _place_of(name)
        if place is None or place in places:
            missing.append(name)
            words.append(name.upper())
        else:
            places[place] = name
            words.append(f"{{{place}}}")
    resume = ""
    by_name = {name: place for place, name in places.items()}
    for option in options:  # in their own order
        name = option.field.path
        place = by_name.get(name)
        if place is None:
            continue
        if option.bare:
            resume = option.flag
        elif option.field.kind == "bool":
            resume = f"{name}=true" if told.fields else f"{option.flag} true"
        elif told.fields:
            words.append(f"{name}={{{place}}}")
        else:
            words += [option.flag, f"{{{place}}}"]
    needed = _required(source, options)
    taken = set(places.values())
    for name, flag in needed.items():
        if name not in taken:
            missing.append(flag)
            words += [flag, name.upper()]
    spare = tuple(
        option.field
        for option in options
        if option.field.path not in {*taken, *needed} and not _fits(NAMES["config"][0], option.names)
    )
    if source is not None and "do_train" in source.names and any(option.field.path == "do_train" for option in options):
        words.append("--do_train")  # of the scripts of transformers, which do nothing without it
    return Found(tuple(words), resume, places, tuple(missing), spare)


def match_names(names: Iterable[str]) -> dict[str, str]:
    """Of plain names those that a run's values have: placeholder to name."""
    fields = [Field(name, "other") for name in names]
    return _match([(field.path,) for field in fields], [Option(field, field.path) for field in fields], False)


def _match(names: Sequence[Sequence[str]], options: Sequence[Option], has_settings_file: bool) -> dict[str, str]:
    """The placeholder of each option that is one of a run's own; each option and each placeholder once."""
    found: dict[str, str] = {}
    patterns = {**NAMES, "epochs": (EPOCHS,)}
    for place, wanted in patterns.items():
        if place == "config" and not has_settings_file:
            continue
        if place == "epochs" and "max_steps" in found:
            continue  # the number of steps rules
        for pattern in wanted:
            fits = [
                option
                for option, own in zip(options, names, strict=True)
                if option.field.path not in found.values() and _is_of(place, option) and _fits(pattern, own)
            ]
            if fits:
                found[place] = fits[0].field.path
                break
    return found


def _fits(pattern: str, names: Sequence[str]) -> bool:
    """Whether one of an option's names is of a pattern: whole, or behind its last dot."""
    for name in names:
        plain = name.lower().replace("-", "_")
        spellings = (plain.replace(".", "_"), plain.rpartition(".")[2])
        if any(re.fullmatch(pattern, spelling) for spelling in spellings):
            return True
    return False


def _is_of(place: str, option: Option) -> bool:
    """Whether an option can take what stands for a placeholder, by its kind."""
    field = option.field
    if option.bare or field.kind == "bool":
        return place == "resume_from" and field.default is not True
    if field.kind == "choice" or (place == "data" and _names_no_file(field.default)):
        return False
    if place in ("max_steps", "seed", "epochs"):
        return field.kind in ("int", "other", "float")
    return field.kind in ("str", "other")


def _names_no_file(default: object) -> bool:
    """Whether a default is the name of a known data set, `mnist`, and no path."""
    return isinstance(default, str) and bool(default) and "/" not in default and "." not in default


def _place_of(name: str) -> str | None:
    return next(iter(match_names([name])), None)


def _required(source: Source | None, options: Sequence[Option]) -> dict[str, str]:
    """The options without which the program does not start, by the name of their setting, with their flags."""
    if source is None:
        return {}
    known = {name: option for option in options for name in option.names}
    return {
        known[one.name].field.path: known[one.name].flag
        for one in source.declared
        if one.required and not one.positional and one.name in known
    }


def read_positional(text: str) -> tuple[str, ...]:
    """The names of the arguments that have none, of the `--help` of argparse and of click."""
    found: list[str] = []
    inside = False
    for line in text.splitlines():
        if not line.startswith(" "):
            inside = line.strip().lower().rstrip(":") in ("positional arguments", "arguments")
        elif inside and (entry := re.match(r" {1,8}([A-Za-z_]\w*)\b(?! *=)", line)):
            found.append(entry[1])
    usage = re.search(r"^Usage: \S+.*?\[OPTIONS\](.*)$", text, re.MULTILINE)
    if usage and not found:  # click tells of its arguments in its usage alone
        found = [name for name in re.findall(r"[\[\]\w.]+", usage[1]) if not name.startswith("[")]
    return tuple(name.lower() for name in found if name.lower() not in ("command", "args"))


def with_declared(fields: Sequence[Field], source: Source | None) -> list[Field]:
    """The settings, with the kinds and defaults that the source declares where the `--help` is silent."""
    found = []
    for field in fields:
        declared = source.declaration(field.path) if source is not None else None
        if declared is not None:
            value = declared.default
            default = field.default if value is None else value
            kind = field.kind
            if kind == "other":
                kind = declared.kind or {int: "int", float: "float", str: "str"}.get(type(value), "other")
            field = dataclasses.replace(field, kind="str" if kind == "path" else kind, default=default)
        found.append(field)
    return found


def small_values(fields: Sequence[Field]) -> dict[str, object]:
    """Values that make a program small enough for a CPU: of those settings that say how large it is."""
    small: dict[str, object] = {}
    heads = next((field.default for field in fields if _last(field.path) in _HEADS and _whole(field.default)), None)
    for role, most in (("hidden_size", 32), ("layers", 2), ("batch_size", 8)):
        field = settings.role(role, fields, {})
        if field is None or not _whole(field.default) or field.choices:
            continue
        default = field.default
        assert isinstance(default, int)
        # A width is a multiple of the number of heads, and that of a head even.
        size = max(most, 2 * heads) if role == "hidden_size" and isinstance(heads, int) else most
        if default > size and (not isinstance(heads, int) or role != "hidden_size" or size % heads == 0):
            small[field.path] = max(size, int(field.bounds.get("ge", size)))
    return small


_HEADS = ("n_head", "n_heads", "num_heads", "nhead", "num_attention_heads", "heads")


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
