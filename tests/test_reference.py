"""What is read off the undisturbed run: when it saves, and which modules are the trainer's own."""

import pytest

from pytest_trainguard.probes.needs import Needs
from pytest_trainguard.subject.launchpad import Launchpad
from pytest_trainguard.subject.reference import Reference
from pytest_trainguard.verdicts.errors import CannotJudge

MODULES = {
    "preflight": """
import torch
import first, second
from pytest_trainguard import Trainer


def step(program, run, times):
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for number in range(1, run.max_steps + 1):
        for _ in range(times):
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
        program.after(model, number, run.output_dir)


class First(Trainer):
    def train(self, run):
        import late
        from maker import made
        step(first, run, 1)


def adopt(program):
    class Adopted(Trainer):
        def train(self, run):
            step(program, run, 2)

    Adopted.__module__ = __name__
    return Adopted


Second = adopt(second)


class StartsOnce(Trainer):
    def train(self, run):
        (run.output_dir.parents[1] / "taken").mkdir()
        step(second, run, 1)
""",
    # The log is no checkpoint; only the last checkpoint is kept.
    "first": """
import os
import torch
import common


def after(model, number, folder):
    with open(folder / "log.txt", "a") as log:
        print(number, file=log)
    if number % 3 == 0:
        torch.save(model.state_dict(), folder / "beside")
        os.replace(folder / "beside", folder / f"model_{number:06}.pth")
        for old in sorted(folder.glob("model_*.pth"))[:-1]:
            old.unlink()
""",
    "second": """
import torch
import common


def after(model, number, folder):
    if number % 4 == 0:
        torch.save(model.state_dict(), folder / f"checkpoint-{number}.pt")
""",
    "common": "",
    "late": "",
}
# As a library does that compiles what it finds out at run time.
MAKER = """
import importlib, sys, tempfile
from pathlib import Path

folder = Path(tempfile.mkdtemp())
for name in ("maker.part", "made_alone"):
    path = folder / f"{name}.py"
    path.write_text("")
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
made = True
"""


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    root, libraries = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("libraries")
    for name, source in MODULES.items():
        (root / f"{name}.py").write_text(source)
    (libraries / "maker.py").write_text(MAKER)
    (root / "base").mkdir()  # as with --basetemp inside the project
    pad = Launchpad(root, root / "base", [str(root), str(libraries)], 60.0)
    yield lambda name: Reference.shared(pad.subject(name, f"preflight:{name}"))
    pad.close()


def test_a_second_run_that_fails_is_told_as_that(reference, tmp_path):
    undisturbed = reference("StartsOnce")
    assert undisturbed.outcome.exit == 0
    needs = Needs(undisturbed._subject, tmp_path)
    for _ in range(2):
        with pytest.raises(CannotJudge) as caught:
            needs.repeatable_run()
        told = str(caught.value)
        assert "a second one fails: exit 1 after 0 optimizer steps (FileExistsError: " in told
        assert "seed" not in told
        assert "FileExistsError" in caught.value.evidence


def test_own_modules_are_those_that_this_trainer_leads_to(reference):
    named = {name: sorted(path.stem for path in reference(name).own_modules) for name in ("First", "Second")}
    assert named == {"First": ["common", "first", "late", "preflight"], "Second": ["common", "preflight", "second"]}
    assert all(path.exists() for path in reference("First").own_modules)


def test_saves_are_told_by_what_was_written_to_checkpoints(reference):
    assert (reference("First").saves, reference("First").first_save, reference("First").last_step) == ((3, 6), 3, 8)


def test_saves_are_counted_in_optimizer_steps(reference):
    assert (reference("Second").saves, reference("Second").first_save, reference("Second").last_step) == (
        (8, 16),
        8,
        16,
    )
