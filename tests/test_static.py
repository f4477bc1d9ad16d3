"""The static half of cases 71 to 80: what the checker is asked, and what comes of its answers."""

import textwrap
from pathlib import Path

import pytest

from pytest_trainguard import CannotJudge, NotApplicable
from pytest_trainguard.static import canary, checker
from pytest_trainguard.static.checker import check, main
from tests.projects import Project

LEADS_TO = {
    "name_error_that_is_swallowed": ("NameError", "try:\n    train()\nexcept Exception:\n    pass\n"),
    "used_before_assigned": (
        "UnboundLocalError",
        """
        def fit(rows):
            warmup = total_steps // 10
            total_steps = len(rows)
            return warmup, total_steps
        """,
    ),
    "assigned_on_one_branch": (
        "UnboundLocalError",
        """
        def fit(rows, resume):
            if resume:
                total_steps = len(rows)
            return total_steps
        """,
    ),
    "assigned_in_try": (
        "UnboundLocalError",
        """
        def load(path):
            try:
                state = open(path).read()
            except OSError:
                print("no checkpoint")
            return state
        """,
    ),
    "assigned_under_a_condition_that_is_set_anew": (
        "UnboundLocalError",
        """
        def fit(rows, resume):
            if resume:
                total_steps = len(rows)
            resume = len(rows) > 3
            if resume:
                print(total_steps)
        """,
    ),
    "assigned_under_another_condition": (
        "UnboundLocalError",
        """
        def fit(rows, resume, warmup):
            if resume and warmup:
                total_steps = len(rows)
            if resume:
                print(total_steps)
        """,
    ),
    "assigned_where_an_answer_may_change": (
        "UnboundLocalError",
        """
        def fit(rows):
            if rows.pop():
                total_steps = len(rows)
            if rows.pop():
                print(total_steps)
        """,
    ),
    "assigned_in_a_loop_that_may_go_on_before": (
        "UnboundLocalError",
        """
        def fit(rows):
            for row in rows:
                if not row:
                    continue
                loss = row
            return loss
        """,
    ),
    "deleted": (
        "UnboundLocalError",
        """
        def fit(model):
            best = model
            del best
            return best
        """,
    ),
    "exception_name_after_its_block": (
        "UnboundLocalError",
        """
        def load(path):
            try:
                return open(path).read()
            except OSError as error:
                pass
            raise RuntimeError(error)
        """,
    ),
    "undefined": ("NameError", "def fit():\n    return tokenizer.decode([1])\n"),
    "misspelt": ("NameError", "learning_rate = 1e-3\n\ndef fit():\n    return learning_rat\n"),
    "module_level_before_assignment": ("NameError", "print(epochs)\nepochs = 3\n"),
    "none_for_a_float": (
        "TypeError",
        "def fit(num_train_epochs: float = 3.0): ...\n\nfit(num_train_epochs=None)\n",
    ),
    "text_for_a_number": ("TypeError", "def fit(batch_size: int): ...\n\nfit('8')\n"),
    "attribute_of_a_module": ("AttributeError", "import json\n\n\ndef load(path):\n    return json.load_lines(path)\n"),
    "attribute_of_none": ("AttributeError", "def fit():\n    model = None\n    model.train()\n"),
    "attribute_of_a_list": ("AttributeError", "def fit():\n    losses = [1.0]\n    losses.push(2.0)\n"),
    "attribute_of_an_own_class": (
        "AttributeError",
        """
        from dataclasses import dataclass

        @dataclass
        class Settings:
            learning_rate: float = 0.1

        def fit(settings: Settings):
            return settings.learnig_rate
        """,
    ),
    "attribute_of_self": (
        "AttributeError",
        """
        class Trainer:
            def __init__(self):
                self.step = 0

            def fit(self):
                self.stepp += 1
        """,
    ),
    "divided_by_zero": ("ZeroDivisionError", "def rate(steps: int):\n    return steps / 0\n"),
    "divided_by_what_a_loop_after_it_counts": (
        "ZeroDivisionError",
        """
        def evaluate(loader):
            right = rows = 0
            rate = right / rows
            for batch in loader:
                rows += batch.sum().item()
            return rate
        """,
    ),
    "index_of_a_pair": ("IndexError", "def last():\n    pair = (1, 2)\n    return pair[2]\n"),
    "key_of_a_typed_row": (
        "KeyError",
        """
        from typing import TypedDict

        class Row(TypedDict):
            text: str

        def read(row: Row):
            return row["txt"]
        """,
    ),
    "argument_missing": ("TypeError", "def fit(rows, seed): ...\n\nfit([])\n"),
    "argument_unknown": ("TypeError", "def fit(rows): ...\n\nfit([], seeed=1)\n"),
    "one_argument_too_many": ("TypeError", "def fit(rows): ...\n\nfit([], 1)\n"),
}

SOUND = {
    "default_first": """
        def fit(rows, resume):
            total_steps = 0
            if resume:
                total_steps = len(rows)
            return total_steps
        """,
    "both_branches": """
        def fit(rows, resume):
            if resume:
                total_steps = len(rows)
            else:
                total_steps = 0
            return total_steps
        """,
    "asked_twice": """
        def fit(args, rows):
            if args.do_train:
                total_steps = len(rows)
            print("starting")
            if args.do_train and rows:
                for row in rows:
                    print(row, total_steps)
        """,
    "raises_otherwise": """
        def load(path):
            try:
                state = open(path).read()
            except OSError as error:
                raise SystemExit("no checkpoint") from error
            return state
        """,
    "optional_import": """
        try:
            import an_optional_library
        except ImportError:
            an_optional_library = None

        def log(value):
            if an_optional_library is not None:
                an_optional_library.log(value)
        """,
    "optional_argument": "def fit(epochs: float | None = None): ...\n\nfit(epochs=None)\n",
    "library_takes_more_than_it_shows": """
        from transformers import RobertaConfig

        def build():
            return RobertaConfig(num_labels=2)
        """,
    "attribute_set_from_outside": """
        class Model: ...

        def build():
            model = Model()
            model.step = 1
            return model.step
        """,
    "attribute_of_a_sibling": """
        class Saves:
            def save(self):
                return self.weights

        class Net(Saves):
            def __init__(self):
                self.weights = []
        """,
    "attribute_that_is_asked_for": """
        import os

        def cores():
            try:
                return os.cores_for_me()
            except AttributeError:
                return 1
        """,
    "name_that_is_asked_for": """
        try:
            get_ipython().run_line_magic("matplotlib", "inline")
        except (NameError, AttributeError):
            pass
        """,
    "buffer_of_a_module": """
        import torch

        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("mask", torch.ones(2))

            def forward(self, x):
                return x * self.mask
        """,
    "mean_over_what_a_loop_counts": """
        def evaluate(loader):
            loss = right = rows = 0
            for batch in loader:
                loss += batch.item()
                rows += batch.sum().item()
            print(f"loss {loss / rows:.4f}, right {right / rows:.4f}")
            return loss / rows
        """,
    "implicit_optional": "def load(path: str, revision: str = None): ...\n\nload('x', revision=None)\n",
    "int_for_a_float": "def fit(rate: float): ...\n\nfit(1)\n",
}


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    """Every example in a module of its own, all read at once."""
    folder = tmp_path_factory.mktemp("sources")
    files = []
    for name, source in [*((n, s) for n, (_, s) in LEADS_TO.items()), *SOUND.items()]:
        files.append(folder / f"{name}.py")
        files[-1].write_text(textwrap.dedent(source))
    return check(files, folder)


@pytest.mark.parametrize("name", LEADS_TO)
def test_found_under_its_exception(problems, name):
    assert {p.exception for p in problems if Path(p.path).stem == name} == {LEADS_TO[name][0]}


@pytest.mark.parametrize("name", SOUND)
def test_no_false_alarm(problems, name):
    assert [str(p) for p in problems if Path(p.path).stem == name] == []


def test_what_only_an_empty_loop_leads_to_is_told_apart(tmp_path, monkeypatch, capsys):
    source = "def fit(loader):\n    for batch in loader:\n        loss = batch\n    return loss\n"
    (tmp_path / "train.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    assert main(["train.py"]) == 0
    assert "(where the loop that assigns it has no turn)" in capsys.readouterr().out
    (problem,) = check([tmp_path / "train.py"], tmp_path)
    assert problem.of_a_loop


def test_names_file_and_line(problems):
    problem = next(p for p in problems if Path(p.path).stem == "assigned_on_one_branch")
    assert "assigned_on_one_branch.py:5" in str(problem)
    assert "total_steps" in str(problem)


def test_nothing_to_read_is_not_a_pass(tmp_path):
    with pytest.raises(NotApplicable, match="no Python file"):
        check([], tmp_path)


def test_the_command_tells_one_line_a_finding(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    bad, good = tmp_path / "train one.py", tmp_path / "good.py"
    bad.write_text("def fit(rows, resume):\n    if resume:\n        total_steps = 1\n    return total_steps + rate\n")
    good.write_text("def fit():\n    return 1\n")
    assert main(["good.py"]) == 0
    assert main([]) == 0
    assert capsys.readouterr().out == ""
    assert main(["train one.py", str(good)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("Error: ")[0] for line in lines] == [
        "train one.py:4: UnboundLocal", "train one.py:4: Name",
    ]  # fmt: skip
    assert "`total_steps`" in lines[0]


def test_the_command_on_what_is_no_python(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text("def fit(:\n")
    (tmp_path / "latin.py").write_bytes(b"name = '\xe9'\n")
    assert main(["broken.py"]) == 1
    assert capsys.readouterr().out.startswith("broken.py:1: SyntaxError: ")
    assert main(["latin.py"]) == 2
    assert main(["nowhere.py"]) == 2
    assert "nowhere.py" in capsys.readouterr().err


@pytest.mark.parametrize(
    "reworded", [("Name `", "The name `"), ("error[missing-argument]", "error[argument-missing]"), ("error[", "E-")]
)
def test_a_checker_that_rewords_is_not_believed(tmp_path, monkeypatch, reworded):
    good = tmp_path / "good.py"
    good.write_text("def fit():\n    return 1\n")
    ask = checker._ask_checker
    monkeypatch.setattr(checker, "_ask_checker", lambda *asked: ask(*asked).replace(*reworded))
    with pytest.raises(CannotJudge, match=r"ty \d.* overlooks \d+ of \d+ known faults") as told:
        checker.check([good], tmp_path)
    assert "# " in told.value.evidence


def test_a_checker_that_says_nothing_is_not_believed(tmp_path, monkeypatch):
    good = tmp_path / "good.py"
    good.write_text("def fit():\n    return 1\n")
    monkeypatch.setattr(checker, "_ask_checker", lambda *asked: "All checks passed!\n")
    with pytest.raises(CannotJudge, match=f"overlooks {len(canary.FAULTS)} of {len(canary.FAULTS)} known faults"):
        checker.check([good], tmp_path)


def test_the_known_faults_are_of_every_kind_that_is_told():
    assert {exception for _, exception in canary.FAULTS} == {exception for exception, _ in LEADS_TO.values()}


ONE_FILE = """
    import argparse

    import torch

    parser = argparse.ArgumentParser()
    parser.add_argument("--out")
    parser.add_argument("--steps", type=int)
    given = parser.parse_args()
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(given.steps):
        loss = model(torch.ones(8, 4)).pow(2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


    def report():
        if given.steps > 1000:
            total = 1
        return total, tokenizer


    if given.steps > 100:
        report()
"""


@pytest.mark.parametrize("program", ["train.py", "-m train", "-m training"])
def test_a_program_of_one_file_is_read(tmp_path, program):
    command = f"python {program} --out {{output_dir}} --steps {{max_steps}}"
    project = Project(tmp_path, toml=f"[tool.trainguard.trainers.tiny]\ncommand = {command!r}\n")
    project.write("training/__main__.py" if program == "-m training" else "train.py", ONE_FILE)
    project.write("training/__init__.py", "")
    result = project.pytest("-m", "preflight", "--edge-case=71,72", "-p", "no:cacheprovider")
    for number, name in ((71, "`total`"), (72, "`tokenizer`")):
        told = result.case("tiny", number)
        assert told["verdict"] == "failed", result.output
        assert name in told["reason"]
