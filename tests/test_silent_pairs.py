"""What two runs that were looked at closely say where they are held against each other: by made-up recordings."""

import pytest

from pytest_trainguard import NotApplicable
from pytest_trainguard.casework.silent import traces
from pytest_trainguard.casework.silent.look import Look
from pytest_trainguard.recorder.timeline import Recording

STATES = {"weights": "w", "data": "d", "torch": "t"}


def look_at(*events, losses=(1.0, 1.0, 1.0, 1.0), states=STATES):
    """A run of some optimizer steps, one training pass each, with other events besides."""
    made = []
    for number, loss in enumerate(losses):
        made += [event for event in events if event["step"] == number]
        made += [a_pass(number, gradients=True, rows=["a", "b"])]
        made += [{"event": "look backwards", "step": number, "starts": [0.0]}] if not events else []
        made += [{"event": "step", "number": number + 1, **_step(loss), "states": states}]
        made += [{"event": "look step", "step": number + 1}]
    return Look(Recording(made))


def _step(loss):
    listed = {"losses": [loss], "lr": [0.1], "batches": [2], "cuda": None}
    plain = ("grad_norm", "moved", "length", "eval_forwards", "seconds", "rss", "children", "time")
    return {**dict.fromkeys(plain, 0), "loss": loss, **listed, "training": True, "dtype": "", "autocast": None}


def a_pass(step, **values):
    usual = {"number": 0, "gradients": False, "training": False, "modes": {}, "rows": ["x", "y"], "place": "t.py:3"}
    return {"event": "look pass", "step": step, **usual, **values}


def between(step, **values):
    return {"event": "look between", "step": step, "since": step, "moved": {}, "state": False, **values}


def test_an_evaluation_that_moves_weights():
    moved = between(2, moved={"a.weight": 1e5})
    (problem,) = traces.find_traces(look_at(a_pass(2), moved), look_at())
    assert (
        "evaluation (t.py:3) changes what is trained: step 3 begins with other weights than step 2 left: a.weight"
        in (problem.said)
    )
    assert problem.grade == "misleads"
    # What is exchanged by arithmetic, what moves without an evaluation, and where there was none.
    assert traces.find_traces(look_at(a_pass(2), between(2, moved={"a.weight": 30})), look_at()) == []
    assert traces.find_traces(look_at(a_pass(2), moved), look_at(moved)) == []
    assert traces.find_traces(look_at(a_pass(1), moved), look_at()) == []


def test_an_evaluation_that_moves_statistics():
    drift = {"event": "look drift", "step": 2, "names": ["1.running_mean"]}
    (problem,) = traces.find_traces(look_at(a_pass(2, training=True), drift), look_at())
    assert "moves the running statistics of norms: 1.running_mean is at step 3" in problem.said
    taken_anew = a_pass(2, training=True, rows=["b", "a"])
    assert traces.find_traces(look_at(taken_anew, drift), look_at()) == []


def test_an_evaluation_that_leaves_gradients_or_another_momentum():
    def backwards(step, *starts):
        return {"event": "look backwards", "step": step, "starts": list(starts)}

    (problem,) = traces.find_traces(look_at(a_pass(2), backwards(2, 0.0, 0.5)), look_at())
    assert "the backward pass of step 3 begins with a norm of 0.5" in problem.said
    assert traces.find_traces(look_at(a_pass(2), backwards(2, 0.5, 0.0)), look_at()) == []
    (problem,) = traces.find_traces(look_at(a_pass(2), between(2, state=True)), look_at())
    assert "changes the optimizer's state" in problem.said


def test_a_loss_that_is_another_after_an_evaluation():
    after, without = (1.0, 1.0, 0.5, 0.4), (1.0, 1.0, 0.7, 0.6)
    (problem,) = traces.find_traces(look_at(a_pass(2), losses=after), look_at(losses=without))
    assert (problem.grade, "the loss of step 3 is 0.5 after it and 0.7 without it" in problem.said) == ("unclear", True)
    drawn = {**STATES, "torch": "u"}
    # They part before the evaluation; or at it, and the evaluation drew random numbers.
    assert traces.find_traces(look_at(a_pass(3), losses=after), look_at(losses=without)) == []
    parted = look_at(a_pass(2), losses=after)
    object.__setattr__(parted.recording.steps[2], "states", drawn)
    assert traces.find_traces(parted, look_at(losses=without)) == []


def test_no_evaluation_that_is_left_out():
    with pytest.raises(NotApplicable, match="no evaluation between its steps"):
        traces.find_traces(look_at(a_pass(2)), look_at(a_pass(2)))
