"""The three ways of adopting the harness, each in a small project of a user's."""

import json
import random
import textwrap

import pytest

from tests import framework_verdicts
from tests.projects import ADOPTED, LOOP, Project

# A user's own case, which holds what was recorded against what each program is known to do.
COUNTS = """
from pytest_trainguard import edge_case
from pytest_trainguard.contract import checkpoints
from expected import MICRO_BATCHES


@edge_case("steps-counted", number=1001, title="steps counted", category="training", verdict="survives",
           severity="unclear",
           brought_about="nothing", expects="the recorder sees every step and every backward call")
def test_steps_counted(guard):
    outcome = guard.reference.outcome
    steps = outcome.recording.steps
    assert [step.number for step in steps] == list(range(1, 9))
    assert [len(step.losses) for step in steps] == [MICRO_BATCHES[guard.subject.name]] * 8
    assert all(step.training and step.grad_norm > 0 for step in steps)
    assert any(step.moved > 0 for step in steps)
    found = [checkpoints.step_of(path) for path in guard.checkpoints.find(outcome.output_dir)]
    assert found == [2, 4, 6, 8], found
"""


def run(project, clearance="GO"):
    result = project.pytest("-m", "preflight", "--edge-case=41,1001", "-p", "no:cacheprovider")
    assert result.code == (0 if clearance == "GO" else 1), result.output
    assert result.report["clearance"] == clearance
    return result


def assert_plain_pytest_runs_none(project):
    plain = project.pytest("-p", "no:cacheprovider")
    assert plain.code == 0, plain.output
    assert "1 passed" in plain.output
    assert "preflight" not in plain.output.partition("deselected")[2]
    assert plain.report == {}


def counted(project, **micro_batches):
    project.write("expected.py", f"MICRO_BATCHES = {micro_batches!r}\n")
    project.write("test_counts.py", COUNTS)
    project.write("test_plain.py", "def test_of_the_project():\n    pass\n")
    return project


def test_a_plain_loop_in_five_lines(tmp_path):
    project = counted(Project(tmp_path, ["preflight:Classifier"]), Classifier=1)
    project.write("program.py", LOOP)
    project.write("preflight.py", ADOPTED)
    result = run(project)
    assert result.verdicts("Classifier") == {41: "passed", 1001: "passed"}
    assert_plain_pytest_runs_none(project)


FRAMEWORKS = """
import json
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass
class Config:
    lr: float = 0.01
    save_steps: int = 500


def rows(data):
    return [json.loads(line) for line in Path(data).read_text().splitlines()]


def transformers_program(config, data, output_dir, max_steps, resume_from, *, lora):
    import transformers

    from pytest_trainguard import tiny_twin

    tokens = [{"input_ids": [int(v) for v in r["x"]], "labels": r["y"]} for r in rows(data)]
    large = transformers.BertConfig(vocab_size=16, max_position_embeddings=16)
    transformers.set_seed(0)
    model = transformers.BertForSequenceClassification(tiny_twin(large))
    if lora:
        import peft

        model = peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"]))
    arguments = transformers.TrainingArguments(
        output_dir=output_dir, max_steps=max_steps, per_device_train_batch_size=4, gradient_accumulation_steps=2,
        save_steps=config.save_steps, learning_rate=config.lr, report_to=[], disable_tqdm=True, use_cpu=True,
    )
    transformers.Trainer(model, arguments, train_dataset=tokens).train(resume_from_checkpoint=resume_from)


def lightning_program(config, data, output_dir, max_steps, resume_from):
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(8, 2)

        def training_step(self, batch):
            return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=config.lr)

    lightning.seed_everything(0, verbose=False)
    pairs = [(torch.tensor(r["x"]), r["y"]) for r in rows(data)]
    saving = lightning.pytorch.callbacks.ModelCheckpoint(every_n_train_steps=config.save_steps, save_top_k=-1)
    trainer = lightning.Trainer(
        default_root_dir=output_dir, max_steps=max_steps, accumulate_grad_batches=2, accelerator="cpu",
        callbacks=[saving], enable_progress_bar=False, logger=False, use_distributed_sampler=False,
    )
    trainer.fit(Module(), torch.utils.data.DataLoader(pairs, batch_size=4), ckpt_path=resume_from)


def geometric_program(config, data, output_dir, max_steps, resume_from):
    from torch_geometric.data import Data
    from torch_geometric.loader import DataLoader
    from torch_geometric.nn import GCNConv, global_mean_pool

    edges = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
    pairs = [(torch.tensor(r["x"]).reshape(4, 2), torch.tensor([r["y"]])) for r in rows(data)]
    graphs = [Data(x=x, edge_index=edges, y=y) for x, y in pairs]
    torch.manual_seed(0)
    conv, head = GCNConv(2, 8), torch.nn.Linear(8, 2)
    model = torch.nn.ModuleList([conv, head])
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr)
    step = 0
    if resume_from:
        state = torch.load(resume_from, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    while step < max_steps:
        for batch in DataLoader(graphs, batch_size=len(graphs)):
            hidden = conv(batch.x, batch.edge_index).relu()
            loss = torch.nn.functional.cross_entropy(head(global_mean_pool(hidden, batch.batch)), batch.y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        step += 1
        if step % config.save_steps == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            torch.save(state, Path(output_dir) / f"checkpoint-{step}.pt")
"""

FRAMEWORK_TRAINERS = """
import programs
from pytest_trainguard import Trainer


class Framework(Trainer):
    config = programs.Config
    sample = "train.jsonl"
    overfit = {"lr": 0.003}


class Bert(Framework):
    def train(self, run):
        programs.transformers_program(run.config, run.data, run.output_dir, run.max_steps, run.resume_from, lora=False)


class BertLora(Framework):
    overfit = {"lr": 0.02}

    def train(self, run):
        programs.transformers_program(run.config, run.data, run.output_dir, run.max_steps, run.resume_from, lora=True)


class Lightning(Framework):
    def train(self, run):
        programs.lightning_program(run.config, run.data, run.output_dir, run.max_steps, run.resume_from)


class Geometric(Framework):
    def train(self, run):
        programs.geometric_program(run.config, run.data, run.output_dir, run.max_steps, run.resume_from)
"""


MICRO_BATCHES = {"Bert": 2, "BertLora": 2, "Lightning": 2, "Geometric": 1}


@pytest.mark.parametrize("name", MICRO_BATCHES)
def test_a_program_of_a_known_framework(tmp_path, name):
    """One that is sound as far as its framework is: a verdict that is not expected is a false alarm, or one missed."""
    project = counted(Project(tmp_path, [f"preflight:{name}"]), **{name: MICRO_BATCHES[name]})
    project.write("programs.py", FRAMEWORKS)
    project.write("preflight.py", FRAMEWORK_TRAINERS)
    draw = random.Random(0)
    tokens = [[draw.randrange(11) for _ in range(8)] for _ in range(100)]
    rows = [{"x": [float(token) for token in each], "y": int(each[0] > 5)} for each in tokens]  # to be learnt by heart
    project.write("train.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    asked = f"--edge-case={framework_verdicts.CASES}"
    result = project.pytest("-m", "preflight", asked, "-p", "no:cacheprovider", time_limit=1800)
    cases = {case["number"]: case for case in result.report["cases"]}
    wanted = framework_verdicts.expected(name, cases)
    others = [
        f"{number}: {is_now}, not {wanted[number]}\n{cases[number]['reason']}"
        for number in cases
        if (is_now := framework_verdicts.told(cases[number])) != wanted[number]
    ]
    assert not others, "\n\n".join(others)
    assert result.report["clearance"] == "NO-GO"


SCRIPT = LOOP + textwrap.dedent("""
    def read(path):
        if path.suffix == ".toml":
            import tomllib
            return tomllib.loads(path.read_text())
        import yaml
        return yaml.safe_load(path.read_text())


    if __name__ == "__main__":
        import argparse
        parser = argparse.ArgumentParser()
        for name in ("--config", "--data", "--out", "--resume"):
            parser.add_argument(name, type=Path)
        parser.add_argument("--steps", type=int)
        args = parser.parse_args()
        config = TrainConfig(**read(args.config)) if args.config else TrainConfig(save_every=2)
        main(config, args.data, args.out, args.steps, args.resume)
    """)

COMMAND = "train.py --config {config} --data {data} --out {output_dir} --steps {max_steps} --resume {resume_from}"
TABLES = f"""
[tool.trainguard.trainers.yaml]
command = "python {COMMAND}"
sample = "train.jsonl"
settings = "base.yaml"
tiny = {{ hidden = 8 }}

[tool.trainguard.trainers.toml]
command = "python -m {COMMAND.replace("train.py", "train")}"
sample = "train.jsonl"
settings = "base.toml"

[tool.trainguard.trainers.shell]
command = "sh run.sh {{data}} {{output_dir}} {{max_steps}} {{resume_from}}"
sample = "train.jsonl"
"""


@pytest.fixture(scope="module")
def command_line_project(tmp_path_factory):
    micro_batches = {"yaml": 1, "toml": 1, "shell": 1}
    project = counted(Project(tmp_path_factory.mktemp("command"), toml=TABLES), **micro_batches)
    project.write("train.py", SCRIPT)
    project.write("base.yaml", "hidden: 64\nlr: 0.01\nsave_every: 100\n")
    project.write("base.toml", "hidden = 8\nlr = 0.01\nsave_every = 100\n")
    python = '"$PYTHON" train.py --data "$1" --out "$2" --steps "$3" ${4:+--resume "$4"}'
    project.write("run.sh", f"{python}\nexit $?\n")
    return project


def test_programs_known_by_their_command_line(command_line_project, monkeypatch):
    import sys

    monkeypatch.setenv("PYTHON", sys.executable)
    result = run(command_line_project)
    for name in ("yaml", "toml", "shell"):
        assert result.verdicts(name) == {41: "passed", 1001: "passed"}, name
    assert {trainer["source"] for trainer in result.report["trainers"]} == {"command"}
    assert_plain_pytest_runs_none(command_line_project)


SAVES_NOTHING = """
import torch
import pytest_trainguard as trainguard


class Leaves(trainguard.Trainer):
    def train(self, run):
        torch.manual_seed(run.seed)
        model = torch.nn.Linear(2, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(run.max_steps):
            loss = model(torch.randn(4, 2)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
"""
SAVES_SELDOM = (
    SAVES_NOTHING.replace("Leaves", "Seldom")
    + """            if step and step % 1000 == 0:
                torch.save(model.state_dict(), run.output_dir / "ckpt.pt")
"""
)


NEVER_RESUMES = SAVES_SELDOM.replace("Seldom", "Never").replace("% 1000", "% 2")


def test_a_program_that_cannot_be_resumed_is_told_so_once(tmp_path):
    project = Project(tmp_path, ["nothing:Leaves", "seldom:Seldom", "never:Never"])
    project.write("never.py", NEVER_RESUMES)
    project.write("nothing.py", SAVES_NOTHING)
    project.write("seldom.py", SAVES_SELDOM)
    result = project.pytest("-m", "preflight", "--edge-case=41,42,43", "-p", "no:cacheprovider")
    assert result.verdicts("Leaves") == {41: "failed", 42: "not_applicable", 43: "not_applicable"}, result.output
    assert set(result.verdicts("Seldom").values()) == {"not_applicable"}
    assert result.verdicts("Never") == {41: "failed", 42: "not_applicable", 43: "not_applicable"}, result.output
    assert "begins again at step 0, whatever is saved (case 41" in result.case("Never", 43)["reason"]
    causes = {cause["trainer"]: cause for cause in result.report["causes"]}
    told = {name: (cause["key"], cause["grade"], cause["cases"]) for name, cause in causes.items()}
    assert told == {
        "Leaves": ("resume:nothing-saved", "loses", ["killed"]), "Never": ("resume:none", "loses", ["killed"]),
    }  # fmt: skip
    assert "began again at step 0 and took 8 steps, for it saves nothing" in causes["Leaves"]["happened"]
