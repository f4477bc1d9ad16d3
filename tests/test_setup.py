"""`--trainguard-init` and `--trainguard-doctor`: a table is written of a program, and told what becomes of it."""

import sys
from types import SimpleNamespace

import pytest

from pytest_trainguard.adapters.tables import faults_in
from pytest_trainguard.contract import settings
from pytest_trainguard.contract.settings import Field
from pytest_trainguard.setup import applies, roles, screen, table
from pytest_trainguard.setup.init import SetUpError, initialize
from pytest_trainguard.setup.sources import read_source
from tests.projects import Project

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LOOP = "for _ in range(2):\n    loss.backward()\n    optimizer.step()\n"
ARGPARSE = f"""
import argparse
import torch
p = argparse.ArgumentParser()
p.add_argument("--train-file", required=True)
p.add_argument("--out", default="runs")
p.add_argument("--iters", type=int, default=1000)
p.add_argument("--bs", type=int, default=32)
p.add_argument("--n-layer", type=int, default=12)
p.add_argument("--resume")
{LOOP}"""
ARGPARSE_HELP = """usage: train.py [-h] --train-file TRAIN_FILE [--out OUT] [--iters ITERS]

options:
  -h, --help            show this help message and exit
  --train-file TRAIN_FILE
  --out OUT
  --iters ITERS
  --bs BS
  --n-layer N_LAYER
  --resume RESUME
"""
CLICK = "import click\n@click.command()\n@click.option('--lr', default=0.1)\ndef main(lr):\n    pass\n" + LOOP
CLICK_HELP = """Usage: train.py [OPTIONS] DATA OUTPUT

Options:
  --num-epochs INTEGER      [default: 3]
  --lr FLOAT                [default: 0.1]
  --resume / --no-resume    [default: no-resume]
  --help                    Show this message and exit.
"""
HYDRA = "import hydra\n@hydra.main(config_path='conf')\ndef main(cfg):\n    pass\n" + LOOP
HYDRA_HELP = """train is powered by Hydra.

== Config ==
Override anything in the config (foo.bar=value)

data:
  path: train.jsonl
trainer:
  max_steps: 100
resume: false
lr: 0.1

Powered by Hydra (https://hydra.cc)
"""
FUNCTION = f"""
from dataclasses import dataclass

@dataclass
class Config:
    lr: float = 0.1

def train(config, data_path: str, output_dir, max_steps=10, resume=None):
    {LOOP.replace(chr(10), chr(10) + "    ")}
"""
CONSTANTS = f"""
OUT_DIR = "out"
NUM_STEPS = 1000

def main():
    {LOOP.replace(chr(10), chr(10) + "    ")}

if __name__ == "__main__":
    main()
"""


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def start(folder, files, said="", given="", code=0):
    """The tables after an init, and what was printed."""
    write(folder, files)
    told = initialize(folder, given, lambda command: (code, said))
    text = (folder / "pyproject.toml").read_text()
    return tomllib.loads(text)["tool"]["trainguard"]["trainers"], "\n".join(told)


JSONL = '{"x": 1, "label": 0}\n'


def test_argparse(tmp_path):
    files = {"train.py": ARGPARSE, "data/train.jsonl": JSONL, "data/valid.jsonl": JSONL}
    tables, told = start(tmp_path, files, ARGPARSE_HELP)
    assert tables["train"] == {
        "command": "python train.py --train-file {data} --out {output_dir} --iters {max_steps} --resume {resume_from} "
        "{settings}",
        "sample": "data/train.jsonl",
        "labels": "label",
        "production": {"bs": 32, "n_layer": 12},
        "tiny": {"n_layer": 2},
    }
    assert faults_in(tables["train"], tmp_path) is None
    assert "by hand" not in told
    assert told.splitlines()[-1].startswith("next: pytest --trainguard-doctor")


def test_click_with_arguments_and_epochs(tmp_path):
    tables, _ = start(tmp_path, {"train.py": CLICK, "rows.csv": "x,target\n1,2\n"}, CLICK_HELP)
    assert tables["train"] == {
        "command": "python train.py {data} {output_dir} --num-epochs {epochs} {settings}",
        "sample": "rows.csv",
        "labels": "target",
        "resume": "--resume",
    }


def test_hydra(tmp_path):
    tables, _ = start(tmp_path, {"train.py": HYDRA, "train.jsonl": JSONL}, HYDRA_HELP)
    assert tables["train"]["command"] == (
        "python train.py data.path={data} trainer.max_steps={max_steps} hydra.run.dir={output_dir} {settings}"
    )
    assert tables["train"]["resume"] == "resume=true"


def test_words_of_sys_argv(tmp_path):
    source = f"import sys\nout = sys.argv[1]\nsteps = int(sys.argv[2])\n{LOOP}"
    tables, _ = start(tmp_path, {"train.py": source})
    assert tables["train"] == {"command": "python train.py {output_dir} {max_steps}"}


def test_a_settings_file(tmp_path):
    source = 'p = ArgumentParser()\np.add_argument("--config")\n' + LOOP
    said = "options:\n  --config CONFIG\n  --out OUT\n  --steps STEPS\n"
    tables, _ = start(tmp_path, {"train.py": source, "configs/base.yaml": "lr: 0.1\n"}, said)
    assert tables["train"]["settings"] == "configs/base.yaml"
    assert tables["train"]["command"] == "python train.py --config {config} --out {output_dir} --steps {max_steps}"


@pytest.mark.parametrize(
    ("source", "called"),
    [
        (
            FUNCTION,
            "train.train(\n            data_path=str(run.data),\n            output_dir=run.output_dir,\n"
            "            max_steps=run.max_steps,\n            resume=run.resume_from,\n"
            "            config=run.config,\n        )",
        ),
        (
            CONSTANTS,
            "train.OUT_DIR = str(run.output_dir)\n        train.NUM_STEPS = run.max_steps\n        train.main()",
        ),
    ],
)
def test_a_program_without_arguments_has_a_class(tmp_path, source, called):
    tables, _ = start(tmp_path, {"train.py": source, "train.jsonl": JSONL})
    assert tables["train"] == {"class": "preflight:Train"}
    text = (tmp_path / "preflight.py").read_text()
    compile(text, "preflight.py", "exec")
    assert called in text


def test_what_is_left_to_do_by_hand_is_said(tmp_path):
    source = 'p = ArgumentParser()\np.add_argument("--token", required=True)\np.add_argument("data")\n' + LOOP
    _, told = start(tmp_path, {"train.py": source}, "options:\n  --token TOKEN\n\npositional arguments:\n  data\n")
    assert "no option for its output folder" in told
    assert "  - command: it does not start without --token: write what that is to be" in told
    assert '  - sample: no data was found: name some, sample = "path/of/the/data"' in told


def test_a_program_that_can_be_told_nothing_is_adopted_as_it_is(tmp_path):
    tables, told = start(tmp_path, {"train.py": LOOP, "data/train.jsonl": JSONL})
    assert tables["train"] == {"command": "python train.py", "sample": "data/train.jsonl", "labels": "label"}
    assert "by hand" not in told
    said = " ".join(told.replace("#", " ").split())
    assert "no option for its output folder: runs are started in folders of their own" in said
    assert "no option for its optimizer steps: only silent errors can be judged" in said


def test_the_likely_program_is_taken_and_the_others_are_named(tmp_path):
    files = {
        "train.py": ARGPARSE, "old/train_v1.py": ARGPARSE, "evaluate.py": "import click\nclick.command()\n",
        "engine.py": f"def run(loss, optimizer):\n    {LOOP.splitlines()[1].strip()}\n    optimizer.step()\n",
        "tests/train.py": ARGPARSE, ".venv/lib/train.py": ARGPARSE, "broken_train.py": "def (:\n",
        "train.jsonl": JSONL,
    }  # fmt: skip
    tables, told = start(tmp_path, files, ARGPARSE_HELP)
    assert list(tables) == ["train"]
    assert "other programs here that train: old/train_v1.py, engine.py" in told


@pytest.mark.parametrize(
    ("files", "given", "said"),
    [
        ({}, "", "no program that trains was found: name it, pytest --trainguard-init train.py"),
        ({"train.py": ARGPARSE}, "trian.py", "trian.py: no such program; did you mean 'train.py'?"),
        ({"train.py": "def (:\n"}, "train.py", "train.py: cannot be read as Python"),
        ({"train.py": ARGPARSE}, "no-such-trainer", "no-such-trainer: no such program"),
        (
            {"train.py": ARGPARSE, "pyproject.toml": "[tool.trainguard.trainers.train]\n"},
            "",
            "'train' is there already",
        ),
        ({"train.py": ARGPARSE, "pyproject.toml": "[tool\n"}, "", "pyproject.toml: "),
        ({"train.py": ARGPARSE, "pyproject.toml": "tool = {a = 1}\n"}, "", "no table can be put behind what it holds"),
        ({"train.py": ARGPARSE, "train.jsonl": JSONL}, "train.py", None),
    ],
)
def test_nothing_is_written_where_it_cannot(tmp_path, files, given, said):
    if said is None:
        assert start(tmp_path, files, ARGPARSE_HELP, given)
        return
    write(tmp_path, files)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(SetUpError) as raised:
        initialize(tmp_path, given, lambda command: (0, ARGPARSE_HELP))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value).strip() or said.startswith("pyproject")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_help_that_fails_is_shown_in_its_last_words(tmp_path):
    write(tmp_path, {"train.py": ARGPARSE})
    said = "Traceback (most recent call last):\n  File x\nModuleNotFoundError: No module named 'apex'\n"
    with pytest.raises(SetUpError, match=r"--help \(exit 1\) tells of no option:\n(.*\n)*.*named 'apex'"):
        initialize(tmp_path, "", lambda command: (1, said))


def test_a_class_overwrites_nothing(tmp_path):
    files = {"train.py": CONSTANTS, "preflight.py": "mine", "train.jsonl": JSONL}
    tables, _ = start(tmp_path, files)
    assert tables["train"] == {"class": "preflight_train:Train"}
    assert (tmp_path / "preflight.py").read_text() == "mine"
    (tmp_path / "pyproject.toml").unlink()
    with pytest.raises(SetUpError, match=r"preflight_train.py is there already, and nothing is overwritten"):
        start(tmp_path, {})


@pytest.mark.parametrize(
    "there",
    [
        "",
        "[project]\nname = 'x'",
        "[project]\r\nname = 'ü'\r\n",
        "# only a comment\n\n\n",
        "[tool.trainguard.trainers.b]\n",
    ],
)
def test_every_byte_that_was_there_stays(tmp_path, there):
    path = tmp_path / "pyproject.toml"
    path.write_bytes(there.encode())
    text = table.format_table(
        "a b", [table.Line("command", 'say "ü" \\ {data}'), table.Line("tiny", {"x.y": 1, "z": True})]
    )
    table.append(path, text)
    content = path.read_bytes()
    assert content.startswith(there.encode())
    assert b"\n" not in content.replace(b"\r\n", b"") or "\r\n" not in there
    added = tomllib.loads(content.decode())["tool"]["trainguard"]["trainers"]["a b"]
    assert added == {"command": 'say "ü" \\ {data}', "tiny": {"x.y": 1, "z": True}}


def test_no_comment_breaks_out_of_its_line(tmp_path):
    text = table.format_table("a", [table.Line("command", "x", "one\ncommand = 'rm'\r\u2028end")])
    assert tomllib.loads(text)["tool"]["trainguard"]["trainers"]["a"] == {"command": "x"}


def test_a_source_is_only_read(tmp_path):
    path = tmp_path / "train.py"
    path.write_text("raise SystemExit('was run')\n" + ARGPARSE)
    source = read_source(path)
    assert source.parser == "argparse"
    assert source.trains == "an optimizer's step"
    assert source.declaration("n_layer").default == 12
    assert source.declaration("train_file").required


def test_known_names_of_roles():
    names = ["checkpointing_steps", "ckpt_every", "max_len", "n_positions", "block_size", "per_device_train_batch_size",
             "accumulation_steps", "grad_accum", "val_interval", "val_ratio", "valid_file"]  # fmt: skip
    found = {name: [role for role in settings.ROLES if settings.role(role, [Field(name, "int")], {})] for name in names}
    assert found == {
        "checkpointing_steps": ["save_every"], "ckpt_every": ["save_every"], "max_len": ["max_length"],
        "n_positions": ["max_length"], "block_size": ["max_length"], "per_device_train_batch_size": ["batch_size"],
        "accumulation_steps": ["accumulation"], "grad_accum": ["accumulation"], "val_interval": ["eval_every"],
        "val_ratio": ["validation_fraction"], "valid_file": ["validation_data"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("role", "fields", "meant"),
    [
        ("save_every", [Field("save_evry", "int")], "save_evry"),
        ("save_every", [Field("train.save_evry", "other"), Field("save_best", "bool")], "train.save_evry"),
        ("validation_data", [Field("eval_delay", "float")], ""),
        ("device", [Field("accelerator_config", "str")], ""),
        ("checkpointing", [Field("checkpointng", "bool")], "checkpointng"),
    ],
)
def test_what_may_be_meant(role, fields, meant):
    assert roles.find_meant(role, fields) == meant


def test_a_screen_has_an_end():
    cases = [SimpleNamespace(number=number, slug=f"case-{number}") for number in range(1, 80)]
    lacking = [applies.DoesNotApply(case, f"{case.slug}: {'reason ' * 30}") for case in cases]
    lines = screen.format_lacking(lacking, 20)
    assert len(lines) <= 20
    assert lines[-1].strip().startswith("and 7")
    assert max(map(len, lines)) <= 80


# A sound program whose settings have names that nobody knows.
SOMEBODYS = """
import argparse
import json
import os

import torch

parser = argparse.ArgumentParser()
parser.add_argument("--rows")
parser.add_argument("--data", default="train.jsonl")
parser.add_argument("--out")
parser.add_argument("--passes", type=int, default=3)
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--at-once", type=int, default=32)
parser.add_argument("--speed", type=float, default=0.01)
parser.add_argument("--keep", type=int, default=100)
parser.add_argument("--resume")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

torch.manual_seed(args.seed)
with open(args.data) as file:
    rows = [json.loads(line) for line in file]
x, y = torch.tensor([row["x"] for row in rows]), torch.tensor([row["y"] for row in rows])
model = torch.nn.Linear(8, 2)
optimizer = torch.optim.AdamW(model.parameters(), lr=args.speed)
step, batches = 0, -(-len(rows) // args.at_once)
if args.resume:
    state = torch.load(args.resume, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    step = state["step"]
while step < args.epochs * batches:
    batch = slice(step % batches * args.at_once, (step % batches + 1) * args.at_once)
    loss = torch.nn.functional.cross_entropy(model(x[batch]), y[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    step += 1
    if step % args.keep == 0 or step == args.epochs * batches:
        path = os.path.join(args.out, f"checkpoint-{step}.pt")
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, path + ".tmp")
        os.replace(path + ".tmp", path)
"""


@pytest.fixture(scope="module")
def adopted(tmp_path_factory):
    """Somebody's program in a folder with nothing but its data, after the init and the doctor."""
    folder = tmp_path_factory.mktemp("somebodys")
    project = Project(folder)
    (folder / "pyproject.toml").unlink()
    project.write("train.py", SOMEBODYS)
    first = project.pytest("--trainguard-init", "train.py", "-p", "no:cacheprovider")
    told = project.pytest("--trainguard-doctor", "-p", "no:cacheprovider")
    return project, first, told


def test_from_a_program_to_its_first_verdicts_by_two_commands(adopted):
    """The third is `pip install`; not a line is written by hand."""
    project, first, _ = adopted
    assert first.code == 0, first.output
    result = project.pytest("-m", "preflight", "--edge-case", "1,41", "-p", "no:cacheprovider")
    assert result.verdicts("train")[41] in ("passed", "not_applicable"), result.output
    assert set(result.verdicts("train")) == {1, 41}


def test_the_doctor_fits_a_screen(adopted):
    _, _, told = adopted
    assert told.code == 0, told.output
    lines = told.output.splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 80


def test_the_doctor_shows_what_settings_do(adopted):
    _, _, told = adopted
    said = " ".join(told.output.split())
    assert 'fields = { batch_size = "at_once", learning_rate = "speed", save_every = "keep" }' in said
    assert "one has 2 optimizer steps, counted in a run of one epoch" in said
    assert "saves checkpoint-8.pt: after step 8" in said
    assert "a second run has the same losses" in said
    assert "- no queue: name its command and folders" in said
    assert "a preflight will take about" in said
    assert "passed" not in said


BROKEN = """fields = { batch_size = "at_once", learning_rate = "speed", save_every = "keep" }

[tool.trainguard.trainers.broken]
command = "python broken.py {output_dir} {max_steps}"
"""


@pytest.fixture(scope="module")
def mended(adopted):
    """The doctor again, with the line that it had to add; beside it a program that fails."""
    project, _, _ = adopted
    with (project.folder / "pyproject.toml").open("a") as file:
        file.write(BROKEN)
    project.write("broken.py", "import sys\nprint('reading')\nraise FileNotFoundError('vocab.txt')\n")
    return project.pytest("--trainguard-doctor", "-p", "no:cacheprovider")


def test_the_doctor_tells_of_an_exact_resume_with_the_line_added(mended):
    said = " ".join(mended.output.split())
    assert "after steps 2, 4, 6, 8, every 2 steps" in said
    assert "resumes yes, exactly" in said


def test_the_doctor_tells_a_set_up_that_is_at_fault(mended):
    assert mended.code == 4
    block = mended.output[mended.output.index("broken: ") :].splitlines()
    assert block[0].startswith("broken: the undisturbed run fails: exit 1 after 0 optimizer steps")
    assert "  | FileNotFoundError: vocab.txt" in block
    assert len(block) < 15
