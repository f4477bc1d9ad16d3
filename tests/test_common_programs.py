"""The tables of `docs/how-to/common-programs.md`, each with a program of its kind: every verdict is pinned.

The whole catalogue was run on each by hand. These cases are those in which frameworks differ: what is saved and found
again, what is written before it is looked at, numbers that are none, the sources that a checker gets to read.
"""

import json
import random
import shutil

import pytest

from tests.doc_pages import ROOT, read_blocks
from tests.framework_verdicts import told
from tests.projects import Project

CASES = "41,46,48,61,63,64,71"
# What most of them come to: none has a lock, and none looks at 0 steps or at its output folder before it trains.
USUAL = {
    41: "passed", 46: "wastes", 48: "loses", 61: "unclear: unchecked-settings", 63: "passed",
    64: "misleads: not-finite", 71: "passed",
}  # fmt: skip
PLACE = "misleads: resume:place-in-the-data"  # Lightning resumes a plain DataLoader at its first batch
EXPECTED = {
    "accelerate": {**USUAL, 64: "passed"},
    "accelerate-launch": {**USUAL, 64: "passed"},
    "seq2seq": {
        **USUAL,
        61: "misleads",  # max_steps=0 takes one
        63: "misleads",  # resumed in the middle of an epoch it takes a step more than max_steps
        71: "loses: raises:FileNotFoundError",  # a save that fails leaves a newest checkpoint that is half full
    },
    "lightning-cli": {
        **USUAL,
        41: f"{PLACE}+random-state-of-torch",
        46: "passed",
        61: "misleads",
        71: PLACE,
    },  # config.yaml cannot be written
    "hydra": {**USUAL, 46: "passed"},  # nor can .hydra
    "epochs": {**USUAL, 46: "wastes: unnamed", 71: "unclear"},  # torch.save names no path; a loop without a turn
    "notebook": {**USUAL, 46: "wastes: unnamed"},
}


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """Trainer → number → case, all in one session."""
    project = Project(tmp_path_factory.mktemp("programs"))
    (block,) = read_blocks(ROOT / "docs" / "how-to" / "common-programs.md")
    project.write("pyproject.toml", block.body)
    for program in (ROOT / "tests" / "programs").glob("*.py"):
        shutil.copy(program, project.folder)
    draw = random.Random(0)
    tokens = [[draw.randrange(11) for _ in range(8)] for _ in range(100)]
    rows = [{"x": [float(token) for token in each], "y": int(each[0] > 5)} for each in tokens]  # to be learnt by heart
    project.write("train.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    asked = f"--edge-case={CASES}"
    result = project.pytest("-m", "preflight", asked, "-p", "no:cacheprovider", time_limit=900)
    found = {}
    for case in result.report["cases"]:
        found.setdefault(case["trainer"], {})[case["number"]] = case
    return found


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", EXPECTED)
def test_a_program_of_a_common_kind(cases, name):
    wrong = {
        number: (told(case), EXPECTED[name][number], case["reason"])
        for number, case in cases[name].items()
        if told(case) != EXPECTED[name][number]
    }
    assert not wrong
    assert set(cases) == set(EXPECTED)
