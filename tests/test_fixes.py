"""The fixes that are printed do fix it: a program without one fails the case, the same program with it passes."""

import pytest

from pytest_trainguard import Finding
from tests.mended import BEFORE, WITHOUT, Mended
from tests.test_proof import KNOWN, judge

SAYS = {
    "killed": "not restored on a resume|parts from the undisturbed run",
    "partial-save": "did not carry on",
    "two-instances": "two runs write over each other",
    "nan-loss": "exit 0",
    "empty-training-file": r"does not name 'rows\.jsonl'",
}


@pytest.fixture
def trainer(request):
    return request.param


@pytest.mark.parametrize(("trainer", "slug"), [(WITHOUT[slug], slug) for slug in BEFORE], indirect=["trainer"])
def test_without_the_fix_it_is_found(trainer, slug, request):
    with pytest.raises(Finding, match=SAYS[slug]):
        judge(KNOWN[slug], request)


@pytest.mark.parametrize(("trainer", "slug"), [(Mended, slug) for slug in BEFORE], indirect=["trainer"])
def test_with_the_fix_it_passes(trainer, slug, request):
    judge(KNOWN[slug], request)
