"""What a team wrote into its `Trainer` and the harness would pass over is told in one line, and nothing else is."""

import dataclasses

import pytest

from pytest_trainguard import Trainer
from pytest_trainguard.adapters.mistakes import find_mistake
from pytest_trainguard.contract.outcome import Outcome
from tests.projects import ADOPTED, LOOP, Project


@dataclasses.dataclass
class Settings:
    lr: float = 0.1
    save_evry: int = 3


class Runs(Trainer):
    def train(self, run):
        return None


class NoTrain(Trainer):
    sample = "x"


class NoRun(Trainer):
    def train(self):
        return None


class TwoArguments(Trainer):
    def train(self, data, steps):
        return None


class WithDefaults(Trainer):
    def train(self, run, broken=False, *others):
        return None


class Misspelt(Runs):
    tinny = {"lr": 0.5}


class OfABase(Misspelt):
    def make_dta(self, folder, rows, seed):
        return None


class BothNames(Runs):
    tiny = {"lr": 0.5}
    tiny2 = {"lr": 0.25}


class ReadsItself(Trainer):
    sampled = 3
    row = 4

    def train(self, run):
        return [lambda: self.sampled]


class Helper:
    def look(self, trainer):
        return trainer.row


class OddRole(Runs):
    config = Settings
    fields = {"save_evry": "save_evry"}


class OddSetting(Runs):
    config = Settings
    fields = {"save_every": "save_every"}


class NoConfig(Runs):
    fields = {"save_every": "every"}


class Sound(Runs):
    config = Settings
    fields = {"save_every": "save_evry", "workers": ""}
    learning = 3

    def configure(self):
        return self


@pytest.mark.parametrize(
    ("trainer", "said"),
    [
        (Misspelt, "tinny is no attribute of a Trainer, and nothing reads it; did you mean 'tiny'?"),
        (OfABase, "make_dta is no attribute of a Trainer, and nothing reads it; did you mean 'make_data'?"),
        (OddRole, "fields: no case knows a role 'save_evry'; did you mean 'save_every'?"),
        (OddSetting, "fields: save_every is 'save_every', and there is no such setting; did you mean 'save_evry'?"),
        (NoConfig, "fields: save_every is 'every', and there is no such setting"),
        (NoTrain, "has no train(self, run): write the one method that runs the program"),
        (NoRun, "train() is called with one argument, the run: def train(self, run)"),
        (TwoArguments, "train(data, steps) is called with one argument, the run: def train(self, run)"),
        (WithDefaults, None),
        (BothNames, None),
        (ReadsItself, None),
        (Sound, None),
    ],
)
def test_what_would_be_passed_over(trainer, said):
    assert find_mistake(trainer()) == said


def test_it_is_a_usage_error(tmp_path):
    project = Project(tmp_path, ["preflight:Classifier"])
    project.write("program.py", LOOP)
    project.write("preflight.py", ADOPTED.replace("    tiny =", "    tinny ="))
    result = project.pytest("-m", "preflight", "--edge-case", "41,42")
    assert result.code == 4, result.output
    said = "Classifier: tinny is no attribute of a Trainer, and nothing reads it; did you mean 'tiny'?"
    assert result.verdicts("Classifier") == {41: "error", 42: "error"}
    assert said in " ".join(result.output.split())


ARGUMENTS = "--out {output_dir} --steps {max_steps}"
SET_UPS = """
[tool.trainguard.trainers.no_script]
command = "python trian.py ARGUMENTS"

[tool.trainguard.trainers.no_program]
command = "torchrunn train.py ARGUMENTS"

[tool.trainguard.trainers.no_option]
command = "python train.py --outt {output_dir} --steps {max_steps}"

[tool.trainguard.trainers.no_module]
command = "python imports.py ARGUMENTS"

[tool.trainguard.trainers.no_sample]
command = "python train.py --data {data} ARGUMENTS"
sample = "trian.jsonl"

[tool.trainguard.trainers.fails]
command = "python fails.py ARGUMENTS"

[tool.trainguard.trainers.no_python]
command = "sh train.sh ARGUMENTS"
""".replace("ARGUMENTS", ARGUMENTS)
PARSER = """
import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--out")
parser.add_argument("--steps")
parser.parse_args()
"""
# As Hydra ends, behind a progress bar.
FAILS = """
import sys, traceback
print("\\r 0%|    |\\r50%|##  |", end="", file=sys.stderr)
try:
    raise KeyError("no field 'text'")
except KeyError:
    traceback.print_exc()
print("\\nSet the environment variable HYDRA_FULL_ERROR=1 for a complete stack trace.", file=sys.stderr)
sys.exit(1)
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A session in which nobody's set-up is right: what was said in each one's one block."""
    project = Project(tmp_path_factory.mktemp("set-ups"), toml=SET_UPS)
    project.write("train.py", PARSER)
    project.write("imports.py", "import apexx\n")
    project.write("fails.py", FAILS)
    project.write("train.sh", "echo 8 steps\n")
    return project.pytest("-m", "preflight", "--edge-case", "1,41,51", "-p", "no:cacheprovider")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_script", "no_script: command: no such file 'trian.py'; did you mean 'train.py'?"),
        ("no_program", "no_program: command: torchrunn: no such program: looked for in "),
        ("no_option", "--outt"),
        (
            "no_module",
            "(ModuleNotFoundError: No module named 'apexx', at imports.py:1): install apexx where pytest runs (",
        ),
        ("no_python", "no_python: the undisturbed run succeeds, and no Python process of it that has torch came to"),
        ("no_sample", "no_sample has no data: sample trian.jsonl: no such file or folder"),
    ],
)
def test_a_set_up_that_is_wrong_is_one_error(told, name, said):
    assert told.code == 4
    shown = " ".join(told.output.partition("= preflight =")[2].split())
    (block,) = [part for part in shown.split("ERROR: ")[1:] if part.startswith(name)]
    assert said in block
    assert shown.count(f"{name}:") + shown.count(f"{name} has") == 1
    assert set(told.verdicts(name).values()) <= {"error", "not_applicable"}


def test_a_program_that_fails_is_told_in_its_own_last_words(told):
    shown = told.output.partition("= preflight =")[2]
    assert (
        """ERROR: fails: the undisturbed run fails: exit 1 after 0 optimizer steps (KeyError: "no field 'text'", at """
        """fails.py:5)""" in " ".join(shown.split())
    )
    assert shown.count("fails: the undisturbed run") == 1
    assert "HYDRA_FULL_ERROR" not in shown
    assert "##" not in shown
    assert "not applicable:" not in shown  # of trainers of which nothing can be said


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("Traceback (most recent call last):\n  File x\nE: one\n  two\n\nlater\n", "E: one two"),
        (
            "Traceback (most recent call last):\n  File x\nValueError: a\n\nDuring handling:\n\n"
            "Traceback (most recent call last):\n  File y\nx.ChildFailedError: \n====\n",
            "ValueError: a",
        ),
        ("\r 10%\r 20%\nbad row 3\n", "bad row 3"),
        ("", ""),
    ],
)
def test_what_ended_a_run(output, said):
    assert outcome_of(output).failure == said


def outcome_of(output):
    values = {field.name: None for field in dataclasses.fields(Outcome)}
    return Outcome(**{**values, "output": output, "exit": 1})
