"""The repository's own trainers pass the catalogue: what `make preflight` shows."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_own_trainers_are_cleared(tmp_path):
    report = tmp_path / "report.json"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "preflight",
        "-p",
        "no:cacheprovider",
        "--preflight-report",
        report,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3000, check=False)
    told = json.loads(report.read_text())
    code_trainers = {"Transformer", "Gnn", "Fusion"}
    examples = {"PlainLoop", "WithTransformers"}
    everyone = {*code_trainers, "LoraChat", *examples}
    assert {trainer["name"] for trainer in told["trainers"]} == everyone
    wrong = {(case["trainer"], case["number"]): case["reason"] for case in told["cases"] if case["verdict"] != "passed"}
    # The graph network takes no pretrained weights; neither the three code trainers nor the examples take an adapter.
    # The queue goes through its cases in `test_proof`, with a trainer that costs less than one that imports
    # transformers each time. The plain loop's words are hashed: it has no tokenizer.
    expected = {("Gnn", n): "no setting for the model" for n in (11, 12, 39, 40)}
    expected |= {(name, 13): "no setting for the adapter" for name in code_trainers | examples}
    expected |= {("PlainLoop", 40): "no tokenizer.json in checkpoint-1"}
    expected |= {(name, n): "no queue" for name in everyone for n in (51, 52, 53, 57, 58, 59, 60)}
    expected |= {(name, n): "no GPU budget to hold it against" for name in everyone for n in (34, 36)}
    expected |= {(name, 1002): "it searches for no learning rate" for name in ("LoraChat", *examples)}
    assert {case: reason.split(":")[0] for case, reason in wrong.items()} == expected
    assert {1001, 1002, 1003} <= {case["number"] for case in told["cases"]}
    assert told["clearance"] == "GO"
    assert done.returncode == 0
    assert done.stdout.splitlines()[-2].startswith("GO: ")
