"""A command without `{output_dir}`, or without `{max_steps}`: what can be judged of it all the same."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_trainguard.adapters.tables import faults_in
from pytest_trainguard.adapters.working_folder import (
    choose_links,
    furnish,
    furnish_alike,
    is_unbounded,
    sample_place,
    works_in_output,
)
from pytest_trainguard.contract import checkpoints
from pytest_trainguard.memory.answers.tracing import Tracing
from pytest_trainguard.subject.snapshot import snapshot
from tests.projects import Project


@pytest.mark.parametrize(
    ("command", "in_output", "unbounded"),
    [
        ("python t.py", True, True),
        ("python t.py --out {output_dir}", False, True),
        ("python t.py -n {max_steps}", True, False),
        ("python t.py --epochs {epochs} --out {output_dir}", False, False),
    ],
)
def test_what_a_command_names(command, in_output, unbounded):
    table = {"command": command}
    assert faults_in(table) is None
    assert (works_in_output(table), is_unbounded(table)) == (in_output, unbounded)
    assert not works_in_output("preflight:Class")
    assert not is_unbounded({"class": "preflight:Class"})


@pytest.mark.parametrize(
    ("table", "place"),
    [
        ({"command": "t"}, None),
        ({"command": "t {data}", "sample": "a.csv"}, None),
        ({"command": "t", "sample": "./data/a.csv"}, Path("data/a.csv")),
        ({"command": "t", "sample": "/project/a.csv"}, Path("a.csv")),
        ({"command": "t", "sample": "../a.csv"}, None),
    ],
)
def test_where_the_sample_is_found(table, place):
    assert sample_place(table, Path("/project")) == place


def test_what_is_linked_and_what_is_not(tmp_path):
    root, folder = tmp_path / "root", tmp_path / "root" / "tmp" / "output"
    for name in (
        ".git/x",
        "base.pt",
        "train.py",
        "data/train.csv",
        "data/other.csv",
        "out/log",
        "runs/ckpt_4.pt",
        "conf/a",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("the project's")
    folder.mkdir(parents=True)
    piece = tmp_path / "piece.csv"
    piece.write_text("the run's")
    sample = Path("data/train.csv")
    links = choose_links(root, sample, {"out"}, folder)
    furnish(folder, links, (sample, piece))
    left = {name for name in snapshot(folder) if not name.startswith("data")}
    assert left == {"train.py", "conf/", "out/", "runs/"}
    assert sorted(path.name for path in folder.iterdir() if path.is_symlink()) == ["conf", "train.py"]
    assert (folder / "data/train.csv").read_text() == "the run's"
    assert (folder / "data/other.csv").read_text() == "the project's"
    assert checkpoints.find(folder) == []
    furnish(folder, links, (sample, tmp_path / "another"))  # a second start, with other data
    assert (folder / "data/train.csv").readlink() == tmp_path / "another"
    (alike := folder / "run-1").mkdir()
    furnish_alike(alike, folder)
    assert sorted(path.name for path in alike.iterdir()) == ["conf", "train.py"]


class Furnished(Exception):
    pass


def test_a_run_whose_memory_is_traced_finds_the_project_too(tmp_path):
    """Beside the runs that `Subject.start` starts."""

    def furnish(output_dir, data):
        raise Furnished(output_dir.is_dir(), data)

    tracing = Tracing.__new__(Tracing)
    tracing.subject = SimpleNamespace(require_open=lambda did: None, folder=tmp_path, furnish=furnish)
    with pytest.raises(Furnished, match=r"True, .*rows"):
        tracing._traced({}, 2, Path("rows"))


# It reads and writes relative to the folder that it is started in, and resumes from what lies there.
SCRIPT = """
import json
import sys
from pathlib import Path

import torch

OUT = Path("out")
OUT.mkdir(exist_ok=True)
torch.manual_seed(0)
rows = [json.loads(line) for line in open("data/train.jsonl")]
assert len(rows) == 16, "not the run's piece of data"
x, y = torch.tensor([row["x"] for row in rows]), torch.tensor([row["y"] for row in rows])
model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
last, step = OUT / "last.pt", 0
if last.exists():
    state = torch.load(last, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    step = state["step"]
with open(OUT / "log.txt", "a") as log:
    while step < int(sys.argv[1]):
        loss = torch.nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        log.write(f"{step} {loss.item()}\\n")
        if step % 2 == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            torch.save(state, OUT / "last.tmp")
            (OUT / "last.tmp").rename(last)
"""
TABLES = """
[tool.trainguard.trainers.steps]
command = "python train.py {max_steps}"
sample = "data/train.jsonl"
rows = 16
resume = "folder"

[tool.trainguard.trainers.nothing]
command = "python train.py 60"
sample = "data/train.jsonl"
rows = 16
"""


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("project"), toml=TABLES)
    project.write("train.py", SCRIPT)
    project.write("out/log.txt", "of a real run\n")
    (project.folder / "data").mkdir()
    (project.folder / "train.jsonl").rename(project.folder / "data" / "train.jsonl")
    done = project.pytest("-m", "preflight", "--edge-case", "2,41,46,61,101,104", "-p", "no:cacheprovider")
    return project, done


def test_a_program_that_names_no_output_folder(judged):
    project, done = judged
    found = done.verdicts("steps")
    assert {found[number] for number in (41, 46, 101, 104)} == {"passed"}, done.output
    assert found[2] != "error"
    assert found[61] == "advice"
    assert "steps: its command has no {output_dir}: each run is started in a folder" in " ".join(done.output.split())
    assert {path.name: path.read_text() for path in (project.folder / "out").iterdir()} == {
        "log.txt": "of a real run\n"
    }


def test_a_program_that_is_told_no_number_of_steps(judged):
    _, done = judged
    found = done.verdicts("nothing")
    assert found[101] == found[104] == "passed", done.output
    reasons = {case["reason"] for case in done.report["cases"] if case["trainer"] == "nothing" and case["number"] < 100}
    (reason,) = reasons
    assert "has no {max_steps}, and it takes 60 optimizer steps: only silent errors can be judged" in reason
    assert json.dumps(sorted(set(found.values()))) == '["error", "passed"]'
