"""What an edge case is held to, how it is chosen, and the catalogue's page."""

import itertools
from pathlib import Path

import pytest

from pytest_trainguard import catalog, edge_case
from pytest_trainguard.session import selection


def chosen_of(text):
    """The numbers and slugs that a choice names, of all that there could be."""
    chosen = selection.parse_cases(text)
    return {number for numbers in chosen.numbers for number in numbers}, set(chosen.slugs)


def test_cases_are_chosen():
    assert chosen_of("41, 64-66,41") == ({41, 64, 65, 66}, set())
    assert chosen_of("7-7") == ({7}, set())
    assert chosen_of("41,64-66,killed") == ({41, 64, 65, 66}, {"killed"})
    for text in ("", "1-", "-3", "3-1", "1,,2", "1.5", "a b"):
        with pytest.raises(ValueError, match=r"neither a number nor a range|names no case"):
            selection.parse_cases(text)


TOLD = {
    "slug": "killed",
    "title": "t",
    "verdict": "stops/recovers",
    "severity": "unclear",
    "brought_about": "",
    "expects": "",
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"slug": "Killed"}, "a slug is words in lower case joined by hyphens"),
        ({"slug": "41-killed"}, "a slug is words in lower case joined by hyphens"),
        ({"slug": "not_killed"}, "a slug is words in lower case joined by hyphens"),
        ({"category": "dta"}, "category 'dta' is not one of"),
        ({"severity": "bad"}, "severity 'bad' is not one of loses"),
        ({"verdict": "passes"}, "verdict kind 'passes' is not of rejects"),
    ],
)
def test_an_edge_case_is_held_to_its_words(change, said):
    def test():
        pass

    assert catalog.case_of(edge_case(**TOLD)(test).pytestmark).category == "own"
    with pytest.raises(ValueError, match=said):
        edge_case(**{**TOLD, **change})(test)


def of_module(name):
    """A test function that stands in a module of the catalogue's folder."""
    names = {}
    exec(compile("def test():\n    pass\n", catalog.catalogue_folder() / name, "exec"), names)
    return names["test"]


def test_the_module_says_the_category():
    case = catalog.case_of(edge_case(**TOLD)(of_module("test_process.py")).pytestmark)
    assert (case.category, case.family) == ("process", catalog.CATALOGUE)
    with pytest.raises(ValueError, match="in the catalogue the module says the category: leave category= out"):
        edge_case(**TOLD, category="data")(of_module("test_process.py"))
    with pytest.raises(ValueError, match=r"test_new\.py is of no category: name it in FAMILIES of catalog\.py"):
        edge_case(**TOLD)(of_module("test_new.py"))


def test_no_number_is_in_two_families():
    for one, other in itertools.combinations(catalog.FAMILIES, 2):
        assert not range(max(one.numbers[0], other.numbers[0]), min(one.numbers[-1], other.numbers[-1]) + 1)


def test_the_page_of_the_catalogue_is_what_the_cases_say():
    page = Path(__file__).parents[2] / "edge_cases" / "README.md"
    fresh = catalog.format_page(catalog.read_cases())
    assert page.read_text(encoding="utf-8") == fresh, f"{page} is stale: make catalogue"


def test_a_row_of_the_page():
    case = catalog.EdgeCase("a-b", "a|b", "data", "unclear", "stops", "c", "d, e", number=81)
    told = catalog.format_page([case])
    assert told.startswith("# The edge cases")
    assert "## Data" in told
    assert told.endswith("| 81 | `a-b` | a\\|b | c | d, e | stops | unclear |\n")


def test_the_catalogue_is_in_order():
    tests = catalog.read_tests()
    numbers = [case.number for case in tests if case.number is not None]
    assert numbers == sorted(set(numbers))
    assert len({case.slug for case in tests}) == len(tests)
    categories = list(catalog.CATEGORIES)
    for case, test in tests.items():
        assert test.__name__ == f"test_{case.slug.replace('-', '_')}", "a test is named like its case"
        assert case.number is None or case.number in case.family.numbers
        if case.number is not None and case.number <= 80:
            assert case.category == categories[(case.number - 1) // 10], "ten cases of each category"
