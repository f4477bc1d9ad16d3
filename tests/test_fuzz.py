"""`config_fuzz`, used as in a test of a team's own."""

import hypothesis
import pytest

from pytest_trainguard import Finding, NotApplicable
from tests.saboteurs.sound import Failure, Reject, Settings, Sound


class FailsWhenWide(Sound):
    """Breaks for some of the settings that its own ranges allow."""

    def build(self, settings):
        if settings.hidden > 16:
            raise Failure("mat1 and mat2 shapes cannot be multiplied")
        return super().build(settings)


class StatesNoRanges(Sound):
    """Its settings are a plain mapping."""

    config = {"batch_size": 8, "hidden": 16}


class FlagSettings(Settings):
    dry_run: bool = False
    from_latest: bool = False
    wide: bool = False


class SoundFlags(Sound):
    """One flag takes no step, another wants what is not there."""

    config = FlagSettings

    def settings(self, values):
        return FlagSettings(**values)

    def steps(self, settings, rows, max_steps):
        if settings.from_latest:
            raise Reject("from_latest: there is no checkpoint to go on from")
        return 0 if settings.dry_run else super().steps(settings, rows, max_steps)


class BreaksWithAFlag(SoundFlags):
    """A flag that nobody tries."""

    def build(self, settings):
        if settings.wide:
            raise Failure("mat1 and mat2 shapes cannot be multiplied")
        return super().build(settings)


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


@pytest.mark.parametrize("trainer", [SoundFlags], indirect=True)
def test_flags_may_ask_for_no_step_or_be_rejected(config_fuzz):
    config_fuzz.accepts(examples=8)
    config_fuzz.rejects("dry_run")


@pytest.mark.parametrize("trainer", [BreaksWithAFlag], indirect=True)
def test_a_flag_that_breaks_the_program_is_found(config_fuzz):
    with pytest.raises(Finding) as found:
        config_fuzz.accepts(examples=40)
    assert found.value.did == "set wide = true"


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
