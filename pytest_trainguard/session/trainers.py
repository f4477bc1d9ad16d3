"""Which trainers a session tests: those of the ini file and of pyproject.toml that `--trainer` leaves."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pytest_trainguard.contract.modules import module_exists
from pytest_trainguard.contract.nearest import nearest
from pytest_trainguard.contract.trainer import TrainerSpec
from pytest_trainguard.session.ini_file import SETTINGS, read_list
from pytest_trainguard.session.short_names import name_option

NAMES = pytest.StashKey[frozenset[str]]()  # of the trainers that the session has chosen
TABLES = ("tool", "trainguard", "trainers")


def find_search_path(config: pytest.Config) -> list[str]:
    """Where trainers' modules are looked for: the root folder, pytest's `pythonpath`, this interpreter's own."""
    return [str(config.rootpath), *(str(path) for path in config.getini("pythonpath"))]


def choose_trainers(config: pytest.Config) -> dict[str, TrainerSpec]:
    """The trainers of this session: the name in test ids to `module:Class`, or a command line's table.

    Raises:
        pytest.UsageError: there is none, or one that does not exist.
    """
    found = _read_trainers(config)
    if not found:
        raise pytest.UsageError(
            "no trainers: name them in the ini option trainguard_trainers ('module:Class'), "
            f"or as [tool.trainguard.trainers.NAME] in pyproject.toml{_hint_at_other_folder(config)}"
        )
    by_lower = {name.lower(): name for name in found}
    for name in config.option.trainguard_trainer:
        if name.lower() not in by_lower:
            flag = name_option(config, "--trainer")
            raise pytest.UsageError(f"{flag} {name}: no such trainer; there are {', '.join(found)}")
    chosen = {by_lower[name.lower()] for name in config.option.trainguard_trainer} or set(found)
    config.stash[NAMES] = frozenset(chosen)
    return {name: spec for name, spec in found.items() if name in chosen}


def find_parametrized(item: pytest.Item) -> str:
    """The one of the session's trainers that a test is about; empty where the team says itself which it is."""
    callspec = getattr(item, "callspec", None)
    chosen = callspec.params.get("trainer") if callspec else None
    return chosen if isinstance(chosen, str) and chosen in item.config.stash.get(NAMES, ()) else ""


def count_left_out(config: pytest.Config) -> int:
    """How many of the project's trainers `--trainer` leaves out."""
    return len(_read_trainers(config)) - len(choose_trainers(config))


def _read_trainers(config: pytest.Config) -> dict[str, TrainerSpec]:
    return {**_from_ini(config), **_from_tables(config)}


def _hint_at_other_folder(config: pytest.Config) -> str:
    """Where pytest took another folder for the project's: it takes an option's value for a test's path."""
    root = config.rootpath
    if root == config.invocation_params.dir:
        return ""
    return f"; looked for in {root}; if the project is elsewhere, join options to values: --preflight-report=PATH"


def _from_ini(config: pytest.Config) -> dict[str, TrainerSpec]:
    found: dict[str, TrainerSpec] = {}
    for entry in read_list(config, "trainguard_trainers"):
        module, colon, name = entry.partition(":")
        if not (module and colon and name):
            raise pytest.UsageError(f"trainguard_trainers: {entry!r} is not of the form 'module:Class'")
        _require_module(config, "trainguard_trainers", entry)
        found[entry if name in found else name] = entry
    return found


def _require_module(config: pytest.Config, place: str, entry: str) -> None:
    """Whether the module of `module:Class` is there.

    Raises:
        pytest.UsageError: it is not.
    """
    module = entry.partition(":")[0]
    if not module_exists(module, find_search_path(config)):
        raise pytest.UsageError(f"{place}: {entry!r}: no module named {module!r}{_hint_at_other_folder(config)}")


def _from_tables(config: pytest.Config) -> dict[str, TrainerSpec]:
    found: dict[str, TrainerSpec] = {}
    for name, table in _read_tables(config).items():
        from pytest_trainguard.adapters.tables import CLASS, faults_in, faults_in_class

        if not isinstance(table, dict):
            raise pytest.UsageError(f"[tool.trainguard.trainers.{name}] is not a table")
        wrong = faults_in_class(table) if CLASS in table else faults_in(table, config.rootpath)
        if wrong:
            raise pytest.UsageError(f"[tool.trainguard.trainers.{name}] {wrong}")
        if CLASS in table:
            _require_module(config, f"[tool.trainguard.trainers.{name}] class", table[CLASS])
        found[name] = table.get(CLASS, table)
    return found


def _check_keys(table: Mapping[str, object]) -> None:
    """Whether `[tool.trainguard]` holds trainers alone.

    Raises:
        pytest.UsageError: it does not; with what was probably meant.
    """
    for key in table:
        if key == TABLES[-1]:
            continue
        settings = [name.removeprefix("trainguard_") for name in SETTINGS]
        meant = nearest(key.removeprefix("trainguard_"), [TABLES[-1], *settings])
        hint = "; known is trainers"
        if meant in settings and meant != TABLES[-1]:
            hint = f"; trainguard_{meant} stands in [tool.pytest.ini_options]"
        elif meant:
            hint = f"; did you mean {meant!r}?"
        raise pytest.UsageError(f"pyproject.toml: [tool.trainguard] has an unknown key {key!r}{hint}")


def _read_tables(config: pytest.Config) -> Mapping[str, object]:
    path = config.rootpath / "pyproject.toml"
    if not path.exists():
        return {}
    from pytest_trainguard.adapters.settings_files import read_settings

    tables: Mapping[str, object] = read_settings(path)
    for key in TABLES:
        if key == TABLES[-1]:
            _check_keys(tables)
        inner = tables.get(key, {})
        if not isinstance(inner, dict):
            raise pytest.UsageError(f"pyproject.toml: {key} of [tool.trainguard.trainers] is not a table")
        tables = inner
    return tables
