"""`config_fuzz`, used as in a test of a team's own."""

import hypothesis
import pytest

from pytest_trainguard import Finding, NotApplicable
from tests.saboteurs.sound import Failure, Sound


class FailsWhenWide(Sound):
    """Breaks for some of the settings that its own ranges allow."""

    def build(self, settings):
        if settings.hidden > 16:
            raise Failure("mat1 and mat2 shapes cannot be multiplied")
        return super().build(settings)


class StatesNoRanges(Sound):
    """Its settings are a plain mapping."""

    config = {"batch_size": 8, "hidden": 16}


@pytest.fixture(autouse=True)
def _same_values_every_time():
    """What passed here passes elsewhere too."""
    before = hypothesis.settings.get_current_profile_name()
    hypothesis.settings.register_profile("repeatable", derandomize=True, database=None)
    hypothesis.settings.load_profile("repeatable")
    yield
    hypothesis.settings.load_profile(before)


@pytest.fixture
def trainer(request):
    return request.param


@pytest.mark.parametrize("trainer", [Sound], indirect=True)
def test_settings_inside_their_ranges_train(config_fuzz):
    config_fuzz.accepts(examples=6)


@pytest.mark.parametrize("trainer", [FailsWhenWide], indirect=True)
def test_a_failure_shrinks_to_the_smallest_settings(config_fuzz):
    with pytest.raises(Finding) as found:
        config_fuzz.accepts(examples=40)
    assert found.value.did == "set hidden = 17"
    assert "exit 1" in found.value.happened


@pytest.mark.parametrize("trainer", [StatesNoRanges], indirect=True)
def test_without_ranges_it_says_what_to_add(config_fuzz):
    with pytest.raises(NotApplicable, match="annotated_types"):
        config_fuzz.accepts()


@pytest.mark.parametrize("trainer", [StatesNoRanges], indirect=True)
def test_wrong_values_are_tried_all_the_same(config_fuzz):
    config_fuzz.rejects("batch_size", 0, -1)


@pytest.mark.parametrize("trainer", [Sound], indirect=True)
def test_a_field_that_is_not_there_says_how_to_name_it(config_fuzz):
    with pytest.raises(NotApplicable, match="fields = "):
        config_fuzz.rejects("layers", 0)
