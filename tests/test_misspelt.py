"""A slip in a setting's name, and whether it comes to the program at all."""

import pytest

from pytest_trainguard import Trainer
from pytest_trainguard.adapters.command import CommandTrainer
from pytest_trainguard.adapters.handing_on import hands_on_all
from pytest_trainguard.casework.misspelt import misspell


@pytest.mark.parametrize(
    ("name", "known", "slip"),
    [
        ("batch_size", set(), "batch_siez"),
        ("batch_size", {"batch_siez"}, "batch_szie"),
        ("lr", set(), "lrr"),
        ("lr", {"lrr"}, "lrrx"),
        ("a_b", set(), "a_bb"),
    ],
)
def test_a_slip_is_no_known_name_and_no_beginning_of_one(name, known, slip):
    assert misspell(name, known) == slip
    assert not name.startswith(slip)


class Whole(Trainer):
    def train(self, run):
        return main(run.settings, run.data)


class Spread(Trainer):
    def train(self, run):
        return main(**run.settings)


class Picks(Trainer):
    config = {"lr": 0.1}

    def train(self, run):
        copy = dict(run.settings)
        return main(run.settings["lr"], copy.get("batch_size", 8), run.config["lr"])


class Typed(Trainer):
    class config:
        lr: float = 0.1

    def train(self, run):
        config = run.config
        return main(config)


def main(*_, **__):
    """Stands for a program."""


@pytest.mark.parametrize(("trainer", "all_of_them"), [(Whole, True), (Spread, True), (Picks, False), (Typed, True)])
def test_a_class_hands_on_all_settings_or_picks_some_out(trainer, all_of_them):
    assert hands_on_all(trainer()) is all_of_them


@pytest.mark.parametrize(
    ("command", "all_of_them"),
    [("python train.py {settings} --out {output_dir}", True), ("python train.py --lr {lr} --out {output_dir}", False)],
)
def test_a_command_takes_options_of_any_name_where_it_has_a_place_for_them(command, all_of_them):
    table = {"command": command + " --steps {max_steps}", "production": {"lr": 0.1}, "settings_form": "--key=value"}
    assert hands_on_all(CommandTrainer(table)) is all_of_them
