"""A trainer that is known by its command line alone, from a table `[tool.trainguard.trainers.NAME]`."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import runpy
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_trainguard.contract import queues
from pytest_trainguard.contract.trainer import Run, Trainer

PLACEHOLDERS = ("config", "data", "output_dir", "max_steps", "resume_from", "seed")
WRITABLE = (".json", ".toml", ".yaml", ".yml")  # forms of a settings file
_NEEDED = ("output_dir", "max_steps")
_KEYS = (
    "command", "settings", "sample", "production", "tiny", "overfit", "overfit_below", "fields", "rows", "resume",
    "queue", "labels", "logs",
)  # fmt: skip
_PLACE = re.compile(r"\{(\w*)\}")
PLAIN_PATH = "TRAINGUARD_SYS_PATH"  # in a run's environment: `sys.path` of a Python that the harness has not started
_PYTHON = re.compile(r"(^|/)python(3(\.\d+)?)?$")


def faults_in(table: Mapping[str, object]) -> str | None:
    """What is wrong with a trainer's table, in one line; None where nothing is."""
    unknown = [key for key in table if key not in _KEYS]
    if unknown:
        return f"unknown key {unknown[0]!r}; known are {', '.join(_KEYS)}"
    command = table.get("command")
    if not isinstance(command, str) or not command.strip():
        return "has no command"
    places = _PLACE.findall(command)
    for place in places:
        if place not in PLACEHOLDERS:
            return f"command has an unknown placeholder {{{place}}}; known are {', '.join(PLACEHOLDERS)}"
    for place in _NEEDED:
        if place not in places:
            return f"command lacks {{{place}}}: without it a run cannot be bounded"
    if table.get("settings") and "config" not in places:
        return "has settings, but its command lacks {config}"
    if table.get("resume", "checkpoint") not in ("checkpoint", "folder"):
        return "resume is 'checkpoint' (the newest one's path) or 'folder' (the output folder)"
    if "overfit_below" in table and type(table["overfit_below"]) not in (int, float):
        return f"overfit_below is a number, not {table['overfit_below']!r}"
    try:
        shlex.split(command)
    except ValueError as error:
        return f"command cannot be split: {error}"
    return _faults_in_queue(table["queue"]) if "queue" in table else None


def _faults_in_queue(queue: object) -> str | None:
    wrong = queues.faults_in(queue) if isinstance(queue, Mapping) else "is not a table"
    return f"queue: {wrong}" if wrong else None


class CommandTrainer(Trainer):
    """Runs a team's command. `python script.py` and `python -m module` go on in the warm process, others by exec."""

    def __init__(self, table: Mapping[str, Any]):
        wrong = faults_in(table)
        if wrong:
            raise ValueError(wrong)
        self._resume = table.get("resume", "checkpoint")
        self._settings = Path(table["settings"]) if table.get("settings") else None
        set_here: dict[str, Any] = {
            "config": read_settings(self._settings) if self._settings else None,
            "sample": table.get("sample"),
            "rows": table.get("rows", Trainer.rows),
            "queue": queues.Queue(**table["queue"]) if "queue" in table else None,
            "command": table["command"],
            "labels": table.get("labels"),
            "logs": table.get("logs", ()),
            "overfit_below": table.get("overfit_below"),
        }
        if self._settings is not None:
            set_here["settings_name"] = self._settings.name
        for name in ("production", "tiny", "overfit", "fields"):
            set_here[name] = table.get(name, {})
        vars(self).update(set_here)

    def resume_from(self, output_dir: Path) -> Path | None:
        """The newest checkpoint, or the output folder where the table says `resume = "folder"`."""
        return output_dir if self._resume == "folder" else super().resume_from(output_dir)

    def train(self, run: Run) -> None:
        """Become the command. Does not return, except where the command is a Python program that ends by returning."""
        config = None
        if self._settings is not None:
            config = Path(tempfile.mkdtemp(prefix="settings-")) / self._settings.name
            write_settings(config, run.config)
        assert self.command is not None
        become(self.command, run, config)


def become(command: str, run: Run, config: Path | None) -> None:
    """Go on as a command, for one run, with its settings in the file `config`; see `CommandTrainer.train`."""
    values = {name: getattr(run, name) for name in PLACEHOLDERS if name != "config"}
    argv = arguments(command, {**values, "config": config})
    sys.stdout.flush()
    if is_this_python(argv[0]):
        if len(argv) > 1 and (argv[1] == "-m" or not argv[1].startswith("-")):
            return _become_python(argv[1:])
        argv[0] = sys.executable
    if shutil.which(argv[0]) is None:
        beside = f"{os.path.dirname(sys.executable)} and PATH" if os.sep not in argv[0] else "this place"
        raise SystemExit(f"{argv[0]}: no such program: looked for it in {beside}")
    os.execvp(argv[0], argv)


def arguments(command: str, values: Mapping[str, object]) -> list[str]:
    """The command's words with its placeholders filled in.

    A word whose placeholder has no value (`--resume {resume_from}` on a fresh start) is left out, and with it the
    option before it.
    """
    argv: list[str] = []
    for word in shlex.split(command):
        places = _PLACE.findall(word)
        if any(values[place] is None for place in places):
            if word.startswith("{") and argv and argv[-1].startswith("-"):
                argv.pop()
            continue
        argv.append(_PLACE.sub(lambda place: str(values[place[1]]), word))
    return argv


def is_this_python(program: str) -> bool:
    """Whether a command's program is the interpreter that the harness runs in: `python`, or its own path."""
    if not _PYTHON.search(program):
        return False
    return os.path.dirname(program) in ("", os.path.dirname(sys.executable))


def _become_python(argv: list[str]) -> None:
    """Go on as `python argv...` would: same `sys.argv`, same `sys.path`, run as `__main__`."""
    plain = os.environ.get(PLAIN_PATH)
    if plain is not None:
        sys.path[:] = json.loads(plain)
    if argv[0] == "-m":
        sys.path.insert(0, os.getcwd())
        sys.modules.pop(argv[1], None)  # a warm process may have it already, and `runpy` would warn of that
        sys.argv = [_source_of(argv[1]), *argv[2:]]
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = argv
        sys.path.insert(0, str(Path(argv[0]).resolve().parent))
        runpy.run_path(argv[0], run_name="__main__")


def _source_of(module: str) -> str:
    """The file that `python -m` runs, which it puts first into `sys.argv`; the module's name where it has none."""
    spec = importlib.util.find_spec(module)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{module}.__main__")
    return spec.origin if spec is not None and spec.origin else module


def read_settings(path: Path) -> dict[str, object]:
    """A settings file in JSON, TOML or YAML.

    Raises:
        OSError: it cannot be read.
        ValueError: it cannot be parsed, is of an unknown kind, or holds no mapping.
    """
    try:
        content = _parsed(path.read_text(encoding="utf-8"), path.suffix)
    except ValueError as error:
        raise ValueError(f"settings {path}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"settings {path}: holds no table of names and values")
    return content


def _parsed(text: str, suffix: str) -> object:
    if suffix == ".json":
        return json.loads(text)
    if suffix == ".toml":
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib
        return tomllib.loads(text)
    if suffix not in (".yaml", ".yml"):
        raise ValueError(f"unknown kind {suffix!r}; known are .json, .toml, .yaml")
    try:
        import yaml
    except ImportError as error:
        raise ValueError("reading YAML needs pytest-trainguard[yaml]") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def write_settings(path: Path, values: Mapping[str, object]) -> None:
    """Write settings in the form that the suffix names."""
    if path.suffix == ".json":
        path.write_text(json.dumps(values))
    elif path.suffix == ".toml":
        import tomli_w

        path.write_text(tomli_w.dumps(_without_none(values)))
    else:
        import yaml

        path.write_text(yaml.safe_dump(dict(values)))


def _without_none(values: Mapping[str, object]) -> dict[str, object]:
    """TOML has no null: a setting that is None is left out."""
    return {
        name: _without_none(value) if isinstance(value, Mapping) else value
        for name, value in values.items()
        if value is not None
    }
