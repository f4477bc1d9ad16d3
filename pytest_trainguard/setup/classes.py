"""The class of a program that no command line can start: one with a function, or with constants of its module."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pytest_trainguard.setup.arguments import match_names
from pytest_trainguard.setup.sources import Parameter, Source

CALLED = ("main", "train", "run", "fit", "finetune", "train_model", "start")
SETTINGS = ("config", "cfg", "args", "settings", "hparams", "params", "conf")
NEEDED = ("output_dir", "max_steps")  # without these a run cannot be bounded


@dataclass(frozen=True)
class Adopted:
    """How a class starts a program.

    Attributes:
        function: that it calls.
        given: what the function is given, by its parameters, as Python.
        set_before: constants of the module that are set before that, as Python.
        config: the settings type of the module; empty where it has none.
    """

    function: str
    given: dict[str, str]
    set_before: dict[str, str]
    config: str


def find_call(source: Source) -> Adopted | None:
    """How the program can be started from Python, with its folder and its steps; None where it cannot."""
    for name in CALLED:
        if name in source.functions:
            found = _by_parameters(source, name) or _by_constants(source, name)
            if found is not None:
                return found
    return None


def _by_parameters(source: Source, name: str) -> Adopted | None:
    parameters = source.functions[name]
    places = match_names(parameter.name for parameter in parameters)
    config = _config_of(source, parameters)
    given = {
        parameter.name: _value(place, parameter)
        for parameter in parameters
        for place, matched in places.items()
        if matched == parameter.name and place not in ("config", "epochs")
    }
    unknown = [one for one in parameters if one.required and one.name not in given]
    if config:
        given[config[1]] = "run.config"
        unknown = [one for one in unknown if one.name != config[1]]
    if unknown or any(place not in places for place in NEEDED):
        return None
    return Adopted(name, given, {}, config[0] if config else "")


def _config_of(source: Source, parameters: tuple[Parameter, ...]) -> tuple[str, str] | None:
    """The module's settings type, and the parameter that takes it."""
    for parameter in parameters:
        if parameter.annotation in source.classes:
            return parameter.annotation, parameter.name
        if not parameter.annotation and parameter.name in SETTINGS and len(source.classes) == 1:
            return source.classes[0], parameter.name
    return None


def _by_constants(source: Source, name: str) -> Adopted | None:
    if not source.guarded or any(one.required for one in source.functions[name]):
        return None
    places = match_names(one.name for one in source.constants)
    known = {one.name: one for one in source.constants}
    if any(place not in places for place in NEEDED):
        return None
    chosen = {place: matched for place, matched in places.items() if place not in ("config", "epochs")}
    return Adopted(name, {}, {matched: _value(place, known[matched]) for place, matched in chosen.items()}, "")


def _value(place: str, parameter: Parameter) -> str:
    """What stands for a placeholder, as Python: a path as text where the program has texts for paths."""
    if place in ("max_steps", "seed"):
        return f"run.{place}"
    as_text = parameter.annotation.startswith("str") or (
        not parameter.annotation and isinstance(parameter.default, str)
    )
    if not as_text:
        return f"run.{place}"
    return f"str(run.{place})" if place != "resume_from" else "run.resume_from and str(run.resume_from)"


def format_class(adopted: Adopted, name: str, module: str, sample: Path | None, labels: str) -> str:
    """The file that presents a program to the harness.

    Args:
        adopted: how it is started.
        name: of the class.
        module: of the program.
        sample: its data, from the project's root.
        labels: the field of a row that is to be learnt; empty where it is not known.
    """
    body = [f"    config = {module}.{adopted.config}"] if adopted.config else []
    body += [f"    sample = {json.dumps(str(sample))}"] if sample else []
    body += [f"    labels = {json.dumps(labels)}"] if labels else []
    body += [""] if body else []
    call = "".join(f"\n            {parameter}={value}," for parameter, value in adopted.given.items())
    end = "\n        " if call else ""
    lines = [
        f'"""How pytest-trainguard starts {module}."""',
        "",
        f"import {module}",
        "",
        "import pytest_trainguard as trainguard",
        "",
        "",
        f"class {name}(trainguard.Trainer):",
        *body,
        "    def train(self, run):",
        *(f"        {module}.{constant} = {value}" for constant, value in adopted.set_before.items()),
        f"        {module}.{adopted.function}({call}{end})",
    ]
    return "\n".join(lines) + "\n"
