"""What is found out once for each trainer: second starts in folders that are alike, checkpoints already looked at."""

import dataclasses

import pytest
import torch

from pytest_trainguard import Finding, Guard, NotApplicable, faults
from pytest_trainguard.isolation.policy import Reach
from pytest_trainguard.launch.protocol import RUN_STEPS
from pytest_trainguard.probes.finite_weights import find_bad_weights
from pytest_trainguard.subject.launchpad import Launchpad
from pytest_trainguard.subject.snapshot import snapshot
from pytest_trainguard.verdicts.kinds import recovers
from tests.projects import ADOPTED, LOOP, Project

# Each start leaves a letter beside the program.
NOTE = "    with Path(__file__).with_name('starts').open('a') as starts:\n        starts.write('|')\n"
COUNTED = LOOP.replace("    torch.manual_seed(0)\n", f"{NOTE}    torch.manual_seed(0)\n")


@pytest.fixture
def guard(tmp_path):
    project = Project(tmp_path / "project")
    project.write("program.py", COUNTED)
    project.write("preflight.py", ADOPTED)
    (tmp_path / "pad").mkdir()
    (tmp_path / "guard").mkdir()
    pad = Launchpad(project.folder, tmp_path / "pad", [str(project.folder)], 30.0, reach=Reach(own=(project.folder,)))
    yield Guard(pad.subject("Classifier", "preflight:Classifier"), tmp_path / "guard")
    pad.close()


def starts(guard):
    return len((guard.subject.root / "starts").read_text())


def raised(guard, where, step):
    return guard.run(f"raised in {where} of step {step}", fault=faults.raises(ValueError, where, step, "on purpose"))


def test_folders_that_are_alike_have_one_second_start(guard):
    outcomes = [raised(guard, "forward", 4), raised(guard, "optimizer", 4), raised(guard, "forward", 6)]
    before = starts(guard)
    again = guard.checkpoints.start_again(outcomes)
    assert starts(guard) == before + 2
    assert [outcome.did for outcome in again] == [f"{o.did}, then started again to resume" for o in outcomes]
    assert [len(outcome.losses) for outcome in again] == [6, 6, 4]
    for outcome in again:
        recovers(outcome, guard.reference.outcome)
    other = Guard(guard.subject, guard.folder / "other")
    assert [o.losses for o in other.checkpoints.start_again([raised(guard, "optimizer", 4)])] == [again[0].losses]
    assert starts(guard) == before + 3, "the run alone, and no second start of it"


def test_one_byte_makes_another_folder(guard):
    first, second = raised(guard, "forward", 4), raised(guard, "forward", 4)
    (second.output_dir / "note.txt").write_text("x")
    before = starts(guard)
    guard.checkpoints.start_again([first, dataclasses.replace(second, after=snapshot(second.output_dir))])
    assert starts(guard) == before + 2


UNUSED_COLUMN = """
import torch

from pytest_trainguard import Trainer


class Columns(Trainer):
    \"\"\"Its batches have a column of numbers that the model is not given.\"\"\"

    def train(self, run):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Embedding(4, 2), torch.nn.Linear(2, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        rows = [(number % 4, float(number)) for number in range(run.max_steps)]
        for tokens, _ in torch.utils.data.DataLoader(rows):
            loss = model(tokens).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
"""


def test_a_number_that_changes_no_loss_did_not_come_about(tmp_path):
    project = Project(tmp_path / "project")
    project.write("columns.py", UNUSED_COLUMN)
    (tmp_path / "pad").mkdir()
    (tmp_path / "guard").mkdir()
    pad = Launchpad(project.folder, tmp_path / "pad", [str(project.folder)], 30.0)
    try:
        guard = Guard(pad.subject("Columns", "columns:Columns"), tmp_path / "guard")
        with pytest.raises(NotApplicable, match="changed no loss"):
            guard.run("put NaN into the batch", fault=faults.nan("batch", 4))
        assert not guard.run("put NaN into an activation", fault=faults.nan("activation", 4)).recording.finite
    finally:
        pad.close()


def test_links_are_part_of_what_a_folder_holds(tmp_path):
    for name in ("one", "two"):
        (tmp_path / "folder" / name).mkdir(parents=True)
    link, broken = tmp_path / "folder" / "latest", tmp_path / "folder" / "broken"
    link.symlink_to("one")
    broken.symlink_to("nowhere")
    before = snapshot(tmp_path / "folder")
    assert before == {"one/": (0, ""), "two/": (0, ""), "latest/": (0, "-> one"), "broken": (0, "-> nowhere")}
    link.unlink()
    link.symlink_to("two")
    assert snapshot(tmp_path / "folder") != before


def test_the_killed_run_is_made_once_and_copied(guard):
    killed = guard.checkpoints.killed_late()
    assert (killed.exit, len(killed.losses)) == (-9, RUN_STEPS - 1)
    before = starts(guard)
    assert Guard(guard.subject, guard.folder).checkpoints.killed_late() is killed
    assert starts(guard) == before
    assert guard.copy(killed.output_dir) != killed.output_dir


def test_a_checkpoint_is_looked_at_once(guard, monkeypatch):
    looked = []
    call = guard.subject.server.call

    def noted(function, *arguments):
        if function is find_bad_weights:
            looked.append(sorted(file.name for file in arguments[0]))
        return call(function, *arguments)

    monkeypatch.setattr(guard.subject.server, "call", noted)
    early, late = raised(guard, "forward", 4), raised(guard, "forward", 6)
    guard.checkpoints.check(early)
    guard.checkpoints.check(late, early)
    guard.checkpoints.check(early)
    assert looked == [["checkpoint-2.pt"], ["checkpoint-4.pt"]]
    file = early.output_dir / "checkpoint-2.pt"
    torch.save({"w": torch.tensor([float("nan")])}, file)
    changed = dataclasses.replace(early, after=snapshot(early.output_dir))
    for _ in range(2):  # what is no good is not taken for good the second time
        with pytest.raises(Finding, match=r"checkpoint-2\.pt: w is not finite"):
            guard.checkpoints.check(changed)
