"""What a team wrote into its `Trainer` and the harness would pass over is told in one line, and nothing else is."""

import dataclasses

import pytest

from pytest_trainguard import Trainer
from pytest_trainguard.adapters.mistakes import find_mistake
from tests.projects import ADOPTED, LOOP, Project


@dataclasses.dataclass
class Settings:
    lr: float = 0.1
    save_evry: int = 3


class Misspelt(Trainer):
    tinny = {"lr": 0.5}


class OfABase(Misspelt):
    def make_dta(self, folder, rows, seed):
        return None


class BothNames(Trainer):
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


class OddRole(Trainer):
    config = Settings
    fields = {"save_evry": "save_evry"}


class OddSetting(Trainer):
    config = Settings
    fields = {"save_every": "save_every"}


class NoConfig(Trainer):
    fields = {"save_every": "every"}


class Sound(Trainer):
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
