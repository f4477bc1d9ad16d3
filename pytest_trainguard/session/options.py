"""What the command line asks of a preflight; what is wrong with it is told in one line before anything is collected."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from pytest_trainguard import catalog
from pytest_trainguard.session.ini_file import read_flag, read_list, read_text
from pytest_trainguard.session.short_names import full_name, name_option

if TYPE_CHECKING:
    from pytest_trainguard.isolation.policy import Reach
    from pytest_trainguard.memory.replay.budget import Limit
    from pytest_trainguard.session.acceptances import Acceptances

Value = TypeVar("Value")
ISOLATIONS = ("namespaces", "hooks")
NARROWING = ("--trainer", "--edge-case", "--category", "--fast")
PYTESTS_NARROWING = {"-k": "keyword", "--deselect": "deselect", "--lf": "lf", "--sw": "stepwise"}


def asks_for_preflight(markexpr: str) -> bool:
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


def parse_option(flag: str, parse: Callable[[str], Value], text: str) -> Value:
    """An option's value.

    Raises:
        pytest.UsageError: it is not of the option's form.
    """
    try:
        return parse(text)
    except ValueError as error:
        raise pytest.UsageError(f"{flag}: {error}") from None


def list_narrowing_options(config: pytest.Config) -> list[str]:
    """The options given that leave only a part of the preflight."""
    return [name_option(config, short) for short in NARROWING if config.getoption(full_name(short))]


def list_pytests_narrowing(config: pytest.Config) -> list[str]:
    """Of pytest's own options those given that may leave only a part; those of a plugin may not be there."""
    option = config.option
    given = [flag for flag, name in PYTESTS_NARROWING.items() if getattr(option, name, None)]
    return given if (option.markexpr or "").strip() == "preflight" else ["-m", *given]


def take_printed_ids(config: pytest.Config) -> list[str]:
    """Take the catalogue's node ids, as pytest prints them, off the command line: they are no paths of the project's.

    Returns:
        The ids, or parts of ids: `edge_cases/test_process.py::test_killed[Mine]`, `edge_cases/test_process.py`.
    """
    args = config.args
    taken = [arg for arg in args if _is_printed_id(arg, config.invocation_params.dir)]
    if taken:
        config.args = [arg for arg in args if arg not in taken]
    return taken


def _is_printed_id(arg: str, folder: Path) -> bool:
    """Whether an argument is a node id of the catalogue's, or a part of one, and no path of the project's own."""
    name = arg.partition("::")[0]
    if name.rstrip("/") != "edge_cases" and not name.startswith("edge_cases/"):
        return False
    path, ours = folder / name, catalog.catalogue_folder()
    return not path.exists() or ours in (path.resolve(), path.resolve().parent)


def check_categories(config: pytest.Config, known: list[str]) -> None:
    """Whether every category that was asked for exists.

    Raises:
        pytest.UsageError: one does not.
    """
    for name in config.option.trainguard_category:
        if name not in known:
            flag = name_option(config, "--category")
            raise pytest.UsageError(f"{flag} {name}: no such category; there are {', '.join(known)}")


def check_budget(config: pytest.Config) -> None:
    """Whether `--gpu-budget` is one.

    Raises:
        pytest.UsageError: it is not.
    """
    if config.option.trainguard_gpu_budget:
        from pytest_trainguard.memory.replay.budget import parse_budgets

        parse_option(name_option(config, "--gpu-budget"), parse_budgets, config.option.trainguard_gpu_budget)


def set_bar(config: pytest.Config, today: datetime.date) -> None:
    """Set the bar between advice and NO-GO, with what is accepted; the command line's goes before the ini file's.

    Args:
        config: of the session.
        today: the day of the session, on which what is accepted has to hold.

    Raises:
        pytest.UsageError: it is no grade, or see `read_acceptances`.
    """
    from pytest_trainguard.session.bar import BAR, parse_bar

    given = config.option.trainguard_bar
    flag, text = ("--trainguard-bar", given) if given else ("trainguard_bar", read_text(config, "trainguard_bar"))
    config.stash[BAR] = replace(parse_option(flag, parse_bar, text), acceptances=read_acceptances(config, today))


def is_strict(config: pytest.Config) -> bool:
    """Whether a critical case that could be judged, and is not, is NO-GO."""
    return bool(config.option.trainguard_strict or read_flag(config, "trainguard_strict"))


def read_acceptances(config: pytest.Config, today: datetime.date) -> Acceptances:
    """What the team has accepted, and what this session is to accept.

    Raises:
        pytest.UsageError: its file is none, or `--accept` gives no reason or cannot be done.
    """
    from pytest_trainguard.session import acceptances

    path, why = config.rootpath / acceptances.FILE, config.option.trainguard_accept
    flag = name_option(config, "--accept")
    try:
        entries = acceptances.read(path)
    except ValueError as error:
        raise pytest.UsageError(f"{path.name}: {error}") from None
    if why is None:
        return acceptances.Acceptances(entries, today)
    if not why.strip():
        raise pytest.UsageError(f'{flag}: say why: {flag} "older than the preflight"')
    if not hasattr(config, "workerinput"):
        from pytest_trainguard.report import files

        parse_option(f"{flag}: {path}", lambda text: files.check(path, (path.suffix,)), why)
    return acceptances.Acceptances(entries, today, why.strip())


def explain(config: pytest.Config) -> str:
    """The page of the case that `--explain` names, for a terminal.

    Raises:
        pytest.UsageError: there is no such case.
    """
    from pytest_trainguard import case_pages
    from pytest_trainguard.session.selection import parse_cases

    cases = catalog.read_tests()
    flag = name_option(config, "--explain")
    chosen = parse_option(flag, parse_cases, config.option.trainguard_explain)
    unknown = chosen.find_unknown(cases)
    if unknown:
        raise pytest.UsageError(f"{flag}: {unknown}")
    guides = catalog.catalogue_folder() / "guides"
    return "\n".join(case_pages.format_page(case, test, guides) for case, test in cases.items() if case in chosen)


def find_gpu_limits(config: pytest.Config) -> list[Limit]:
    """What `--gpu-budget` comes to on the GPU that is present, if there is one; empty where it was not given.

    Raises:
        pytest.UsageError: the budget or the headroom is none.
    """
    if config.option.trainguard_gpu_budget is None:
        return []
    from pytest_trainguard.memory.answers.present_gpu import find_gpu
    from pytest_trainguard.memory.replay import budget

    headroom = parse_option(
        "trainguard_gpu_headroom", budget.parse_headroom, read_text(config, "trainguard_gpu_headroom")
    )
    present = find_gpu()
    device = present.device if present else None

    def limits(text: str) -> list[Limit]:
        return budget.resolve_budgets(text, device, headroom)

    return parse_option(name_option(config, "--gpu-budget"), limits, config.option.trainguard_gpu_budget)


def find_reach(config: pytest.Config, own: Path) -> Reach:
    """What the team opens of the world for its runs.

    Args:
        config: of the session.
        own: pytest's temporary folder, which runs write to for real.

    Raises:
        pytest.UsageError: `trainguard_isolation` is of no known kind, `trainguard_network` says two things, or a folder
            of `trainguard_writable` does not exist.
    """
    from pytest_trainguard.isolation.policy import Reach

    kind = read_text(config, "trainguard_isolation")
    if kind not in ISOLATIONS:
        raise pytest.UsageError(f"trainguard_isolation: {kind!r} is not one of {', '.join(ISOLATIONS)}")
    root = config.rootpath
    writable = [(root / path).expanduser().resolve() for path in read_list(config, "trainguard_writable")]
    missing = [str(path) for path in writable if not path.is_dir()]
    if missing:
        raise pytest.UsageError(f"trainguard_writable: {missing[0]}: no such folder")
    network = tuple(read_list(config, "trainguard_network"))
    if "allow" in network and len(network) > 1:
        raise pytest.UsageError(f"trainguard_network: 'allow' opens every host: leave {', '.join(network[1:])} out")
    return Reach(
        network, tuple(read_list(config, "trainguard_keep")), (own, *writable), namespaces=kind == ISOLATIONS[0]
    )


def check_report_paths(config: pytest.Config) -> None:
    """Whether the reports can be written: told before an hour of running, not after it.

    Raises:
        pytest.UsageError: one cannot.
    """
    paths = config.option.trainguard_preflight_report
    if paths and not config.option.collectonly and not hasattr(config, "workerinput"):
        from pytest_trainguard.report import files

        flag = name_option(config, "--preflight-report")
        for path in paths:
            parse_option(f"{flag} {path}", lambda text: files.check(Path(text)), path)


def check_timeline_path(config: pytest.Config) -> None:
    """Whether the memory timeline can be drawn.

    Raises:
        pytest.UsageError: there is no budget, or the picture cannot be written.
    """
    path, flag = config.option.trainguard_memory_timeline, name_option(config, "--memory-timeline")
    if path:
        from pytest_trainguard.memory.answers import timeline

        if config.option.trainguard_gpu_budget is None:
            budget = name_option(config, "--gpu-budget")
            raise pytest.UsageError(f"{flag} draws what {budget} predicts: give that too")
        parse_option(flag, lambda text: timeline.check_timeline_path(Path(text)), path)
