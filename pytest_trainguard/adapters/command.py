"""A trainer that is known by its command line alone, from a table `[tool.trainguard.trainers.NAME]`."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import os
import re
import runpy
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_trainguard.adapters.known import HELP, PLACE, PLACEHOLDERS, Known, help_command, places_in, read_known
from pytest_trainguard.adapters.launchers import find_script, is_this_python, split_variables
from pytest_trainguard.adapters.options import as_text, in_hydra, in_yaml, spread
from pytest_trainguard.adapters.settings_files import write_settings
from pytest_trainguard.adapters.tables import FUNCTIONS, faults_in
from pytest_trainguard.contract import settings
from pytest_trainguard.contract.queues import Queue
from pytest_trainguard.contract.settings import Field
from pytest_trainguard.contract.trainer import Run, Trainer

PLAIN_PATH = "TRAINGUARD_SYS_PATH"  # in a run's environment: `sys.path` of a Python that the harness has not started

_KEY_VALUE = re.compile(r"[+~]*\w[\w./@]*=\{\w[\w.]*\}")


class CommandTrainer(Trainer):
    """Runs a team's command. What this interpreter runs goes on in the warm process, all else by exec.

    That is `python script.py`, `python -m module`, and a program such as installers make for an entry point.

    Attributes:
        known: what is known of its settings.
    """

    def __init__(self, table: Mapping[str, Any]):
        """Take over what a table says, and what the program's `--help` says where the table bears that.

        Raises:
            ValueError: something is wrong with it, or its settings file cannot be parsed.
            OSError: its settings file cannot be read.
            ImportError, AttributeError: a function that it names does not exist.
        """
        wrong = faults_in({key: value for key, value in table.items() if key != HELP})
        if wrong:
            raise ValueError(wrong)
        self.known: Known = read_known(table)
        self._resume: str = table.get("resume", "checkpoint")
        self._steps_per_epoch: int | None = table.get("steps_per_epoch")
        self._places = frozenset(places_in(table["command"]))
        named = table.get("settings") or table.get("settings_name")
        self._has_file = bool(named) and "config" in self._places
        set_here: dict[str, Any] = {
            "config": self.known.defaults,
            "queue": Queue(**table["queue"]) if "queue" in table else None,
            "command": table["command"],
        }
        if named:
            set_here["settings_name"] = table.get("settings_name") or Path(named).name
        paths = self.known.paths
        for name in ("production", "tiny", "overfit"):
            set_here[name] = {paths.get(path, path): value for path, value in table.get(name, {}).items()}
        set_here["fields"] = {role: paths.get(path, path) for role, path in table.get("fields", {}).items()}
        for name in ("overfit_below", "sample", "rows", "labels"):
            if name in table:
                set_here[name] = table[name]
        for name in ("preload", "logs"):
            if name in table:
                set_here[name] = (table[name],) if isinstance(table[name], str) else table[name]
        for name in FUNCTIONS:
            if name in table:
                set_here[name] = _find_function(table[name])
        vars(self).update(set_here)

    @property
    def resumes_by_words(self) -> bool:
        """Whether there are words that are put in on a resume alone."""
        return self._resume not in ("checkpoint", "folder")

    @property
    def resumes(self) -> bool:
        """Whether it can be asked to carry on: by a path, by words, or by what it finds in its output folder itself."""
        return self.takes_path or self.resumes_by_words or self._resume == "folder"

    @property
    def takes_path(self) -> bool:
        """Whether the program is told the path of what it is to resume from."""
        return "resume_from" in {*self._places, *places_in(self._resume)}

    def resume_from(self, output_dir: Path) -> Path | None:
        """The newest checkpoint, or the output folder where the program finds it there by itself."""
        by_itself = self._resume == "folder" or (self.resumes_by_words and not self.takes_path)
        return output_dir if by_itself else super().resume_from(output_dir)

    def train(self, run: Run) -> None:
        """Become the command. Does not return, except where the command is a Python program that ends by returning."""
        config = None
        if self._has_file:
            config = Path(tempfile.mkdtemp(prefix="settings-")) / self.settings_name
            write_settings(config, run.config)
        words, started_in = self.words(run, config), os.getcwd()
        if "output_dir" not in self._places:
            os.chdir(run.output_dir)
        become(words, started_in)

    def words(self, run: Run, config: Path | None) -> list[str]:
        """The words that start the program for one run, with its settings in the file `config` where it takes one."""
        assert self.command is not None
        known, own = self.known, {}
        for place in self._places.difference(PLACEHOLDERS):
            field = known.find(place, self.fields)
            if field is not None:
                own[place] = field
        epochs = math.ceil(run.max_steps / self._steps_per_epoch) if self._steps_per_epoch else None
        values = {
            **{place: self._value(field, run) for place, field in own.items()},
            **_values_of(run, config),
            "epochs": epochs if epochs is not None else self._value(known.find("epochs", self.fields), run),
        }
        given = {field.path for field in own.values()}
        if "epochs" in self._places and (counted := known.find("epochs", self.fields)):
            given.add(counted.path)
        values["settings"] = spread(run.settings, known.form or "", known.fields, known.options, given)
        values["resume"] = self._words_of_resume(run, values)
        words = arguments(self.command, values, self._quote)
        return words if "resume" in self._places else [*words, *values["resume"]]

    def _words_of_resume(self, run: Run, values: Mapping[str, object]) -> list[str]:
        """The words that are put in on a resume alone."""
        return (
            arguments(self._resume, values, self._quote)
            if self.resumes_by_words and run.resume_from is not None
            else []
        )

    @property
    def _quote(self) -> Callable[[str], str] | None:
        """How a path is quoted in a word `key=path`; None where settings are given otherwise."""
        if self.known.form != "key=value":
            return None
        return in_hydra if self.known.told else in_yaml

    def _value(self, field: Field | None, run: Run) -> object:
        """A setting's value in a run; None where neither the run nor the program says one."""
        if field is None:
            return None
        value = settings.value_at(run.settings, field.path)
        return field.default if value is None else value


def _find_function(name: str) -> Callable[..., Any]:
    """The function that `module:function` names.

    Raises:
        ImportError, AttributeError: there is none.
        TypeError: it is none.
    """
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    if not callable(found):
        raise TypeError(f"{name} is {found!r}, and not a function")
    return found  # type: ignore[no-any-return]


def words_of(trainer: Trainer, run: Run, config: Path) -> list[str]:
    """The words of a trainer's command, for one run with its settings in the file `config`."""
    if isinstance(trainer, CommandTrainer):
        return trainer.words(run, config)
    assert trainer.command is not None
    return arguments(trainer.command, _values_of(run, config))


def known_fields(trainer: Trainer) -> tuple[Field, ...]:
    """The settings of a trainer."""
    if isinstance(trainer, CommandTrainer):
        return trainer.known.fields
    return tuple(settings.fields_of(trainer.config)) if trainer.config is not None else ()


def _values_of(run: Run, config: Path | None) -> dict[str, Any]:
    """The values of the placeholders that every command may have."""
    own = ("data", "output_dir", "max_steps", "resume_from", "seed")
    return {"config": config, **{name: getattr(run, name) for name in own}}


def show_help(command: str) -> None:
    """Go on as the program that is asked for its `--help`; one that trains instead is ended at its first step.

    Raises:
        SystemExit: as the program ends, or where there is no such program.
    """
    if "torch.optim.optimizer" in sys.modules:
        sys.modules["torch.optim.optimizer"].register_optimizer_step_pre_hook(_end_at_a_step)
    become(help_command(command))


def _end_at_a_step(*_: object) -> None:
    raise SystemExit("trains, instead of printing its help")


def become(argv: Sequence[str], root: str | None = None) -> None:
    """Go on as the command of these words, of which the first may set environment variables, as in a shell.

    Args:
        argv: the words.
        root: the folder in which `python -m` finds modules; None for the working folder.
    """
    variables, argv = split_variables(argv)
    os.environ.update(variables)
    sys.stdout.flush()
    if goes_on_here(argv):
        return _become_python(argv[1:], root)
    if is_this_python(argv[0]):
        argv[0] = sys.executable
    script = find_script(argv[0])
    if script is not None:
        return _become_python([str(script), *argv[1:]], root)
    if shutil.which(argv[0]) is None:
        beside = f"{os.path.dirname(sys.executable)} and PATH" if os.sep not in argv[0] else "this place"
        raise SystemExit(f"{argv[0]}: no such program: looked for it in {beside}")
    os.execvp(argv[0], argv)


def goes_on_here(argv: Sequence[str]) -> bool:
    """Whether a command is this interpreter's, with a module or a script for which it need not be started anew."""
    return is_this_python(argv[0]) and len(argv) > 1 and (argv[1] == "-m" or not argv[1].startswith("-"))


def arguments(command: str, values: Mapping[str, Any], quote: Callable[[str], str] | None = None) -> list[str]:
    """The command's words with its placeholders filled in.

    Where settings are given as `key=value`, `quote` is for a path in a word `key={place}`: of one with a comma or a
    quote in it Hydra would read something else.

    A word whose placeholder has no value (`--resume {resume_from}` on a fresh start) is left out, and with it the
    option before it. One whose value is a list of words becomes these.
    """
    argv: list[str] = []
    for word in shlex.split(command):
        places = places_in(word)
        if len(places) == 1 and isinstance(values[places[0]], list) and word == f"{{{places[0]}}}":
            argv += values[places[0]]
        elif any(values.get(place) is None for place in places):
            if word.startswith("{") and argv and argv[-1].startswith("-"):
                argv.pop()
        elif quote is not None and _KEY_VALUE.fullmatch(word) and isinstance(values[places[0]], Path):
            argv.append(f"{word.partition('=')[0]}={quote(str(values[places[0]]))}")
        else:
            argv.append(PLACE.sub(lambda place: as_text(values[place[1]]), word))
    return argv


def _become_python(argv: list[str], root: str | None) -> None:
    """Go on as `python argv...` would: same `sys.argv`, same `sys.path`, run as `__main__`."""
    plain = os.environ.get(PLAIN_PATH)
    if plain is not None:
        sys.path[:] = json.loads(plain)
    if argv[0] == "-m":
        sys.path.insert(0, root or os.getcwd())
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
