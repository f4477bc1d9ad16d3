"""The trace's own form: what is written is read back, and what is none is told."""

import json
import subprocess
import sys

import pytest

from pytest_trainguard.memory import Event, Trace, Workspace

TRACE = Trace(
    events=[
        Event("alloc", 1, 1000, 0, "weight", "aten::empty", "", "build", 0),
        Event("alloc", 2, 4096, 7, "activation", "aten::mm", "encoder.layer.0", "forward", 1),
        Event("free", 2, 4096, 7, "activation", "aten::mm", "encoder.layer.0", "backward", 1),
    ],
    notes=["one note"],
    unknown="mylib::kernel",
    torch="2.13.0+cpu",
    how="fake cpu",
    workspaces=[Workspace("cublas", "main", 0, 1)],
)


def test_a_trace_is_read_back_as_it_was_written():
    assert Trace.from_json(TRACE.to_json()) == TRACE
    assert Trace.from_json(Trace().to_json()) == Trace()


def without(key):
    whole = json.loads(TRACE.to_json())
    del whole[key]
    return json.dumps(whole)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no trace of device memory"),
        ("[]", "no trace of device memory"),
        ("{}", "it has no 'version'"),
        (without("events"), "it has no 'events'"),
        (TRACE.to_json().replace('"version":1', '"version":99'), "its version is 99, this program reads 1"),
        (TRACE.to_json().replace('"names":[', '"names":[],"was":['), "no trace of device memory"),
    ],
)
def test_what_is_no_trace_is_told_in_one_line(text, says):
    with pytest.raises(ValueError, match=says) as caught:
        Trace.from_json(text)
    assert "\n" not in str(caught.value)


def test_the_package_imports_neither_torch_nor_its_parts():
    code = (
        "import sys, pytest_trainguard.memory as m; "
        "bad = {'torch', 'pytest_trainguard.memory.trace'} & set(sys.modules); assert not bad, bad; "
        "[getattr(m, name) for name in dir(m)]; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
