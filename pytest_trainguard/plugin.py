"""Pytest's hooks, and nothing else: each hands over to the session's `Preflight` or to `report`.

Start-up must cost next to nothing: what is only needed in a preflight is imported inside the hooks.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from pytest_trainguard.probes.fixtures import (
    close_look,
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
    "close_look",
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

BAR = "the mildest grade that is NO-GO: loses, misleads, wastes (default) or unclear"
TRAINER = "only this trainer (repeatable)"
EDGE_CASE = "only these cases, by number or slug: 41,64-66,partial-save"
CATEGORY = "only cases of this category (repeatable)"
FAST = "only cases that cost seconds, as before a commit; says what it leaves out"
REPORT = "write the report to this file: .html for people, .json for machines (repeatable)"
GPU_BUDGET = "GPU memory that the job may take: 40GiB, 40GB, 80%%, a100-40gb; several: l4,h100; none: the GPU here"
TIMELINE = "with --gpu-budget: draw each trainer's predicted memory, .svg or .png; its name is put in the file's"
STRICT = "NO-GO where a critical case is not judged for a reason that can be mended (pytest has a --strict itself)"
ACCEPT = "accept what is NO-GO for now, for this reason: list it in trainguard-accepted.toml, and fail what is new"
INIT = "look at a program (the likely one, where none is named), write its table into pyproject.toml, and exit"
DOCTOR = "say what the harness makes of each trainer, from undisturbed runs alone, and exit"
EXPLAIN = "print the page of a case, by number or slug, and exit"
MARKERS = (
    "preflight: runs a training program on purpose into trouble; only with -m preflight",
    "edge_case(case): a case of the catalogue; made by pytest_trainguard.edge_case",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the command line, by their full names (see `session.short_names`), and of the ini file."""
    from pytest_trainguard.session import ini_file
    from pytest_trainguard.session.short_names import full_name

    group = parser.getgroup(
        "trainguard",
        "preflight of training programs (with -m preflight); short names hold where no other option has them",
    )

    def add(short: str, told: str, **more: Any) -> None:
        group.addoption(full_name(short), help=f"{told}; short: {short}", **more)

    add("--trainer", TRAINER, action="append", default=[], metavar="NAME")
    add("--edge-case", EDGE_CASE, metavar="CASES")
    add("--category", CATEGORY, action="append", default=[], metavar="NAME")
    add("--fast", FAST, action="store_true")
    add("--catalogue", "print the catalogue of edge cases and exit", action="store_true")
    add("--preflight-report", REPORT, action="append", default=[], metavar="PATH")
    add("--gpu-budget", GPU_BUDGET, nargs="?", const="", metavar="SIZE")
    add("--memory-timeline", TIMELINE, metavar="PATH")
    add("--accept", ACCEPT, metavar="WHY")
    add("--explain", EXPLAIN, metavar="CASE")
    group.addoption("--trainguard-bar", metavar="GRADE", help=f"{BAR}; what is milder is advice")
    group.addoption("--trainguard-strict", action="store_true", help=STRICT)
    group.addoption("--trainguard-init", help=INIT, nargs="?", const="", metavar="PROGRAM")
    group.addoption("--trainguard-doctor", help=DOCTOR, action="store_true")
    ini_file.register(parser)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> Generator[None, object, object]:
    """Read the short names of the options, once it is known which of them somebody else has."""
    from pytest_trainguard.session.short_names import read_command_line

    def forgive_conftest(config: pytest.Config) -> bool:
        from pytest_trainguard.session import bystanders  # only where a conftest failed

        return bystanders.forgive_conftest(config)

    return (yield from read_command_line(early_config, parser, args, forgive_conftest))


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers and make the session's preflight."""
    from pytest_trainguard import catalog
    from pytest_trainguard.session import preflight as session

    for line in MARKERS:
        config.addinivalue_line("markers", line)
    for name, title in catalog.CATEGORIES.items():
        config.addinivalue_line("markers", f"{name}: edge cases of the category {title!r}")
    preflight = config.stash[session.KEY] = session.make_preflight(config)
    if preflight.active:
        config.pluginmanager.register(preflight.verdicts, "trainguard-verdicts")
        preflight.register_reports()


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """With --catalogue, --explain, --trainguard-init or --trainguard-doctor, do that and end."""
    if config.option.trainguard_init is not None or config.option.trainguard_doctor:
        from pytest_trainguard.setup import started

        return started.run_init(config) if config.option.trainguard_init is not None else started.run_doctor(config)
    if config.option.trainguard_explain:
        from pytest_trainguard.session.options import explain

        print(explain(config), end="")
        return 0
    if not config.option.trainguard_catalogue:
        return None
    from pytest_trainguard import catalog

    print(catalog.format_table(catalog.read_cases()))
    return 0


def pytest_report_header(config: pytest.Config) -> list[str]:
    """In a preflight: which short names of options are somebody else's here."""
    from pytest_trainguard.session.preflight import get_preflight
    from pytest_trainguard.session.short_names import explain_taken

    return explain_taken(config) if get_preflight(config).active else []


def pytest_sessionstart(session: pytest.Session) -> None:
    """From here on SIGTERM ends a preflight as Ctrl-C does; any other session from its first run on."""
    from pytest_trainguard.session.preflight import get_preflight

    get_preflight(session.config).begin()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """In a preflight a file of the project's that fails to load, and holds no case, does not stop the catalogue."""
    from pytest_trainguard.session.preflight import get_preflight

    preflight = get_preflight(collector.config)
    if not preflight.active:
        return (yield)
    from pytest_trainguard.session.bystanders import load_or_leave

    return (yield from load_or_leave(collector, preflight.left_behind))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Generator[None, object, object]:
    """A test about a trainer runs once for each, unless the team says itself which trainer it is about."""
    from pytest_trainguard.session import origin
    from pytest_trainguard.session.preflight import get_preflight

    preflight = get_preflight(metafunc.config)
    if preflight.active and origin.is_of_catalogue(metafunc):
        origin.leave_ours(metafunc)
    result = yield
    marked = metafunc.definition.get_closest_marker("preflight") is not None
    asks = "trainer" in metafunc.fixturenames and not origin.is_given(metafunc, "trainer")
    if asks and (preflight.active or not marked):
        try:
            names = list(preflight.trainers)
        except pytest.UsageError as error:  # one line under the test that asks for a trainer; the others go on
            raise pytest.Collector.CollectError(str(error)) from None
        metafunc.parametrize("trainer", names, scope="session")
    return result


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
    from pytest_trainguard.session.verdicts import attach_verdict, clean_message

    clean_message(item, call)
    report = yield
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
