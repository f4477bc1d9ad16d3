"""One pytest session's preflight: which trainers, which cases, what came of them, and GO or NO-GO.

The hooks of `plugin` delegate to the one `Preflight` object of a session. It never imports torch or a trainer.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_trainguard import catalog

if TYPE_CHECKING:
    from pytest_trainguard.contract.trainer import TrainerSpec
    from pytest_trainguard.memory.replay.budget import Limit
    from pytest_trainguard.subject.launchpad import Launchpad
    from pytest_trainguard.subject.subject import Subject

KEY = pytest.StashKey["Preflight"]()


def of(config: pytest.Config) -> Preflight:
    """The session's preflight."""
    return config.stash[KEY]


def wanted(markexpr: str) -> bool:
    """Whether `-m` asks for a preflight: it names the marker, and not only to leave it out."""
    if "preflight" not in markexpr:
        return False
    import ast

    def asks(node: ast.AST, sign: bool) -> bool:
        if isinstance(node, ast.UnaryOp):
            return asks(node.operand, not sign)
        if isinstance(node, ast.BoolOp):
            return any(asks(value, sign) for value in node.values)
        return sign and isinstance(node, ast.Name) and node.id == "preflight"

    try:
        return asks(ast.parse(markexpr.strip(), mode="eval").body, True)
    except SyntaxError:
        return False  # pytest says what is wrong with it


class Preflight:
    """The state of one session."""

    def __init__(self, config: pytest.Config):
        self.config = config
        self.active = wanted(config.option.markexpr or "")
        self._verdicts: dict[str, dict[str, Any]] = {}
        self.began = time.time()  # seconds since the epoch
        self.report_problems: list[str] = []
        option = config.option
        self.budget = _usage("--gpu-budget", _budget, option.gpu_budget) if option.gpu_budget else None
        self.limit = self._limit()
        self.numbers = _usage("--edge-case", catalog.numbers, option.edge_case) if option.edge_case else None
        given = [
            f"--{name.replace('_', '-')}"
            for name in ("trainer", "edge_case", "category", "fast")
            if getattr(option, name)
        ]
        self.narrowed = " ".join(given)
        if given and not self.active:
            raise pytest.UsageError(f"{given[0]} narrows a preflight: run it with -m preflight")
        self.printed_ids = self._take_printed_ids()
        if self.active:
            self.trainers  # noqa: B018 (a bad name is told before anything is collected)
            self._check_numbers()
            self._check_report()
            self._check_timeline()

    def _limit(self) -> Limit | None:
        """What the budget comes to on the GPU that is present, if there is one; needed where something will run."""
        if self.budget is None or not self.active or self.config.option.collectonly:
            return None
        from pytest_trainguard.memory.answers.present_gpu import find_gpu
        from pytest_trainguard.memory.replay import budget

        headroom = _usage("trainguard_gpu_headroom", budget.parse_headroom,
                          self.config.getini("trainguard_gpu_headroom"))  # fmt: skip
        present = find_gpu()
        device = present.device if present else None

        def limit(text: str) -> Limit:
            return budget.resolve_budget(budget.parse_budget(text), device, headroom)

        found: Limit = _usage("--gpu-budget", limit, self.budget)
        return found

    @cached_property
    def trainers(self) -> dict[str, TrainerSpec]:
        """The trainers of this session: the name in test ids to `module:Class`, or a command line's table.

        Raises:
            pytest.UsageError: there is none, or one that does not exist.
        """
        found = self._configured()
        chosen = self.config.option.trainer
        if not found:
            raise pytest.UsageError(
                "no trainers: name them in the ini option trainguard_trainers ('module:Class'), "
                f"or as [tool.trainguard.trainers.NAME] in pyproject.toml{self._elsewhere()}"
            )
        by_lower = {name.lower(): name for name in found}
        for name in chosen:
            if name.lower() not in by_lower:
                raise pytest.UsageError(f"--trainer {name}: no such trainer; there are {', '.join(found)}")
        names = {by_lower[name.lower()] for name in chosen} or set(found)
        return {name: spec for name, spec in found.items() if name in names}

    def _elsewhere(self) -> str:
        """A hint where pytest took another folder for the project's: it takes an option's value for a test's path."""
        root, here = self.config.rootpath, self.config.invocation_params.dir
        if root == here:
            return ""
        return f"; looked for in {root}; if the project is elsewhere, join options to values: --preflight-report=PATH"

    def _configured(self) -> dict[str, TrainerSpec]:
        found: dict[str, TrainerSpec] = {}
        for entry in self.config.getini("trainguard_trainers"):
            module, colon, name = entry.partition(":")
            if not (module and colon and name):
                raise pytest.UsageError(f"trainguard_trainers: {entry!r} is not of the form 'module:Class'")
            if not _exists(module, self.search_path):
                raise pytest.UsageError(f"trainguard_trainers: {entry!r}: no module named {module!r}")
            found[entry if name in found else name] = entry
        for name, table in self._tables().items():
            from pytest_trainguard.adapters.command import faults_in

            wrong = faults_in(table) if isinstance(table, dict) else "is not a table"
            if wrong:
                raise pytest.UsageError(f"[tool.trainguard.trainers.{name}] {wrong}")
            found[name] = table
        return found

    def _tables(self) -> dict[str, Any]:
        path = self.config.rootpath / "pyproject.toml"
        if not path.exists():
            return {}
        from pytest_trainguard.adapters.command import read_settings

        tables: dict[str, Any] = read_settings(path)
        for key in ("tool", "trainguard", "trainers"):
            tables = tables.get(key, {})
            if not isinstance(tables, dict):
                raise pytest.UsageError(f"pyproject.toml: {key} of [tool.trainguard.trainers] is not a table")
        return tables

    @property
    def search_path(self) -> list[str]:
        """Where trainers' modules are looked for: the root folder, pytest's `pythonpath`, this interpreter's own."""
        configured = [str(path) for path in self.config.getini("pythonpath")]
        return [str(self.config.rootpath), *configured]

    def _take_printed_ids(self) -> list[str]:
        """The catalogue's node ids on the command line, as pytest prints them: they are no paths of the project's."""
        args = self.config.args
        taken = [arg for arg in args if _is_printed_id(arg, self.config.invocation_params.dir)]
        if taken:
            if not self.active:
                raise pytest.UsageError(f"{taken[0]} is of the catalogue: run it with -m preflight")
            self.config.args = [arg for arg in args if arg not in taken]
        return taken

    def _check_report(self) -> None:
        """A report that cannot be written is told before an hour of running, not after it."""
        option = self.config.option
        if option.preflight_report and not option.collectonly and not hasattr(self.config, "workerinput"):
            from pytest_trainguard.report import files

            for path in option.preflight_report:
                _usage(f"--preflight-report {path}", lambda text: files.check(Path(text)), path)

    def _check_timeline(self) -> None:
        path = self.config.option.memory_timeline
        if path:
            from pytest_trainguard.memory.answers import timeline

            if self.budget is None:
                raise pytest.UsageError("--memory-timeline draws what --gpu-budget predicts: give that too")
            _usage("--memory-timeline", lambda text: timeline.check_timeline_path(Path(text)), path)

    def _check_numbers(self) -> None:
        if self.numbers is not None:
            known = {case.number for case in catalog.read()}
            unknown = sorted(n for n in self.numbers if n < catalog.OWN and n not in known)
            if unknown:
                raise pytest.UsageError(
                    f"--edge-case: no case {unknown[0]} in the catalogue (pytest --catalogue lists them)"
                )

    def collect(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Add the catalogue to what was collected, where a preflight was asked for; else take every preflight out."""
        if not self.active:
            items[:], out = _split(items, lambda item: item.get_closest_marker("preflight") is None)
        else:
            present = {getattr(item, "path", None) for item in items}
            catalogue = list(self._catalogue(session, present))
            not_named = set(catalogue) - set(self._named(catalogue))
            items += catalogue
            items[:], out = _split(items, lambda item: item not in not_named and self._chosen(item))
        if out:
            session.config.hook.pytest_deselected(items=out)
        for item in items:
            case = catalog.case_of(item.iter_markers())
            if case:
                item.user_properties += [
                    ("edge_case", case.number),
                    ("category", case.category),
                    ("severity", case.severity),
                ]

    def _catalogue(self, session: pytest.Session, present: set[Path | None]) -> Iterator[pytest.Item]:
        for name in catalog.modules():
            loaded = importlib.import_module(name)
            path = Path(str(loaded.__file__))
            if path in present:  # its folder was named on the command line
                continue
            module = pytest.Module.from_parent(session, path=path, nodeid=f"edge_cases/{path.name}")
            module.obj = loaded  # not by its path: pytest would put a folder of ours on sys.path
            # Collected here and only reported to pytest, which counts: --lf would pass over a file that is not the
            # project's own.
            nodes = list(module.collect())
            report = pytest.CollectReport(module.nodeid, "passed", None, nodes)
            session.ihook.pytest_collectreport(report=report)
            for node in nodes:
                yield from session.genitems(node)

    def _named(self, items: list[pytest.Item]) -> list[pytest.Item]:
        """Of the catalogue's items those that the command line names by their ids; all of them where it names none."""
        if not self.printed_ids:
            return items
        named: dict[str, pytest.Item] = {}
        for wanted_id in self.printed_ids:
            whole = wanted_id.rstrip("/")
            beginnings = (f"{whole}[", f"{whole}::", f"{whole}/")
            found = [item for item in items if item.nodeid == whole or item.nodeid.startswith(beginnings)]
            if not found:
                raise pytest.UsageError(f"not in the catalogue: {wanted_id} (pytest --catalogue lists its cases)")
            named.update({item.nodeid: item for item in found})
        return list(named.values())

    def _chosen(self, item: pytest.Item) -> bool:
        case = catalog.case_of(item.iter_markers())
        if case is None:
            return self.numbers is None and not self.config.option.category and not self.config.option.fast
        categories = self.config.option.category
        if self.config.option.fast and not case.fast:
            return False
        return (self.numbers is None or case.number in self.numbers) and (not categories or case.category in categories)

    @property
    def left_out(self) -> set[int]:
        """The catalogue's cases that are not run for --fast alone."""
        if not self.config.option.fast:
            return set()
        categories = self.config.option.category
        return {
            case.number
            for case in catalog.read()
            if not case.fast
            and (self.numbers is None or case.number in self.numbers)
            and (not categories or case.category in categories)
        }

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Gather the verdicts; under xdist they come from the workers, on their reports."""
        verdict = getattr(report, "trainguard", None)
        earlier = self._verdicts.get(report.nodeid)
        # A second one is of the same test's teardown: what failed stays failed, what passed is left open.
        if verdict and (earlier is None or earlier["verdict"] != "failed"):
            self._verdicts[report.nodeid] = verdict

    @property
    def verdicts(self) -> list[dict[str, Any]]:
        """One for each trainer and case, in the order of their ends."""
        return list(self._verdicts.values())

    def subject(self, chosen: object) -> Subject:
        """The trainer that a test is about: one of the session's by name, or what a test's own fixture returned."""
        if isinstance(chosen, str) and ":" not in chosen:
            return self.launchpad.subject(chosen, self.trainers[chosen])
        from pytest_trainguard.contract.trainer import spec_of

        spec = spec_of(chosen)
        name = str(spec).rpartition(":")[2] if isinstance(spec, str) else "command"
        return self.launchpad.subject(name, spec)

    @cached_property
    def launchpad(self) -> Launchpad:
        """Where runs start from, made when the first test needs it."""
        from pytest_trainguard.subject.launchpad import Launchpad

        factory: pytest.TempPathFactory = self.config._tmp_path_factory  # type: ignore[attr-defined]
        limit = float(self.config.getini("trainguard_timeout"))
        cache = getattr(self.config, "cache", None)  # none with -p no:cacheprovider
        folder = factory.mktemp("trainguard")
        # Each worker of pytest-xdist has a folder of its own in that of the session.
        shared = factory.getbasetemp().parent if hasattr(self.config, "workerinput") else None
        return Launchpad(self.config.rootpath, folder, self.search_path, limit, cache, shared)

    def close(self) -> None:
        """End every server and run."""
        if "launchpad" in self.__dict__:
            self.launchpad.close()

    @property
    def judged(self) -> bool:
        """At least one case was judged."""
        return any(verdict["verdict"] in ("passed", "failed") for verdict in self.verdicts)

    def clearance(self, exitstatus: int) -> str:
        """GO where something was judged, nothing failed and nothing was left open; else NO-GO."""
        bad = any(verdict["verdict"] in ("failed", "error") for verdict in self.verdicts)
        return "GO" if self.judged and not bad and exitstatus == 0 else "NO-GO"


def _split(items: list[pytest.Item], keep: Any) -> tuple[list[pytest.Item], list[pytest.Item]]:
    kept = [item for item in items if keep(item)]
    return kept, [item for item in items if not keep(item)]


def _usage(flag: str, read: Any, text: str) -> Any:
    try:
        return read(text)
    except ValueError as error:
        raise pytest.UsageError(f"{flag}: {error}") from None


def _budget(text: str) -> str:
    from pytest_trainguard.memory import parse_budget

    parse_budget(text)
    return text


def _is_printed_id(arg: str, folder: Path) -> bool:
    """Whether an argument is a node id of the catalogue's, or a part of one, and no path of the project's own."""
    name = arg.partition("::")[0]
    if name.rstrip("/") != "edge_cases" and not name.startswith("edge_cases/"):
        return False
    path = folder / name
    ours = Path(importlib.import_module("pytest_trainguard.edge_cases").__file__ or "").parent
    return not path.exists() or path.resolve() == ours or path.resolve().parent == ours


def _exists(module: str, paths: list[str]) -> bool:
    """Whether a module can be found, without importing anything."""
    name, where = "", None
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        # By its last part: a namespace package in another, asked for by its whole name, wants that one imported.
        found = importlib.machinery.PathFinder.find_spec(part, paths if where is None else where)
        # Any finder, not only that of paths: an editable install may bring its own.
        finders = (finder for finder in sys.meta_path if hasattr(finder, "find_spec"))
        spec = found or next(filter(None, (finder.find_spec(name, where) for finder in finders)), None)
        if spec is None:
            return False
        where = list(spec.submodule_search_locations or [])
    return True
