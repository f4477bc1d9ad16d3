"""What a case needs of a trainer: found where it is, or told in a line."""

from types import SimpleNamespace

import pytest

from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.contract.settings import fields_of, role, value_at
from pytest_trainguard.probes.needs import Needs
from pytest_trainguard.recorder.timeline import Recording
from pytest_trainguard.subject import reference
from pytest_trainguard.verdicts.errors import NotApplicable


def needs(tmp_path, tiny, production=(), *, libraries=(), roles=(), made=None):
    """Those of a trainer that has these settings, and no make_model; its undisturbed run has loaded these libraries."""
    first = SimpleNamespace(make=lambda: None, modules=libraries)
    settings = SimpleNamespace(
        fields=fields_of(tiny),
        role=lambda name: role(name, fields_of(tiny), {}),
        tiny=lambda field: value_at(tiny, field.path),
        production=lambda field: value_at(dict(production), field.path),
    )
    subject = SimpleNamespace(
        settings=settings, root=tmp_path, findings=SimpleNamespace(get=lambda kind, make: first),
        server=SimpleNamespace(ask=lambda *asked: made), description=SimpleNamespace(roles=dict(roles)),
    )  # fmt: skip
    folder = tmp_path / "own"
    folder.mkdir(exist_ok=True)
    return Needs(subject, folder)


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "models/small"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").touch()
    return folder


@pytest.mark.parametrize(
    ("tiny", "production", "path"),
    [
        ({"model_name_or_path": "models/small", "lr": 0.1}, {}, "model_name_or_path"),
        ({"network": {"weights": "models/small"}, "output": "models"}, {}, "network.weights"),
        ({"model": "far/away"}, {"model": "models/small"}, "model"),
    ],
)
def test_a_model_that_a_setting_names_by_its_place_is_copied(tmp_path, model, tiny, production, path):
    asked = needs(tmp_path, tiny, production)
    field = asked.setting("model")
    assert field.path == path
    copy = asked.base_model(field)
    assert copy != model
    assert sorted(file.name for file in copy.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("value", "more"),
    [
        ("gpt2", {"libraries": ("torch", "transformers")}),
        ("models/small", {}),
        ("org/name", {}),
        (None, {}),
        ("LSTM", {"roles": {"model": "model"}}),
        ("LSTM", {"made": "a folder"}),
    ],
)
def test_a_base_model_has_files_or_a_place_in_a_registry(tmp_path, value, more):
    assert needs(tmp_path, {"model": value}, **more).base_model_setting().path == "model"


def test_an_architecture_is_no_base_model(tmp_path):
    with pytest.raises(NotApplicable, match="model = 'LSTM' names an architecture"):
        needs(tmp_path, {"model": "LSTM"}, libraries=("torch",)).base_model_setting()


def test_without_one_it_is_told_what_to_add(tmp_path, model):
    with pytest.raises(NotApplicable, match="no setting for the model"):
        needs(tmp_path, {"output": "models", "lr": 0.1}).setting("model")
    asked = needs(tmp_path, {"model": "far/away"})
    with pytest.raises(NotApplicable, match="no small base model at hand"):
        asked.base_model(asked.setting("model"))


def test_a_program_without_an_optimizer_is_told_what_to_do(tmp_path):
    recording = Recording([{"event": "end"}])
    outcome = Outcome("trained undisturbed", 0, "", 0, recording, tmp_path, {}, {}, 1.0, 0, (), False, "", 1)
    told = reference._what_is_wrong_with(outcome)
    assert told is not None
    assert "p.data.add_(...)" in told
    assert told.endswith("step a torch.optim.Optimizer, whose step may do just that")
