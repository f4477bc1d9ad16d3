"""What the weight of a loss's term weighs, as two runs show it: by made-up steps."""

from types import SimpleNamespace

import pytest

from pytest_trainguard.casework import loss_terms
from pytest_trainguard.contract.settings import Field

LOSSES = (0.9, 0.8, 0.7, 0.6, 0.5)


def run(losses=LOSSES, **values):
    usual = {"dtype": "torch.float32", "autocast": None, "grad_norm": 1.0, "moved": 0.1, "lr": (0.1,), "states": {}}
    steps = [SimpleNamespace(loss=loss, **{**usual, **values}) for loss in losses]
    return SimpleNamespace(exit=0, last_words="", recording=SimpleNamespace(steps=steps))


def found(outcome):
    setting = Field("loss.aux_weight", "float", default=0.5)
    settings = SimpleNamespace(fields=[setting], tiny=lambda field: field.default)
    subject = SimpleNamespace(settings=settings, description=SimpleNamespace(command=None), spec="a:B")
    needs = SimpleNamespace(repeatable_run=run)
    guard = SimpleNamespace(subject=subject, needs=needs, run_all=lambda requests: [outcome])
    return [finding.problems[0].said for finding in loss_terms.find_cut_off(guard)]


def with_terms(*terms, **values):
    return run([loss + term for loss, term in zip(LOSSES, terms, strict=True)], **values)


def test_a_term_that_nothing_is_learnt_from():
    (said,) = found(with_terms(0.1, 0.12, 0.11, 0.13, 0.1))
    assert "what loss.aux_weight weighs is in the loss, and nothing is learnt from it" in said
    assert "(by 0.1, 0.12, 0.11, ...)" in said


@pytest.mark.parametrize(
    "outcome",
    [
        run(),
        with_terms(0.1, 0.1, 0.1, 0.1, 0.1),  # a floor, a margin
        with_terms(2e-7, 1e-7, 3e-7, 1e-7, 2e-7),  # rounded
        with_terms(0.0, 0.0, 0.1, 0.12, 0.11),  # in too few steps
        with_terms(0.1, 0.12, 0.11, 0.13, 0.1, grad_norm=1.1),
        with_terms(0.1, 0.12, 0.11, 0.13, 0.1, moved=0.2),
        with_terms(0.1, 0.12, 0.11, 0.13, 0.1, dtype="torch.bfloat16"),
    ],
)
def test_what_is_learnt_from_or_not_told_apart(outcome):
    assert found(outcome) == []


@pytest.mark.parametrize("name", ["aux_weight", "lambda_l1", "kl_coef", "loss.vf_coefficient"])
def test_what_weighs_a_term_by_its_name(name):
    assert loss_terms._is_weight(name)


@pytest.mark.parametrize("name", ["weight_decay", "class_weight", "lambada", "weights_path", "pos_weight"])
def test_what_weighs_something_else(name):
    assert not loss_terms._is_weight(name)
