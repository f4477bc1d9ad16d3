"""Bringing the catalogue's tests into a session, and leaving of all tests what was asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_trainguard import catalog
from pytest_trainguard.session.deselection import keep
from pytest_trainguard.session.identity import check_identities
from pytest_trainguard.session.selection import CaseSelection
from pytest_trainguard.session.short_names import name_option
from pytest_trainguard.session.trainers import find_parametrized


def bring_in_catalogue(
    session: pytest.Session,
    items: list[pytest.Item],
    selection: CaseSelection,
    printed_ids: list[str],
    left_behind: list[str],
) -> list[tuple[str, str]]:
    """Add the catalogue to what was collected, and leave what was asked for.

    Args:
        session: that collects.
        items: what it has collected; changed in place.
        selection: which cases are to run.
        printed_ids: of the catalogue's tests those to run; empty for all.
        left_behind: the project's files that failed to load, a line each.

    Returns:
        Trainer and slug of each of the project's own cases, before any is left out.

    Raises:
        pytest.UsageError: two cases of one slug or number, a number that is another family's, or a case asked for that
            there is not.
    """
    catalogue = list(_collect_catalogue(session, {path.resolve() for path in {item.path for item in items}}))
    own = list(_list_cases(items))
    not_named = set(catalogue) - set(_find_named(catalogue, printed_ids))
    items += catalogue
    cases = check_identities(items)
    # A project's file that failed to load may hold the case that is missing: then pytest tells of that file.
    unknown = selection.named.find_unknown(cases) if selection.named and not session.testsfailed else ""
    if unknown:
        maybe = f"; it may be in a file that failed to load: {left_behind[0]}" if left_behind else ""
        raise pytest.UsageError(f"{name_option(session.config, '--edge-case')}: {unknown}{maybe}")
    keep(session, items, lambda item: item not in not_named and _is_chosen(item, selection))
    for item in items:
        _describe(item)
    return own


def _list_cases(items: list[pytest.Item]) -> Iterator[tuple[str, str]]:
    for item in items:
        case, trainer = catalog.case_of(item.iter_markers()), find_parametrized(item)
        if case and case.family is catalog.OWN and trainer:
            yield trainer, case.slug


def _collect_catalogue(session: pytest.Session, present: set[Path]) -> Iterator[pytest.Item]:
    for name in catalog.module_names():
        loaded = importlib.import_module(name)
        path = Path(str(loaded.__file__))
        if path.resolve() in present:  # its folder was named on the command line
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


def _find_named(items: list[pytest.Item], printed_ids: list[str]) -> list[pytest.Item]:
    """Of the catalogue's items those that the command line names by their ids; all of them where it names none."""
    if not printed_ids:
        return items
    named: dict[str, pytest.Item] = {}
    for printed_id in printed_ids:
        whole = printed_id.rstrip("/")
        beginnings = (f"{whole}[", f"{whole}::", f"{whole}/")
        found = [item for item in items if item.nodeid == whole or item.nodeid.startswith(beginnings)]
        if not found:
            raise pytest.UsageError(f"not in the catalogue: {printed_id} (pytest --catalogue lists its cases)")
        named.update({item.nodeid: item for item in found})
    return list(named.values())


def _is_chosen(item: pytest.Item, selection: CaseSelection) -> bool:
    case = catalog.case_of(item.iter_markers())
    return selection.takes(case) if case else not selection.narrows


def _describe(item: pytest.Item) -> None:
    """Put an item's case into its properties, which JUnit's file shows."""
    case = catalog.case_of(item.iter_markers())
    if case:
        numbered = [] if case.number is None else [("number", case.number)]
        told = [("edge_case", case.slug), *numbered, ("category", case.category), ("severity", case.severity)]
        item.user_properties += told
