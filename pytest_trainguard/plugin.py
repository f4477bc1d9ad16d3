"""Pytest's hooks, and nothing else: each hands over to the session's `Preflight` or to `report`.

Start-up must cost next to nothing: what is only needed in a preflight is imported inside the hooks.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from pytest_trainguard.probes.fixtures import (
    config_fuzz,
    gpu_budget,
    guard,
    kill_and_resume,
    nan_injection,
    oom_probe,
    static_check,
    tiny_overfit,
    training_queue,
)

__all__ = [
    "config_fuzz",
    "gpu_budget",
    "guard",
    "kill_and_resume",
    "nan_injection",
    "oom_probe",
    "static_check",
    "tiny_overfit",
    "training_queue",
]

TRAINERS = "training programs to put through a preflight, as 'module:Class'"
HEADROOM = "share of --gpu-budget that a job should leave free (default: 10%)"
BAR = "the mildest grade that is NO-GO: loses, misleads, wastes (default) or unclear"
TIMEOUT = "seconds that one run of a trainer may take before the harness ends it (default: 60)"
MARKERS = (
    "preflight: runs a training program on purpose into trouble; only with -m preflight",
    "edge_case(case): a case of the catalogue; made by pytest_trainguard.edge_case",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the command line and the ini file."""
    group = parser.getgroup("trainguard", "preflight of training programs (with -m preflight)")
    group.addoption("--trainer", action="append", default=[], metavar="NAME", help="only this trainer (repeatable)")
    group.addoption("--edge-case", metavar="CASES", help="only these cases, by number or slug: 41,64-66,partial-save")
    group.addoption(
        "--category",
        action="append",
        default=[],
        metavar="NAME",
        help="only cases of this category (repeatable)",
    )
    group.addoption(
        "--fast", action="store_true", help="only cases that cost seconds, as before a commit; says what it leaves out"
    )
    group.addoption("--catalogue", action="store_true", help="print the catalogue of edge cases and exit")
    group.addoption(
        "--preflight-report",
        action="append",
        default=[],
        metavar="PATH",
        help="write the report to this file: .html for people, .json for machines (repeatable)",
    )
    group.addoption(
        "--gpu-budget",
        metavar="SIZE",
        help="GPU memory that the job may take: 40GiB, 40GB, 80%%, a100-40gb, bytes",
    )
    group.addoption(
        "--memory-timeline",
        metavar="PATH",
        help="with --gpu-budget: draw each trainer's predicted memory, .svg or .png; its name is put in the file's",
    )
    group.addoption(
        "--trainguard-bar",
        metavar="GRADE",
        help="the mildest grade that is NO-GO: loses, misleads, wastes (default), unclear; what is milder is advice",
    )
    group.addoption(
        "--trainguard-strict",
        action="store_true",
        help="NO-GO where a critical case is not judged for a reason that can be mended (pytest has a --strict itself)",
    )
    group.addoption(
        "--accept",
        "--trainguard-accept",
        dest="trainguard_accept",
        metavar="WHY",
        help="accept what is NO-GO for now, for this reason: list it in trainguard-accepted.toml, and fail what is new",
    )
    group.addoption("--explain", metavar="CASE", help="print the page of a case, by number or slug, and exit")
    parser.addini("trainguard_trainers", TRAINERS, type="linelist", default=[])
    parser.addini("trainguard_bar", BAR, default="wastes")
    parser.addini("trainguard_strict", "as --trainguard-strict", type="bool", default=False)
    parser.addini("trainguard_timeout", TIMEOUT, default="60")
    parser.addini("trainguard_gpu_headroom", HEADROOM, default="10%")


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers and make the session's preflight."""
    from pytest_trainguard import catalog
    from pytest_trainguard.session import preflight as session

    for line in MARKERS:
        config.addinivalue_line("markers", line)
    for name, title in catalog.CATEGORIES.items():
        config.addinivalue_line("markers", f"{name}: edge cases of the category {title!r}")
    preflight = config.stash[session.KEY] = session.Preflight(config)
    if preflight.active:
        config.pluginmanager.register(preflight.verdicts, "trainguard-verdicts")
        preflight.register_reports()


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """With --catalogue or --explain, print that and end."""
    if config.option.explain:
        from pytest_trainguard.session.options import explain

        print(explain(config.option.explain), end="")
        return 0
    if not config.option.catalogue:
        return None
    from pytest_trainguard import catalog

    print(catalog.format_table(catalog.read_cases()))
    return 0


def pytest_sessionstart(session: pytest.Session) -> None:
    """From here on SIGTERM ends a preflight as Ctrl-C does."""
    from pytest_trainguard.session.preflight import get_preflight

    get_preflight(session.config).begin()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test about a trainer runs once for each."""
    from pytest_trainguard.session.preflight import get_preflight

    preflight = get_preflight(metafunc.config)
    marked = metafunc.definition.get_closest_marker("preflight") is not None
    overridden = "trainer" in metafunc._arg2fixturedefs  # by a fixture of the team's own
    if "trainer" in metafunc.fixturenames and not overridden and (preflight.active or not marked):
        try:
            names = list(preflight.trainers)
        except pytest.UsageError as error:  # one line under the test that asks for a trainer; the others go on
            raise pytest.Collector.CollectError(str(error)) from None
        metafunc.parametrize("trainer", names, scope="session")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Bring the catalogue in where a preflight was asked for."""
    from pytest_trainguard.session.preflight import get_preflight

    get_preflight(session.config).collect(session, items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """While a case runs, what it notes is gathered."""
    from pytest_trainguard.session.verdicts import gather

    with gather(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the verdict on the report, in plain values: it has to cross to another process under xdist."""
    report = yield
    from pytest_trainguard.session.verdicts import attach_verdict

    return attach_verdict(item, call, report)


def pytest_report_teststatus(
    report: pytest.TestReport | pytest.CollectReport, config: pytest.Config
) -> tuple[str, str, str] | None:
    """Verdicts are shown as what they are; without -v each finding is told once, at the end, and not by pytest too."""
    if not hasattr(report, "trainguard"):
        return None
    from pytest_trainguard.session.verdicts import find_status

    return find_status(report, verbose=config.get_verbosity() > 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker of pytest-xdist has ended: what it found wrong with the command line is told here."""
    from pytest_trainguard.session.preflight import get_preflight

    get_preflight(node.config).note_worker(getattr(node, "workeroutput", {}))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """End what runs, write the report, and let NO-GO be exit code 1."""
    from pytest_trainguard.session.preflight import get_preflight

    preflight = get_preflight(session.config)
    preflight.close()
    if preflight.active and not hasattr(session.config, "workerinput"):
        preflight.finish(session)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    """The grid of trainers and categories, and GO or NO-GO."""
    from pytest_trainguard.session.preflight import get_preflight

    preflight = get_preflight(config)
    if preflight.active and not config.option.collectonly:
        from pytest_trainguard.report.terminal import write_summary

        write_summary(preflight.summarize(int(exitstatus)), terminalreporter)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what runs, however the session ended."""
    from pytest_trainguard.session.preflight import KEY

    preflight = config.stash.get(KEY, None)
    if preflight is not None:
        preflight.end()
