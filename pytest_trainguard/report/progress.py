"""How far a preflight has come, beside pytest's dots: which case runs, how many are done, how long the rest takes.

On a terminal it stands behind the dots and is taken away before pytest writes the next one; in a log it is a line now
and then. Whoever asks for pytest's own words on each test (-v) or for none (-qq) gets no more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

import pytest
from _pytest.terminal import TerminalReporter  # public since pytest 8.4

from pytest_trainguard.printing import printable

INTERVAL = 15.0  # seconds between two lines in a log
NARROWEST = 20  # columns: with fewer behind the dots there is nothing worth showing
BACK, ERASE = "\x1b[{}D", "\x1b[K"  # the cursor so many columns to the left; all that is right of it away


class Progress:
    """Shows how far a session has come; pytest calls its hooks, under xdist in the process that has the terminal."""

    def __init__(self, config: pytest.Config, clock: Callable[[], float] = time.monotonic):
        """Of one session.

        Args:
            config: pytest's.
            clock: seconds since any time.
        """
        self.config, self.clock = config, clock
        self.began = self.told = clock()
        self.total = self.done = 0
        self.running: list[str] = []  # node ids, in the order of their starts
        self.shown = False

    @property
    def reporter(self) -> TerminalReporter | None:
        """Pytest's terminal; None without one, or where another plugin shows progress in its own way."""
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        return reporter if type(reporter) is TerminalReporter else None

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """How many tests there are."""
        self._begin(len(session.items))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: Sequence[str]) -> None:
        """How many there are under xdist, of which every worker says the same."""
        self._begin(len(ids))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_logstart(self, nodeid: str) -> Generator[None, object, object]:
        """A test begins."""
        self._hide()
        result = yield
        self.running.append(nodeid)
        self._log()
        self._show()
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> Generator[None, object, object]:
        """Pytest writes its dot."""
        self._hide()
        result = yield
        if report.when == "teardown":
            self.done += 1
            self.running = [nodeid for nodeid in self.running if nodeid != report.nodeid]
        self._show()
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_logfinish(self) -> Generator[None, object, object]:
        """Pytest may write how many per cent are done, and under xdist end a line."""
        self._hide()
        result = yield
        self._show()
        return result

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Nothing runs any more."""
        self._hide()
        self.running = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self) -> None:
        """Nor does it here."""
        self._hide()
        self.running = []

    def format(self) -> str:
        """Case and trainer that run, how many are done of all, how long the rest may take."""
        left = ""
        if self.done:
            seconds = (self.clock() - self.began) / self.done * (self.total - self.done)
            left = f", about {format_seconds(seconds)} left"
        others = f" and {len(self.running) - 1} more" if len(self.running) > 1 else ""
        now = f": {name_test(self.running[0])}{others}" if self.running else ""
        return f"{self.done} of {self.total} done{left}{now}"

    def _begin(self, total: int) -> None:
        self.total = total
        self.began = self.told = self.clock()

    def _log(self) -> None:
        """In a log: a line of its own, where it is time for one."""
        reporter = self.reporter
        if reporter is None or reporter.isatty or self.clock() - self.told < INTERVAL:
            return
        self.told = self.clock()
        if reporter._tw.width_of_current_line:
            reporter._tw.line()
        reporter._tw.line(self.format(), flush=True)
        reporter.currentfspath = None  # with the next test pytest names its file again

    def _show(self) -> None:
        """On a terminal: behind the dots, without pytest's knowing; it counts the columns that it wrote itself."""
        reporter = self.reporter
        if reporter is None or not reporter.isatty or not self.running:
            return
        terminal = reporter._tw
        room = terminal.fullwidth - terminal.width_of_current_line - 3
        if room < NARROWEST:
            return
        text = f"  {self.format()[:room]}"
        terminal._file.write(f"{ERASE}{text}{BACK.format(len(text))}")
        terminal._file.flush()
        self.shown = True

    def _hide(self) -> None:
        reporter = self.reporter
        if self.shown and reporter is not None:
            reporter._tw._file.write(ERASE)
            reporter._tw._file.flush()
        self.shown = False


def name_test(nodeid: str) -> str:
    """Case and trainer of a test: `test_killed[Mine]` of `edge_cases/test_process.py` is `killed, Mine`."""
    name = printable(nodeid).rpartition("::")[2].removeprefix("test_")
    case, _, trainer = name.partition("[")
    return ", ".join(part for part in (case.replace("_", " "), trainer.removesuffix("]")) if part)


def format_seconds(seconds: float) -> str:
    """A time to wait, in few words."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
