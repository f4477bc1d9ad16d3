"""One pytest session's preflight: what it was asked for, where its runs start from, and what it came to.

The hooks of `plugin` delegate to the one `Preflight` object of a session. It never imports torch or a trainer.
"""

from __future__ import annotations

import datetime
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import pytest

from pytest_trainguard import catalog
from pytest_trainguard.session import options
from pytest_trainguard.session.deselection import take_out_preflights
from pytest_trainguard.session.ini_file import read_seconds
from pytest_trainguard.session.short_names import name_option

if TYPE_CHECKING:
    from pytest_trainguard.contract.trainer import TrainerSpec
    from pytest_trainguard.report.data import SessionResult
    from pytest_trainguard.session.selection import CaseSelection
    from pytest_trainguard.session.verdicts import VerdictStore
    from pytest_trainguard.subject.launchpad import Launchpad
    from pytest_trainguard.subject.subject import Subject

KEY = pytest.StashKey["Preflight"]()
FOLDER = "trainguard"  # of what runs leave, in pytest's temporary folder
# In what a worker of pytest-xdist hands over at its end.
PROBLEM, CASES, ISOLATION = "trainguard_problem", "trainguard_cases", "trainguard_isolation"
FORMS = "trainguard_forms"
LEFT_BEHIND = "trainguard_left_behind"


def get_preflight(config: pytest.Config) -> Preflight:
    """The session's preflight."""
    return config.stash[KEY]


def make_preflight(config: pytest.Config) -> Preflight:
    """The preflight of a session that begins.

    Raises:
        pytest.UsageError: see `Preflight`; in words that may be printed, whatever names they quote.
    """
    try:
        return Preflight(config)
    except pytest.UsageError as error:
        from pytest_trainguard.printing import printable

        raise pytest.UsageError(printable(str(error))) from None


class Preflight:
    """The state of one session.

    Attributes:
        active: a preflight was asked for, with `-m preflight`.
        gpu_limit: what `--gpu-budget` comes to, the first of several; None without it, or where nothing will run.
        other_gpu_limits: what the others come to.
        selection: which cases are to run, in a preflight.
        problems: what went wrong with the session itself, a line each.
        own_cases: trainer and slug of each of the project's own cases that was collected, run or not.
        left_behind: files of the project that failed to load, a line each.
        isolation: how runs were kept from the world, in a line; empty where none was started.
        forms: how programs were given their settings as options, a line each.
    """

    def __init__(self, config: pytest.Config):
        """Read what the session is asked for.

        Raises:
            pytest.UsageError: something of it does not exist or cannot be done.
        """
        self.config = config
        self.active = options.asks_for_preflight(config.option.markexpr or "")
        self.began = time.time()  # seconds since the epoch
        self.problems: list[str] = []
        self.own_cases: list[tuple[str, str]] = []
        self.left_behind: list[str] = []
        self.isolation = ""
        self.forms: list[str] = []
        options.check_categories(config, list(catalog.CATEGORIES))
        options.check_budget(config)
        self._put_back: Callable[[], None] | None = None
        runs = self.active and not config.option.collectonly
        limits = options.find_gpu_limits(config) if runs else []
        self.gpu_limit, self.other_gpu_limits = next(iter(limits), None), limits[1:]
        self.narrowing = options.list_narrowing_options(config)
        if self.narrowing and not self.active and not config.option.trainguard_doctor:
            raise pytest.UsageError(f"{self.narrowing[0]} narrows a preflight: run it with -m preflight")
        self.printed_ids = options.take_printed_ids(config)
        if self.printed_ids and not self.active:
            raise pytest.UsageError(f"{self.printed_ids[0]} is of the catalogue: run it with -m preflight")
        if config.option.trainguard_accept is not None and not self.active:
            flag = self.name_option("--accept")
            raise pytest.UsageError(f"{flag} is for what a preflight finds: run it with -m preflight")
        if self.active:
            options.find_reach(config, config.rootpath)  # what is wrong with it is told before anything is collected
            options.set_bar(config, datetime.date.fromtimestamp(self.began))
            self.trainers = self._choose_trainers()  # a bad name is told before anything is collected
            self.selection = self._select_cases()
            read_seconds(config, "trainguard_timeout")
            options.check_report_paths(config)
            options.check_timeline_path(config)

    def name_option(self, short: str) -> str:
        """The name by which an option is to be given in this session."""
        return name_option(self.config, short)

    def _select_cases(self) -> CaseSelection:
        from pytest_trainguard.session.selection import CaseSelection, parse_cases

        option, flag = self.config.option, self.name_option("--edge-case")
        given = option.trainguard_edge_case
        named = options.parse_option(flag, parse_cases, given) if given else None
        unknown = named.find_unknown_number(catalog.read_cases()) if named else ""
        if unknown:
            raise pytest.UsageError(f"{flag}: {unknown}")
        return CaseSelection(named, frozenset(option.trainguard_category), option.trainguard_fast)

    @cached_property
    def trainers(self) -> dict[str, TrainerSpec]:
        """The trainers of this session: the name in test ids to `module:Class`, or a command line's table.

        Raises:
            pytest.UsageError: there is none, or one that does not exist.
        """
        return self._choose_trainers()

    def _choose_trainers(self) -> dict[str, TrainerSpec]:
        from pytest_trainguard.session.trainers import choose_trainers

        return choose_trainers(self.config)

    @cached_property
    def verdicts(self) -> VerdictStore:
        """What came of the cases so far."""
        from pytest_trainguard.session.verdicts import VerdictStore

        return VerdictStore()

    def register_reports(self) -> None:
        """Have what is told beside the summary told: progress while it runs, and what GitHub Actions shows."""
        if self.config.option.collectonly or hasattr(self.config, "workerinput"):
            return
        from pytest_trainguard.report import github, progress

        if github.is_wanted():
            self.config.pluginmanager.register(github.GitHub(self.summarize), "trainguard-github")
        if self.config.get_verbosity() == 0:
            self.config.pluginmanager.register(progress.Progress(self.config), "trainguard-progress")

    def collect(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Add the catalogue to what was collected, where a preflight was asked for; else take every preflight out.

        Raises:
            pytest.UsageError: see `collection.bring_in_catalogue`.
        """
        if not self.active:
            take_out_preflights(session, items)
            return
        from pytest_trainguard.session.collection import bring_in_catalogue

        try:
            self._note_cases(bring_in_catalogue(session, items, self.selection, self.printed_ids, self.left_behind))
        except pytest.UsageError as error:
            output = getattr(self.config, "workeroutput", None)
            if output is None:
                raise
            output[PROBLEM] = str(error)  # pytest-xdist tells nobody of a worker's own error
            items.clear()

    def _note_cases(self, own: list[tuple[str, str]]) -> None:
        self.own_cases = own
        output = getattr(self.config, "workeroutput", None)
        if output is not None:
            output[CASES] = own
            output[LEFT_BEHIND] = self.left_behind

    def note_worker(self, output: Mapping[str, object]) -> None:
        """Take over what a worker of pytest-xdist found wrong, and what it collected; each finds the same.

        Args:
            output: what it handed over at its end.
        """
        problem = output.get(PROBLEM)
        if isinstance(problem, str):
            self.problems += [line for line in problem.split("\n") if line not in self.problems]
        cases = output.get(CASES)
        if isinstance(cases, list):
            self.own_cases = [(trainer, slug) for trainer, slug in cases]
        forms = output.get(FORMS)
        if isinstance(forms, list):
            self._note_forms(forms)
        left_behind = output.get(LEFT_BEHIND)
        if isinstance(left_behind, list):
            self.left_behind = [str(line) for line in left_behind]
        told = output.get(ISOLATION)
        if isinstance(told, str) and len(told) > len(self.isolation):  # one that started no run tells less
            self.isolation = told

    def find_subject(self, chosen: object) -> Subject:
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
        from pytest_trainguard.session.trainers import find_search_path
        from pytest_trainguard.subject.launchpad import Launchpad

        self._heed_sigterm()
        factory: pytest.TempPathFactory = self.config._tmp_path_factory  # type: ignore[attr-defined]
        limit = read_seconds(self.config, "trainguard_timeout")
        cache = getattr(self.config, "cache", None)  # none with -p no:cacheprovider
        folder = factory.mktemp(FOLDER)
        # Each worker of pytest-xdist has a folder of its own in that of the session.
        shared = factory.getbasetemp().parent if hasattr(self.config, "workerinput") else None
        reach = options.find_reach(self.config, factory.getbasetemp() if shared is None else shared)
        return Launchpad(self.config.rootpath, folder, find_search_path(self.config), limit, cache, shared, reach)

    def begin(self) -> None:
        """Have SIGTERM end a preflight with its report; a worker of pytest-xdist is ended by what started it."""
        if self.active and not self.config.option.collectonly and not hasattr(self.config, "workerinput"):
            self._heed_sigterm()

    def _heed_sigterm(self) -> None:
        """From here on SIGTERM ends the session as Ctrl-C does; in any session, once there are runs to be removed."""
        if self._put_back is None:
            from pytest_trainguard.session.termination import interrupt_on_sigterm

            self._put_back = interrupt_on_sigterm()

    def end(self) -> None:
        """When all is told: end what runs, and put the former handler of SIGTERM back."""
        self.close()
        if self._put_back is not None:
            self._put_back()
            self._put_back = None

    def _sweep_workers(self) -> None:
        """Remove what runs left in the folders of workers of pytest-xdist: one that was killed could not do it."""
        if self.config.pluginmanager.hasplugin("dsession"):
            from pytest_trainguard import folders

            factory: pytest.TempPathFactory = self.config._tmp_path_factory  # type: ignore[attr-defined]
            for folder in factory.getbasetemp().glob(f"popen-*/{FOLDER}*"):
                folders.remove(folder)

    def close(self) -> None:
        """End every server and run, and remove what they left."""
        if "launchpad" in self.__dict__:
            self._note_isolation()
            self._note_mistakes()
            self._note_forms(self.launchpad.list_forms())
            self.launchpad.close()
        self._sweep_workers()

    def _note_isolation(self) -> None:
        from pytest_trainguard.session.isolation import describe_isolation

        confined = self.launchpad.servers.confined
        if confined is not None:
            self.isolation = describe_isolation(confined, self.launchpad.servers.reach, self.launchpad.list_modules())
            output = getattr(self.config, "workeroutput", None)
            if output is not None:
                output[ISOLATION] = self.isolation

    def finish(self, session: pytest.Session) -> None:
        """At the end: NO-GO becomes exit code 1, and what was asked for is written: acceptances, reports."""
        if self.config.option.collectonly:
            return
        if self.config.option.trainguard_accept:
            self._write_acceptances()
        if session.exitstatus == 0 and self.summarize(0).clearance == "NO-GO":
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        paths = self.config.option.trainguard_preflight_report
        if paths:
            from pytest_trainguard.report import files, json_report

            report = json_report.make_report(self.summarize(int(session.exitstatus)))
            flag = self.name_option("--preflight-report")
            self.problems += [f"{flag} {problem}" for problem in files.write_all(paths, report)]
        if self.problems:
            session.exitstatus = pytest.ExitCode.USAGE_ERROR

    def _note_forms(self, found: list[str]) -> None:
        self.forms += [form for form in found if form not in self.forms]
        output = getattr(self.config, "workeroutput", None)
        if output is not None:
            output[FORMS] = self.forms

    def _note_mistakes(self) -> None:
        """Have what the team wrote of a trainer, and has to mend, be a problem of the session's: a usage error."""
        found = self.launchpad.list_mistakes()
        output = getattr(self.config, "workeroutput", None)
        if output is not None and found:
            output[PROBLEM] = "\n".join(found)
        self.problems += [mistake for mistake in found if mistake not in self.problems]

    def _write_acceptances(self) -> None:
        from pytest_trainguard.session import acceptances
        from pytest_trainguard.session.bar import BAR

        bar = self.config.stash[BAR]
        new = bar.acceptances.list_new(self.verdicts.list_verdicts())
        if not new:
            return
        after = bar.acceptances.add(new)
        try:
            acceptances.write(self.config.rootpath / acceptances.FILE, after.entries)
        except OSError as error:
            self.problems.append(f"{self.name_option('--accept')}: {acceptances.FILE}: {error.strerror}")
            return
        self.config.stash[BAR] = replace(bar, acceptances=after)

    def summarize(self, exitstatus: int) -> SessionResult:
        """What the session came to, as plain data for its reports."""
        from pytest_trainguard.report.data import SessionResult
        from pytest_trainguard.session.bar import BAR
        from pytest_trainguard.session.trainers import count_left_out

        verdicts = self.verdicts.list_verdicts()
        bar = self.config.stash[BAR]
        ids = ["node ids"] if self.printed_ids else []
        return SessionResult(
            verdicts=verdicts,
            trainers=self.trainers,
            bar=bar.grade,
            left_out=self.selection.list_left_out(catalog.read_cases()) if self.selection.fast else [],
            narrowed=[*self.narrowing, *options.list_pytests_narrowing(self.config), *ids],
            trainers_left_out=count_left_out(self.config) if self.config.option.trainguard_trainer else 0,
            began=self.began,
            command=shlex.join(["pytest", *map(str, self.config.invocation_params.args)]),
            gpu_budget=self.config.option.trainguard_gpu_budget,
            exitstatus=exitstatus,
            problems=self.problems,
            acceptances=bar.acceptances.judge(verdicts),
            own_cases=self.own_cases,
            isolation=self.isolation,
            forms=self.forms,
            notes=self.left_behind,
            strict=options.is_strict(self.config),
        )
