"""Launchers: `accelerate launch` and `torchrun` go on in the warm process, and so does the program that they start."""

import json
import sys

import pytest

from pytest_trainguard import faults
from pytest_trainguard.adapters.launchers import find_script, is_launcher
from pytest_trainguard.launch.protocol import RunRequest
from pytest_trainguard.subject.launchpad import Launchpad
from pytest_trainguard.subject.reference import Reference
from tests.projects import LOOP, ROWS

STARTED = "an interpreter was started"
SCRIPT = f"""{LOOP}

if __name__ == "__main__":
    import argparse
    import os
    import sys

    parser = argparse.ArgumentParser()
    for name in ("--data", "--out", "--resume"):
        parser.add_argument(name)
    parser.add_argument("--steps", type=int)
    args = parser.parse_args()
    print("trains as", os.getpid())
    print("rank", os.environ.get("RANK"), "of", os.environ.get("WORLD_SIZE"))
    print("mixed precision", os.environ.get("ACCELERATE_MIXED_PRECISION"), "path", sys.path[0] == os.getcwd())
    if os.environ.get("RANK", "0") == "0":
        main(TrainConfig(save_every=2), args.data, args.out, args.steps, args.resume)
"""
OPTIONS = "train.py --data {data} --out {output_dir} --steps {max_steps} --resume {resume_from}"
COMMANDS = {
    "python": f"python {OPTIONS}",
    "accelerate": f"accelerate launch --cpu --num_processes 1 --mixed_precision no {OPTIONS}",
    "torchrun": f"torchrun --nproc_per_node 1 {OPTIONS}",
    "module": f"python -m torch.distributed.run --nproc_per_node 1 {OPTIONS}",
    "env": f"env ACCELERATE_MIXED_PRECISION='none of them' python {OPTIONS}",
    "variables": f"ACCELERATE_MIXED_PRECISION='none of them' python {OPTIONS}",
    "several": f"torchrun --nproc_per_node 2 {OPTIONS}",
}


@pytest.fixture(scope="module")
def pad(tmp_path_factory):
    root, counter = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("counter")
    (root / "train.py").write_text(SCRIPT)
    (root / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (counter / "sitecustomize.py").write_text(f"import sys\nprint({STARTED!r}, file=sys.stderr)\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(counter))
        pad = Launchpad(root, tmp_path_factory.mktemp("pad"), [], 60.0)
        yield pad
        pad.close()


def start(pad, name, **options):
    subject = pad.subject(name, {"command": COMMANDS[name], "sample": str(pad.servers.root / "train.jsonl")})
    return subject, subject.start(RunRequest("tried", **{"steps": 3, **options})).outcome()


@pytest.fixture(scope="module")
def by_python(pad):
    return start(pad, "python")[1]


@pytest.mark.parametrize("name", ["accelerate", "torchrun", "module"])
def test_a_launcher_of_one_process_starts_no_interpreter(pad, by_python, name):
    subject, outcome = start(pad, name)
    assert outcome.exit == 0, outcome.output
    assert STARTED not in outcome.output
    assert "path True" in outcome.output
    assert "mixed precision no" in outcome.output if name == "accelerate" else "rank 0 of 1" in outcome.output
    assert outcome.losses == by_python.losses
    assert sorted(outcome.after) == ["checkpoint-2.pt"]
    assert outcome.leftovers == ()
    assert f"trains as {outcome.pids[0]}" in outcome.output
    assert outcome.pids[1:] == (outcome.pid,)
    killed = subject.start(RunRequest("killed", steps=3, fault=faults.kill(3))).outcome()
    assert len(killed.losses) == 2
    assert killed.exit != 0
    assert STARTED not in killed.output
    assert [path.name for path in Reference.shared(subject).own_modules] == ["train.py"]


def test_a_program_with_variables_before_it_starts_no_interpreter(pad, by_python):
    for name in ("env", "variables"):
        _, outcome = start(pad, name)
        assert STARTED not in outcome.output
        assert "mixed precision none of them" in outcome.output
        assert outcome.losses == by_python.losses


def test_a_launcher_of_several_processes_starts_them_as_ever(pad):
    _, outcome = start(pad, "several")
    assert outcome.exit == 0, outcome.output
    assert outcome.output.count(STARTED) == 2
    assert "rank 0 of 2" in outcome.output
    assert "rank 1 of 2" in outcome.output
    assert outcome.leftovers == ()


@pytest.mark.parametrize(
    ("words", "launches"),
    [
        ("accelerate launch train.py", True),
        ("/opt/bin/accelerate launch train.py", True),
        ("accelerate config", False),
        ("python -m accelerate.commands.launch train.py", True),
        ("torchrun train.py", True),
        ("env OMP_NUM_THREADS=1 torchrun train.py", True),
        ("OMP_NUM_THREADS=1 accelerate launch train.py", True),
        ("python train.py launch", False),
        ("python torchrun", False),
        ("sh torchrun", False),
    ],
)
def test_which_commands_are_launchers(words, launches):
    assert is_launcher(words.split()) is launches


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (f"#!{sys.executable}", True),
        ("#!/usr/bin/env python3", True),
        (f'#!/bin/sh\n\'\'\'exec\' "{sys.executable}" "$0" "$@"', True),
        ("#!/opt/other/bin/python", False),
        ("#!/usr/bin/env -S python -u", False),
        ("#!/bin/sh\nexec python train.py", False),
        ("", False),
    ],
)
def test_which_programs_this_interpreter_runs(tmp_path, lines, found):
    program = tmp_path / "program"
    program.write_text(f"{lines}\n")
    program.chmod(0o755)
    assert find_script(str(program)) == (program if found else None)
