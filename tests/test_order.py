"""A verdict depends neither on which other cases run, nor on their order, nor on where the temporary folder is."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.projects import ADOPTED, LOOP, Project

# A dozen that cost little, of all categories; some pass, some find something, some do not apply.
CASES = (1, 4, 14, 26, 35, 41, 48, 55, 63, 64, 66, 74)
SEEDS = (1, 2, 3)
SHUFFLING = """
import os
import random

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    if "SEED" in os.environ:
        random.Random(int(os.environ["SEED"])).shuffle(items)
        print("order:", [item.originalname for item in items])
"""


def judge(folder, cases, *args, env=()):
    """In a project of its own: of each case the verdict, the grade, and each problem's cause, grade and verdict."""
    project = Project(folder, ["preflight:Classifier"])
    project.write("program.py", LOOP)
    project.write("preflight.py", ADOPTED)
    project.write("conftest.py", SHUFFLING)
    numbers = ",".join(map(str, cases))
    done = project.pytest("-m", "preflight", f"--edge-case={numbers}", "-p", "no:cacheprovider", *args, env=dict(env))
    found = {
        case["number"]: (
            case["verdict"],
            case["grade"],
            sorted((problem["cause"], problem["grade"], problem["verdict"]) for problem in case["problems"]),
        )
        for case in done.report["cases"]
    }
    assert sorted(found) == sorted(cases), done.output
    return found


@pytest.mark.timeout(600)  # under a minute where nothing else runs
def test_verdicts_depend_on_the_trainer_alone(tmp_path):
    outside = f"--basetemp={tmp_path / 'outside'}"
    with ThreadPoolExecutor(2) as pool:
        together = pool.submit(judge, tmp_path / "together", CASES)
        shuffled = [
            pool.submit(judge, tmp_path / f"seed{seed}", CASES, f"{outside}-{seed}", env={"SEED": str(seed)})
            for seed in SEEDS
        ]
        alone = [pool.submit(judge, tmp_path / f"alone{case}", [case], f"{outside}-alone{case}") for case in CASES]
        first = together.result()
        assert {word for word, _, _ in first.values()} >= {"passed", "failed", "not_applicable"}
        assert {number: found for one in alone for number, found in one.result().items()} == first
        assert [one.result() for one in shuffled] == [first] * len(SEEDS)
