"""What a program says of its options with `--help`: names, kinds, defaults, choices and ranges.

Layouts that are understood: those of argparse (and what is built upon it: HfArgumentParser, simple-parsing,
LightningCLI), click, typer and absl, and the settings that Hydra prints. What is not understood is left out.
"""

from __future__ import annotations

import ast
import dataclasses
import re
from dataclasses import dataclass

from pytest_trainguard.contract import settings
from pytest_trainguard.contract.settings import Field

_BOX = re.compile(r"[│┃|]\s?(.*?)\s*[│┃|]?$")  # the line of a box that rich draws
_ENTRY = re.compile(r" {0,8}(?:\* +)?(--?[A-Za-z\[][^\s].*|--?[A-Za-z].*)$")
_BETWEEN = re.compile(r"(?:,\s+|\s+[/|]\s+|/|\s{2,})(?=--?[A-Za-z\[])")  # two names of one option
_NAME = re.compile(r"(--?)(\[no\])?([A-Za-z][\w.\-]*)(?:[ =](.*))?$")
# A kind that stands in a column of its own.
_COLUMN = re.compile(r"((?:<[^>]+>|[A-Z]{2,}(?: [A-Z]+)*)(?: \[[^\]]+\])?|\[[^\]]+\]|\{[^}]+\})(?:\s{2,}|$)(.*)")
_DEFAULT = re.compile(
    r"[(\[](?:[^()\[\]]*?[;,]\s)?default(?::| is|=)\s*((?:[^()\[\];]|\([^()]*\)|\[[^\[\]]*\])*)", re.IGNORECASE
)
_TYPE = re.compile(r"\(type: (\w+)|\(an? (integer|number)\)")
_BETWEEN_BOUNDS = re.compile(r"([-+.\d]\S*?)(<=?)x(<=?)([-+.\de]+)")
_BOUND = re.compile(r"\bx(>=?|<=?)([-+.\de]+)")
_KINDS = {
    "integer": "int", "int": "int", "integer range": "int", "int range": "int",
    "float": "float", "float range": "float", "number": "float",
    "boolean": "bool", "bool": "bool",
    "text": "str", "str": "str", "string": "str", "path": "str", "file": "str", "directory": "str", "filename": "str",
}  # fmt: skip
_COMPARED = {">=": "ge", ">": "gt", "<=": "le", "<": "lt"}
_HYDRA = re.compile(r"^== Config ==$(.*?)(?:^Powered by Hydra|\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Option:
    """One option of a command line.

    Attributes:
        field: the setting that it is.
        flag: its long name as it is written, with its hyphens.
        off: the name that switches a flag off; None where there is none.
        bare: it is a flag, which takes no value.
        several: its values are words of their own.
        names: all its long names, as names of settings.
    """

    field: Field
    flag: str
    off: str | None = None
    bare: bool = False
    several: bool = False
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Help:
    """What a program says of its settings.

    Attributes:
        options: of a command line with options, in their order.
        fields: of a program whose settings are given as `key=value`, by Hydra.
    """

    options: tuple[Option, ...] = ()
    fields: tuple[Field, ...] = ()


def read_help(text: str) -> Help:
    """What the text that a program prints with `--help` says of its settings."""
    hydra = _HYDRA.search(text) if "Hydra" in text else None
    if hydra:
        return Help(fields=_read_hydra(hydra[1]))
    found: list[Option] = []
    for head, rest in _entries(text):
        option = _read_entry(head, rest)
        if option is not None:
            found.append(option)
    return Help(options=tuple(_with_their_opposites(found)))


def _read_hydra(text: str) -> tuple[Field, ...]:
    """The fields of the settings that Hydra prints, which are YAML below a line of explanation."""
    import yaml  # Hydra itself needs it

    body = "\n".join(line for line in text.splitlines() if not line.startswith("Override anything"))
    try:
        values = yaml.safe_load(body)
    except yaml.YAMLError:
        return ()
    return tuple(settings.fields_of(values)) if isinstance(values, dict) else ()


def _entries(text: str) -> list[tuple[str, str]]:
    """Each option's names, and what is said of it."""
    entries: list[tuple[str, list[str]]] = []
    inside = False
    for line in text.splitlines():
        boxed = _BOX.match(line)
        line = f"  {boxed[1]}" if boxed else line
        entry = _ENTRY.match(line)
        if entry:
            entries.append((entry[1], []))
            inside = True
        elif not line.startswith("   "):
            inside = False  # a heading or an empty line
        elif inside:
            entries[-1][1].append(line.strip())
    return [(head, " ".join(rest)) for head, rest in entries]


def _read_entry(head: str, rest: str) -> Option | None:
    """An option from its entry; None for one that is no setting."""
    parts = _BETWEEN.split(head)
    last, _, said = parts[-1].partition("  ")
    absl = re.match(r"(--(?:\[no\])?[\w.\-]+):(?:\s(.*))?$", last)
    if absl:
        last, said = absl[1], f"{absl[2] or ''} {said}"
    names, metavar, off, switched = [], "", None, False
    for part in [*parts[:-1], last]:
        name = _NAME.match(part.strip())
        if name is None:
            return None
        metavar = metavar or (name[4] or "").strip()
        if name[1] == "--":
            names.append(name[3])
            switched = switched or bool(name[2])
    names = [name for name in names if not (name.startswith("no") and name[2:].lstrip("-_") in names)] or names
    for part in parts:
        opposite = part.strip().split(" ")[0]
        if opposite.startswith("--no") and opposite[4:].lstrip("-_") in names:
            off = opposite
    if not names or names[0] in ("help", "version", "helpfull", "helpshort", "helpxml", "print_config"):
        return None
    if switched:
        off = f"--no{names[0]}"
    column = _COLUMN.match(said.strip()) if not metavar else None
    if column and not column[1].lower().startswith(("[default", "[required")):
        metavar, said = column[1], column[2]
    said = f"{said} {rest}"
    field, flag_only = _read_field(names[0], metavar, said, off is not None, absl is not None, column is not None)
    plain = tuple(dict.fromkeys(name.replace("-", "_") for name in names))
    return Option(field, f"--{names[0]}", off, flag_only, "..." in metavar, plain)


def _read_field(name: str, metavar: str, said: str, switched: bool, absl: bool, column: bool) -> tuple[Field, bool]:
    """The setting that an option is, and whether it is a flag without a value."""
    bounds = _read_bounds(f"{metavar} {said}")
    told = [match for match in _DEFAULT.findall(said) if match.strip()]
    default = _plain(told[-1].strip()) if told else None
    if absl and isinstance(default, str):
        default = _plain(default)  # absl puts every default between quotes
    word = re.sub(r"\s*\[.*", "", metavar.strip("<>")).strip().lower()
    kind = _KINDS.get(word, "")
    bare = switched or (kind == "bool" and column) or (not metavar and not absl)
    if bare:
        if isinstance(default, str):  # click says the flag that is the default
            default = default.lstrip("-").replace("-", "_") == name.replace("-", "_")
        if not isinstance(default, bool):  # a flag that can only be set is off without it
            default = None if switched else False
        return Field(name.replace("-", "_"), "bool", default=default), True
    choices = _read_choices(metavar, default)
    stated = _TYPE.search(said)
    if stated:
        kind = _KINDS.get(stated[1] or stated[2], "")
    if choices:
        kind = "choice"
    elif not kind:
        kind = {bool: "bool", int: "int", float: "float", str: "str"}.get(type(default), "other")
    if kind == "float" and type(default) is int:
        default = float(default)
    plain = default if isinstance(default, bool | int | float | str) else None
    return Field(name.replace("-", "_"), kind, bounds, choices, default=plain), False


def _read_choices(metavar: str, default: object) -> tuple[object, ...]:
    """The choices of `{a,b}`, `[a|b]` or `<a|b>`."""
    inside = re.match(r"[{\[<]([^}\]>]*)[}\]>]", metavar)
    if not inside or (not re.search(r"[,|]", inside[1]) and not metavar.startswith("{")):
        return ()
    found = [choice.strip() for choice in re.split(r"[,|]", inside[1])]
    if any(" " in choice or choice == "..." for choice in found):
        return ()
    read = [_plain(choice) for choice in found]
    return tuple(read) if isinstance(default, int | float) else tuple(found)


def _read_bounds(said: str) -> dict[str, float]:
    """The range of click's `1<=x<=128` and `x>=1`."""
    found: dict[str, float] = {}
    both = _BETWEEN_BOUNDS.search(said)
    try:
        if both:
            low, high = ("ge" if both[2] == "<=" else "gt"), _COMPARED[both[3]]
            return {low: float(both[1].lstrip("[")), high: float(both[4])}
        for compared, value in _BOUND.findall(said):
            found[_COMPARED[compared]] = float(value)
    except ValueError:  # something else that looks like it
        return {}
    return found


def _plain(text: str) -> object:
    """A default as a value: a number, True, None; else the text itself."""
    try:
        return ast.literal_eval({"true": "True", "false": "False", "null": "None"}.get(text, text))
    except (ValueError, SyntaxError):
        return text


def _with_their_opposites(options: list[Option]) -> list[Option]:
    """The options, those that only switch another off (`--no_pin_memory`) joined with it; each name once."""
    by_name = {name: option for option in reversed(options) for name in option.names}
    joined: dict[str, Option] = {}
    for option in options:
        name = option.names[0]
        other = by_name.get(re.sub(r"^no_", "", name)) if name.startswith("no_") else None
        if other is not None and other.field.kind == "bool":
            joined[other.flag] = dataclasses.replace(joined.get(other.flag, other), off=option.flag)
        elif by_name[name] is option:
            joined.setdefault(option.flag, option)
    return list(joined.values())
