"""The repository's own trainers pass the catalogue: what `make preflight` shows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_trainguard import catalog

ROOT = Path(__file__).parent.parent


CODE_TRAINERS = ["Transformer", "Gnn", "Fusion"]
EXAMPLES = ["PlainLoop", "WithTransformers"]
EVERYONE = [*CODE_TRAINERS, "LoraChat", *EXAMPLES]
BUDGET = "a100-40gb"  # as the Makefile gives it


def not_applicable(trainer):
    """By number, or by slug where a case has none, how the reason begins."""
    reasons = {} if trainer == "LoraChat" else dict.fromkeys((51, 52, 53, 57, 58, 59, 60), "no queue")
    if trainer == "Gnn":  # its trace takes a processor for half a minute: `make preflight` makes it
        reasons |= dict.fromkeys((34, 36), "no GPU budget to hold it against")
    reasons[116] = "no batch says where one document of a row ends and the next begins"
    reasons[123] = "no average of its weights is evaluated, and no copy of its model follows it in its forward passes"
    if trainer in EXAMPLES:  # the others set both
        reasons |= dict.fromkeys((105, 120), "no setting for the accumulation")
        reasons[108] = "no setting for the eval every"
    else:
        reasons[120] = "no loss is seen in its output or its logs that is the loss of each step"
        reasons["evaluation-grows"] = "of its rows it validates on 0.1"
    if trainer in ("Gnn", "Fusion"):  # so few graphs fit their budget at once
        reasons[120] = "its steps have one backward pass, whatever parts the rows are dealt out in"
    if trainer in ("Gnn", "Fusion"):
        reasons[114] = "no padding is recognised in its batches"
    if trainer == "WithTransformers":  # its model has no places for longer rows
        from_elsewhere = "its batches do not come from a torch data loader, or it does not take "
        reasons |= {114: f"{from_elsewhere}what is padded further", 116: f"{from_elsewhere}rows that are changed"}
    if trainer in ("Gnn", "Fusion"):  # graphs of one batch are one graph
        reasons[115] = "its batches do not come from a torch data loader, or are not of one part for each row"
    if trainer == "Gnn":  # it takes no pretrained weights
        reasons |= dict.fromkeys((11, 12, 39, 40, 122), "no setting for the model")
        reasons[103] = "no forward pass was seen whose rows differ and whose output has one part for each row"
        reasons[120] = "its steps have one backward pass, whatever parts the rows are dealt out in"
    if trainer != "LoraChat":
        reasons[13] = "no setting for the adapter"
        reasons[109] = "no parameter of its models is frozen"
    if trainer == "PlainLoop":  # its words are hashed
        reasons[40] = "no tokenizer.json in checkpoint-1"
    if trainer not in CODE_TRAINERS:
        reasons[1002] = "it searches for no learning rate"
    return reasons


@pytest.mark.parametrize("name", EVERYONE)
def test_own_trainer_is_cleared(name, tmp_path):
    report = tmp_path / "report.json"
    options = ["-m", "preflight", "-p", "no:cacheprovider", "--trainer", name, "--preflight-report", report]
    if name != "Gnn":
        options += ["--gpu-budget", BUDGET]
    command = [sys.executable, "-m", "pytest", *options, "tests/prelaunch"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1500, check=False)
    told = json.loads(report.read_text())
    assert [each["name"] for each in told["trainers"]] == [name]
    not_passed = {c["number"] or c["slug"]: c["reason"] for c in told["cases"] if c["verdict"] != "passed"}
    assert {case: reason.split(":")[0] for case, reason in not_passed.items()} == not_applicable(name)
    silent = {case.number for case in catalog.read_cases() if case.family is catalog.SILENT}
    assert {*range(1, 81), *silent, 1001, 1002, 1003, None} == {case["number"] for case in told["cases"]}
    assert told["clearance"] == "GO"
    assert done.returncode == 0
    assert done.stdout.splitlines()[-2].startswith("GO: ")


def test_each_of_the_80_cases_is_passed_by_one_of_them_as_the_readme_says():
    """What a trainer does not pass stands above, and the test above holds that against its report."""
    nowhere = [case for case in range(1, 81) if all(case in not_applicable(name) for name in EVERYONE)]
    assert nowhere == []
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"{80 - len(nowhere)} of 80 are passed by one at least of its {len(EVERYONE)} trainers" in readme
    assert f"--gpu-budget {BUDGET}" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_every_own_trainer_is_named_above(request):
    assert [name.rpartition(":")[2] for name in request.config.getini("trainguard_trainers")] == EVERYONE
