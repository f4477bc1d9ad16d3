"""The static half of cases 71 to 80: what the checker is asked, and what comes of its answers."""

import textwrap
from pathlib import Path

import pytest

from pytest_trainguard import NotApplicable
from pytest_trainguard.probes.static import check

LEADS_TO = {
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


def test_names_file_and_line(problems):
    problem = next(p for p in problems if Path(p.path).stem == "assigned_on_one_branch")
    assert "assigned_on_one_branch.py:5" in str(problem)
    assert "total_steps" in str(problem)


def test_nothing_to_read_is_not_a_pass(tmp_path):
    with pytest.raises(NotApplicable, match="no Python module"):
        check([], tmp_path)
