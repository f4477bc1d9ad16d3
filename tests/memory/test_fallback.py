"""Where fake CUDA does not hold, fake tensors on the CPU, labelled as less certain."""

import pytest

from pytest_trainguard.launch.protocol import Ended
from pytest_trainguard.memory.answers.tracing import Tracing


@pytest.fixture(scope="module")
def loop(pad):
    tracing = Tracing(pad.subject("loops:Loop", "tests.memory.programs.loops:Loop"))
    tracing.selftest_failure = "torch 9: RuntimeError: torch did not put its fake device guard in place"
    return tracing


def test_is_labelled_with_the_reason(loop):
    trace = loop.trace()
    assert trace.unknown is None
    assert trace.how == "fake cpu"
    assert "fake tensors on the CPU" in trace.notes[0]
    assert trace.notes[1] == f"fake CUDA does not hold: {loop.selftest_failure}"


def test_large_models_keep_their_sizes(pad, composition):
    settings = {"layers": 2, "hidden_size": 512, "heads": 8, "batch_size": 16, "max_length": 128}
    found = []
    for unheld in (None, "tried"):
        tracing = Tracing(pad.subject("Transformer", "trainers.preflight:Transformer"))
        tracing.selftest_failure = unheld
        found.append(composition(tracing.trace(settings)))
    sure, less = found
    assert less.peak == pytest.approx(sure.peak, rel=0.25)
    assert less["weight"] == pytest.approx(sure["weight"], rel=0.01)


def test_a_failed_self_test_leads_here(pad, monkeypatch):
    tracing = Tracing(pad.subject("loops:Loop", "tests.memory.programs.loops:Loop"))
    output = "noise\ntorch 9: AssertionError: autocast gives torch.float32\n"
    answers = iter([(1, Ended(0, 0, 0.0, 0, output, len(output), False, (), False))])
    monkeypatch.setattr(tracing.subject.server, "perform", lambda *args: next(answers))
    assert tracing.selftest_failure == "torch 9: AssertionError: autocast gives torch.float32 (self-test, exit 0)"
