"""Breaking a settings file: each form's own parser stumbles over it, at the place that a good message names."""

import pytest

from pytest_trainguard.adapters import settings_files
from pytest_trainguard.damage import settings_file
from pytest_trainguard.verdicts import wording

VALUES = {"epochs": 3, "model": {"layers": 2, "name": "a b"}, "lr": 0.5, "betas": [0.9, 0.99], "seed": 1}


@pytest.mark.parametrize("suffix", [".json", ".toml", ".yaml", ".yml"])
@pytest.mark.parametrize("values", [VALUES, {"lr": 0.5}, {}], ids=["nested", "one", "none"])
def test_every_variant_is_rejected_by_its_parser(tmp_path, suffix, values):
    whole = tmp_path / f"settings{suffix}"
    settings_files.write_settings(whole, values)
    variants = settings_file.break_settings_file(whole, tmp_path)
    assert len({variant.did for variant in variants}) == len(variants) >= 2
    for variant in variants:
        with pytest.raises(ValueError, match="settings ") as error:
            settings_files.read_settings(variant.path)
        unnamed = [wanted for wanted in variant.naming if not wording.names(str(error.value), wanted)]
        assert not unnamed, str(error.value)
    assert settings_files.read_settings(whole) == values


def test_the_place_is_named_by_line_and_column(tmp_path):
    whole = tmp_path / "settings.toml"
    whole.write_text('epochs = 3\nname = "a"\nlr = 0.5\n')
    stray = settings_file.break_settings_file(whole, tmp_path)[0]
    assert stray.path.read_text() == 'epochs = 3\nname = @"a"\nlr = 0.5\n'
    assert stray.did == "put a stray @ into line 2, column 8 of settings.toml"
    file, line, column = stray.naming
    for said in ("line 2, column 8", "settings.toml:2:8", "(at line 2, column 7)"):
        assert wording.names(said, line), said
        assert wording.names(said, column), said
    for said in ("line 1, column 8", "settings.toml:3:8"):
        assert not wording.names(said, line), said
    assert not wording.names("line 2, column 1", column)
    assert file == "settings.toml"
