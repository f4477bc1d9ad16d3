"""What single cases look for: times that are negative, a precision that is refused."""

import contextlib
from types import SimpleNamespace

import pytest
from pytest_trainguard.edge_cases.test_process import NEGATIVE_TIME
from pytest_trainguard.edge_cases.test_training import _with_scaler

from pytest_trainguard.verdicts.errors import CannotJudge, VerdictError


@pytest.mark.parametrize(
    "text",
    [
        '{"seconds": -86399.2}',
        "took -86399.2 s",
        "elapsed=-86399",
        "step_seconds = -3",
        "cache age: -1.5 h",
        "-86399 s left",
        "eta -4 minutes",
        '"samples_per_second": -0.001',
    ],
)
def test_negative_times_are_found(text):
    assert NEGATIVE_TIME.search(text)


@pytest.mark.parametrize(
    "text",
    [
        "loss: -0.3",
        "beta: -1",
        "average -2.0",
        "page -3",
        "checkpoint-8 saved",
        "2026-11-24 22:01",
        "step-8 s",
        "message: -1",
        "8/8 [-1:59:59<?, ?it/s]",
        '{"seconds": 0.5, "loss": -1}',
        "theta = -0.5",
        "1e-5 seconds",
        "-3 samples",
        "usage -1",
    ],
)
def test_other_negative_numbers_are_none(text):
    assert not NEGATIVE_TIME.search(text)


@pytest.mark.parametrize(("launched", "said", "told"), [
    ("fp32", "fp16 mixed precision requires a GPU (not 'cpu').", None),
    ("fp16", "fp16 mixed precision requires a GPU (not 'cpu').", "with precision = fp16, as it is launched, it"),
    ("fp16", "an unknown error", "the run ended before that"),
])  # fmt: skip
def test_half_precision_that_cannot_be_had_without_a_gpu(launched, said, told):
    """It is no matter where the program is launched without it; else it is said where to try it."""

    def refused(*args, **options):
        raise CannotJudge("the run ended before that", said)

    role = SimpleNamespace(role=lambda name: "the precision", production=lambda field: launched)
    guard = SimpleNamespace(subject=SimpleNamespace(settings=role))
    expected = contextlib.nullcontext() if told is None else pytest.raises(VerdictError, match=told)
    with expected:
        _with_scaler(refused, guard, {"precision": "fp16"})
