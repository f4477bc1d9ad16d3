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
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    told = json.loads(report.read_text())
    wrong = {case["number"]: case["reason"] for case in told["cases"] if case["verdict"] != "passed"}
    assert wrong == {}
    assert told["clearance"] == "GO"
    assert done.returncode == 0
    assert done.stdout.splitlines()[-2].startswith("GO: ")
