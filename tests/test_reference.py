"""What is read off the undisturbed run: when it saves, and which modules are the trainer's own."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.probes.needs import Needs
from pytest_trainguard.probes.runs import Runs
from pytest_trainguard.recorder.timeline import Recording
from pytest_trainguard.subject.launchpad import Launchpad
from pytest_trainguard.subject.reference import Reference, find_overrun
from pytest_trainguard.verdicts.errors import CannotJudge

MODULES = {
    "preflight": """
import dataclasses
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


class Endless(Trainer):
    def train(self, run):
        for _ in range(100_000):
            step(second, run, 2)
            print("a line of its log")


class Fixed(Trainer):
    def train(self, run):
        for _ in range(3):
            step(second, dataclasses.replace(run, max_steps=8), 1)


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


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "Endless",
            r"no notice of run.max_steps: \d{3,} optimizer steps, and no end, when it was ended",
        ),
        ("Fixed", r"no notice of run.max_steps: 24 optimizer steps whether it is asked for 8 or for 25$"),
    ],
)
def test_a_program_that_takes_no_notice_of_max_steps_is_told_so_in_one_line(endless, name, said):
    with pytest.raises(CannotJudge, match=said) as caught:
        endless(name).make()
    assert caught.value.evidence == ""


def a_run(*gaps, seconds, idle, timed_out=True):
    """One that took so many seconds for each of its steps, and for all, and then stood still."""
    steps = [
        {"event": "step", "number": number, "loss": 1.0, "losses": [1.0], "grad_norm": 1.0, "lr": [0.1], "moved": 1.0,
         "training": True, "dtype": "torch.float32", "autocast": None, "batches": [1], "length": 0, "eval_forwards": 0,
         "seconds": gap, "rss": 0, "cuda": None, "children": 0, "time": 0.0}
        for number, gap in enumerate(gaps, 1)
    ]  # fmt: skip
    return Outcome(
        did="trained", exit=-9, output="", output_bytes=0, recording=Recording(steps), output_dir=Path("/nowhere"),
        before={}, after={}, seconds=seconds, peak_rss=0, leftovers=(), timed_out=timed_out, stack="", pid=1, idle=idle,
    )  # fmt: skip


def test_a_slow_program_is_not_taken_for_one_that_hangs():
    slow = a_run(20.0, 12.0, 14.0, seconds=60.0, idle=14.0)
    assert find_overrun(slow) == (
        "it is slow: it was at optimizer step 3 of 8 when it was ended after 60 s: raise trainguard_timeout (seconds, "
        "in the ini file), or make the tiny settings smaller"
    )
    assert find_overrun(a_run(1.0, 0.01, seconds=60.0, idle=59.0)) is None, "it hung after its second step"
    assert find_overrun(a_run(seconds=60.0, idle=0.0)) is None, "it took no step"
    assert find_overrun(a_run(1.0, 1.0, seconds=3.0, idle=0.0, timed_out=False)) is None
    assert "takes no notice of run.max_steps: 80" in find_overrun(a_run(*[0.7] * 80, seconds=60.0, idle=0.5))


class Slow:
    """A trainer whose runs are all alike."""

    name = "Slow"

    def __init__(self, outcome):
        self.outcome = outcome

    def start(self, request):
        return SimpleNamespace(outcome=lambda: self.outcome)


@pytest.mark.parametrize(
    ("gaps", "options", "judged"),
    [
        ((3.0,) * 20, {"steps": 50}, False),  # on its way, and ended by the session's limit
        ((3.0,) * 20, {"steps": 50, "time_limit": 60.0}, True),  # by the case's own, which knows what it takes
        ((3.0,) * 20, {}, True),  # it takes more than it was asked for: no matter of time
    ],
)
def test_a_disturbed_run_that_is_only_slow_is_not_judged(tmp_path, gaps, options, judged):
    runs = Runs.__new__(Runs)
    undisturbed = a_run(*[3.0] * 8, seconds=24.0, idle=0.0, timed_out=False)
    runs.subject = Slow(a_run(*gaps, seconds=60.0, idle=1.0))
    runs.reference = SimpleNamespace(outcome=undisturbed, make=lambda: None)
    with (
        nullcontext()
        if judged
        else pytest.raises(CannotJudge, match=r"Slow: trained: it is slow: it was at .* 20 of 50")
    ):
        assert runs.run("tried", **options).timed_out


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


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    root = tmp_path_factory.mktemp("endless")
    for name, source in MODULES.items():
        (root / f"{name}.py").write_text(source)
    (root / "base").mkdir()
    pad = Launchpad(root, root / "base", [str(root)], 8.0)
    yield lambda name: Reference.shared(pad.subject(name, f"preflight:{name}"))
    pad.close()


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
