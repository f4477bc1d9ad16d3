"""Whether a job fits, as a user asks it: from the command line, and in a preflight."""

import json
import pickle
import re
import subprocess
import sys
from argparse import Namespace
from importlib.resources import files

import jsonschema
import pytest
import torch

from pytest_trainguard.memory.__main__ import _find_trainer, main
from pytest_trainguard.memory.answers.measure import measure_on_gpu
from pytest_trainguard.memory.answers.tracing import Tracing, tracing
from pytest_trainguard.memory.replay.device import Device
from pytest_trainguard.memory.replay.trace import Event, Trace
from pytest_trainguard.verdicts.errors import CannotJudge
from tests.projects import Project

PROGRAM = """
from dataclasses import dataclass, field

import torch

from pytest_trainguard import Trainer


@dataclass
class Config:
    batch_size: int = field(default=64, metadata={"ge": 1, "le": 4096})
    width: int = 4096
    gradient_accumulation: int = 1
    device: str = "cuda"


class Fits(Trainer):
    '''One wide layer; rows are made on the spot.'''

    config = Config
    tiny = {"width": 8, "batch_size": 4, "device": "cpu"}
    sample = "train.jsonl"

    def make_longest(self, folder, rows, length, seed):
        return self.make_data(folder, rows, seed)

    make_varied = make_longest

    def train(self, run):
        config = run.config
        model = torch.nn.Sequential(torch.nn.Linear(config.width, config.width), torch.nn.GELU()).to(config.device)
        optimizer = torch.optim.AdamW(model.parameters())
        for _ in range(run.max_steps):
            optimizer.zero_grad()
            for _ in range(config.gradient_accumulation):
                x = torch.randn(config.batch_size, config.width, device=config.device)
                model(x).square().mean().backward()
            optimizer.step()


class TooLarge(Fits):
    production = {"batch_size": 4096, "width": 12288}


class OnTheCpu(Fits):
    production = {"device": "cpu"}
"""
TOO_LARGE = 12288 * 12289 * 4 * 5  # weights, gradients, both moments, and a temporary of the optimizer's


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    made = Project(tmp_path_factory.mktemp("project"), [f"program:{name}" for name in ("Fits", "TooLarge", "OnTheCpu")])
    made.write("program.py", PROGRAM)
    return made


def ask(project, *arguments):
    command = [sys.executable, "-m", "pytest_trainguard.memory", *arguments]
    return subprocess.run(command, cwd=project.folder, capture_output=True, text=True, timeout=300)


def test_one_that_fits(project):
    done = ask(project, "program:Fits", "--gpu-budget", "2GiB", "--json", "--memory-timeline", "memory.svg",
               "--memory-snapshot", "memory.pickle")  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["verdict"] == "FITS"
    weights = 4096 * 4097 * 4
    assert told["breakdown"]["weights"] == weights
    assert told["breakdown"]["optimizer state"] == 2 * weights
    found = told["largest_settings"]["batch_size"]
    assert found["exact"]
    assert found["value"] > 64
    helps = [one["settings"] for one in told["alternatives"]]
    assert sorted(helps, key=len) == [{}, {"batch_size": 32, "gradient_accumulation": 2}]
    assert "tracing the production settings" in done.stderr
    assert (project.folder / "memory.svg").read_text().startswith("<?xml")
    snapshot = pickle.loads((project.folder / "memory.pickle").read_bytes())
    assert snapshot["device_traces"][0]


def test_one_that_does_not(project):
    done = ask(project, "program:TooLarge", "--gpu-budget", "2GiB", "--quick")
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("OUT OF MEMORY: ")
    assert "not measured on a GPU" in done.stdout


def test_several_budgets_are_held_against_a_trace_for_each_generation_of_cards(project):
    done = ask(project, "program:Fits", "--gpu-budget", "2GiB,512MiB,a10,h100", "--quick")
    assert done.returncode == 0, done.stderr  # the first one decides
    assert done.stdout.startswith("FITS: ")
    table = done.stdout.partition("under each budget:\n")[2].splitlines()
    assert [line.split()[0] for line in table] == ["2GiB", "512MiB", "a10", "h100"]
    assert "OUT OF MEMORY" in table[1]
    assert table[1].endswith(" over")
    assert all("FITS" in line and line.endswith(" to spare") for line in (table[0], table[2], table[3]))


def test_a_trainer_is_named_as_in_the_projects_own_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"'plain' is not of the form MODULE:TRAINER, and pyproject.toml names"):
        _find_trainer("plain")
    (tmp_path / "train.py").write_text("")
    (tmp_path / "pyproject.toml").write_text(
        "[tool.trainguard.trainers.plain]\ncommand = 'python train.py {data} {output_dir} {max_steps}'\n"
        "sample = 'rows.jsonl'\n[tool.trainguard.trainers.shown]\nclass = 'train:Shown'\n"
    )
    found = _find_trainer("plain")
    assert isinstance(found, dict)
    assert found["command"].startswith("python train.py")
    assert _find_trainer("shown") == _find_trainer("train:Shown") == "train:Shown"
    with pytest.raises(ValueError, match=r"pyproject\.toml names plain, shown"):
        _find_trainer("plian")


def test_one_that_is_not_known(project):
    done = ask(project, "program:OnTheCpu", "--gpu-budget", "2GiB")
    assert done.returncode == 3, done.stderr
    assert done.stdout.startswith("UNKNOWN under 2GiB (2.00 GiB): unknown: the program puts nothing on the GPU")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nothing", "--gpu-budget", "2GiB"), "'nothing' is not of the form MODULE:TRAINER"),
        (("nowhere_at_all:T", "--gpu-budget", "2GiB"), "'nowhere_at_all:T': no module named 'nowhere_at_all'"),
        (("json:T", "--gpu-budget", "many"), "'many' is no budget"),
        (("json:T", "--gpu-budget", "0"), "'0' is no budget: it has to be above 0"),
        (("json:T", "--gpu-budget", "40GiB", "--headroom", "all"), "'all' is no headroom"),
        (("json:T", "--gpu-budget", "40GiB", "--memory-timeline", "m.gif"), "m.gif: a timeline is drawn as"),
        (("json:T", "--gpu-budget", "40GiB", "--memory-timeline", "no/m.svg"), "there is no folder no"),
        (("json:T", "--gpu-budget", "40GiB", "--memory-snapshot", "/"), "/: is a folder"),
    ],
)
def test_bad_input_is_told_in_one_line_before_anything_is_loaded(capsys, arguments, says):
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert says in told.err
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    assert told.out == ""


def test_a_trainer_that_is_not_there(project):
    done = ask(project, "program:Nobody", "--gpu-budget", "2GiB")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: Nobody cannot be loaded: AttributeError")


def test_nothing_is_measured_where_torch_sees_no_gpu(project):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with tracing("program:Fits", root=project.folder) as traced, pytest.raises(CannotJudge) as failure:
        measure_on_gpu(traced, 2**30)
    assert str(failure.value) == "Fits: nothing was measured: RuntimeError: nothing can be measured: torch sees no GPU"


@pytest.fixture(scope="module")
def judged(project):
    return project.pytest("-m", "preflight", "--edge-case=34,36", "--gpu-budget=2GiB", "--memory-timeline=m.svg")


def test_the_verdicts_of_a_preflight(judged):
    assert judged.code == 1
    assert judged.verdicts("Fits") == {34: "not_applicable", 36: "passed"}
    assert judged.verdicts("TooLarge") == {34: "not_applicable", 36: "failed"}
    assert judged.verdicts("OnTheCpu") == {34: "not_applicable", 36: "error"}
    assert "no setting for the max length" in judged.case("Fits", 34)["reason"]
    assert "unknown: the program puts nothing on the GPU" in judged.case("OnTheCpu", 36)["reason"]
    happened = judged.case("TooLarge", 36)["reason"].splitlines()
    assert happened[0].startswith("OUT OF MEMORY: ")
    assert happened[-1] == "the largest batch_size that fits: none fits"


def test_the_report_tells_it_all(judged, project):
    schema = json.loads(files("pytest_trainguard.report").joinpath("schema.json").read_text())
    jsonschema.validate(judged.report, schema)
    told = {one["trainer"]: one for one in judged.report["memory"]}
    assert {name: one["verdict"] for name, one in told.items()} == {
        "Fits": "FITS", "TooLarge": "OUT OF MEMORY", "OnTheCpu": "UNKNOWN",
    }  # fmt: skip
    assert told["TooLarge"]["least"] > TOO_LARGE * 0.8
    assert told["Fits"]["timeline"] == "m-Fits.svg"
    assert (project.folder / "m-Fits.svg").exists()
    assert judged.report["environment"]["gpu_budget"] == "2GiB"


def test_the_summary_tells_it(judged):
    summary = judged.output.partition("= preflight =")[2]
    assert "GPU memory: Fits: FITS: " in summary
    assert "GPU memory: TooLarge: OUT OF MEMORY: " in summary
    assert "    weights " in summary
    assert "the largest batch_size that fits: none fits" in summary


OWN = """
import pytest

from pytest_trainguard import edge_case


@edge_case("room", number=1001, title="room for twice the batch", category="memory", verdict="survives",
           severity="unclear",
           brought_about="largest batch", expects="twice the batch fits")
def test_room(oom_probe):
    found = oom_probe.largest("batch_size", "2GiB")
    again = oom_probe.largest("batch_size")
    word = found.judgement.verdict
    print(f"found {found.value} {found.exact} {found.beyond} {word}; under less: {again.words}")
    oom_probe.largest("max_length")
"""


def test_changing_lengths(project):
    result = project.pytest("-m", "preflight", "--edge-case=29", "--trainer=Fits", "--trainer=OnTheCpu")
    assert result.verdicts("Fits") == {29: "passed"}
    assert result.verdicts("OnTheCpu") == {29: "not_applicable"}
    assert "trains on the CPU): name a GPU in the production settings, device" in result.case("OnTheCpu", 29)["reason"]


def test_the_workers_of_a_session_make_one_trace(tmp_path):
    subjects = [Namespace(spec="program:Fits", shared=tmp_path) for _ in range(2)]
    made = []

    def make():
        made.append(1)
        return Trace([Event("alloc", 1, 512)], notes=["as it is"])

    first, second = (Tracing(subject)._find_once("settings", make) for subject in subjects)
    assert first == second == make()
    assert len(made) == 2  # once for both, and here
    Tracing(subjects[0])._find_once("other settings", make)
    Tracing(subjects[0], Device("NVIDIA H100", (9, 0), 80 << 30))._find_once("settings", make)
    Tracing(Namespace(spec="program:Other", shared=tmp_path))._find_once("settings", make)
    assert len(made) == 5
    assert [Tracing(Namespace(shared=None))._find_once("settings", make) for _ in range(2)] == [first] * 2
    assert len(made) == 7  # a process alone has nobody to share it with


def test_a_case_of_ones_own_asks_for_the_largest_batch(project):
    project.write("test_own.py", OWN)
    result = project.pytest("-m", "preflight", "--edge-case=1001", "--gpu-budget=1GiB", "-s", "test_own.py")
    # As many as the setting allows; under a smaller budget fewer.
    assert re.search(r"found 4096 True 4097 FITS; under less: (at least )?3\d\d\d\b", result.output)
    assert "found None True 1 OUT OF MEMORY; under less: none fits" in result.output
    assert result.verdicts("Fits") == {1001: "not_applicable"}
    assert "no setting for the max length" in result.case("Fits", 1001)["reason"]
    assert result.verdicts("OnTheCpu") == {1001: "error"}
    assert "puts nothing on the GPU" in result.case("OnTheCpu", 1001)["reason"]


def test_without_a_budget_the_cases_say_that_they_want_one(project):
    result = project.pytest("-m", "preflight", "--edge-case=34,36", "--trainer=Fits")
    assert result.verdicts("Fits") == {34: "not_applicable", 36: "not_applicable"}
    assert "--gpu-budget 40GiB" in result.case("Fits", 36)["reason"]
    assert result.report["memory"] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--memory-timeline=m.svg",), "--memory-timeline draws what --gpu-budget predicts: give that too"),
        (("--gpu-budget=2GiB", "--memory-timeline=m.pdf"), "--memory-timeline: m.pdf: a timeline is drawn as"),
        (("--gpu-budget=100MiB",), "--gpu-budget: 100MiB is no budget: CUDA itself takes 430 MiB"),
        (("--gpu-budget=2GiB", "-o", "trainguard_gpu_headroom=all"), "trainguard_gpu_headroom: 'all' is no headroom"),
    ],
)
def test_bad_options_of_a_preflight(project, arguments, says):
    result = project.pytest("-m", "preflight", "--edge-case=36", *arguments)
    assert result.code == 4
    assert says in result.output
