"""An environment without NumPy, which torch does not need and this package does not ask for."""

import pytest

from tests.projects import Project

PREFLIGHT = """
import torch

from pytest_trainguard import Trainer


class Rows(torch.utils.data.Dataset):
    def __init__(self, path):
        lines = [line.split(",") for line in path.read_text().splitlines()[1:]]
        self.rows = torch.tensor([[float(cell) for cell in line] for line in lines])

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index, :2], self.rows[index, 2].long()


class Classifier(Trainer):
    sample = "rows.csv"
    labels = "y"

    def train(self, run):
        torch.manual_seed(run.seed)
        model = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        optimizer = torch.optim.Adam(model.parameters())
        rows, step = Rows(run.data), 0
        while step < run.max_steps:
            for x, y in torch.utils.data.DataLoader(rows, 8, shuffle=True):
                if step == run.max_steps:
                    break
                loss = torch.nn.functional.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
        torch.save({"model": model.state_dict(), "step": step}, run.output_dir / f"checkpoint-{step}.pt")
"""


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path / "project", ["preflight:Classifier"], warm=False)
    project.write("preflight.py", PREFLIGHT)
    rows = "".join(f"{k * 37 % 64 / 64},{k * 11 % 64 / 64},{k * 7 % 2}\n" for k in range(64))
    project.write("rows.csv", "a,b,y\n" + rows)
    (tmp_path / "none/numpy").mkdir(parents=True)
    (tmp_path / "none/numpy/__init__.py").write_text(
        "raise ModuleNotFoundError('there is no NumPy here', name='numpy')\n"
    )
    return project


def test_silent_errors_are_judged_without_numpy(project, tmp_path):
    result = project.pytest("-m", "preflight", "--category", "silent", env={"PYTHONPATH": str(tmp_path / "none")})
    assert result.code == 0, result.output
    assert "not judged" not in result.output
    verdicts = result.verdicts("Classifier")
    assert {number for number, verdict in verdicts.items() if verdict == "passed"} >= {101, 103, 111, 125}, verdicts
