"""Every case is proven: it fails each of its saboteurs with the right message, and passes every sound program."""

import importlib
import inspect
import pkgutil

import pytest

from pytest_trainguard import Finding, NotApplicable, catalog
from pytest_trainguard.memory.replay.budget import parse_budget, resolve_budget
from pytest_trainguard.session import preflight as session
from tests import proof_table, saboteurs
from tests.saboteurs.queue import Queued, RepositorysQueue, TrainsWithTorch
from tests.saboteurs.sound import Sound


def _cases():
    found = {}
    for name in catalog.modules():
        for value in vars(importlib.import_module(name)).values():
            case = catalog.case_of(getattr(value, "pytestmark", []))
            if case:
                found[case.number] = value
    return found


def _programs():
    for info in pkgutil.iter_modules(saboteurs.__path__):
        module = importlib.import_module(f"{saboteurs.__name__}.{info.name}")
        for value in vars(module).values():
            if inspect.isclass(value) and issubclass(value, Sound) and value.__module__ == module.__name__:
                yield value


CASES = _cases()
PROGRAMS = list(_programs())
SABOTEURS = [program for program in PROGRAMS if program.case]
SOUND = [program for program in PROGRAMS if not program.case]


@pytest.fixture
def trainer(request):
    """The program under test, in the place of the project's own trainers."""
    return request.param


@pytest.fixture(autouse=True)
def _budget(request, monkeypatch):
    """What the cases of the GPU budget are held against."""
    monkeypatch.setattr(session.of(request.config), "limit", resolve_budget(parse_budget("3GiB")))


def judge(number, request):
    """Run a case's own function with the fixtures that it asks for."""
    case = CASES[number]
    case(**{name: request.getfixturevalue(name) for name in inspect.signature(case).parameters})


@pytest.fixture
def noted(request, trainer):
    """A note of what a test is about, for `proof_table`."""
    whole = len(SABOTEURS) + len(SOUND_PAIRS)
    note = {"kind": "", "case": 0, "program": trainer.__name__, "not_applicable": False, "all": whole}
    request.node.user_properties.append((proof_table.NOTE, note))
    return note


@pytest.mark.parametrize("trainer", SABOTEURS, indirect=True, ids=lambda p: f"{p.case}-{p.__name__}")
def test_saboteur_is_found(trainer, noted, request):
    noted.update(kind="saboteur", case=trainer.case)
    with pytest.raises(Finding, match=trainer.says):
        judge(trainer.case, request)


def _about_queues(number):
    return "training_queue" in inspect.signature(CASES[number]).parameters


def _goes_through(program, number):
    """`Queued` is `Sound` with a queue: what is about queues. `TrainsWithTorch`: what counts optimizer steps there."""
    if number not in (program.only or CASES):
        return False
    if program is TrainsWithTorch:
        return number in (52, 60)
    return program not in (Queued, RepositorysQueue) or _about_queues(number)


SOUND_PAIRS = [(program, number) for number in sorted(CASES) for program in SOUND if _goes_through(program, number)]


@pytest.mark.parametrize(
    ("trainer", "number"), SOUND_PAIRS, indirect=["trainer"], ids=lambda p: p if isinstance(p, int) else p.__name__
)
def test_sound_program_passes(trainer, number, noted, request):
    noted.update(kind="sound", case=number)
    try:
        judge(number, request)
    except NotApplicable as reason:
        noted.update(not_applicable=True)
        # Between them these two have all that a case can ask for.
        if trainer in (Queued, RepositorysQueue) or (trainer is Sound and "no queue" not in str(reason)):
            raise AssertionError(f"case {number} should apply: {reason}") from reason


def test_every_case_has_a_saboteur():
    assert {program.case for program in SABOTEURS} == set(CASES)
