"""What `make check` proves: the cases that a change reaches."""

from tests.changed_cases import changed_cases, keys, touched

SOURCE = """
LIMIT = 3


@edge_case(
    "one", number=1,
)
def test_one(guard):
    helper(guard)


def helper(guard):
    return LIMIT


@edge_case("two")
def test_two(guard):
    pass


class Defect(Sound):
    case = 41
"""


def reached(*lines):
    return {key for node in touched(SOURCE, set(lines)).values() for key in keys(node)}


def test_a_change_reaches_the_test_that_it_is_in():
    assert reached(6) == {"one"}, "the decorator is of the test"
    assert reached(18) == {"two"}
    assert reached(22) == {41}
    assert reached(1, 11) == set()


def test_a_change_reaches_the_tests_that_use_it():
    assert reached(13) == {"one"}
    assert reached(2) == {"one"}


def test_a_commit_of_this_repository_is_compared_with_what_is_here():
    assert isinstance(changed_cases("HEAD"), set)
