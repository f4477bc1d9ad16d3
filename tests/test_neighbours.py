"""The plugin beside a team's conftest and other plugins: none takes anything over from the other."""

import pytest

from pytest_trainguard.session import ini_file
from pytest_trainguard.session.short_names import spell_out
from tests.projects import Project

TAKES_NAMES = """
def pytest_addoption(parser):
    parser.addoption("--fast", action="store_true")
    parser.addoption("--trainer", default="none")
"""
LATER = """
def pytest_addoption(parser):
    parser.addoption("--category", action="store_true")
"""
READS_THEM = """
def test_it(request):
    assert request.config.getoption("--fast")
    assert request.config.getoption("--trainer") == "lightning"
"""


@pytest.fixture
def project(pytester):
    project = Project(pytester.path, ["preflight:Mine", "preflight:Other"], toml='testpaths = ["tests"]\n')
    project.write("preflight.py", "")
    return project


@pytest.fixture
def collect(pytester):
    """The ids that `pytest ARGS` would run, in this process: nothing is, and torch is not imported."""

    def run(*args):
        result = pytester.runpytest_inprocess("--collect-only", "-q", *args)
        assert result.ret == 0, result.stdout.str() + result.stderr.str()
        return [line for line in result.outlines if "::" in line]

    return run


# --- options


def test_a_conftests_options_are_its_own(project, pytester):
    """One loaded at the beginning, below `testpaths`, and one that is only loaded with its folder's tests."""
    project.write("tests/conftest.py", TAKES_NAMES)
    project.write("tests/later/conftest.py", LATER)
    project.write("tests/later/test_it.py", READS_THEM)
    pytester.runpytest_inprocess("--fast", "--trainer", "lightning").assert_outcomes(passed=1)
    # Ours, with an argument of its own, does not hide the folder of the tests.
    pytester.runpytest_inprocess("--trainguard-category", "data").stderr.fnmatch_lines(
        ["ERROR: --category narrows a preflight: run it with -m preflight"]
    )


def test_where_a_short_name_is_taken_the_full_one_is_told(project, pytester):
    project.write("tests/conftest.py", TAKES_NAMES)
    project.write("tests/test_it.py", READS_THEM)
    result = pytester.runpytest_inprocess(
        "-m", "preflight", "--collect-only", "-q", "-q", "-v", "-v", "--fast", "--edge-case", "41",
        "--trainguard-trainer", "mine",
    )  # fmt: skip
    told = "trainguard: --fast, --trainer are options of another plugin or conftest here: use --trainguard-fast, "
    result.stdout.fnmatch_lines([f"{told}--trainguard-trainer", "*1/*tests collected*"])
    for args, said in (
        (["-m", "preflight", "--trainguard-trainer=nobody"], "--trainguard-trainer nobody: no such trainer"),
        (["--trainguard-fast"], "--trainguard-fast narrows a preflight"),
        (["--edge-case=41"], "--edge-case narrows a preflight"),
    ):
        result = pytester.runpytest_inprocess(*args)
        assert result.stderr.str().startswith(f"ERROR: {said}")


@pytest.mark.parametrize("first", [True, False])
def test_another_plugins_options_are_its_own(project, pytester, monkeypatch, first):
    """Loaded before the entry points, with -p, or after them, from PYTEST_PLUGINS."""
    project.write("neighbour.py", TAKES_NAMES)
    project.write("tests/test_it.py", READS_THEM)
    if not first:
        monkeypatch.setenv("PYTEST_PLUGINS", "neighbour")
    args = ["-p", "neighbour"] if first else []
    monkeypatch.syspath_prepend(project.folder)
    pytester.runpytest_inprocess(*args, "--fast", "--trainer=lightning").assert_outcomes(passed=1)


def test_short_and_full_names_are_one_option(project, collect, monkeypatch):
    """With `=` and without, from the environment too; what stands after `--` is no option."""
    killed = "edge_cases/test_process.py::test_killed"
    project.write("tests/test_it.py", "")
    both = collect("-m", "preflight", "--trainer", "Mine", "--trainguard-trainer=Other", "--edge-case=41")
    assert both == [f"{killed}[Mine]", f"{killed}[Other]"]
    monkeypatch.setenv("PYTEST_ADDOPTS", "--trainer Mine")
    assert collect("-m", "preflight", "--trainguard-edge-case", "41") == [f"{killed}[Mine]"]
    assert spell_out(["--fast", "--", "--fast"], frozenset()) == ["--trainguard-fast", "--", "--fast"]


# --- fixtures

LIGHTNING = """
import pytest


@pytest.fixture
def trainer():
    return "of the team"


@pytest.fixture
def guard():
    return "a lock"


@pytest.fixture
def tmp_path():
    raise RuntimeError("not for the catalogue")


@pytest.fixture(autouse=True, params=["first", "second"])
def everywhere(request):
    return request.param
"""
USES_THEM = """
import pytest


@pytest.mark.parametrize("trainer", ["adam", "sgd"])
def test_of_a_mark(trainer):
    assert trainer in ("adam", "sgd")


def test_of_the_conftest(trainer, guard):
    assert (trainer, guard) == ("of the team", "a lock")
"""
HOOKS = """
def pytest_generate_tests(metafunc):
    if "trainer" in metafunc.fixturenames:
        metafunc.parametrize("trainer", ["adam"])
"""


@pytest.mark.parametrize("trainers", [True, False])
def test_a_teams_fixtures_and_marks_are_its_own(pytester, trainers):
    Project(pytester.path, ["preflight:Mine"] if trainers else []).write("preflight.py", "")
    pytester.makeconftest(LIGHTNING)
    pytester.makepyfile(USES_THEM)
    pytester.runpytest_inprocess().assert_outcomes(passed=6)
    pytester.makeconftest(HOOKS)
    pytester.makepyfile("def test_of_a_hook(trainer): assert trainer == 'adam'")
    pytester.runpytest_inprocess().assert_outcomes(passed=1)


def test_the_catalogues_fixtures_are_ours(project, pytester):
    """Whatever a team's conftest, a plugin or the ini file has for every test."""
    project.write("pyproject.toml", '[tool.pytest.ini_options]\ntrainguard_trainers = ["preflight:Mine"]\n'
                  'usefixtures = ["nowhere"]\n')  # fmt: skip
    project.write("conftest.py", LIGHTNING)
    result = pytester.runpytest_inprocess("-m", "preflight", "--setup-plan", "--edge-case=41,34")
    shown = result.stdout.str()
    for line in (
        "*test_killed[[]Mine[]] (fixtures used: guard, kill_and_resume, request, tmp_path, tmp_path_factory, trainer)",
        "SETUP    S trainer?'Mine'?",
        "*SETUP    F gpu_budget (fixtures used: guard)",
    ):
        result.stdout.fnmatch_lines([line])
    assert "everywhere" not in shown
    assert "nowhere" not in shown


# --- files that fail to load


def test_files_that_fail_to_load_do_not_stop_the_catalogue(project, pytester):
    killed = "edge_cases/test_process.py::test_killed[[]Mine[]]"
    project.write("tests/test_old.py", "import nowhere")
    project.write("tests/test_script.py", "raise SystemExit(2)")
    project.write("tests/test_wrong.py", "def test(:")
    project.write("tests/fixed/conftest.py", "raise RuntimeError('no license')")
    project.write("tests/fixed/test_it.py", "def test_it(): pass")
    asked = ("-m", "preflight", "--trainer=Mine", "--edge-case=41")
    result = pytester.runpytest_inprocess(*asked, "--collect-only", "-q")
    assert result.ret == 0, result.stdout.str()
    result.stdout.fnmatch_lines([killed])
    # Paths that are named, and files that may hold cases, are another matter.
    assert pytester.runpytest_inprocess(*asked, "--collect-only", "tests/test_old.py").ret == 2
    assert pytester.runpytest_inprocess("--collect-only", "tests/test_old.py").ret == 2
    project.write("tests/test_old.py", "import nowhere\nfrom pytest_trainguard import edge_case")
    assert pytester.runpytest_inprocess(*asked, "--collect-only").ret == 2


@pytest.mark.parametrize("workers", [(), ("-n", "1")])
def test_files_that_fail_to_load_are_told_of(project, pytester, workers):
    project.write("conftest.py", "import nowhere")
    project.write("tests/test_it.py", "def test_it(): pass")
    asked = ("-m", "preflight", "--trainer=Mine", "--edge-case=41", *workers)
    result = pytester.runpytest_subprocess(*asked)
    told = "conftest.py cannot be loaded, and was left out: ModuleNotFoundError: No module named 'nowhere'"
    result.stdout.fnmatch_lines([told, "NO-GO: *not judged*"])


# --- the ini file

INI_FILES = [
    ("pytest.ini", "[pytest]"),
    ("pyproject.toml", "[tool.pytest.ini_options]"),
    pytest.param("pyproject.toml", "[tool.pytest]", marks=pytest.mark.skipif(pytest.version_tuple < (9,), reason="9")),
]


def configure(pytester, file, table, **settings):
    """Pytest's configuration of a folder with such an ini file."""
    (pytester.path / file).write_text("\n".join([table, *(f"{name} = {value}" for name, value in settings.items())]))
    return pytester.parseconfig()


@pytest.mark.parametrize(("file", "table"), INI_FILES)
def test_settings_are_texts_or_numbers(pytester, file, table):
    def written(text):
        return text if file == "pytest.ini" else f'"{text}"'

    config = configure(pytester, file, table, trainguard_timeout="60", trainguard_gpu_headroom="7")
    assert ini_file.read_seconds(config, "trainguard_timeout") == 60
    assert ini_file.read_text(config, "trainguard_gpu_headroom") == "7"
    told = {"trainguard_timeout": written("1.5"), "trainguard_trainers": written("a:B"), "trainguard_bar": written("x")}
    config = configure(pytester, file, table, **told)
    assert ini_file.read_seconds(config, "trainguard_timeout") == 1.5
    assert ini_file.read_list(config, "trainguard_trainers") == ["a:B"]
    assert ini_file.read_text(config, "trainguard_bar") == "x"
    for wrong in ("soon", "0", "-1", "nan", "inf"):
        config = configure(pytester, file, table, trainguard_timeout=written(wrong))
        with pytest.raises(pytest.UsageError, match=rf"^trainguard_timeout: '?{wrong}.* is no number of seconds above"):
            ini_file.read_seconds(config, "trainguard_timeout")


@pytest.mark.filterwarnings("ignore:Passing a value that is not a string")  # pytest's own word on it, from 9.2 on
def test_a_setting_of_no_kind_is_one_line(pytester):
    config = configure(pytester, *INI_FILES[1], trainguard_timeout='["1"]')
    with pytest.raises(pytest.UsageError, match=r"trainguard_timeout: .*1.* is no number of seconds above 0"):
        ini_file.read_seconds(config, "trainguard_timeout")


def test_a_wrong_setting_is_told_before_anything_runs(project, pytester):
    result = pytester.runpytest_inprocess("-m", "preflight", "-o", "trainguard_timeout=soon")
    assert result.stderr.str().strip() == "ERROR: trainguard_timeout: 'soon' is no number of seconds above 0"
