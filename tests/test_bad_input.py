"""Bad input to the harness itself: a usage error of one clear line, or that trainer's own verdict; the others go on."""

import pytest

from tests.projects import ADOPTED, LOOP, Project

BROKEN = """
from pytest_trainguard import Trainer


class NoTrain(Trainer):
    sample = "train.jsonl"


class NoData(Trainer):
    def train(self, run):
        import torch
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(run.max_steps):
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()


class NoSample(NoData):
    sample = "nowhere.jsonl"


class BadSample(NoData):
    sample = "garbled.jsonl"


class OddSample(NoData):
    sample = "sample.xyz"


class NoTrainer:
    pass
"""

COMMAND = "command = 'python train.py --out {output_dir} --steps {max_steps}'"


@pytest.fixture
def usage_error(pytester):
    """Run pytest in this process, which is quick (nothing gets as far as torch); the one line that it says."""

    def run(*args, trainers=("preflight:Classifier",), toml=""):
        Project(pytester.path, trainers, toml=toml).write("preflight.py", "")
        result = pytester.runpytest_inprocess(*args)
        assert result.ret == 4
        assert not result.stdout.str().strip()
        lines = [line for line in result.stderr.str().splitlines() if line.strip()]
        assert len(lines) == 1, lines
        assert lines[0].startswith("ERROR: ")
        return lines[0]

    return run


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--trainer=Nobody", "--trainer Nobody: no such trainer; there are Classifier"),
        ("--edge-case=80-999,1.5", "--edge-case: '1.5' is neither a number nor a range"),
        ("--edge-case=0", "--edge-case: no case 0"),
        ("--edge-case=411", "--edge-case: no case 411 (pytest --catalogue lists them)"),
        ("--edge-case=66-64", "--edge-case: '66-64'"),
        ("--category=dta", "--category dta: no such category; there are data, model,"),
        ("--gpu-budget=40GX", "--gpu-budget: '40GX'"),
        ("--gpu-budget=120%", "--gpu-budget: '120%'"),
        ("--gpu-budget=-3", "--gpu-budget: '-3'"),
        ("--preflight-report=/proc/nowhere/report.json", "--preflight-report /proc/nowhere/report.json: "),
        ("--preflight-report=preflight.py/report.json", "--preflight-report preflight.py/report.json: "),
        ("--preflight-report=.", "--preflight-report .: Is a directory"),
        (
            "--preflight-report=report.txt",
            "--preflight-report report.txt: the suffix says what is written: .json or .html",
        ),
    ],
)
def test_bad_options(usage_error, option, said):
    assert said in usage_error("-m", "preflight", option)


@pytest.mark.parametrize("option", ["--trainer=Classifier", "--edge-case=41", "--category=process"])
def test_narrowing_nothing(usage_error, option):
    assert f"{option.partition('=')[0]} narrows a preflight: run it with -m preflight" in usage_error(option)


@pytest.mark.parametrize(
    ("trainers", "toml", "said"),
    [
        ([], "", "no trainers: name them in the ini option trainguard_trainers"),
        (["preflight.Classifier"], "", "'preflight.Classifier' is not of the form 'module:Class'"),
        (["preflight:"], "", "'preflight:' is not of the form"),
        (["nowhere.preflight:Classifier"], "", "no module named 'nowhere.preflight'"),
        ([], "[tool.trainguard.trainers]\nmine = 3", "[tool.trainguard.trainers.mine] is not a table"),
        ([], "[tool.trainguard]\ntrainers = 3", "trainers of [tool.trainguard.trainers] is not a table"),
        (
            [],
            "[tool.trainguard]\ntrainer = 3",
            "has an unknown key 'trainer'; did you mean 'trainers'?",
        ),
        ([], "[tool.trainguard]\ntimeout = 3", "'timeout'; trainguard_timeout stands in [tool.pytest.ini_options]"),
        ([], "[tool.trainguard]\nzzz = 3", "unknown key 'zzz'; known is trainers"),
        ([], "[tool.trainguard.trainers.mine]\nsample = 'x'", "mine] has no command"),
        ([], "[tool.trainguard.trainers.mine]\nclass = 'Mine'", "mine] class is 'module:Class', not 'Mine'"),
        ([], "[tool.trainguard.trainers.mine]\nclass = 'a:B'\nrows = 3", "mine] has class, and so no other key: rows"),
        ([], "[tool.trainguard.trainers.mine]\nclass = 'nowhere:B'", "'nowhere:B': no module named 'nowhere'"),
        ([], f"[tool.trainguard.trainers.mine]\n{COMMAND}\nsampel = 'x'", "mine] unknown key 'sampel'"),
        (
            [],
            "[tool.trainguard.trainers.mine]\ncommand = 'python t.py {outptu}'",
            "unknown placeholder {outptu}",
        ),
        (
            [],
            f"[tool.trainguard.trainers.mine]\n{COMMAND}\nsettings = 'a.yaml'",
            "its command lacks {config}",
        ),
        ([], f"[tool.trainguard.trainers.mine]\n{COMMAND}\nresume = 'x'", "mine] resume is 'checkpoint'"),
        ([], f"[tool.trainguard.trainers.mine]\n{COMMAND[:-1]} \"'", "mine] command cannot be split"),
    ],
)
def test_bad_trainers(usage_error, trainers, toml, said):
    assert said in usage_error("-m", "preflight", trainers=trainers, toml=toml)


OWN = """
from pytest_trainguard import edge_case

@edge_case({}, title="t", verdict="survives", severity="unclear", brought_about="-", expects="-")
def test_it(trainer):
    pass
"""
KILLED = "edge_cases/test_process.py::test_killed"
OTHER = "; a project's own cases have numbers from 1001 on, or none"


@pytest.fixture
def collection_error(pytester):
    """Collect in a project with two cases of its own, in this process; the one line that is said of them."""

    def run(first, second, *args):
        project = Project(pytester.path, ["preflight:Classifier"])
        project.write("preflight.py", "")
        project.write("test_one.py", OWN.format(first))
        project.write("test_two.py", OWN.format(second))
        result = pytester.runpytest_inprocess("-m", "preflight", "--collect-only", *args)
        assert result.ret == 4
        lines = [line for line in result.stderr.str().splitlines() if line.strip()]
        assert len(lines) == 1, lines
        assert lines[0].startswith("ERROR: ")
        return lines[0].removeprefix("ERROR: ")

    return run


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (
            "'mine'",
            "'mine', number=1001",
            "two cases have the slug mine: test_one.py::test_it and test_two.py::test_it",
        ),
        ("'killed'", "'mine'", f"two cases have the slug killed: test_one.py::test_it and {KILLED}"),
        (
            "'mine', number=1001",
            "'yours', number=1001",
            f"two cases have the number 1001: test_one.py::test_it and test_two.py::test_it{OTHER}",
        ),
        (
            "'mine', number=41",
            "'yours'",
            f"two cases have the number 41: test_one.py::test_it and {KILLED}{OTHER}",
        ),
        (
            "'mine', number=99",
            "'yours'",
            f"test_one.py::test_it: case mine cannot have the number 99: numbers 1 to 100 are the catalogue's{OTHER}",
        ),
        (
            "'mine', number=199",
            "'yours'",
            "test_one.py::test_it: case mine cannot have the number 199: "
            f"numbers 126 to 199 are reserved for a family to come{OTHER}",
        ),
        (
            "'mine', number=299",
            "'yours'",
            "test_one.py::test_it: case mine cannot have the number 299: "
            f"numbers 201 to 299 are reserved for a family to come{OTHER}",
        ),
        (
            "'mine', number=1000",
            "'yours'",
            f"test_one.py::test_it: case mine cannot have the number 1000: it is nobody's{OTHER}",
        ),
    ],
)
def test_every_case_is_told_apart(collection_error, first, second, said):
    assert collection_error(first, second) == said


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("kiled", "no case 'kiled'; the nearest is 'killed'"),
        ("41,mime", "no case 'mime'; the nearest is 'mine'"),
        ("999", "no case 999"),
        ("mine,300-400", "no case in 300-400"),
    ],
)
def test_a_case_that_there_is_not(collection_error, option, said):
    told = collection_error("'mine'", "'yours', number=1001", f"--edge-case={option}")
    assert told == f"--edge-case: {said} (pytest --catalogue lists them)"


def test_workers_tell_of_it_too(tmp_path):
    project = Project(tmp_path / "project", ["preflight:Classifier"])
    project.write("preflight.py", "")
    result = project.pytest("-m", "preflight", "-n2", "--edge-case=kiled", "-p", "no:cacheprovider")
    assert result.code == 4
    assert result.output.count("ERROR: --edge-case: no case 'kiled'; the nearest is 'killed'") == 1


def test_a_file_that_fails_to_load_is_told_first(pytester):
    project = Project(pytester.path, ["preflight:Classifier"])
    project.write("preflight.py", "")
    project.write("test_own.py", "raise RuntimeError('no disk')\n")
    result = pytester.runpytest_inprocess("-m", "preflight", "--edge-case=in-that-file")
    result.stderr.fnmatch_lines("*it may be in a file that failed to load: test_own.py*RuntimeError: no disk*")


def test_bad_trainers_do_not_concern_a_plain_run(pytester):
    Project(pytester.path, ["nowhere"]).write("test_plain.py", "def test_of_the_project():\n    pass\n")
    pytester.runpytest_inprocess().assert_outcomes(passed=1)


def test_a_projects_own_test_without_trainers(pytester):
    project = Project(pytester.path)
    project.write("test_own.py", "def test_own(guard):\n    pass\n")
    project.write("test_plain.py", "def test_of_the_project():\n    pass\n")
    result = pytester.runpytest_inprocess("--continue-on-collection-errors")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines("no trainers: name them in the ini option trainguard_trainers*")
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*plugin.py*")


@pytest.mark.parametrize("budget", ["40GB", "40GiB", "80%", "a100-40gb", "42949672960"])
def test_good_budgets(pytester, budget):
    Project(pytester.path, ["preflight:Classifier"]).write("preflight.py", "")
    result = pytester.runpytest_inprocess(
        "-m", "preflight", "--collect-only", "-q", "--edge-case=41", f"--gpu-budget={budget}"
    )
    assert result.ret == 0
    result.stdout.fnmatch_lines("*test_killed*")


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Everything that is wrong with a trainer and not with the command line, beside one that is sound."""
    names = ["NoTrain", "NoData", "NoSample", "BadSample", "OddSample", "Missing", "NoTrainer"]
    broken = ["raises:Raises", "exits:Exits", "dies:Dies", *(f"broken:{name}" for name in names)]
    toml = "[tool.trainguard.trainers.NoSettings]\nsettings = 'nowhere.yaml'\n" + COMMAND.replace(
        "--out", "{config} --out"
    )
    project = Project(tmp_path_factory.mktemp("project"), [*broken, "preflight:Classifier"], toml=toml)
    project.write("program.py", LOOP)
    project.write("train.py", "")
    project.write("preflight.py", ADOPTED)
    project.write("broken.py", BROKEN)
    project.write("raises.py", "def load():\n    raise RuntimeError('licence has run out')\n\nload()\n")
    project.write("exits.py", "import sys\n\nsys.exit('not on this machine')\n")
    project.write("dies.py", "import os\n\nos._exit(7)\n")
    project.write("garbled.jsonl", '{"x": 1}\n{"x": \n')
    project.write("sample.xyz", "x")
    project.write(
        "test_own.py",
        """
        from pytest_trainguard import edge_case

        TOLD = {"severity": "unclear", "brought_about": "-", "expects": "-"}

        @edge_case("has-data", number=1001, title="has data", category="data", verdict="survives", **TOLD)
        def test_has_data(guard):
            guard.needs.data()

        @edge_case("has-ranges", number=1002, title="has ranges", category="config", verdict="rejects", **TOLD)
        def test_has_ranges(guard):
            assert [field.range for field in guard.subject.settings.fields] in ([], [""] * 3)
            guard.needs.setting("batch_size")
        """,
    )
    return project.pytest("-m", "preflight", "--edge-case=41,1001,1002", "-p", "no:cacheprovider")


def test_the_sound_trainer_goes_on(judged):
    assert judged.code == 4  # the others' set-ups are wrong
    assert judged.report["clearance"] == "NO-GO"
    assert judged.verdicts("Classifier") == {41: "passed", 1001: "passed", 1002: "not_applicable"}
    assert "no setting for the batch size" in judged.case("Classifier", 1002)["reason"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Raises", "Raises cannot be loaded: RuntimeError: licence has run out"),
        ("Exits", "Exits cannot be loaded: SystemExit: not on this machine"),
        ("Dies", "Dies cannot be loaded: the process ended while importing it"),
        ("Missing", "Missing cannot be loaded: AttributeError: module 'broken' has no attribute 'Missing'"),
        ("NoTrainer", "not a subclass of pytest_trainguard.Trainer"),
        ("NoSettings", "No such file or directory: 'nowhere.yaml'"),
    ],
)
def test_a_trainer_that_cannot_be_loaded(judged, name, said):
    assert judged.verdicts(name) == {41: "error", 1001: "error", 1002: "error"}
    assert all(said in judged.case(name, number)["reason"] for number in (41, 1001, 1002))


def test_its_traceback_is_in_the_report(judged):
    evidence = "".join(judged.case("Raises", number)["evidence"] for number in (41, 1001, 1002))
    assert 'raises.py", line 4, in <module>' in evidence
    assert "licence has run out" in evidence


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("NoTrain", "NoTrain: has no train(self, run): write the one method that runs the program"),
        ("NoSample", "NoSample has no data: sample nowhere.jsonl: no such file or folder"),
        ("BadSample", "BadSample has no data: sample garbled.jsonl: cannot be read: "),
        ("OddSample", "OddSample has no data: sample sample.xyz: unknown kind '.xyz'"),
    ],
)
def test_a_trainer_that_cannot_be_run(judged, name, said):
    assert judged.verdicts(name)[41] == "error"
    assert said in judged.case(name, 41)["reason"]
    assert judged.verdicts(name)[1001] == "error"


def test_a_trainer_without_data(judged):
    # It saves nothing, either: case 41.
    assert judged.verdicts("NoData") == {41: "failed", 1001: "not_applicable", 1002: "not_applicable"}
    assert judged.case("NoData", 1001)["reason"] == 'no data: give it a sample, sample = "path/of/the/data"'


def test_no_internal_error_is_shown(judged):
    assert "INTERNALERROR" not in judged.output
    assert "_pytest/" not in judged.output
