"""A command's settings as options: read from `--help`, spread over the command, and what is wrong with a table."""

import argparse
import json
from pathlib import Path

import pytest

from pytest_trainguard.adapters import options
from pytest_trainguard.adapters.command import CommandTrainer
from pytest_trainguard.adapters.help_text import read_help
from pytest_trainguard.adapters.known import HELP, faults_in_known, help_command, needs_help, read_known
from pytest_trainguard.adapters.tables import faults_in
from pytest_trainguard.contract.trainer import Run
from tests.projects import Project


def argparse_help():
    layout = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(prog="train.py", formatter_class=layout)
    parser.add_argument("data")
    parser.add_argument("--out", help="folder")
    parser.add_argument("--learning-rate", "--lr", type=float, default=1e-3, help="the rate")
    parser.add_argument("-b", "--batch_size", type=int, default=8, help="rows")
    parser.add_argument("--opt", choices=["sgd", "adam"], default="sgd", help="one of these")
    parser.add_argument("--fp16", action="store_true", help="half")
    parser.add_argument("--shuffle", action=argparse.BooleanOptionalAction, default=True, help="mix")
    parser.add_argument("--betas", type=float, nargs="+", default=[0.9, 0.99], help="of Adam")
    parser.add_argument("--warm", action=argparse.BooleanOptionalAction)
    parser.add_argument("--unknown")
    return parser.format_help()


CLICK = """\
Usage: train.py [OPTIONS]

Options:
  --learning-rate, --lr FLOAT     the rate  [default: 0.001]
  -b, --batch_size INTEGER RANGE  [default: 8; 1<=x<=128]
  --opt [sgd|adam]                [default: sgd]
  --fp16
  --shuffle / --no-shuffle        [default: shuffle]
  --name TEXT                     [required]
  --help                          Show this message and exit.
"""
TYPER = """\
 Usage: train.py [OPTIONS]

╭─ Options ──────────────────────────────────────────────────────────────────╮
│    --learning-rate                 FLOAT                   [default: 0.001] │
│ *  --batch_size    -b              INTEGER RANGE [1<=x<=128]  [default: 8]  │
│    --opt                           [sgd|adam]              [default: sgd]   │
│    --fp16                          BOOLEAN                                  │
│    --shuffle       --no-shuffle                            [default: shuffle] │
│    --help                                                  Show this message and exit. │
╰────────────────────────────────────────────────────────────────────────────╯
"""
ABSL = """\
trains

flags:

train.py:
  --batch_size: rows
    (default: '8')
    (an integer)
  --learning_rate: the rate
    (default: '0.001')
    (a number)
  --opt: <sgd|adam>: which
    (default: 'sgd')
  --[no]shuffle: mix
    (default: 'true')

Try --helpfull to get a list of all flags.
"""
LIGHTNING = """\
usage: train.py fit [-h] [-c CONFIG] [--trainer.max_epochs MAX_EPOCHS]

  --trainer.max_epochs MAX_EPOCHS
                        Stop training once (type: int | None, default: 10)
  --optimizer.lr LR     the rate (type: float, default: 0.001)
"""
HYDRA = """\
train is powered by Hydra.

== Configuration groups ==
Compose your configuration from those groups (group=option)


== Config ==
Override anything in the config (foo.bar=value)

optim:
  lr: 0.001
batch_size: 8

Powered by Hydra (https://hydra.cc)
Use --hydra-help to view Hydra specific help
"""


def told(text):
    found = read_help(text)
    return {field.path: (field.kind, field.default) for field in (*found.fields, *(o.field for o in found.options))}


COMMON = {
    "learning_rate": ("float", 0.001),
    "batch_size": ("int", 8),
    "opt": ("choice", "sgd"),
    "shuffle": ("bool", True),
}


def test_argparse_help():
    found = told(argparse_help())
    assert COMMON.items() <= found.items()
    assert found["fp16"] == ("bool", False)
    assert found["warm"] == ("bool", None), "a flag that may be on without being named"
    assert found["unknown"] == ("other", None)
    assert "help" not in found
    assert "data" not in found


@pytest.mark.parametrize("text", [CLICK, TYPER])
def test_click_help(text):
    found = told(text)
    assert {**COMMON, "fp16": ("bool", False)}.items() <= found.items()
    assert "help" not in found
    size = next(option.field for option in read_help(text).options if option.field.path == "batch_size")
    assert size.bounds == {"ge": 1, "le": 128}
    opt = next(option.field for option in read_help(text).options if option.field.path == "opt")
    assert opt.choices == ("sgd", "adam")


def test_absl_help():
    found = told(ABSL)
    assert {**COMMON, "opt": found["opt"]}.items() <= found.items()
    assert [option.off for option in read_help(ABSL).options] == [None, None, None, "--noshuffle"]


def test_help_with_dotted_names():
    assert told(LIGHTNING) == {"trainer.max_epochs": ("int", 10), "optimizer.lr": ("float", 0.001)}
    assert told(HYDRA) == {"optim.lr": ("float", 0.001), "batch_size": ("int", 8)}


def test_a_flag_that_only_switches_another_off_is_its_opposite():
    text = "options:\n  --pin [PIN]  (default: True)\n  --no_pin  (default: False)\n"
    (option,) = read_help(text).options
    assert (option.flag, option.off, option.field.default) == ("--pin", "--no_pin", True)


@pytest.mark.parametrize("text", ["", "Traceback (most recent call last):\n  File", "epoch 1 - loss 0.3\n - done"])
def test_what_is_no_help_tells_nothing(text):
    assert read_help(text).options == ()
    assert options.form_of(read_help(text)) is None


COMMAND = "python train.py --out {output_dir} --steps {max_steps} {settings}"


def words(given, command=COMMAND, help_text=None, resume_from=None, steps=8, **table):
    table = {"command": command, **({HELP: help_text} if help_text is not None else {}), **table}
    run = Run(given, None, Path("/out"), steps, resume_from=resume_from)
    return CommandTrainer(table).words(run, None)[2:]


def test_settings_that_differ_are_spread():
    given = {"lr": 1e-5, "batch_size": 8, "fp16": True, "shuffle": False, "betas": [0.5, 0.9], "opt": "adam"}
    assert words(given, help_text=argparse_help()) == [
        "--out", "/out", "--steps", "8", "--learning-rate=1.0e-05", "--fp16", "--no-shuffle", "--betas", "0.5", "0.9",
        "--opt=adam",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("--key value", ["--a", "-1", "--b.c", "x y", "--d", "True"]),
        ("--key=value", ["--a=-1", "--b.c=x y", "--d=True"]),
        ("key=value", ["a=-1", 'b.c="x y"', "d=True", "e=null"]),
    ],
)
def test_forms(form, said):
    given = {"a": -1, "b": {"c": "x y"}, "d": True, "e": None}
    assert words(given, settings_form=form)[4:] == said


def test_a_settings_file_may_tell_the_defaults(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("base.json").write_text(json.dumps({"lr": 0.1, "data": {"bs": 4}}))
    given = {"lr": 0.1, "data": {"bs": 2}}
    assert words(given, settings="base.json", settings_form="key=value")[4:] == ["data.bs=2"]


def test_a_setting_may_have_a_place_of_its_own():
    command = f"{COMMAND} --learning-rate {{learning_rate}} bs={{batch_size}} --unknown {{unknown}}"
    given = {"learning_rate": 0.5, "opt": "adam"}
    assert words(given, command, argparse_help())[4:] == ["--opt=adam", "--learning-rate", "0.5", "bs=8"]
    # By the role that it plays.
    said = words({"bs": 2}, "t x --out {output_dir} --steps {max_steps} -b {batch_size}", fields={"batch_size": "bs"},
                 tiny={"bs": 4})  # fmt: skip
    assert said[4:] == ["-b", "2"]


def test_what_the_command_gives_itself_is_no_setting():
    known = read_known({"command": f"{COMMAND} --fp16 --opt sgd", HELP: argparse_help(), "resume": "--warm"})
    paths = {field.path for field in known.fields}
    assert not paths & {"out", "fp16", "opt", "warm"}
    assert {"learning_rate", "batch_size"} <= paths


def test_words_of_a_resume():
    at = Path("/out")
    assert words({}, help_text=CLICK, resume="--resume")[4:] == []
    assert words({}, help_text=CLICK, resume="--resume", resume_from=at)[4:] == ["--resume"]
    placed = "t x {resume} --out {output_dir} -n {max_steps}"
    assert words({}, placed, resume="init_from=resume", resume_from=at)[0] == "init_from=resume"
    assert words({}, placed, resume="--from {resume_from}", resume_from=at)[:2] == ["--from", "/out"]
    assert CommandTrainer({"command": placed, "resume": "--resume"}).resume_from(at) == at


def test_epochs():
    command = "python t.py --out {output_dir} --epochs {epochs}"
    assert words({}, command, steps_per_epoch=3)[2:] == ["--epochs", "3"]
    assert words({}, command, steps_per_epoch=4)[2:] == ["--epochs", "2"]
    both = f"{command} --steps {{max_steps}}"
    assert words({"epochs": 5}, both, production={"epochs": 9})[2:] == ["--epochs", "5", "--steps", "8"]


def test_functions_of_a_table(tmp_path, monkeypatch):
    (tmp_path / "mine_of_the_table.py").write_text("def make(folder, rows, seed):\n    return folder / str(rows)\n")
    monkeypatch.syspath_prepend(tmp_path)
    table = {
        "command": "t {data} --out {output_dir} -n {max_steps}",
        "make_data": "mine_of_the_table:make",
        "preload": "json",
    }
    trainer = CommandTrainer(table)
    assert trainer.make_data(Path("/a"), 3, 0) == Path("/a/3")
    assert trainer.preload == ("json",)
    with pytest.raises(AttributeError, match="has no attribute 'mak'"):
        CommandTrainer({**table, "make_data": "mine_of_the_table:mak"})


def test_a_settings_file_by_its_name_alone(tmp_path):
    table = {"command": "t --config {config} --out {output_dir} -n {max_steps}", "settings_name": "a.toml"}
    assert CommandTrainer(table).settings_name == "a.toml"


def test_help_is_asked_of_the_command_itself():
    assert help_command("python -m t fit --config {config} x={seed} {settings} --fp16") == [
        "python", "-m", "t", "fit", "--fp16", "--help",
    ]  # fmt: skip
    assert needs_help({"command": COMMAND})
    assert not needs_help({"command": "t {output_dir} {max_steps} {lr}", "tiny": {"lr": 0.1}})
    assert needs_help({"command": "t {output_dir} {max_steps} {lr}"})


PLAIN = "python train.py --out {output_dir} --steps {max_steps}"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"sampel": "x"}, "unknown key 'sampel'; did you mean 'sample'?"),
        ({"zzz": "x"}, "unknown key 'zzz'; known are command, "),
        ({"fields": {"save_evry": "x"}}, "no case knows a role 'save_evry'; did you mean 'save_every'?"),
        (
            {"fields": {"save_every": "save_evry"}, "production": {"save_every": 3}},
            "save_every is 'save_evry', and there is no such setting; did you mean 'save_every'?",
        ),
        ({"fields": {"save_every": 3}}, "save_every is 3, not the name of a setting"),
        ({"tiny": 3}, "tiny is a table, not 3"),
        ({"rows": "x"}, "rows is a number, not 'x'"),
        ({"rows": 0}, "rows is 0, and has to be 1 or more"),
        ({"overfit_below": "x"}, "overfit_below is a number, not 'x'"),
        ({"settings_form": "-k v"}, "settings_form is one of '--key value', '--key=value', 'key=value', not '-k v'"),
        ({"resume": "chekpoint"}, "not 'chekpoint'"),
        ({"resume": "--a 'b"}, "resume: command cannot be split"),
        ({"make_data": "module"}, "make_data is 'module:function', not 'module'"),
        ({"command": f"{PLAIN} x{{settings}}"}, "has {settings} inside a word"),
        ({"command": f"{PLAIN} {{max_step}}"}, "unknown placeholder {max_step}; did you mean 'max_steps'?"),
        ({"sample": "a.csv"}, "has sample, but its command lacks {data}"),
        ({"make_data": "module:make"}, "has make_data, but its command lacks {data}"),
        ({"command": f"{PLAIN} {{config}}"}, "command has {config}, and no settings = "),
        ({"steps_per_epoch": 4}, "has steps_per_epoch, but its command lacks {epochs}"),
        ({"settings": "a.yaml"}, "its command lacks {config} (a file) and {settings} (options)"),
    ],
)
def test_nothing_in_a_table_is_passed_over(table, said):
    assert said in faults_in({"command": PLAIN, **table})


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"fields": {"save_every": ""}},
        {"fields": {"save_every": "a.b"}, "tiny": {"a": {"b": 1}}},
        {"command": f"{PLAIN} --save {{save_steps}} --eval {{eval_steps}}"},
        {"command": f"{PLAIN} {{settings}}", "fields": {"save_every": "what its help may name"}},
    ],
)
def test_what_is_right_in_a_table(table):
    assert faults_in({"command": PLAIN, **table}) is None


def test_what_does_not_fit_the_help():
    def wrong(table, text):
        table = {"command": COMMAND, HELP: text, **table}
        return faults_in_known(table, read_known(table))

    assert wrong({}, CLICK) is None
    assert "did you mean 'batch_size'?" in wrong({"fields": {"batch_size": "batchsize"}}, CLICK)
    assert "{nmae}: no setting has that name; did you mean 'name'?" in wrong({"command": f"{COMMAND} {{nmae}}"}, CLICK)
    assert 'settings_form = "--key=value"' in wrong({}, "Traceback")
    assert wrong({"settings_form": "key=value"}, "Traceback") is None
    assert "tiny: its --help tells of no 'bach_size'; did you mean 'batch_size'?" in wrong(
        {"tiny": {"bach_size": 3}}, CLICK
    )
    assert wrong({"fields": {"learning_rate": "lr"}, "tiny": {"hidden": 3, "lr": 0.1}}, CLICK) is None


def test_any_name_of_an_option_will_do():
    table = {"command": COMMAND, HELP: CLICK, "fields": {"learning_rate": "lr"}, "tiny": {"lr": 0.5}}
    trainer = CommandTrainer(table)
    assert trainer.tiny == {"learning_rate": 0.5}
    assert trainer.fields == {"learning_rate": "learning_rate"}


SCRIPT = """
import argparse, json
from pathlib import Path
import torch

parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
for name in ("--data", "--out"):
    parser.add_argument(name, type=Path, required=True)
parser.add_argument("--epochs", type=int, required=True)
parser.add_argument("--resume", action="store_true")
parser.add_argument("--learning-rate", type=float, default=0.01, help="rate")
parser.add_argument("--hidden", type=int, default=512, help="width")
parser.add_argument("--save-every", type=int, default=100, help="steps")
args = parser.parse_args()
assert args.hidden == 8 and args.save_every == 2  # the harness's, and not the defaults
torch.manual_seed(0)
rows = [json.loads(line) for line in args.data.read_text().splitlines()]
x, y = torch.tensor([row["x"] for row in rows]), torch.tensor([row["y"] for row in rows])
model = torch.nn.Sequential(torch.nn.Linear(8, args.hidden), torch.nn.ReLU(), torch.nn.Linear(args.hidden, 2))
optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate)
last, step = args.out / "checkpoint.pt", 0
if args.resume and last.exists():
    state = torch.load(last, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    step = state["step"]
elif args.resume:
    print("no checkpoint: starting at step 0")
while step < 4 * args.epochs:
    loss = torch.nn.functional.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    step += 1
    if step % args.save_every == 0:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
        torch.save(state, last.with_suffix(".tmp"))
        last.with_suffix(".tmp").rename(last)
"""
TABLE = """
[tool.trainguard.trainers.options]
command = "python train.py --data {data} --out {output_dir} --epochs {epochs} {settings}"
sample = "train.jsonl"
tiny = { hidden = 8 }
resume = "--resume"

[tool.trainguard.trainers.deaf]
command = "python deaf.py --out {output_dir} --steps {max_steps} {settings}"
"""
# It takes no notice of its arguments, and would train for ever.
DEAF = """
import torch

weight = torch.nn.Parameter(torch.zeros(1))
optimizer = torch.optim.SGD([weight], lr=0.1)
while True:
    weight.sum().backward()
    optimizer.step()
"""


def test_programs_that_are_known_by_their_options_alone(tmp_path):
    project = Project(tmp_path, toml=TABLE)
    project.write("train.py", SCRIPT)
    project.write("deaf.py", DEAF)
    result = project.pytest("-m", "preflight", "--edge-case", "14,41")
    assert result.verdicts("options") == {14: "passed", 41: "passed"}, result.output
    assert result.verdicts("deaf") == {14: "error", 41: "error"}
    shown = " ".join(result.output.split())
    assert "ERROR: deaf: its --help does not tell how settings are given: say it, settings_form = " in shown
    assert "trains, instead of printing its help" in shown
    assert result.code == 4
    assert "options: its settings are given as --key=value (by its --help); 3 are known\n" in result.output
