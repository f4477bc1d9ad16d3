"""Every case is proven: it fails each of its saboteurs with the right message, and passes every sound program."""

import importlib
import inspect
import pkgutil

import pytest

from pytest_trainguard import Finding, NotApplicable, catalog
from pytest_trainguard.harm import GRADES, rank
from pytest_trainguard.memory.replay.budget import parse_budget, resolve_budget
from pytest_trainguard.session.preflight import get_preflight
from pytest_trainguard.verdicts.gathering import gathering
from tests import proof_table, saboteurs
from tests.saboteurs.queue import Queued, RepositorysQueue, TrainsWithTorch
from tests.saboteurs.silent_packs import PacksDocuments
from tests.saboteurs.silent_padding import TakesTheFirstPlace
from tests.saboteurs.silent_pairs_sound import ReportsTheLoss
from tests.saboteurs.silent_rows import Averages
from tests.saboteurs.silent_sound import KeepsItsBackboneStill
from tests.saboteurs.sound import Sound


def _programs():
    for info in pkgutil.iter_modules(saboteurs.__path__):
        module = importlib.import_module(f"{saboteurs.__name__}.{info.name}")
        for value in vars(module).values():
            if inspect.isclass(value) and issubclass(value, Sound) and value.__module__ == module.__name__:
                yield value


CASES = catalog.read_tests()
KNOWN = {name: case for case in CASES for name in (case.slug, case.number) if name is not None}
PROGRAMS = list(_programs())
SABOTEURS = [program for program in PROGRAMS if program.case]
SOUND = [program for program in PROGRAMS if not program.case]


# What `Sound` has not got, and the program by which the case is shown to apply.
SHOWN_BY = {
    "average-astray": Averages,
    "frozen-moves": KeepsItsBackboneStill,
    "packed-neighbours-leak": PacksDocuments,
    "padding-counts": TakesTheFirstPlace,
    "reported-loss-is-another": ReportsTheLoss,
}


@pytest.fixture
def trainer(request):
    """The program under test, in the place of the project's own trainers."""
    return request.param


@pytest.fixture(autouse=True)
def _budget(request, monkeypatch):
    """What the cases of the GPU budget are held against."""
    monkeypatch.setattr(get_preflight(request.config), "gpu_limit", resolve_budget(parse_budget("3GiB")))


def judge(case, request):
    """Run a case's own function with the fixtures that it asks for.

    Raises:
        Finding: of all that it found, what it only noted too, the gravest first.
    """
    test = CASES[case]
    with gathering() as noted:
        try:
            test(**{name: request.getfixturevalue(name) for name in inspect.signature(test).parameters})
        except Finding as finding:
            noted += finding.problems
        except NotApplicable:
            if not noted:
                raise
    if noted:
        raise Finding.joined(sorted(noted, key=lambda problem: rank(problem.grade)))


def name_case(case):
    """For a test's id: number and slug, so that `-k` takes either."""
    return case.slug if case.number is None else f"{case.number}-{case.slug}"


def name_pair(value):
    return name_case(value) if isinstance(value, catalog.EdgeCase) else value.__name__


@pytest.fixture
def noted(request, trainer):
    """A note of what a test is about, for `proof_table`."""
    whole = len(SABOTEURS) + len(SOUND_PAIRS)
    note = {"kind": "", "case": "", "program": trainer.__name__, "not_applicable": False, "all": whole}
    request.node.user_properties.append((proof_table.NOTE, note))
    return note


SABOTAGED = [(program, KNOWN[program.case]) for program in SABOTEURS]


@pytest.mark.parametrize(
    ("trainer", "case"), SABOTAGED, indirect=["trainer"], ids=[f"{name_case(c)}-{p.__name__}" for p, c in SABOTAGED]
)
def test_saboteur_is_found(trainer, case, noted, request):
    noted.update(kind="saboteur", case=case.key)
    with pytest.raises(Finding, match=trainer.says) as found:
        judge(case, request)
    assert found.value.grade == trainer.grade, found.value


def _about_queues(case):
    return "training_queue" in inspect.signature(CASES[case]).parameters


def _is_among(case, names):
    return case.slug in names or case.number in names


def _is_made_for(program, case):
    return _is_among(case, program.only)


def _goes_through(program, case):
    """`Queued` is `Sound` with a queue: what is about queues. `TrainsWithTorch`: what counts optimizer steps there."""
    if program.only and not _is_made_for(program, case):
        return False
    if program is TrainsWithTorch:
        return case.number in (52, 60)
    return program not in (Queued, RepositorysQueue) or _about_queues(case)


# One program after the other: what its cases share, such as the undisturbed run, is made by one worker and not by each.
SOUND_PAIRS = [(program, case) for program in SOUND for case in CASES if _goes_through(program, case)]


@pytest.mark.parametrize(("trainer", "case"), SOUND_PAIRS, indirect=["trainer"], ids=name_pair)
def test_sound_program_passes(trainer, case, noted, request):
    noted.update(kind="sound", case=case.key)
    exempt = _is_among(case, trainer.exempt) and _is_made_for(trainer, case)
    try:
        judge(case, request)
    except NotApplicable as reason:
        noted.update(not_applicable=True)
        if exempt:
            return
        # Between them these have all that a case can ask for.
        shows = trainer is SHOWN_BY.get(case.slug, Sound) or _is_made_for(trainer, case)
        if trainer in (Queued, RepositorysQueue) or (shows and "no queue" not in str(reason)):
            raise AssertionError(f"case {case.key} should apply: {reason}") from reason
    else:
        assert not exempt, "it should see that it cannot judge this program"


def test_every_case_has_a_saboteur():
    assert {case for _, case in SABOTAGED} == set(CASES)


@pytest.mark.parametrize("case", CASES, ids=name_case)
def test_severity_is_the_worst_grade_that_a_saboteur_is_given(case):
    assert case.severity == min((program.grade for program, one in SABOTAGED if one is case), key=GRADES.index)
